"""An announced artefact is read from where it lies, and only if it is what was announced."""

from pathlib import Path

import pytest

from stream_app import artefacts
from stream_app.errors import RegistryError
from stream_app.registry import Artefact, Registry
from tests.stream_app.heads import head_of


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(str(tmp_path))


def announced(registry: Registry) -> artefacts.Announced:
    artefact: Artefact = registry.write("versions", ".safetensors", b"weights")
    return head_of(1, artefact=artefact.path, sha256=artefact.sha256)


def test_inline_bytes_count_before_the_registry(registry: Registry, tmp_path: Path) -> None:
    record = announced(registry)
    (tmp_path / record.artefact).write_bytes(b"torn")
    assert artefacts.read(record, b"weights", registry) == b"weights"
    assert artefacts.read(record, b"weights", None) == b"weights"


def test_what_did_not_travel_inline_is_in_the_registry(registry: Registry) -> None:
    record = announced(registry)
    assert artefacts.read(record, None, registry) == b"weights"
    with pytest.raises(RegistryError, match=rf"^{record.artefact}: not inline, wanted a registry to read$"):
        artefacts.read(record, None, None)


def test_bytes_of_another_hash_are_refused_wherever_they_lie(registry: Registry, tmp_path: Path) -> None:
    record = announced(registry)
    (tmp_path / record.artefact).write_bytes(b"torn")
    for inline in (None, b"torn"):
        with pytest.raises(RegistryError, match=r"sha256 is .*, wanted .* \(4 bytes\)$"):
            artefacts.read(record, inline, registry)
