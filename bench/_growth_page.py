"""What docs/throughput.md shows of `bench/growth.py`: what was found -> a table in Markdown, a picture in SVG."""

import math
from collections.abc import Mapping

from bench._page import STYLE

Rates = Mapping[str, Mapping[int, float]]
"""Axis -> its value -> records per second."""

NAMES = {
    "numeric": "numeric features",
    "categorical": "categorical features",
    "width": "units of the hidden layer",
    "step": "records to a step",
    "minibatch": "examples to a minibatch",
    "partitions": "partitions",
}
ACROSS = 3
PANEL_WIDTH, PANEL_HEIGHT = 240, 190
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 26, 24
"""Margins within a panel, as all of these in pixels."""
LINE = ".line { fill: none; stroke: #0969da; stroke-width: 2 } .name { font-weight: 600 }"


def picture(found: Rates) -> str:
    """A panel for each axis, both scales logarithmic and all of one height; legible on light and on dark ground."""
    all_ = [per_s for axis in found.values() for per_s in axis.values()]
    low, high = math.floor(math.log2(min(all_))), math.ceil(math.log2(max(all_)))
    rows = math.ceil(len(found) / ACROSS)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {ACROSS * PANEL_WIDTH} {rows * PANEL_HEIGHT}" '
        'role="img">',
        "<title>Records per CPU second of the core against what its cost depends on</title>",
        f"<style>{STYLE}\n{LINE}</style>",
    ]
    for i, (axis, per_s) in enumerate(found.items()):
        x, y = i % ACROSS * PANEL_WIDTH, i // ACROSS * PANEL_HEIGHT
        lines += [f'<g transform="translate({x},{y})">', *_panel(NAMES[axis], per_s, low, high), "</g>"]
    return "\n".join([*lines, "</svg>", ""])


def _panel(name: str, per_s: Mapping[int, float], low: int, high: int) -> list[str]:
    down = (PANEL_HEIGHT - TOP - BOTTOM) / (high - low)
    across = (PANEL_WIDTH - LEFT - RIGHT - 20) / max(len(per_s) - 1, 1)
    lines = [f'<text class="name" x="{LEFT}" y="14">{name}</text>']
    for power in range(low, high + 1):
        y = TOP + down * (high - power)
        lines.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{PANEL_WIDTH - RIGHT}"/>')
        lines.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{2**power:,}</text>')
    places = []
    for i, (value, rate) in enumerate(sorted(per_s.items())):
        x, y = LEFT + 10 + across * i, TOP + down * (high - math.log2(rate))
        places.append(f"{x:.1f},{y:.1f}")
        lines.append(f'<circle class="ours" cx="{x:.1f}" cy="{y:.1f}" r="4"/>')
        lines.append(f'<text x="{x:.1f}" y="{PANEL_HEIGHT - 8}" text-anchor="middle">{value:,}</text>')
    return [*lines, f'<polyline class="line" points="{" ".join(places)}"/>']


def table(found: Rates, shares: Mapping[str, Mapping[str, float]], drained: Mapping[int, float], kind: str) -> str:
    """Rates of each axis, shares of each part, and what a worker drains."""
    lines = ["| changed | records per CPU second |", "| --- | --- |"]
    for axis, per_s in found.items():
        each = " · ".join(f"{value:,}: {rate:,.0f}" for value, rate in sorted(per_s.items()))
        lines.append(f"| {NAMES[axis]} | {each} |")
    each = " · ".join(f"{partitions}: {per_s:,.0f}" for partitions, per_s in sorted(drained.items()))
    lines.append(f"| partitions; a worker on {kind}, flights, records per second | {each} |")
    columns = list(shares)
    lines += ["", f"| % of the time | {' | '.join(columns)} |", f"|{' --- |' * (1 + len(columns))}"]
    lines += [
        f"| {part} | {' | '.join(f'{100 * shares[c][part]:.0f}' for c in columns)} |" for part in shares[columns[0]]
    ]
    return "\n".join(lines)
