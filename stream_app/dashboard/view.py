"""The status as people see it: status -> [view] -> terminal. ``render`` is pure; ``show`` repeats it.

It is made for 100 columns and 30 rows; where no terminal is, one line every few seconds says the same.
"""

import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from stream_app.events import Decision
from stream_app.modellog import ClassScore, Variant
from stream_app.status import ProcessStatus, Status

FRAME_EVERY_S = 0.5
LINE_EVERY_S = 5.0
DECISIONS_SHOWN = 6
IMPORTANCES_SHOWN = 10
PARTITIONS_SHOWN = 3
CLASSES_IN_LINE = 5
CLASS_CHARACTERS = 20
"""Of a class's name."""
_LOWER_ROWS = PARTITIONS_SHOWN + 2

_PREDICTORS = (("", "model"), ("majority_", "majority"), ("nochange_", "nochange"))
_MEASURES = {
    "binary": ("log_loss", "calibration_error", "auc", "accuracy"),
    "multiclass": ("log_loss", "calibration_error", "accuracy", "macro_f1"),
    "regression": ("mae", "rmse", "r2"),
}
_TITLES = {
    "log_loss": "log-loss",
    "calibration_error": "calib.",
    "auc": "AUC",
    "macro_f1": "macro-F1",
    "mae": "MAE",
    "rmse": "RMSE",
    "r2": "R²",
}
_SHORT = {"accuracy": "acc."}
"""Where it heads a column."""
_STYLES = {
    "drift": "yellow",
    "recalled": "yellow",
    "tuned": "cyan",
    "promoted": "bold green",
    "quantised": "magenta",
    "reseeded": "yellow",
    "rolled_back": "bold yellow",
    "pinned": "yellow",
    "refused": "bold red",
}

Summary = Mapping[str, Any]
"""auc, log_loss ... over all rows, and the same under "window"; what is unknown is absent or None."""


class Frame(NamedTuple):
    """What one picture shows."""

    status: Status
    baselines: Mapping[str, Summary] = {}
    """Others that learn from the same stream, by name."""
    processes: Sequence[ProcessStatus] = ()
    note: str = ""
    """What the program is about just now."""


def show(
    frame: Callable[[], Frame],
    stop: threading.Event,
    *,
    console: Console | None = None,
    every_s: float | None = None,
) -> None:
    """Show fresh frames until ``stop`` is set; the caller's thread draws, and asks for each frame.

    Args:
        frame: called about twice a second, whatever is shown.
        every_s: between two lines where there is no terminal.
    """
    console = console or Console()
    if console.is_terminal:
        with Live(render(frame()), console=console, auto_refresh=False, screen=False) as live:
            while not stop.wait(FRAME_EVERY_S):
                live.update(render(frame()), refresh=True)
        return
    line_every_s, due_s = every_s or LINE_EVERY_S, 0.0
    while True:
        latest = frame()
        if time.monotonic() >= due_s:
            console.print(Text(lines(latest)), soft_wrap=True)  # a str is read as markup: no "[fe80::1]" in it
            due_s = time.monotonic() + line_every_s
        if stop.wait(FRAME_EVERY_S):
            return


def render(frame: Frame) -> RenderableType:
    """The whole picture of one moment."""
    status = frame.status
    upper = _side_by_side(_stream(status), _quality(status, frame.baselines), (4, 6))
    lower = _side_by_side(_lag(status), _forms(status), (4, 6))
    parts: list[RenderableType] = [_headline(status, frame.note), upper]
    if status.head is not None and status.head.classes:
        parts.append(_cut(f"labels: {_classes(status.head.classes)}"))
    parts.append(lower)
    if status.head and status.head.importance:
        parts.append(_importance(status.head.importance))
    parts.append(_decisions(status))
    if frame.processes:
        parts.append(_processes(frame.processes))
    if status.problem:
        parts.append(Text(status.problem, style="bold red"))
    return Group(*parts)


def lines(frame: Frame) -> str:
    """``line``, with what else there is to say."""
    text = line(frame.status)
    for name, summary in frame.baselines.items():
        measure = _MEASURES[frame.status.task][0]
        text += f"; {name} {_title(measure)} {_number(summary.get(measure))}"
    trouble = [f"{p.name} {p.state}" for p in frame.processes if p.state == "refused" or p.restarts]
    if trouble:
        text += f"; {', '.join(trouble)}"
    return f"{text}; {frame.note}" if frame.note else text


def line(status: Status) -> str:
    """One status in one line."""
    if status.head is None:
        return f"{status.name}: no version yet; {status.problem or 'waiting for the worker'}"
    lag = f"lag {status.lag.lag_events:,}" if status.lag else "lag unknown"
    measured = (
        f"{_title(m)} {_number(status.metrics.get(m))} (window {_number(status.metrics.get(f'window_{m}'))})"
        for m in _MEASURES[status.task][:3]
    )
    decided = (f"{n} {kind}" for kind, n in sorted(status.decision_counts.items()))
    said = [
        f"{status.name} v{status.head.number} epoch {status.head.epoch}",
        f"{status.events():,} events, {status.events_per_s:,.0f}/s, {lag}",
        *measured,
        *([f"labels {_classes(status.head.classes, CLASSES_IN_LINE)}"] if status.head.classes else []),
        *([", ".join(decided)] if status.decision_counts else []),
        *([status.routed] if status.routed else []),
        *([f"PROBLEM: {status.problem} (age {status.staleness_s:,.0f} s)"] if status.problem else []),
    ]
    return "; ".join(said)


# Parts --------------------------------------------------------------------------------------------


def _headline(status: Status, note: str) -> RenderableType:
    text = Text.assemble((status.name, "bold"), f" · {status.task}")
    if status.head is None:
        text.append(" · no version yet", style="yellow")
    else:
        age = f"{status.staleness_s:,.1f} s old"
        text.append(f" · version {status.head.number} · epoch {status.head.epoch} · {age}")
        if status.routed:
            text.append(f" · {status.routed}", style="yellow")
    row = Table.grid(expand=True)
    row.add_column()
    row.add_column(justify="right")
    row.add_row(text, Text(note, style="dim"))
    return row


def _panel(body: RenderableType, title: str, rows: int) -> Panel:
    return Panel(body, title=Text(title), title_align="left", height=rows + 2)


def _cut(text: str) -> Text:
    """What is too long for its column ends in an ellipsis; the columns beside it keep their width."""
    return Text(text, no_wrap=True, overflow="ellipsis")


def _side_by_side(left: RenderableType, right: RenderableType, ratio: tuple[int, int]) -> RenderableType:
    grid = Table.grid(expand=True)
    for share in ratio:
        grid.add_column(ratio=share)
    grid.add_row(left, right)
    return grid


def _pairs(rows: Iterable[tuple[str, str]]) -> Table:
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(style="dim")
    grid.add_column(justify="right")
    for row in rows:
        grid.add_row(*map(Text, row))
    return grid


def _stream(status: Status) -> RenderableType:
    counts, head = status.counts, status.head
    rows = [
        ("events", f"{status.events():,} at {status.events_per_s:,.0f}/s"),
        ("records", f"{status.records_per_s:,.0f}/s"),
        ("labels learned", f"{status.labels():,}"),
        ("waiting for labels", _count(status.metrics.get("waiting"))),
        ("dead letters", _count(counts.get("dead_letters"))),
        ("learning rate", f"{head.hyper.learning_rate:.2g}" if head else "-"),
        ("pull, half-life", f"{head.hyper.half_life_events:,.0f} events" if head else "-"),
        ("reference", (head.reference or "none")[:20] if head else "-"),
    ]
    return _panel(_pairs(rows), "stream", 8)


def _quality(status: Status, baselines: Mapping[str, Summary]) -> RenderableType:
    table = Table(box=None, expand=True, pad_edge=False, padding=(0, 0, 0, 1), header_style="dim")
    table.add_column("")
    measures = _MEASURES[status.task]
    titles = [_SHORT.get(m, _title(m)) for m in measures]
    for title in (*titles, *(f"{title}\nnow" for title in titles[:2])):
        table.add_column(title, justify="right", no_wrap=True)
    for prefix, name in _PREDICTORS:
        mine = {m: status.metrics.get(f"{prefix}{m}") for m in measures}
        window = {m: status.metrics.get(f"window_{prefix}{m}") for m in measures}
        style = "bold" if not prefix else ""
        table.add_row(_cut(name), *_cells(measures, mine, window), style=style)
    for name, summary in baselines.items():
        table.add_row(_cut(name), *_cells(measures, summary, summary.get("window") or {}))
    kappa = status.metrics.get("kappa_temporal")
    now = status.metrics.get("window_count")
    foot = f"now: the newest {_count(now)} labels · kappa temporal {_number(kappa)}"
    return _panel(Group(table, Text(foot, style="dim")), "predict, then learn", 8)


def _classes(classes: Sequence[ClassScore], most: int | None = None) -> str:
    """Each with its labels and F1, the most frequent first."""
    said = [f"{c.name[:CLASS_CHARACTERS]} {c.support:,.0f} F1 {_number(c.f1)}" for c in classes[:most]]
    rest = len(classes) - len(said)
    return " · ".join([*said, *([f"{rest} more"] if rest else [])])


def _cells(measures: Sequence[str], overall: Summary, window: Summary) -> Iterable[str]:
    yield from (_number(overall.get(m)) for m in measures)
    yield from (_number(window.get(m)) for m in measures[:2])


def _lag(status: Status) -> RenderableType:
    if status.lag is None:
        body: RenderableType = Text("unknown", style="yellow")
    else:
        body = _pairs(_lag_rows(status))
    return _panel(body, "lag", _LOWER_ROWS)


def _lag_rows(status: Status) -> Iterable[tuple[str, str]]:
    assert status.lag is not None
    partitions = status.lag.partitions
    yield "all", f"{status.lag.lag_events:,} (most {status.max_lag_events:,})"
    for p in partitions[:PARTITIONS_SHOWN]:
        yield f"partition {p.partition}", f"{p.lag_events:,} of {p.end_offset:,}"
    if len(partitions) > PARTITIONS_SHOWN:
        rest = partitions[PARTITIONS_SHOWN:]
        yield f"{len(rest)} more", f"{sum(p.lag_events for p in rest):,}"


def _forms(status: Status) -> RenderableType:
    int8 = status.int8
    if int8 is None:
        return _panel(Text("not yet quantised", style="dim"), "int8", _LOWER_ROWS)
    table = Table.grid(padding=(0, 2))
    for _ in range(4):
        table.add_column(justify="right")
    table.add_row("", "size", f"{int8.batch} row{'s' * (int8.batch != 1)}", "loss", style="dim")
    table.add_row("fp32", *_form(int8.fp32_bytes, int8.fp32_latency_us, int8.fp32_loss))
    table.add_row("int8", *_form(int8.size_bytes, int8.latency_us, int8.loss))
    return _panel(Group(table, Text(_served(status, int8), style="dim")), "int8", _LOWER_ROWS)


def _form(size_bytes: int, latency_us: float, loss: float) -> tuple[str, str, str]:
    return f"{size_bytes / 1000:,.1f} kB", f"{latency_us:,.1f} µs", f"{loss:.4f}"


def _served(status: Status, int8: Variant) -> str:
    if not int8.served:
        return f"not faster, so not served · {int8.runtime}"
    serving = any(v.kind == "int8" and v.served for v in status.variants)
    return f"{'answers now' if serving else 'the head has none yet'} · {int8.runtime}"


def _importance(importance: Mapping[str, float]) -> RenderableType:
    """In one row; as many as fit."""
    shown = list(importance.items())[:IMPORTANCES_SHOWN]
    text = _cut("matters " + " · ".join(f"{name} {value:.3f}" for name, value in shown))
    text.stylize("dim", 0, len("matters"))
    return text


def _decisions(status: Status) -> RenderableType:
    table = Table.grid(padding=(0, 1))
    for width in (8, 11, 6):
        table.add_column(width=width, no_wrap=True, style="dim")
    table.add_column()
    for d, times in _runs(status.decisions)[-DECISIONS_SHOWN:]:
        at = time.strftime("%H:%M:%S", time.localtime(d.at_s))
        evidence = f"{_evidence(d.evidence)}{f'  (the last of {times})' if times > 1 else ''}"
        kind = Text(d.kind, style=_STYLES.get(d.kind, ""))
        table.add_row(at, kind, f"v{d.version}", _cut(evidence))
    counts = ", ".join(f"{n} {kind}" for kind, n in sorted(status.decision_counts.items()))
    return _panel(table, f"decisions: {counts}" if counts else "decisions", DECISIONS_SHOWN)


def _runs(decisions: Sequence[Decision]) -> list[tuple[Decision, int]]:
    """Decisions of one kind in a row as one, the last, with their number."""
    runs: list[tuple[Decision, int]] = []
    for d in decisions:
        if runs and runs[-1][0].kind == d.kind:
            runs[-1] = d, runs[-1][1] + 1
        else:
            runs.append((d, 1))
    return runs


def _evidence(evidence: Mapping[str, float | int | str | bool | None]) -> str:
    return "  ".join(f"{name} {_short(value)}" for name, value in evidence.items())


def _short(value: float | int | str | bool | None) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _processes(processes: Sequence[ProcessStatus]) -> Text:
    styles = {"running": "green", "waiting": "yellow", "ended": "dim", "refused": "bold red"}
    text = Text()
    for p in processes:
        again = f" ({p.restarts} restart{'s' * (p.restarts != 1)})" if p.restarts else ""
        text.append("● ", style=styles[p.state])
        text.append(f"{p.name} {p.state if p.state != 'running' else ''}{again}".strip() + "   ")
    return text


# Numbers ------------------------------------------------------------------------------------------


def _title(measure: str) -> str:
    return _TITLES.get(measure, measure)


def _number(value: object) -> str:
    """Four decimals; "-" for what is not known."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return "-"
    return f"{value:.4f}" if abs(value) < 100 else f"{value:,.1f}"


def _count(value: float | None) -> str:
    return "-" if value is None else f"{int(value):,}"
