"""Versions at rest, read without what learns: registry -> [stored] -> worker, tuner, operator."""

import json

import msgspec

from models.snapshot import Arrays, SnapshotError, unpack
from stream_app import artefacts
from stream_app.errors import RegistryError
from stream_app.modellog import Envelope
from stream_app.parts import joined
from stream_app.registry import Registry

FOLDER, SUFFIX = "versions", ".safetensors"


def read_version(envelope: Envelope, registry: Registry) -> tuple[Arrays, dict[str, str]]:
    """Any version's artefact from the registry; hash checked.

    Raises:
        RegistryError: it is gone, torn or tampered with.
    """
    return unpacked(envelope.artefact, artefacts.read(envelope, None, registry))


def newest_readable(registry: Registry, wanted: str | None = None) -> tuple[Envelope, Arrays] | None:
    """The newest whole version that the registry itself holds (rule 18), of the ``wanted`` signature if given."""
    best: tuple[Envelope, Arrays] | None = None
    for path in reversed(registry.list(FOLDER)):
        try:
            envelope, arrays = self_described(registry, path)
        except RegistryError:
            continue
        if wanted is not None and envelope.signature != wanted:
            continue
        if best is None or envelope.created_s > best[0].created_s:
            best = envelope, arrays
    return best


def self_described(registry: Registry, path: str) -> tuple[Envelope, Arrays]:
    """A version by its file alone: the name carries the hash, the file its envelope.

    Raises:
        RegistryError: it is torn, tampered with, or no version.
    """
    artefact, file = registry.read_named(path)
    data = joined(registry, path, file)
    arrays, texts = unpacked(path, data)
    try:
        draft = msgspec.convert(json.loads(texts["envelope"]), Envelope, str_keys=True)
    except (KeyError, ValueError) as error:
        raise RegistryError(f"{path}: holds no envelope: {error}") from error
    envelope = msgspec.structs.replace(
        draft, id=artefact.id, artefact=path, sha256=artefact.sha256, size_bytes=len(data)
    )
    return envelope, arrays


def unpacked(path: str, data: bytes) -> tuple[Arrays, dict[str, str]]:
    """Arrays and texts of what was read at ``path``.

    Raises:
        RegistryError: it is no snapshot.
    """
    try:
        return unpack(data)
    except SnapshotError as error:
        raise RegistryError(f"{path}: {error}") from error
