"""Which versions there are: models log, registry -> [list] -> find one by number or id."""

import logging
from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

from stream_app import holding, stored
from stream_app.errors import NoVersionError, RegistryError
from stream_app.modellog import Envelope, Fold
from stream_app.registry import Registry

log = logging.getLogger("stream_app.catalogue")

FEWEST_ID_CHARACTERS = 6


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """One version that can be named."""

    envelope: Envelope
    where: Literal["log", "registry", "held"]
    """log: one of the newest. registry: older, its file is still there. held: pinned, tried, or brought in."""
    roles: tuple[str, ...] = ()
    """head, pinned, canary, shadow, guard"""
    variants: tuple[str, ...] = ()
    """Compressed forms; of the head only, since others serve none."""


def listed(fold: Fold, registry: Registry) -> list[Listed]:
    """All that can be named, the newest first: what the log remembers, and older files of the registry."""
    found = (_with_roles(fold, version) for version in _listed(fold, registry))
    return sorted(found, key=lambda v: (v.envelope.number, v.envelope.created_s), reverse=True)


def _listed(fold: Fold, registry: Registry) -> Iterator[Listed]:
    seen = set[str]()
    for _, envelope in reversed(fold.history):
        if envelope.id not in seen:
            seen.add(envelope.id)
            yield Listed(envelope=envelope, where="log")
    places: tuple[tuple[Literal["held", "registry"], str], ...] = (("held", holding.HELD), ("registry", stored.FOLDER))
    for where, folder in places:
        for path in registry.list(folder):
            try:
                envelope, _ = stored.self_described(registry, path)
            except RegistryError as error:
                log.warning("passed over: %s", error)
                continue
            if envelope.id not in seen:
                seen.add(envelope.id)
                yield Listed(envelope=envelope, where=where)


def _with_roles(fold: Fold, version: Listed) -> Listed:
    id_, route = version.envelope.id, fold.route
    is_head = fold.head is not None and fold.head.id == id_
    roles = ["head"] if is_head else []
    if route and route.pinned and route.pinned.id == id_:
        roles.append("pinned")
    if route and route.challenger and route.challenger.envelope.id == id_:
        roles.append(route.challenger.mode)
    return msgspec.structs.replace(version, roles=tuple(roles), variants=tuple(fold.variants) if is_head else ())


def find(versions: Sequence[Listed], which: str) -> Envelope:
    """The version of that number, or whose id begins so.

    Raises:
        NoVersionError: there is none, or there are several.
    """
    if which.isdecimal() and len(which) < 2 * FEWEST_ID_CHARACTERS:
        found = [v for v in versions if v.envelope.number == int(which)]
    elif len(which) >= FEWEST_ID_CHARACTERS:
        found = [v for v in versions if v.envelope.id.startswith(which)]
    else:
        text = f"version is {which!r}, wanted a number or at least {FEWEST_ID_CHARACTERS} characters of an id"
        raise NoVersionError(text)
    if len(found) > 1 and (certain := [v for v in found if v.where == "log"]):
        found = certain  # the others of that number are files: they lost their race, or came from elsewhere
    if len(found) != 1:
        raise NoVersionError(_not_one(which, found, versions))
    return found[0].envelope


def _not_one(which: str, found: Sequence[Listed], versions: Sequence[Listed]) -> str:
    if found:
        ids = ", ".join(f"{v.envelope.id} ({v.where})" for v in found)
        return f"version {which} is one of several: {ids}; name it by its id"
    numbers = [v.envelope.number for v in versions]
    there = f"{min(numbers)} to {max(numbers)}, not each of them" if numbers else "none yet"
    return f"there is no version {which}, wanted one of those that `stream-app versions` lists ({there})"
