"""Versions held for more than a moment: registry -> [check, copy] -> folder of held versions; files for elsewhere.

A version in ``stored.FOLDER`` may be cleared away by the worker as soon as newer ones are there. What is pinned,
tried or brought in from elsewhere is therefore copied under another name first (rule 22), where nothing clears.
"""

import hashlib
import json
from collections.abc import Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.snapshot import Arrays, SnapshotError, pack, under, unpack
from models.spec import SpecError, fit_problem, from_json
from stream_app import artefacts, live, stored
from stream_app.errors import RegistryError, StreamAppError, VersionError
from stream_app.modellog import Envelope
from stream_app.registry import Registry

HELD = "held"
"""The registry's folder."""
CONTENTS = "contents"
"""The text of an exported file that says what must be in it."""
OF_THE_STREAM = ("score.", "core.")
"""Arrays of a version that say how the stream went, not what was learned from it: an adoption leaves them be."""


def held(envelope: Envelope, data: bytes, registry: Registry) -> Envelope:
    """Copy a version's whole bytes to where nothing clears; the envelope that says where it lies now.

    Raises:
        RegistryError: they cannot be written.
    """
    artefact = registry.write(HELD, stored.SUFFIX, data)
    return msgspec.structs.replace(
        envelope, artefact=artefact.path, sha256=artefact.sha256, size_bytes=artefact.size_bytes
    )


def check(envelope: Envelope, data: bytes, head: Envelope, head_data: bytes | None) -> None:
    """See that a version can answer and could go on learning where the head is.

    Args:
        data: its whole bytes.
        head_data: the head's; None if they cannot be read.

    Raises:
        VersionError: it cannot.
    """
    name = f"version {envelope.number} ({envelope.id})"
    texts = unpack(data)[1]
    if envelope.signature != head.signature:
        problem = f"signature: head has {head.signature}, it has {envelope.signature}"
        if head_data is not None:
            problem = _difference(texts, unpack(head_data)[1]) or problem
        raise VersionError(f"{name} does not fit the head: {problem}")
    try:
        live.prepare(data, envelope)
    except StreamAppError as error:
        raise VersionError(f"{name} is refused: {error}") from error
    if head_data is not None and from_json(texts["spec"]).learner.kind == "torch":
        _check_network(name, unpack(data)[0], unpack(head_data)[0])


def _difference(texts: Mapping[str, str], head_texts: Mapping[str, str]) -> str:
    try:
        return fit_problem(from_json(texts["spec"]), from_json(head_texts["spec"]))
    except (SpecError, KeyError):
        return ""


def _check_network(name: str, arrays: Arrays, head: Arrays) -> None:
    """The worker loads a network's parameters as they are; all other learners are loaded by ``live.prepare``."""
    mine, wanted = under("learner", arrays).get("theta"), under("learner", head).get("theta")
    if wanted is None:
        return
    if mine is None or (mine.shape, mine.dtype) != (wanted.shape, wanted.dtype):
        got = "missing" if mine is None else f"{mine.dtype} {mine.shape}"
        raise VersionError(f"{name}: learner.theta is {got}, wanted {wanted.dtype} {wanted.shape} as the head's")


def adoption(source: bytes, head: bytes | None, envelope: Envelope) -> bytes:
    """The artefact of an adoption: what ``source`` learned, and how the stream went up to the head.

    Args:
        source: the whole bytes of the version that is adopted.
        head: the head's; None if they cannot be read, then its scores begin where the source's ended.
        envelope: of the adoption; goes into the file.
    """
    arrays, texts = unpack(source)
    if head is not None:
        arrays = {name: a for name, a in arrays.items() if not name.startswith(OF_THE_STREAM)}
        arrays |= {name: a for name, a in unpack(head)[0].items() if name.startswith(OF_THE_STREAM)}
    described = json.dumps(msgspec.to_builtins(envelope, str_keys=True))
    return pack(arrays, {"spec": texts["spec"], "envelope": described})


def exported(data: bytes) -> bytes:
    """A version as a file that can be told from a torn or changed one anywhere.

    Args:
        data: its whole bytes.
    """
    arrays, texts = unpack(data)
    return pack(arrays, texts | {CONTENTS: json.dumps(_contents(arrays, texts), sort_keys=True)})


def imported(name: str, data: bytes) -> tuple[Envelope, bytes]:
    """What ``exported`` wrote, checked: every array's type, shape and hash, and that none is missing or added.

    Args:
        name: the file's, for errors.

    Returns:
        The version's envelope, and its whole bytes. Hash and place are those of the bytes.

    Raises:
        VersionError: the file is torn, changed, or no exported version.
    """
    try:
        arrays, texts = unpack(data)
        wanted = json.loads(texts.pop(CONTENTS))
        draft = msgspec.convert(json.loads(texts["envelope"]), Envelope, str_keys=True)
        from_json(texts["spec"])
    except (SnapshotError, SpecError, KeyError, ValueError) as error:
        raise VersionError(f"{name}: {error!r}, wanted a file that `stream-app export` wrote") from error
    if (got := _contents(arrays, texts)) != wanted:
        differing = sorted(k for k in got.keys() | wanted.keys() if got.get(k) != wanted.get(k))
        k = differing[0]
        raise VersionError(f"{name}: {k} is {got.get(k, 'missing')}, wanted {wanted.get(k, 'nothing of that name')}")
    whole = pack(arrays, texts)
    digest = hashlib.sha256(whole).hexdigest()
    return msgspec.structs.replace(draft, id=digest[:16], sha256=digest, size_bytes=len(whole)), whole


def _contents(arrays: Mapping[str, NDArray[np.generic]], texts: Mapping[str, str]) -> dict[str, list[object]]:
    """Per array dtype, shape and sha256; of texts, the hash."""
    found: dict[str, list[object]] = {
        f"array {name}": [str(a.dtype), list(a.shape), hashlib.sha256(np.ascontiguousarray(a).tobytes()).hexdigest()]
        for name, a in arrays.items()
    }
    return found | {f"text {name}": [hashlib.sha256(t.encode()).hexdigest()] for name, t in texts.items()}


def whole(envelope: Envelope, inline: bytes | None, registry: Registry) -> bytes:
    """A version's whole bytes.

    Raises:
        VersionError: they are gone or torn.
    """
    try:
        return artefacts.read(envelope, inline, registry)
    except RegistryError as error:
        text = f"version {envelope.number} ({envelope.id}) cannot be read any more: {error}"
        raise VersionError(f"{text}; `stream-app versions` lists those that can") from error
