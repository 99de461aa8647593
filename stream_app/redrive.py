"""The command ``dead-letters``: flags -> [redrive] -> letters -> what was wrong, and what was sent again."""

import argparse
import re
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from models.spec import ModelSpec
from stream_app.errors import LetterError
from stream_app.events import ContentType, Topics

if TYPE_CHECKING:  # loads Kafka's clients
    from stream_app.letters import Letter, Letters, Parcel

SHOWN = 20
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_CHARACTERS = 100

DESCRIPTION = """\
What could not be an event, with the reason; and the way back.

  stream-app dead-letters ... --counts                     which reasons, how often
  stream-app dead-letters ... --reason "'age'" --since 2h  the letters of one of them
  stream-app dead-letters ... --reason "'age'" --redrive --dry-run   what would be sent
  stream-app dead-letters ... --reason "'age'" --redrive             send it

--redrive puts the original bytes, with key and headers, at the end of the partition that they came from: after the
spec was mended, or a producer's mistake that the spec can take now. What the worker still cannot read becomes a new
letter. One that must be changed first: --letter KEY --value FILE --redrive.

A letter is sent once: who asks a second time is refused, and told when and by whom it was sent; --again insists.
Each is on the decisions topic (redriving, then redriven). An id that was learned already is not learned twice.
"""


def add_flags(sub: argparse.ArgumentParser) -> None:
    sub.formatter_class = argparse.RawDescriptionHelpFormatter
    sub.description = DESCRIPTION
    which = sub.add_argument_group("which letters (all that are asked for must hold)")
    which.add_argument("--letter", action="append", default=[], metavar="KEY", help="topic/partition/offset[/row]")
    which.add_argument("--topic", metavar="NAME", help="where the records were")
    which.add_argument("--partition", type=int, metavar="P", help="of that topic")
    which.add_argument("--reason", metavar="TEXT", help="a part of the reason, in any case")
    which.add_argument(
        "--since", type=_since, metavar="WHEN", help="90s, 15m, 2h, 7d ago, or a time such as 2026-11-24T10:00"
    )
    which.add_argument(
        "--newest",
        type=int,
        metavar="N",
        help=f"the last N of these (default: {SHOWN} for people; all with --json, --counts and --redrive)",
    )
    sub.add_argument("--counts", action="store_true", help="reasons only, and how often each occurs")
    sub.add_argument("--json", action="store_true", help="one JSON object a line; values in base64, as on the topic")
    back = sub.add_argument_group("the way back")
    back.add_argument("--redrive", action="store_true", help="send the letters to the events topic again")
    back.add_argument(
        "--dry-run", action="store_true", help="with --redrive: show what would be sent, and send nothing"
    )
    back.add_argument("--value", metavar="FILE", help="with --redrive and one letter: send this instead, as repaired")
    back.add_argument(
        "--content-type",
        choices=[str(c) for c in ContentType],
        help="of --value (default: as the original's)",
    )
    back.add_argument("--again", action="store_true", help="also letters that were sent again before")


def run(args: argparse.Namespace, spec: ModelSpec, by: str) -> int:
    """List letters, or send them again.

    Raises:
        LetterError: flags do not go together, or a letter cannot be sent.
    """
    from stream_app.letters import Choice, Letters
    from stream_app.topics import connect

    if not args.redrive and (args.dry_run or args.value or args.again or args.content_type):
        raise LetterError("--dry-run, --value, --content-type and --again were given, wanted --redrive beside them")
    connect(args.bootstrap_servers)
    choice = Choice(
        topic=args.topic,
        partition=args.partition,
        reason=args.reason,
        since_s=args.since,
        keys=frozenset(args.letter),
    )
    with closing(Letters(args.bootstrap_servers, Topics.of(spec.name), by=by)) as letters:
        found = letters.found(choice)
        _check_named(args.letter, found)
        if args.redrive:
            return _redrive(args, letters, _newest(found, args.newest))
        if args.counts:
            _print_counts(_newest(found, args.newest), as_json=args.json)
        elif args.json:
            for letter in _newest(found, args.newest):
                print(as_json(letter))
        else:
            _print_list(found, args.newest or SHOWN)
    return 0


def _redrive(args: argparse.Namespace, letters: "Letters", found: "Sequence[Letter]") -> int:
    if args.value and len(found) != 1:
        raise LetterError(f"--value repairs one letter, got {len(found)}; choose it by --letter KEY")
    value = _read(args.value) if args.value else None
    parcels, refused = [], 0
    for letter in found:
        why = "" if args.again else letters.refusal(letter)
        if not why:
            try:
                parcels.append(letters.parcel(letter, value, args.content_type))
                continue
            except LetterError as error:
                why = str(error)
        print(f"not sent: {why}", file=sys.stderr)
        refused += 1
    if args.dry_run:
        for parcel in parcels:
            print(f"would send {parcel.letter.key}: {_shown(parcel)}")
        print(f"{len(parcels)} letters would be sent again, {refused} not; nothing was sent")
    elif parcels:
        for letter, offset in letters.redrive(parcels, again=args.again):
            print(f"{letter.key} is sent again, as offset {offset} of partition {letter.said.partition}")
    if not args.dry_run:
        print(f"{len(parcels)} letters were sent again, {refused} not")
    return 2 if refused else 0


def as_json(letter: "Letter") -> str:
    """For programs."""
    said = msgspec.to_builtins(letter.said)
    way_back = msgspec.to_builtins(letter.redriven) if letter.redriven else None
    whole = {"letter": letter.key, "at_s": letter.at_s, "truncated": letter.truncated, "redriven": way_back}
    return msgspec.json.encode(said | whole).decode()


def _print_counts(found: "Sequence[Letter]", *, as_json: bool) -> None:
    from stream_app.letters import by_reason

    counts = by_reason(found)
    if as_json:
        print(msgspec.json.encode(dict(counts)).decode())
        return
    for reason, count in counts:
        print(f"{count:>8,}  {reason}")
    print(f"{len(found):>8,}  letters")


def _print_list(found: "Sequence[Letter]", newest: int) -> None:
    for letter in _newest(found, newest):
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(letter.at_s))
        print(f"{at}  {letter.key}  {letter.said.reason}")
        print(f"    {_text(letter.said.value)}")
        if back := letter.redriven:
            print(f"    sent again by {back.by}" + (" (not on record as sent)" if back.sent_to is None else ""))
    _print_counts(found, as_json=False)


def _newest(found: "Sequence[Letter]", n: int | None) -> "Sequence[Letter]":
    return found if n is None else found[max(0, len(found) - n) :]


def _shown(parcel: "Parcel") -> str:
    headers = ", ".join(f"{name}: {value.decode(errors='replace')}" for name, value in parcel.headers)
    what = "repaired, " if parcel.repaired else ""
    return f"{what}{len(parcel.value)} bytes to partition {parcel.letter.said.partition} ({headers}): " + _text(
        parcel.value
    )


def _text(value: bytes) -> str:
    """The beginning, on one line."""
    text = value[: 4 * _CHARACTERS].decode(errors="replace")
    shown = "".join(c if c.isprintable() else "\N{MIDDLE DOT}" for c in text[:_CHARACTERS])
    return shown if len(shown) == len(text) and len(text) < 4 * _CHARACTERS else f"{shown}…"


def _check_named(keys: Sequence[str], found: "Sequence[Letter]") -> None:
    missing = set(keys) - {letter.key for letter in found}
    if missing:
        raise LetterError(
            f"there is no letter {min(missing)} among those asked for, wanted topic/partition/offset[/row]"
        )


def _read(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise LetterError(f"{file}: {error.strerror}, wanted a file to read") from error


def _since(text: str) -> float:
    """Wall clock, seconds."""
    if ago := re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text):
        return time.time() - float(ago[1]) * _UNITS_S[ago[2]]
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"got {text!r}, wanted 90s, 15m, 2h, 7d or a time such as 2026-11-24T10:00")
