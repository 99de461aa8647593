"""An announced artefact's bytes, wherever they lie: models log, registry -> [read] -> versions, live model."""

from typing import Protocol

from stream_app.errors import RegistryError
from stream_app.parts import joined
from stream_app.registry import Registry, checked

SERVING = "serving.onnx"
"""Name of the array (uint8, 1-D) of a version that is the graph servers run; of a network's versions only."""


class Announced(Protocol):
    """A record of the models log that names an artefact: an envelope, or a variant."""

    @property
    def artefact(self) -> str: ...

    @property
    def sha256(self) -> str: ...


def read(
    record: Announced, inline: bytes | None, registry: Registry | None, cache: dict[bytes, bytes] | None = None
) -> bytes:
    """The bytes that came inline, else those in the registry; every hash checked.

    Args:
        registry: None where all artefacts must travel inline.
        cache: as for ``parts.joined``; for who reads one version after another.

    Raises:
        RegistryError: they are missing, torn or tampered with.
    """
    if inline is not None:
        return checked(record.artefact, inline, record.sha256)
    if registry is None:
        raise RegistryError(f"{record.artefact}: not inline, wanted a registry to read")
    return joined(registry, record.artefact, registry.read(record.artefact, record.sha256), cache)
