"""The results as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

from .figures import COST, Figures, goals
from .plan import BY_TURNS, MAIN
from .world import median

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

_COLUMNS = (
    ("CPU s / audio hour", COST, 2),
    ("of it system", "system_s_per_hour", 2),
    ("event p50 ms", "event_p50_ms", 2),
    ("p95", "event_p95_ms", 2),
    ("p99", "event_p99_ms", 2),
    ("audio age mean ms", "age_mean_ms", 1),
    ("p95", "age_p95_ms", 1),
)
_CALL_COLUMNS = (
    ("first audio ms", "first_audio_ms", 1),
    ("deaf over a drop ms", "deaf_ms", 1),
    ("lost of 2000 ms not final", "lost_before_ms", 0),
    ("lost of 2000 ms after it", "lost_after_ms", 0),
)


def show(results: dict[str, Any], console: Console) -> None:
    """Print all tables."""
    figures = Figures(results)
    machine = results["machine"]
    console.print(
        f"{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}, load before "
        f"{machine['load_before']}; {results['rounds']} rounds in {results['minutes']} min"
    )
    for why in results.get("broken_off", ()):
        console.print(f"broken off: {why}")
    for condition in figures.conditions():
        console.print(_loads(figures, condition))
    console.print(_by_turns(figures))
    console.print(_calls(figures))
    console.print(_growth(results["growth"]))
    console.print(_goals(figures))


def _text(value: float | None, digits: int) -> str:
    if value is None:
        return "–"
    return "never" if value < 0 else f"{value:.{digits}f}"


def _loads(figures: Figures, condition: str) -> Table:
    load = figures.results["conditions"][condition]
    table = Table(title=f"{condition}: {load['streams']} streams, 50 ms frames")
    table.add_column("")
    for title, _, _ in _COLUMNS:
        table.add_column(title, justify="right")
    for title in ("streams / core", "spread %"):
        table.add_column(title, justify="right")
    if condition == MAIN:
        table.add_column("KB / stream", justify="right")
    for label in figures.labels(condition):
        cost = figures.median(condition, label, COST) or 0.0
        row = [_text(figures.median(condition, label, name), n) for _, name, n in _COLUMNS]
        row += [
            _text(3600 / cost if cost else None, 0),
            _text(100 * figures.spread(condition, label, COST), 0),
        ]
        if condition == MAIN:
            row.append(_text(None if " at " in label else figures.memory(label), 0))
        table.add_row(label, *row)
    return table


def _by_turns(figures: Figures) -> Table:
    table = Table(title="tiro's CPU divided by that of each: side by side, in turns of 0.4 s")
    for title in ("", *BY_TURNS):
        table.add_column(title, justify="right")
    for label in dict.fromkeys(v.label for variants in BY_TURNS.values() for v in variants):
        cells = [_ratio(figures, f"{condition} by turns", label) for condition in BY_TURNS]
        table.add_row(label, *cells)
    return table


def _ratio(figures: Figures, condition: str, label: str) -> str:
    ratios = figures.all(condition, label, "ratio")
    if not ratios:
        return "–"
    return f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def _calls(figures: Figures) -> Table:
    table = Table(title="single moments")
    table.add_column("")
    columns = (*_CALL_COLUMNS, ("import ms", "import_ms", 1))
    for title, _, _ in columns:
        table.add_column(title, justify="right")
    for label in figures.labels("call"):
        row = [_text(figures.median("call", label, name), n) for _, name, n in _CALL_COLUMNS]
        row.append(_text(figures.median("process", label, "import_ms"), 1))
        table.add_row(label, *row)
    waited = [
        _text(figures.median("last word", "tiro", name), 0)
        for name in ("final_ms", "final_after_flush_ms")
    ]
    table.caption = (
        f"tiro, last voiced sample to final: {waited[0]} ms, of which the service waits 500 for "
        f"silence; {waited[1]} ms after flush()"
    )
    return table


def _growth(growth: dict[str, Any]) -> Table:
    table = Table(title="how tiro's cost grows (all but the streams: faster than real time)")
    for title in ("", "from", "to", "cost at the start", "at the end", "by floor-json"):
        table.add_column(title, justify="right")
    streams = growth["streams"]["tiro"]
    floor = growth["streams"].get("floor-json")
    against = f"{streams[0][1] / floor[0][1]:.2f} … {streams[-1][1] / floor[-1][1]:.2f}"
    _grow(table, "streams, CPU s / audio hour", [s for s, _ in streams], [c for _, c in streams])
    table.columns[-1]._cells[-1] = against if floor else ""
    for name, axis, cost, unit in (
        ("call_length", "minutes", "cpu_s_per_hour", "call, min; CPU s / audio hour"),
        ("call_length", "minutes", "memory_kb", "call, min; KB"),
        ("unfinished_audio", "seconds", "cpu_s_per_hour", "not final, s; CPU s / audio hour"),
        ("unfinished_audio", "seconds", "memory_kb", "not final, s; KB / stream"),
        ("words_in_final", "words", "us_per_final", "words in a final; CPU us"),
    ):
        _grow(table, unit, growth[name][axis], growth[name][cost])
    return table


def _grow(table: Table, name: str, axis: Sequence[float], cost: Sequence[float]) -> None:
    table.add_row(name, f"{axis[0]:g}", f"{axis[-1]:g}", f"{cost[0]:.1f}", f"{cost[-1]:.1f}", "")


def _goals(figures: Figures) -> Table:
    table = Table(title="targets")
    for title in ("", "this run", "at most", "against", "met"):
        table.add_column(title)
    for goal in goals(figures):
        met = "[green]yes[/]" if goal.is_met else "[red]no[/]"
        table.add_row(goal.name, _text(goal.value, 2), f"{goal.limit:.2f}", goal.against, met)
    return table
