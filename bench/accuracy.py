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
from bench._peers import PEERS, Peer, Result, standings
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
LAST_PEER = PEERS[-1]
"""Dear enough to come after all others on all streams."""


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


def measured(
    streams: Iterable[Stream], peers: Sequence[Peer], *, label_delay: int, known: Iterable[Result], path: Path | None
) -> list[Result]:
    """What is known of these, and what is not, measured now and, where a path is given, put into that file at once."""
    found = {result.run: result for result in known}
    todo = [
        (stream, *run)
        for stream in streams
        for run in _peers.runs(stream, peers)
        if (stream.name, run[0].name, run[1], run[2], label_delay) not in found
    ]
    start_s = time.monotonic()
    for i, (stream, peer, input_, seed) in enumerate(todo, 1):
        rows = _peers.prepared(stream, peer)
        result = _peers.measure(peer, rows, input_=input_, seed=seed, label_delay=label_delay)
        found[result.run] = result
        if path is not None:
            _peers.add(result, path)
        score = result.mae if stream.task == "regression" else result.accuracy
        say(
            f"{i}/{len(todo)} {time.monotonic() - start_s:.0f} s: {stream.name}, {peer.name}, {input_}, seed {seed}: "
            f"{score}, {result.events_per_cpu_s:,.0f}/s"
        )
    return list(found.values())


def measure_peers(names: Sequence[str], peers: Sequence[Peer], *, label_delay: int, again: bool) -> None:
    """Fill bench/results/peers.json: development streams first, cheap peers first."""
    streams = {name: load(name) for name in names}
    for some in ([peer for peer in peers if peer is not LAST_PEER], [peer for peer in peers if peer is LAST_PEER]):
        for group in (DEVELOPMENT, REGRESSION, HELD_BACK):
            for peer in some:
                known = [r for r in _peers.read() if not (again and r.peer == peer.name)]
                part = [streams[name] for name in group if name in streams]
                measured(part, [peer], label_delay=label_delay, known=known, path=_peers.RESULTS)


def missing(stream: Stream, peers: Sequence[Peer], results: Iterable[Result], *, label_delay: int) -> int:
    """How many runs on a stream have no result."""
    known = {result.run for result in results}
    return sum((stream.name, p.name, i, seed, label_delay) not in known for p, i, seed in _peers.runs(stream, peers))


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
        measure_peers(options.streams, that_can_run(peers), label_delay=delay, again=options.again)
        return {"results": str(_peers.RESULTS), "runs": len(_peers.read())}
    from bench._ours import Ours  # here, since it compiles for a while

    if options.stream:
        streams = [from_csv(options.stream, options.label, options.task)]
        peers = that_can_run(peers)
        results = measured(streams, peers, label_delay=delay, known=(), path=None)
    else:
        streams = [load(name) for name in options.streams]
        results = [r for r in _peers.read() if r.peer in {peer.name for peer in peers}]
    lacking = sum(missing(stream, peers, results, label_delay=delay) for stream in streams)
    if lacking:
        say(f"{lacking} results of peers are missing: python -m bench.accuracy --peers measures them")
    found, regressions = play(streams, results, Ours, label_delay=delay)
    answer = summary(found, regressions) | {"missing_peer_results": lacking, "label_delay_events": delay}
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
