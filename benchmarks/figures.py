"""What the samples of a run come to: medians, ratios, and whether the targets are met."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .plan import CALLS, MAIN, REPLIES, REPLIES_16
from .targets import PEERS

if TYPE_CHECKING:
    from collections.abc import Iterable

COST = "cpu_s_per_hour"


class Figures:
    """The results of a run, to be asked."""

    def __init__(self, results: dict[str, Any]) -> None:
        self.results = results
        self._samples: dict[str, dict[str, list[dict[str, float]]]] = results["samples"]

    def conditions(self) -> list[str]:
        """Return the conditions under which streams were measured."""
        return [name for name in self.results["conditions"] if name in self._samples]

    def labels(self, condition: str) -> list[str]:
        """Return what was measured under a condition, cheapest first."""
        labels = list(self._samples.get(condition, {}))
        return sorted(labels, key=lambda label: self.median(condition, label, COST) or 0.0)

    def all(self, condition: str, label: str, figure: str) -> list[float]:
        """Return a figure of each round in which it was measured."""
        samples = self._samples.get(condition, {}).get(label, [])
        return [sample[figure] for sample in samples if figure in sample]

    def median(self, condition: str, label: str, figure: str) -> float | None:
        """Return the median over the rounds, or None if it was not measured."""
        values = self.all(condition, label, figure)
        return statistics.median(values) if values else None

    def memory(self, label: str) -> float | None:
        """Return KB a stream, which only the first measurement of a process can tell."""
        return self.median(MAIN, label, "memory_kb")

    def spread(self, condition: str, label: str, figure: str) -> float:
        """Return how far apart the rounds are, as a share of their median."""
        values = self.all(condition, label, figure)
        return (max(values) - min(values)) / (statistics.median(values) or 1.0)

    def dearest(self, condition: str, labels: Iterable[str]) -> tuple[str, float | None]:
        """Return against whom tiro costs most, measured by turns, and the ratio of the costs."""
        ratios = {name: self.median(f"{condition} by turns", name, "ratio") for name in labels}
        known = {name: ratio for name, ratio in ratios.items() if ratio is not None}
        worst = max(known, key=lambda name: known[name], default="")
        return worst, known.get(worst)


@dataclass(frozen=True)
class Goal:
    """A target, and how this run stands to it."""

    name: str
    value: float | None
    limit: float
    """The highest value that meets it."""
    against: str = ""

    @property
    def is_met(self) -> bool:
        """Whether it was reached."""
        return self.value is not None and self.value <= self.limit


def goals(figures: Figures) -> list[Goal]:
    """Return the targets of which everything was measured."""
    same_rate = [f"{name} at 24 kHz" for name in PEERS]
    found = [
        Goal("audio age, mean ms", figures.median(MAIN, "tiro", "age_mean_ms"), 1.0),
        _cost(figures, MAIN, PEERS, 0.65, "CPU, by the cheapest as shipped"),
        _cost(figures, MAIN, same_rate, 0.95, "CPU, by the cheapest at the same rate"),
        _cost(figures, MAIN, ["floor-json"], 1.6, "CPU, by raw aiohttp"),
        _cost(figures, "16 kHz", PEERS, 1.0, "CPU at 16 kHz, by the cheapest"),
        _cost(figures, "16 kHz", ["floor-json"], 1.5, "CPU at 16 kHz, by raw aiohttp"),
        _cost(figures, CALLS, ["deepgram at 24 kHz"], 0.8, "CPU of calls, by deepgram at the rate"),
        _cost(figures, REPLIES, same_rate, 0.95, "CPU with dense replies, by the cheapest"),
        _cost(figures, REPLIES, PEERS, 0.55, "the same, as shipped"),
        _cost(figures, REPLIES_16, PEERS, 0.95, "the same at 16 kHz"),
        _compared(figures, REPLIES, "event_p95_ms", "event latency p95 with dense replies, ms"),
        _compared(figures, MAIN, "event_p95_ms", "event latency p95, ms"),
        _compared(figures, MAIN, "memory_kb", "memory, KB a stream"),
        Goal(
            "audio lost over a reconnect, ms", figures.median("call", "tiro", "lost_before_ms"), 0
        ),
        _compared(figures, "call", "deaf_ms", "audio flows again after, ms"),
        _compared(figures, "process", "import_ms", "import over livekit.agents, ms"),
    ]
    return [goal for goal in found if goal.value is not None]


def _cost(figures: Figures, condition: str, others: Iterable[str], limit: float, name: str) -> Goal:
    other, value = figures.dearest(condition, others)
    return Goal(name, value, limit, other)


def _compared(figures: Figures, condition: str, figure: str, name: str) -> Goal:
    """Compare with the best of the four. A figure of -1 (it never came) is not the best."""
    measured = {peer: figures.median(condition, peer, figure) for peer in PEERS}
    known = {peer: value for peer, value in measured.items() if value is not None and value >= 0}
    best = min(known, key=lambda peer: known[peer], default="")
    limit = known[best] if best else 0.0
    return Goal(name, figures.median(condition, "tiro", figure), limit, best)
