"""The results as two pictures that show the same, for light and for dark backgrounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.figure import Figure

from .figures import COST, Figures
from .plan import MAIN
from .targets import PEERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Theme:
    """Colours that can be read on one background."""

    name: str
    ink: str
    faint: str
    own: str
    others: str
    floors: str


THEMES = (
    Theme("light", "#1f2328", "#d0d7de", "#0969da", "#8c959f", "#c8ced5"),
    Theme("dark", "#e6edf3", "#3d444d", "#58a6ff", "#7d8590", "#4d5560"),
)
_SETTINGS: dict[Any, Any] = {"svg.hashsalt": "tiro", "svg.fonttype": "none", "font.size": 9}


def draw(results: dict[str, Any], folder: Path) -> Iterator[Path]:
    """Write the pictures into a folder. Yield where they are."""
    figures = Figures(results)
    for theme in THEMES:
        path = folder / f"cost-{theme.name}.svg"
        with matplotlib.rc_context({**_SETTINGS, **_colours(theme)}):
            _page(figures, theme).savefig(path, metadata={"Date": None}, transparent=True)
        yield path


def _colours(theme: Theme) -> dict[Any, Any]:
    inked = ("text.color", "axes.labelcolor", "xtick.color", "ytick.color")
    return {"axes.edgecolor": theme.faint, **dict.fromkeys(inked, theme.ink)}


def _page(figures: Figures, theme: Theme) -> Figure:
    page = Figure(figsize=(10, 7.2), layout="constrained")
    panels: Sequence[Callable[[Axes, Figures, Theme], None]] = (
        _costs,
        _ages,
        _drops,
        _streams,
        _calls,
        _words,
    )
    for place, panel in enumerate(panels):
        axes = page.add_subplot(2, 3, place + 1)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        panel(axes, figures, theme)
    return page


def _bars(
    axes: Axes, title: str, values: dict[str, float | None], theme: Theme, digits: int
) -> None:
    """Draw a bar for each label, with its value at the end of the bar."""
    known = {label: value for label, value in values.items() if value is not None}
    colours = [
        theme.own if label == "tiro" else theme.others if _is_plugin(label) else theme.floors
        for label in known
    ]
    lengths = [max(0.0, value) for value in known.values()]
    bars = axes.barh(list(known), lengths, color=colours)
    texts = ["never" if value < 0 else f"{value:.{digits}f}" for value in known.values()]
    axes.bar_label(bars, texts, padding=3)
    axes.set_title(title, loc="left")
    axes.invert_yaxis()
    axes.margins(x=0.18)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(left=False)


def _is_plugin(label: str) -> bool:
    return label.startswith(PEERS)


def _costs(axes: Axes, figures: Figures, theme: Theme) -> None:
    values = {label: figures.median(MAIN, label, COST) for label in figures.labels(MAIN)}
    _bars(axes, "CPU s per hour of audio", values, theme, 1)


def _ages(axes: Axes, figures: Figures, theme: Theme) -> None:
    values = {label: figures.median(MAIN, label, "age_mean_ms") for label in ("tiro", *PEERS)}
    _bars(axes, "age of audio on arrival, ms", values, theme, 1)


def _drops(axes: Axes, figures: Figures, theme: Theme) -> None:
    values = {label: figures.median("call", label, "lost_before_ms") for label in ("tiro", *PEERS)}
    _bars(axes, "ms lost of 2000, at a drop", values, theme, 0)


def _curve(axes: Axes, title: str, x: Sequence[float], y: Sequence[float], colour: str) -> None:
    axes.plot(x, y, color=colour, marker="o", markersize=3)
    axes.set_title(title, loc="left")
    axes.set_ylim(bottom=0, top=max(axes.get_ylim()[1], 1.25 * max(y)))


def _streams(axes: Axes, figures: Figures, theme: Theme) -> None:
    for target, points in figures.results["growth"]["streams"].items():
        x, y = [streams for streams, _ in points], [cost for _, cost in points]
        own = target == "tiro"
        _curve(axes, "CPU s per hour, by streams", x, y, theme.own if own else theme.others)
        axes.annotate(target, (x[-1], y[-1]), (0, 5), textcoords="offset points", ha="right")


def _calls(axes: Axes, figures: Figures, theme: Theme) -> None:
    growth = figures.results["growth"]
    call, pile = growth["call_length"], growth["unfinished_audio"]
    _curve(axes, "CPU s per hour, by length", call["minutes"], call["cpu_s_per_hour"], theme.own)
    _curve(axes, axes.get_title("left"), pile["seconds"], pile["cpu_s_per_hour"], theme.others)
    last = call["minutes"][-1], call["cpu_s_per_hour"][-1]
    axes.annotate("of a call, min", last, (0, 5), textcoords="offset points", ha="right")
    last = pile["seconds"][-1], pile["cpu_s_per_hour"][-1]
    axes.annotate("of audio not final, s", last, (5, 0), textcoords="offset points", va="center")


def _words(axes: Axes, figures: Figures, theme: Theme) -> None:
    cost = figures.results["growth"]["words_in_final"]
    _curve(axes, "CPU µs per final, by words", cost["words"], cost["us_per_final"], theme.own)
