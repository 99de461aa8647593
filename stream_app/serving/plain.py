"""Plain requests, answered without protobuf's objects: bytes -> [scan -> live model -> write] -> bytes.

Most requests are plain (``codecs.requests``), and cost a third of what they cost by way of messages, many rows by name
a tenth. Compiled code is loaded in a thread once a version is live, on a new machine it is compiled first; until then,
and for whatever is not plain, ``Answers`` reads messages. Both say the same.
"""

import logging
import threading
from collections.abc import Callable

import numpy as np

from models.spec import ModelSpec
from stream_app.live import LiveModel, Scores, compile_network
from stream_app.serving import messages

_log = logging.getLogger(__name__)


class Plain:
    """Answers what is plain; for one event loop.

    Args:
        rows: more in one request are not for it.
        loaded: called in the thread once a model is known.
    """

    def __init__(self, rows: int, loaded: Callable[[], None] = lambda: None) -> None:
        self._rows, self._loaded = rows, loaded
        self._known: _Known | None = None
        self._learning: ModelSpec | None = None

    def follow(self, live: LiveModel) -> None:
        """Get ready for a model's requests, in a thread if it is another one than before."""
        if self._learning is not live.spec:
            self._learning = live.spec
            threading.Thread(target=self.learn, args=(live,), name="plain", daemon=True).start()

    def learn(self, live: LiveModel) -> None:
        """Load the compiled code, and know the model."""
        try:
            self._known = _Known(live)
            self._loaded()
        except Exception:  # then messages do
            _log.exception("requests are read as messages")

    def answer(self, request: bytes, live: LiveModel, log_age_s: float) -> bytes | None:
        """What ``live`` says as champion; None if the request is not plain, or this is not ready for the model."""
        known = self._known
        if known is None or known.spec is not live.spec:
            return None
        return known.answer(request, live, log_age_s, self._rows)


class _Known:
    """One model's requests and responses."""

    def __init__(self, live: LiveModel) -> None:
        # They compile, or load what was compiled before; the import of numba alone takes half a second.
        from models.compiled import release_compiler
        from stream_app.codecs.answering import Answerer

        self.spec = live.spec
        self._answerer = Answerer(live.spec)
        compile_network(live)
        self._become(live)
        self._warm(live)
        release_compiler()

    def _warm(self, live: LiveModel) -> None:
        self._answerer.answer(b"", 0, 0.0, 0.0)
        self._answerer.head(0.0, 0.0)
        self._answerer.writer.predictions(np.zeros((1, live.spec.outputs), np.float32))
        if live.rates is not None:
            self._answerer.scanner.dense(1, live.rates)

    def _become(self, live: LiveModel) -> None:
        self._live, self._header = live, messages.Header(live)
        self._answerer.become(self._header.fixed, live.net, live.rates)

    def answer(self, request: bytes, live: LiveModel, log_age_s: float, most_rows: int) -> bytes | None:
        if live is not self._live:
            self._become(live)
        age_s = messages.version_age_s(live.envelope)
        said = self._answerer.answer(request, most_rows, age_s, log_age_s)
        if isinstance(said, bytes):
            return said
        if said == 0:
            return None
        scores, head = self._scores(said, live), self._answerer.head(age_s, log_age_s)
        if self._answerer.scanner.as_columns:
            return head + self._header.scores(scores)
        return head + self._answerer.writer.predictions(scores)

    def _scores(self, rows: int, live: LiveModel) -> Scores:
        """(B, K)"""
        scanner = self._answerer.scanner
        if live.rates is not None and not live.prior_only and scanner.timeless(rows):
            return live.session.run(scanner.dense(rows, live.rates), scanner.categories(rows))
        return live.score(*scanner.raw(rows))
