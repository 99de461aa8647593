"""Time that nobody waits for, and processes that are frozen and killed in it: one thread, one order of steps.

    Loop      an asyncio event loop whose clock jumps to whatever is due next
    Process   what belongs together and dies together: tasks and blocking calls
    pause     what every blocking operation does: the others run meanwhile

Blocking code runs in greenlets instead of threads, one at a time per executor: ``run_in_executor`` means what it
means with threads, but who goes on when is decided by the delays given to ``pause``.
"""

import asyncio
import contextvars
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

import greenlet

START_WALL_S = 1_000_000_000.0
"""Wall clock when a simulation begins."""


class Killed(BaseException):
    """This process was killed with -9: nothing that it still does has an effect outside."""


class StalledError(RuntimeError):
    """Nothing is due any more, and what was waited for has not happened."""


class Process:
    """One simulated process."""

    def __init__(self, loop: "Loop", name: str) -> None:
        self.loop, self.name = loop, name
        self.alive = True
        self.frozen = False
        self.skew_s = 0.0
        """Of its wall clock."""
        self.steps = 0
        """Operations so far that have an effect outside, or see one."""
        self.dies_at_step = -1
        self.died: Callable[[], None] = lambda: None
        self._calls: dict[greenlet.greenlet, None] = {}
        self._missed: list[_Handle] = []

    def spawn(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Start a task of this process."""
        context = contextvars.Context()
        context.run(_current.set, self)
        task = asyncio.Task(work, loop=self.loop, context=context)
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # those of the killed are
        return task

    def post(self, callback: Callable[..., None], *args: Any) -> None:
        """Tell it something, as soon as it runs."""
        context = contextvars.Context()
        context.run(_current.set, self)
        self.loop.call_soon(callback, *args, context=context)

    def call(self, work: Callable[[], None]) -> None:
        """Run blocking work in this process."""
        context = contextvars.Context()
        context.run(_current.set, self)
        self.loop.begin(work, context)

    def kill(self) -> None:
        """With -9."""
        if not self.alive:
            return
        self.alive = False
        self._missed = []
        calls, self._calls = self._calls, {}
        for call in calls:
            if call and call is not greenlet.getcurrent():  # it has begun
                self.loop.call_outside(0.0, call.throw, Killed)
        self.died()

    def thaw(self) -> None:
        """SIGCONT: whatever fell due since it was frozen happens now, in its order."""
        self.frozen = False
        missed, self._missed = self._missed, []
        self.loop.again(missed)

    def step(self) -> None:
        """Before anything that has an effect outside.

        Raises:
            Killed: the process is dead, or dies here.
        """
        self.steps += 1
        if self.steps == self.dies_at_step:
            self.kill()
        if not self.alive:
            raise Killed(self.name)


_current: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)


def current() -> Process | None:
    """The process that runs, if any does."""
    return _current.get()


def pause(seconds: float) -> None:
    """Block the calling greenlet: everything else goes on.

    Raises:
        Killed: its process was killed, before or meanwhile.
    """
    process = current()
    if process is not None and not process.alive:
        raise Killed(process.name)
    call = greenlet.getcurrent()
    if call.parent is None:
        raise RuntimeError("something blocks in the event loop")
    loop: Loop = call.loop  # type: ignore[attr-defined]
    loop.call_later(seconds, call.switch)
    call.parent.switch()
    if process is not None and not process.alive:
        raise Killed(process.name)


class _Handle:
    """A callback that is due; not run if its process is dead, and not while that is frozen."""

    __slots__ = ("_args", "_callback", "_cancelled", "_context", "_loop", "_when", "process")

    def __init__(self, loop: "Loop", when: float, callback: Any, args: Any, context: contextvars.Context) -> None:
        self._loop, self._when, self._callback, self._args, self._context = loop, when, callback, args, context
        self._cancelled = False
        self.process: Process | None = context.get(_current)

    def cancel(self) -> None:
        self._cancelled = True

    def cancelled(self) -> bool:
        return self._cancelled

    def when(self) -> float:
        return self._when

    def run(self) -> None:
        process = self.process
        if self._cancelled or (process is not None and not process.alive):
            return
        if process is not None and process.frozen:
            process._missed.append(self)
            return
        self._context.run(self._callback, *self._args)


def _context(given: contextvars.Context | None) -> contextvars.Context:
    return contextvars.copy_context() if given is None else given  # an empty one is false


class Loop(asyncio.AbstractEventLoop):
    """The event loop of all processes."""

    def __init__(self) -> None:
        self._now_s = 0.0
        self._ready: deque[_Handle] = deque()
        self._due: list[tuple[float, int, _Handle]] = []
        self._order = 0
        self._outside = contextvars.Context()
        self.calls = 0
        """Callbacks run so far."""
        self.disk: Any = None
        """Of the machine on which all processes run."""

    # --- what asyncio asks of a loop ----------------------------------------------------------------------

    def time(self) -> float:
        return self._now_s

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def create_future(self) -> "asyncio.Future[Any]":
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: object = None, context: Any = None) -> "asyncio.Task[Any]":
        task = asyncio.Task(coro, loop=self, context=context)
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """What nobody fetched from a future: whoever it belongs to has died of it, or was killed."""

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> Any:
        handle = _Handle(self, self._now_s, callback, args, _context(context))
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> Any:
        return self.call_at(self._now_s + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Any:
        handle = _Handle(self, when, callback, args, _context(context))
        self._order += 1
        heapq.heappush(self._due, (when, self._order, handle))
        return handle

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        future = self.create_future()
        queue: deque[Any] = executor.__dict__.setdefault("simulated", deque())
        queue.append((func, args, future, contextvars.copy_context()))
        if len(queue) == 1:
            self._next_of(queue)
        return future

    # --- beyond -------------------------------------------------------------------------------------------

    def call_outside(self, delay: float, callback: Any, *args: Any) -> None:
        """Of no process: the network, the broker, the world."""
        self.call_at(self._now_s + delay, callback, *args, context=self._outside.copy())

    def again(self, handles: list[_Handle]) -> None:
        self._ready.extend(handles)

    def begin(self, work: Callable[[], None], context: contextvars.Context) -> None:
        """Start a greenlet for blocking work as soon as possible."""
        process = context.get(_current)

        def body() -> None:
            try:
                work()
            except Killed:
                pass
            finally:
                if process is not None:
                    process._calls.pop(call, None)

        call = greenlet.greenlet(body)
        call.loop = self  # type: ignore[attr-defined]
        call.gr_context = context.copy()
        if process is not None:
            process._calls[call] = None
        self.call_soon(self._enter, call, context=context.copy())

    def _enter(self, call: greenlet.greenlet) -> None:
        call.parent = greenlet.getcurrent()
        call.switch()

    def _next_of(self, queue: "deque[Any]") -> None:
        func, args, future, context = queue[0]

        def work() -> None:
            try:
                result = func(*args)
            except Killed:
                raise
            except BaseException as error:
                if not future.done():
                    future.set_exception(error)
            else:
                if not future.done():
                    future.set_result(result)
            queue.popleft()
            if queue:
                self._next_of(queue)

        self.begin(work, context)

    def wind_up(self) -> None:
        """Let what was killed end, and forget the rest."""
        for _ in range(1_000):
            if not self._ready and not self._due:
                return
            handle = self._ready.popleft() if self._ready else heapq.heappop(self._due)[2]
            if isinstance(getattr(handle._callback, "__self__", None), greenlet.greenlet):
                handle.run()

    def run(self, until: Callable[[], bool], most_s: float) -> bool:
        """Let things happen until it is so, or the clock shows ``most_s``; whether it is so.

        Raises:
            StalledError: nothing is due.
        """
        asyncio._set_running_loop(self)
        try:
            return self._run(until, most_s)
        finally:
            asyncio._set_running_loop(None)

    def _run(self, until: Callable[[], bool], most_s: float) -> bool:
        ready, due = self._ready, self._due
        while not until():
            if not ready:
                if not due:
                    raise StalledError("nothing is due any more")
                when, _, handle = heapq.heappop(due)
                if when > most_s:
                    heapq.heappush(due, (when, 0, handle))
                    return False
                self._now_s = max(self._now_s, when)
                handle.run()
                self.calls += 1
                continue
            self.calls += 1
            ready.popleft().run()
        return True
