"""Is the mixture more accurate than its peers, and faster? streams -> prequential runs -> table, picture, JSON.

    python -m bench.accuracy [--json]                       all streams; writes docs/accuracy.md and docs/accuracy.svg
    python -m bench.accuracy --development                  the six that may be looked at while a model is being made
    python -m bench.accuracy --streams Phishing,SEA
    python -m bench.accuracy --stream FILE.csv --label NAME [--task regression]
    python -m bench.accuracy --peers [--again]              measure peers that bench/results/peers.json lacks; hours

Peers are NoChange, majority, River's logistic regression, HAT, ARF, SRP, Leveraging Bagging, AMF and kNN, and CapyMOA's
best; they are measured once and their results kept, except for a file of your own. `--only LR,ARF` limits them;
`--label-delay 100` gives each label, ours and the peers', 100 events late. Nothing may be chosen by the streams in
`_streams.HELD_BACK`. Accuracies in %, log-losses in nats per event, speeds in events per CPU second.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bench import _page, _peers
from bench._peers import PEERS, Input, Peer, Result, standings
from bench._streams import (
    DEVELOPMENT,
    HELD_BACK,
    REGRESSION,
    STREAMS,
    Stream,
    StreamError,
    load,
    read_csv,
    sorted_by_class,
)
from bench._versus import MakeOurs, RegressionVersus, Versus, regression_versus, summary, versus

DOCS = Path("docs")
Run = tuple[Stream, Peer, Input, int]
"""With the seed."""


def say(line: str) -> None:
    """Progress and warnings: stdout is for the answer."""
    print(line, file=sys.stderr, flush=True)


def chosen_peers(names: str | None) -> list[Peer]:
    """Those named, or all.

    Raises:
        StreamError: a name that no peer has.
    """
    wanted = [name.strip() for name in names.split(",")] if names else [peer.name for peer in PEERS]
    unknown = [name for name in wanted if name not in {peer.name for peer in PEERS}]
    if unknown:
        raise StreamError(f"peers {unknown} are not known, wanted some of {', '.join(p.name for p in PEERS)}")
    return [peer for peer in PEERS if peer.name in wanted]


def that_can_run(peers: Sequence[Peer]) -> list[Peer]:
    """Those whose library is installed; says which is not."""
    here = {library for library in {peer.library for peer in peers} if _peers.installed(library)}
    for library in sorted({peer.library for peer in peers} - here):
        say(f"{library} is not installed, its peers are left out: pip install -e '.[peers]', and Java 17")
    return [peer for peer in peers if peer.library in here]


def runs_of(streams: Iterable[Stream], peers: Iterable[Peer]) -> list[Run]:
    """Peer by peer, each over all the streams."""
    some = list(streams)
    return [(stream, *run) for peer in peers for stream in some for run in _peers.runs(stream, [peer])]


def in_order(names: Sequence[str], peers: Sequence[Peer]) -> list[Run]:
    """What `--peers` measures: development streams first, cheap peers first."""
    groups = [[load(name) for name in group if name in names] for group in (DEVELOPMENT, REGRESSION, HELD_BACK)]
    return [run for group in groups for run in runs_of(group, peers)]


def lacking(runs: Iterable[Run], known: Iterable[Result], *, label_delay: int) -> list[Run]:
    """Those of the runs that have no result."""
    have = {result.run for result in known}
    return [run for run in runs if (run[0].name, run[1].name, *run[2:], label_delay) not in have]


def measured(runs: Sequence[Run], *, label_delay: int, path: Path | None = None) -> list[Result]:
    """Their results; each is put into the file, where a path is given, as soon as it is there."""
    found: list[Result] = []
    start_s = time.monotonic()
    for stream, peer, input_, seed in runs:
        rows = _peers.prepared(stream, peer)
        found.append(_peers.measure(peer, rows, input_=input_, seed=seed, label_delay=label_delay))
        if path is not None:
            _peers.add(found[-1], path)
        score = found[-1].mae if stream.task == "regression" else found[-1].accuracy
        say(
            f"{len(found)}/{len(runs)} {time.monotonic() - start_s:.0f} s: {stream.name}, {peer.name}, {input_}, "
            f"seed {seed}: {score}, {found[-1].events_per_cpu_s:,.0f}/s"
        )
    return found


def play(
    streams: Iterable[Stream], results: Sequence[Result], ours: MakeOurs, *, label_delay: int
) -> tuple[dict[str, Versus], dict[str, RegressionVersus]]:
    """Each stream, we and our peers; says what it found as it goes."""
    found: dict[str, Versus] = {}
    regressions: dict[str, RegressionVersus] = {}
    for stream in streams:
        on_it = [r for r in results if r.stream == stream.name and r.label_delay == label_delay]
        if stream.task == "regression":
            r = regressions[stream.name] = regression_versus(stream, on_it, ours, label_delay=label_delay)
            say(f"{stream.name}: MAE {r.mae}, {r.best_peer} {r.best_peer_mae}, last value {r.last_value_mae}")
        else:
            warn_if_sorted(stream)
            v = found[stream.name] = versus(stream, on_it, ours, label_delay=label_delay)
            say(
                f"{stream.name}: {v.accuracy}, {v.best_peer} {v.best_peer_accuracy}; log-loss {v.log_loss}, "
                f"{v.best_log_loss_peer} {v.best_peer_log_loss}; batches {v.batch32_accuracy}, delayed "
                f"{v.batch32_delay_accuracy}; {v.events_per_cpu_s:,.0f}/s, ARF {v.arf_events_per_cpu_s:,.0f}/s"
            )
    return found, regressions


def warn_if_sorted(stream: Stream) -> None:
    if sorted_by_class([int(label) for label in stream.labels]):
        say(
            f"warning: {stream.name} looks sorted by class: its labels hardly ever change, so that repeating the last "
            "one beats learning. Shuffle the rows, unless they really come in this order"
        )


def from_csv(path: Path, label: str, task: Any) -> Stream:
    """The file as a stream; says what was guessed of it."""
    csv = read_csv(path, label, task=task)
    stream = csv.stream
    kind = f"{len(stream.classes)} classes" if stream.classes else "regression"
    say(
        f"{path}: {len(stream.rows):,} rows, {kind}; numeric: {', '.join(csv.numeric) or 'none'}; "
        f"text: {', '.join(csv.text) or 'none'}; without a label and left out: {csv.unlabelled}"
    )
    return stream


def main() -> None:
    options = parse()
    try:
        print(json.dumps(run(options)))
    except StreamError as error:
        sys.exit(f"error: {error}")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """What the last line says."""
    peers, delay = chosen_peers(options.only), options.label_delay
    if options.peers:
        known = () if options.again else _peers.read()
        todo = lacking(in_order(options.streams, that_can_run(peers)), known, label_delay=delay)
        measured(todo, label_delay=delay, path=_peers.RESULTS)
        return {"results": str(_peers.RESULTS), "runs": len(_peers.read())}
    from bench._ours import Ours  # here, since it compiles for a while

    if options.stream:
        streams = [from_csv(options.stream, options.label, options.task)]
        peers = that_can_run(peers)
        results = measured(runs_of(streams, peers), label_delay=delay)
    else:
        streams = [load(name) for name in options.streams]
        results = [r for r in _peers.read() if r.peer in {peer.name for peer in peers}]
    missing = len(lacking(runs_of(streams, peers), results, label_delay=delay))
    if missing:
        say(f"{missing} results of peers are missing: python -m bench.accuracy --peers measures them")
    found, regressions = play(streams, results, Ours, label_delay=delay)
    answer = summary(found, regressions) | {"missing_peer_results": missing, "label_delay_events": delay}
    page = _page.page(answer, found, regressions)
    if not options.json:
        print(page)
    if list(options.streams) == list(STREAMS) and not (options.stream or options.only or delay):
        of = {name: standings(r for r in results if r.stream == name) for name in found}
        DOCS.mkdir(exist_ok=True)
        (DOCS / "accuracy.md").write_text(page)
        (DOCS / "accuracy.svg").write_text(_page.picture(_page.points(found, of)))
    return answer


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The options; `streams` is a list of names."""
    parser = argparse.ArgumentParser(prog="python -m bench.accuracy", description=(__doc__ or "").split("\n")[0])
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--streams", type=lambda text: text.split(","), help="names, with commas between")
    which.add_argument("--development", action="store_true", help="the six streams for use while a model is being made")
    which.add_argument("--stream", type=Path, metavar="FILE.csv", help="a file of your own, with a header")
    parser.add_argument("--label", metavar="NAME", help="the column of --stream to predict")
    parser.add_argument("--task", choices=("classification", "regression"), help="of --stream (default: guessed)")
    parser.add_argument("--peers", action="store_true", help="measure missing results of peers, and stop")
    parser.add_argument("--again", action="store_true", help="with --peers: measure also what is there")
    parser.add_argument("--only", metavar="NAMES", help="these peers, with commas between (default: all)")
    parser.add_argument("--label-delay", type=int, default=0, metavar="EVENTS", help="labels come so much later")
    parser.add_argument("--json", action="store_true", help="print the JSON line and no table")
    options = parser.parse_args(argv)
    if (options.stream is None) != (options.label is None):
        parser.error("--stream and --label go together")
    if options.label_delay < 0:
        parser.error(f"--label-delay is {options.label_delay}, wanted 0 or more")
    if not options.streams:
        options.streams = list(DEVELOPMENT if options.development else STREAMS)
    return options


if __name__ == "__main__":
    main()
