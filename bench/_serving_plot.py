"""bench.serving's figures as a picture: JSON line -> [bars] -> docs/serving-speed.svg.

python -m bench._serving_plot RESULT.json docs/serving-speed.svg
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

WIDTH, LABEL, BAR, GAP = 760, 190, 18, 34
BARS = {
    "one row a call, calls/s": (("no-op", "noop_per_s"), ("stream-app", "unary_per_s")),
    "streamed, rows/s": (("no-op", "noop_stream_per_s"), ("stream-app", "stream_per_s")),
    "32 rows a call in columns, rows/s": (
        ("no-op", "noop_rows_per_s"),
        ("stream-app", "batched_rows_per_s"),
        ("torch, eager", "naive_torch_rows_per_s"),
    ),
    "p99 at half of the maximum, ms": (("steady", "p99_ms"), ("10 swaps a second", "swap_p99_ms")),
}
COLOURS = {"stream-app": "#2563eb", "10 swaps a second": "#2563eb"}


def drawn(found: Mapping[str, float]) -> str:
    """An SVG of every group, each on a scale of its own."""
    parts, y = list[str](), 10
    for title, bars in BARS.items():
        y += GAP
        parts.append(f'<text x="10" y="{y - 8}" font-weight="bold">{title}</text>')
        for line in _group(bars, found, y):
            parts.append(line)
        y += BAR * len(bars)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y + 14}" font-family="sans-serif"'
    return "\n".join([f'{head} font-size="13">', '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>\n"])


def _group(bars: Sequence[tuple[str, str]], found: Mapping[str, float], y: int) -> list[str]:
    most, lines = max(found[key] for _, key in bars), []
    for i, (name, key) in enumerate(bars):
        top, width = y + i * BAR, (WIDTH - LABEL - 90) * found[key] / most
        value = f"{found[key]:,.1f}" if most < 1000 else f"{found[key]:,.0f}"
        lines += [
            f'<text x="{LABEL - 8}" y="{top + 13}" text-anchor="end">{name}</text>',
            f'<rect x="{LABEL}" y="{top + 2}" width="{width:.1f}" height="{BAR - 4}" fill="{_colour(name)}"/>',
            f'<text x="{LABEL + width + 6:.1f}" y="{top + 13}">{value}</text>',
        ]
    return lines


def _colour(name: str) -> str:
    return COLOURS.get(name, "#94a3b8")


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(drawn(json.loads(Path(sys.argv[1]).read_text().splitlines()[-1])))
