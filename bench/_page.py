"""What the README shows of `bench/accuracy.py`: what was found -> a table in Markdown, a picture in SVG."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import geometric_mean, mean
from typing import Any, NamedTuple

from bench._peers import LAST_VALUE, MAJORITY, Standing
from bench._streams import HELD_BACK
from bench._versus import RegressionVersus, Versus

NO_LEARNERS = (LAST_VALUE, MAJORITY)
WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 60, 90, 20, 50
"""Margins, as all of these in pixels; names at the right edge reach into its margin."""
RADIUS, NAME_PX, CHARACTER_PX = 6, 14, 7
STYLE = """\
text { font: 12px system-ui, sans-serif; fill: #24292f }
.grid { stroke: #d0d7de } .peer { fill: #6e7781 } .ours { fill: #0969da } text.ours { font-weight: 600 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .grid { stroke: #30363d } .peer { fill: #8b949e } .ours { fill: #58a6ff }
}"""

INTRODUCTION = (
    "Prequential: each event is predicted, scored, then learned; at most the first 10,000 of a stream. A peer is",
    "taken with the better of scaled and raw input, River's and CapyMOA's as they are by default; on streams of fewer",
    "than 6,000 rows the median of 5 seeds counts, of ours too. Delayed: single steps that get their labels no sooner",
    "than batches do. Events/s: per CPU second, predicting and learning, in batches of 32, in turns with River's ARF",
    "of 10 trees. `python -m bench.accuracy` prints all of it; with `--peers` it measures the peers that",
    "`bench/results/peers.json` lacks.",
)
COLUMNS = (
    "stream",
    "rows",
    "mixture %",
    "best peer %",
    "points",
    "log-loss",
    "best peer's",
    "batches of 32 %",
    "delayed %",
    "events/s",
    "x ARF",
)


class Box(NamedTuple):
    """A part of the picture, in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    def covers(self, other: Box) -> bool:
        """Whether it has something in common with the other."""
        beside = self.right <= other.left or other.right <= self.left
        return not (beside or self.bottom <= other.top or other.bottom <= self.top)


class Point(NamedTuple):
    """A learner over all streams."""

    name: str
    accuracy: float
    """Mean, in %."""
    events_per_cpu_s: float
    """Geometric mean."""
    ours: bool


def points(found: Mapping[str, Versus], peers: Mapping[str, Sequence[Standing]]) -> list[Point]:
    """We per event and in batches, and each peer that learns and was measured on every one of the streams."""
    all_ = found.values()
    made = [
        _point("mixture, per event", [(v.accuracy, v.per_event_per_cpu_s) for v in all_], ours=True),
        _point("mixture, batches of 32", [(v.batch32_accuracy, v.events_per_cpu_s) for v in all_], ours=True),
    ]
    of: dict[str, list[tuple[float, float]]] = {}
    for name in found:
        for peer in peers.get(name, ()):
            if peer.peer not in NO_LEARNERS:  # far below all others, which would be crowded together
                of.setdefault(peer.peer, []).append((peer.accuracy or 0.0, peer.events_per_cpu_s))
    return made + [_point(name, pairs, ours=False) for name, pairs in of.items() if len(pairs) == len(found)]


def _point(name: str, pairs: Iterable[tuple[float, float]], *, ours: bool) -> Point:
    accuracies, speeds = zip(*pairs, strict=True)
    return Point(name, mean(accuracies), geometric_mean(speeds), ours)


def picture(found: Sequence[Point]) -> str:
    """Accuracy against throughput, legible on light and on dark ground."""
    slowest = math.floor(math.log10(min(p.events_per_cpu_s for p in found)))
    fastest = math.ceil(math.log10(max(p.events_per_cpu_s for p in found)))
    lowest = 5 * math.floor(min(p.accuracy for p in found) / 5)
    highest = 5 * math.ceil(max(p.accuracy for p in found) / 5)
    across = (WIDTH - LEFT - RIGHT) / max(fastest - slowest, 1)
    down = (HEIGHT - TOP - BOTTOM) / max(highest - lowest, 1)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        "<title>Mean prequential accuracy against events per CPU second</title>",
        f"<style>{STYLE}</style>",
    ]
    for percent in range(lowest, highest + 1, 5):
        y = TOP + down * (highest - percent)
        lines.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        lines.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{percent}%</text>')
    for power in range(slowest, fastest + 1):
        x = LEFT + across * (power - slowest)
        lines.append(f'<path class="grid" d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}"/>')
        lines.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{10**power:,}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    lines.append(f'<text x="{middle}" y="{HEIGHT - 10}" text-anchor="middle">events per CPU second (log)</text>')
    places = [
        (LEFT + across * (math.log10(p.events_per_cpu_s) - slowest), TOP + down * (highest - p.accuracy)) for p in found
    ]
    taken = [Box(x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS) for x, y in places]
    for p, (x, y) in zip(found, places, strict=True):
        kind = "ours" if p.ours else "peer"
        name = _free(x, y, CHARACTER_PX * len(p.name), taken)
        taken.append(name)
        lines.append(f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{RADIUS if p.ours else RADIUS - 2}"/>')
        anchor = "end" if name.left < x else "start"
        edge = name.right if name.left < x else name.left
        lines.append(
            f'<text class="{kind}" x="{edge:.1f}" y="{name.bottom - 3:.1f}" text-anchor="{anchor}">{p.name}</text>'
        )
    return "\n".join([*lines, "</svg>", ""])


def _free(x: float, y: float, width: float, taken: Sequence[Box]) -> Box:
    """Where a name covers nothing: right or left of its point, the first height from that of the point on."""
    for step in itertools.count():
        top = y - NAME_PX / 2 + step
        for left in (x + RADIUS + 2, x - RADIUS - 2 - width):
            box = Box(left, top, left + width, top + NAME_PX)
            if not any(box.covers(other) for other in taken):
                return box
    raise AssertionError("unreachable")


def page(summary: Mapping[str, Any], found: Mapping[str, Versus], regressions: Mapping[str, RegressionVersus]) -> str:
    """The tables, with what they come to."""
    lines = [
        "# Accuracy",
        "",
        *INTRODUCTION,
        "",
        "![accuracy against throughput](accuracy.svg)",
        "",
        *_header(*COLUMNS),
        *(_row(name, v) for name, v in found.items()),
        "",
        *(_held_back(summary["held_back"])),
        f"In batches of 32 the mixture takes {summary['speed_geomean_vs_arf']} times the events of ARF per CPU second "
        f"(geometric mean; at least {summary['speed_min_vs_arf']}),",
        f"and loses at most {summary['batch_worst_loss']} points to single steps under the same label delay, "
        f"{summary['batch_worst_loss_undelayed']} to single steps without.",
        f"Its mean log-loss is at most {summary['mixture_regret_max']} above that of its best member.",
        "",
        *_header("regression", "rows", "mixture MAE", "best peer", "last value", "events/s, single"),
        *(_regression_row(name, v) for name, v in regressions.items()),
    ]
    return "\n".join([*lines, ""])


def _held_back(held: Mapping[str, Any]) -> tuple[str, ...]:
    if not held["of"]:
        return ()
    return (
        "Streams in bold were held back: nothing was chosen by them. There the mixture is at or above the best peer on",
        f"{held['wins']} of {held['of']} streams, by {_signed(held['mean_margin'])} points on average and "
        f"{_signed(held['worst_margin'])} at worst;",
        f"its log-loss is at or below the best peer's on {held['log_loss_wins']}.",
    )


def _header(*columns: str) -> tuple[str, str]:
    return f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"


def _row(name: str, v: Versus) -> str:
    shown = f"**{name}**" if name in HELD_BACK else name
    best = f"{_fixed(v.best_peer_accuracy, 1)} {v.best_peer or ''}".strip()
    surest = f"{_fixed(v.best_peer_log_loss, 3)} {v.best_log_loss_peer or ''}".strip()
    ratio = v.events_per_cpu_s / v.arf_events_per_cpu_s
    return (
        f"| {shown} | {v.rows:,} | {v.accuracy:.1f} | {best} | {_signed(v.margin)} | {v.log_loss:.3f} | {surest} "
        f"| {v.batch32_accuracy:.1f} | {v.batch32_delay_accuracy:.1f} | {v.events_per_cpu_s:,.0f} | {ratio:.1f} |"
    )


def _regression_row(name: str, v: RegressionVersus) -> str:
    best = f"{_fixed(v.best_peer_mae, 3)} {v.best_peer or ''}".strip()
    return f"| {name} | {v.rows:,} | {v.mae:.3f} | {best} | {_fixed(v.last_value_mae, 3)} | {v.events_per_cpu_s:,.0f} |"


def _fixed(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.1f}"
