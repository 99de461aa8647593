"""The commands by which people see and decide about versions: flags -> [operator] -> operate -> one line each."""

import argparse
import getpass
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from models.spec import ModelSpec
from stream_app.errors import SettingsError, VersionError
from stream_app.events import Topics
from stream_app.registry import Registry

if TYPE_CHECKING:  # loads what answers; other commands do without
    from stream_app.catalogue import Listed
    from stream_app.operate import Operator, Trial


def _add_versions(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--json", action="store_true", help="print one JSON object per version")


def _add_rollback(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--to", required=True, metavar="VERSION", help="its number, or the beginning of its id")
    _add_reason(sub)


def _add_which(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("version", metavar="VERSION", help="its number, or the beginning of its id")


def _add_pin(sub: argparse.ArgumentParser) -> None:
    _add_which(sub)
    _add_reason(sub)


def _add_reason(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--reason", required=True, metavar="TEXT", help="goes on record with the decision")


def _add_export(sub: argparse.ArgumentParser) -> None:
    _add_which(sub)
    sub.add_argument("file", metavar="FILE", help="what is there is not overwritten")


def _add_import(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("file", metavar="FILE", help="as `stream-app export` wrote it")


def _add_shadow(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--version", required=True, metavar="VERSION", help="its number, or the beginning of its id")
    sub.add_argument(
        "--percent",
        type=_percent,
        default=100.0,
        metavar="P",
        help="of the calls, how many it takes part in (default: %(default)g)",
    )
    sub.add_argument(
        "--only-judge",
        action="store_true",
        help="put the finding on record, and leave it to you to promote or withdraw",
    )
    _add_reason(sub)


def _add_canary(sub: argparse.ArgumentParser) -> None:
    _add_shadow(sub)
    sub.set_defaults(percent=5.0)
    sub.add_argument(
        "--key",
        default="",
        metavar="FEATURE",
        help="decide by the value of this feature, so that the same value always gets the same answerer "
        "(default: by chance)",
    )


ADD: dict[str, Callable[[argparse.ArgumentParser], None]] = {
    "versions": _add_versions,
    "rollback": _add_rollback,
    "promote": _add_pin,
    "pin": _add_pin,
    "unpin": _add_reason,
    "export": _add_export,
    "import": _add_import,
    "canary": _add_canary,
    "shadow": _add_shadow,
    "withdraw": _add_reason,
}


def _percent(text: str) -> float:
    try:
        percent = float(text)
    except ValueError:
        percent = -1.0
    if not 0.0 <= percent <= 100.0:
        raise argparse.ArgumentTypeError(f"got {text!r}, wanted a number from 0 to 100")
    return percent


@contextmanager
def _operator(args: argparse.Namespace, spec: ModelSpec) -> "Iterator[Operator]":
    from stream_app.operate import operator
    from stream_app.topics import connect

    connect(args.bootstrap_servers)
    topics, registry = Topics.of(spec.name), _registry(args, spec)
    with operator(args.bootstrap_servers, topics, registry, who(), spec.publish.inline_bytes) as found:
        yield found


def who() -> str:
    """Whose name goes on record with a decision."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"user {os.getuid()}"


def _versions(args: argparse.Namespace, spec: ModelSpec) -> int:
    with _operator(args, spec) as operator:
        found = operator.versions()
    if args.json:
        for version in found:
            print(msgspec.json.encode(version).decode())
    else:
        print(table(found))
    return 0


def table(found: "list[Listed]") -> str:
    """Versions for people, a line each."""
    from stream_app.operate import LOSSES

    rows = [("number", "id", "epoch", "made", "kB", "labels", "loss now", "AUC now", "forms", "where", "serves as")]
    for version in found:
        e = version.envelope
        made = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(e.created_s))
        loss = next((e.metrics[n] for m in LOSSES if (n := f"window_{m}") in e.metrics), None)
        forms = ", ".join(("fp32", *version.variants))
        rows.append(
            (
                *(str(e.number), e.id, str(e.epoch), made, f"{e.size_bytes / 1000:,.1f}", f"{e.labels:,}"),
                *(_shown(loss), _shown(e.metrics.get("window_auc")), forms, version.where, ", ".join(version.roles)),
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def _shown(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.4f}"


def _rollback(args: argparse.Namespace, spec: ModelSpec) -> int:
    with _operator(args, spec) as operator:
        head = operator.adopt(args.to, args.reason)
    print(f"version {head.number} ({head.id}, epoch {head.epoch}) is the head: what {args.to} had learned goes on")
    return 0


def _promote(args: argparse.Namespace, spec: ModelSpec) -> int:
    with _operator(args, spec) as operator:
        head = operator.adopt(args.version, args.reason, kind="promoted")
    print(f"version {head.number} ({head.id}, epoch {head.epoch}) is the head: what {args.version} had learned goes on")
    return 0


def _pin(args: argparse.Namespace, spec: ModelSpec) -> int:
    with _operator(args, spec) as operator:
        pinned = operator.pin(args.version, args.reason)
    print(f"version {pinned.number} ({pinned.id}) is pinned: servers answer with it, learning goes on")
    return 0


def _unpin(args: argparse.Namespace, spec: ModelSpec) -> int:
    with _operator(args, spec) as operator:
        was = operator.unpin(args.reason)
    print(f"version {was.number} ({was.id}) is no longer pinned: servers follow the head")
    return 0


def _export(args: argparse.Namespace, spec: ModelSpec) -> int:
    with _operator(args, spec) as operator:
        envelope, data = operator.export(args.version)
    try:
        with Path(args.file).open("xb") as file:
            file.write(data)
    except OSError as error:
        raise VersionError(f"{args.file}: {error.strerror}, wanted a new file") from error
    print(f"version {envelope.number} ({envelope.id}): {len(data)} bytes in {args.file}")
    return 0


def _import(args: argparse.Namespace, spec: ModelSpec) -> int:
    try:
        data = Path(args.file).read_bytes()
    except OSError as error:
        raise VersionError(f"{args.file}: {error.strerror}, wanted a file to read") from error
    with _operator(args, spec) as operator:
        envelope = operator.bring_in(args.file, data)
    print(f"version {envelope.id} is held; `stream-app shadow`, `canary`, `promote` or `pin` take it by its id")
    return 0


def _challenge(mode: str) -> Callable[[argparse.Namespace, ModelSpec], int]:
    def command(args: argparse.Namespace, spec: ModelSpec) -> int:
        with _operator(args, spec) as operator:
            out = operator.challenge(args.version, trial(spec, mode, args), args.reason)
        decides = f"{out.labels} labels decide" if out.auto else f"{out.labels} labels are put on record"
        print(
            f"version {out.envelope.number} ({out.envelope.id}) is out as {mode}, {out.percent:g} % of calls; {decides}"
        )
        return 0

    return command


def trial(spec: ModelSpec, mode: Any, args: argparse.Namespace) -> "Trial":
    """What the spec and the flags say about a trial.

    Raises:
        SettingsError: there is no such feature.
    """
    from stream_app.operate import Trial

    key, features = getattr(args, "key", ""), spec.features
    if key and key not in features.numeric and key not in features.categorical:
        raise SettingsError(f"--key is {key!r}, wanted the name of a feature")
    return Trial.of(spec.traffic, mode, percent=args.percent, key=key, auto=not args.only_judge)


def _withdraw(args: argparse.Namespace, spec: ModelSpec) -> int:
    with _operator(args, spec) as operator:
        was = operator.withdraw(args.reason)
    print(f"version {was.envelope.number} ({was.envelope.id}) is withdrawn: servers answer with the head alone")
    return 0


def _judge(args: argparse.Namespace, spec: ModelSpec) -> int:
    from stream_app import judge
    from stream_app.decisions import DecisionWriter
    from stream_app.logclient import LogClient
    from stream_app.monitor import signalled
    from stream_app.operate import Operator
    from stream_app.replay import Reader
    from stream_app.topics import connect

    brokers, topics = args.bootstrap_servers, Topics.of(spec.name)
    connect(brokers)
    with (
        signalled() as stop,
        closing(LogClient(brokers, topics.models)) as models,
        closing(Reader(brokers)) as reader,
        closing(DecisionWriter(brokers, topics.decisions)) as on,
    ):
        registry = _registry(args, spec)
        operator = Operator(models, registry, on.decide, by="judge", inline_bytes=spec.publish.inline_bytes)
        judge.run(judge.Judge(spec, models=models, registry=registry, reader=reader, operator=operator), stop)
    return 0


def _registry(args: argparse.Namespace, spec: ModelSpec) -> Registry:
    return Registry(f"{args.registry.rstrip('/')}/{spec.name}")


COMMANDS: tuple[tuple[str, Callable[[argparse.Namespace, ModelSpec], int], str], ...] = (
    ("versions", _versions, "list the versions that can be named: number, epoch, age, size, loss, what serves"),
    ("rollback", _rollback, "go on from what an older version had learned; the past is not learned a second time"),
    ("promote", _promote, "make what any version had learned the head, as a rollback does"),
    ("pin", _pin, "let servers answer with one version until unpin; learning goes on"),
    ("unpin", _unpin, "let servers follow the newest version again"),
    ("export", _export, "write a version to a file that vouches for itself"),
    ("import", _import, "check such a file and hold it for shadow, canary, promote or pin"),
    ("canary", _challenge("canary"), "let a version answer a share of the calls; its measured loss decides"),
    ("shadow", _challenge("shadow"), "ask a version beside the head, never answer with it; its loss decides"),
    ("withdraw", _withdraw, "end a canary or a shadow"),
    ("judge", _judge, "measure the version that is tried beside the head; take it up, or withdraw it"),
)
