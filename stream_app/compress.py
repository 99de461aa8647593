"""Each new head in int8, if it stays good: head -> rows -> [compress] -> variant -> serve.

log caught up -> rows read back -> log caught up -> quantised, measured -> artefact -> variant
                                   ^ the newest head: reading rows may outlast the one before
"""

import logging
import threading
from collections.abc import Callable
from typing import Protocol

from kafka.errors import KafkaError

from models.compress import Compressed, compress
from models.measure import Examples
from models.spec import ModelSpec
from stream_app import artefacts, versions
from stream_app.errors import EpochError, ModelLogError, RegistryError, StreamAppError
from stream_app.events import Decision
from stream_app.modellog import Change, Envelope, Fold, LogRecord, Variant
from stream_app.registry import Registry

BATCH = 1
"""Rows per timed call: most calls to a server carry one row. Wide networks gain more in batches."""
FEWEST_ROWS = 200
"""With fewer labelled rows a loss says nothing yet."""
_READ_BACK_S = 30.0
_log = logging.getLogger(__name__)


class Log(Protocol):
    """What the compressor needs of a LogClient."""

    fold: Fold

    def catch_up(self) -> object: ...

    def position(self) -> int: ...

    def poll(self, timeout_s: float) -> list[Change]: ...

    def append(self, record: LogRecord) -> int: ...


class Compressor:
    """Compresses heads, one at a time.

    Args:
        log: the models topic.
        registry: where versions are read from and variants are written to.
        examples: labelled rows of late, oldest first, as the network got them; None while there are
            none.
        announce_decision: records what was decided, attached or not.
        clock: wall clock, seconds since the epoch.
    """

    def __init__(
        self,
        spec: ModelSpec,
        log: Log,
        registry: Registry,
        examples: Callable[[Envelope], Examples | None],
        announce_decision: Callable[[Decision], None],
        clock: Callable[[], float],
    ) -> None:
        self._spec = spec
        self._log = log
        self._registry = registry
        self._examples = examples
        self._announce_decision = announce_decision
        self._clock = clock
        self._decided: str | None = None
        self.wanted = "int8" in spec.variants
        """Whether the spec wants any variant."""
        self.late = 0
        """Variants whose version was no longer the head when they were ready."""

    def run_once(self) -> Variant | None:
        """Compress the newest head, unless that was done, is not wanted, or rows to judge by are still too few.

        Returns:
            The variant if the log shows it attached to the head, else None.

        Raises:
            EpochError: the head does not fit the spec.
            RegistryError: the version's artefact is missing, torn or holds no graph.
            ModelLogError: the log could not be read.
            KafkaError: the broker could not be reached.
        """
        if not self.wanted:
            return None
        head = self._undecided_head()
        rows = self._examples(head) if head else None
        if rows is None or len(rows.target) < FEWEST_ROWS:
            return None
        head = self._undecided_head()  # by now there may be a newer one; the rows suit it as well
        if head is None:
            return None
        found = compress(self._spec, self._graph(head), rows, batch=BATCH)
        variant = self._attach(head, found)
        self._decided = head.id
        self._announce_decision(self._decision(head, found, variant))
        return variant

    def _undecided_head(self) -> Envelope | None:
        self._log.catch_up()
        head = self._log.fold.head
        if head is None or head.id == self._decided or "int8" in self._log.fold.variants:
            return None
        versions.check_fit(self._spec, self._log.fold, self._registry)
        return head

    def _graph(self, head: Envelope) -> bytes:
        arrays, _ = versions.read_head(self._log.fold, self._registry)
        if artefacts.SERVING not in arrays:
            raise RegistryError(f"{head.artefact} has no array {artefacts.SERVING!r}, got {sorted(arrays)}")
        return arrays[artefacts.SERVING].tobytes()

    def _attach(self, head: Envelope, found: Compressed) -> Variant | None:
        """Write and announce the variant if it is within the budget and its version still heads."""
        if not found.within(self._spec.compression.loss_budget):
            return None
        self._log.poll(0)
        now = self._log.fold.head
        variant = self._variant(head, found) if now and now.id == head.id else None
        if variant is None or not self._attached_at(self._log.append(variant)):
            self.late += 1
            return None
        self._registry.prune("variants", keep=max(self._spec.publish.keep, 1))
        return variant

    def _attached_at(self, at: int) -> bool:
        """Read the log up to the variant at offset ``at``; whether it counted (rule 15)."""
        changes: list[Change] = []
        deadline_s = self._clock() + _READ_BACK_S
        while self._log.position() <= at:
            if self._clock() > deadline_s:
                raise ModelLogError(
                    f"variant at offset {at} was not read back in {_READ_BACK_S:g} s, got to {self._log.position()}"
                )
            changes += self._log.poll(0.1)
        return any(change.at == at for change in changes)

    def _variant(self, head: Envelope, found: Compressed) -> Variant:
        artefact = self._registry.write("variants", f".{found.kind}.onnx", found.data)
        small = artefact.size_bytes <= self._spec.publish.inline_bytes
        return Variant(
            of_version=head.id,
            kind=found.kind,
            artefact=artefact.path,
            sha256=artefact.sha256,
            size_bytes=artefact.size_bytes,
            fp32_bytes=found.fp32_bytes,
            runtime=found.runtime,
            batch=found.batch,
            latency_us=found.latency_us,
            fp32_latency_us=found.fp32_latency_us,
            loss=found.loss,
            fp32_loss=found.fp32_loss,
            rows=found.rows,
            served=found.faster,  # within the budget it is, else it would not be attached
            created_s=self._clock(),
            inline=found.data if small else None,
        )

    def _decision(self, head: Envelope, found: Compressed, variant: Variant | None) -> Decision:
        evidence: dict[str, float | int | str | bool | None] = {
            "kind": found.kind,
            "of_version": head.number,
            "bytes": found.bytes,
            "fp32_bytes": found.fp32_bytes,
            "batch": found.batch,
            "latency_us": found.latency_us,
            "fp32_latency_us": found.fp32_latency_us,
            "loss_delta": found.loss_delta,
            "rows": found.rows,
            "runtime": found.runtime,
            "attached": variant is not None,
            "served": variant is not None and variant.served,
        }
        now = self._log.fold.head or head
        return Decision(kind="quantised", at_s=self._clock(), version=now.number, evidence=evidence)


def run(compressor: Compressor, stop: threading.Event, *, every_s: float) -> None:
    """Compress every ``every_s`` seconds until ``stop`` is set; trouble is logged and retried.

    A head that does not fit the spec is waited out: a worker may be about to begin a new epoch, and ending here would
    end it too where ``stream-app up`` watches both.
    """
    if not compressor.wanted:
        _log.info("the spec wants no compressed forms: nothing to do until the end")
        stop.wait()
        return
    unfit = ""
    while not stop.wait(every_s):
        try:
            compressor.run_once()
            unfit = ""
        except EpochError as error:
            if str(error) != unfit:
                _log.warning("waiting for another head: %s", error)
            unfit = str(error)
        except (KafkaError, StreamAppError, OSError) as error:
            _log.warning("compression failed, next try in %g s: %s", every_s, error)
