"""What is measured under which conditions, and for how long."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from .load import CALL, DENSE
from .targets import FLOORS, PEERS

if TYPE_CHECKING:
    from collections.abc import Sequence

MAIN = "24 kHz"
"""The condition of the headline figures: what an `AgentSession` delivers."""
CALLS, REPLIES, REPLIES_16 = "calls, 24 kHz", "dense replies, 24 kHz", "dense replies, 16 kHz"
"""Turns with silence between them; a final every 0.7 s."""


@dataclass(frozen=True)
class Variant:
    """A target, and the rate it is set to."""

    target: str
    wire_rate: int | None = None
    """Hz; None leaves a plugin as it is shipped."""

    @property
    def label(self) -> str:
        """What tables call it."""
        if self.wire_rate is None:
            return self.target
        return f"{self.target} at {self.wire_rate // 1000} kHz"


@dataclass(frozen=True)
class Condition:
    """Streams of one kind, for some of the targets."""

    name: str
    variants: Sequence[Variant]
    load: dict[str, Any]
    """Arguments of `load.Load`."""
    at_once: bool = False
    """Whether the processes are measured side by side, as is fair while a core is mostly idle."""


_PLUGINS = [Variant(name) for name in ("tiro", *PEERS)]
_FLOORS = [Variant(name) for name in FLOORS]
_SENDING = [*_PLUGINS, Variant("floor-json")]
_SAME_RATE = [Variant(name, 24000) for name in PEERS]

CONDITIONS = (
    Condition(MAIN, [*_PLUGINS, *_SAME_RATE, *_FLOORS], {"rate": 24000}),
    Condition("16 kHz", [*_PLUGINS, *_FLOORS], {"rate": 16000}),
    Condition("48 kHz", _SENDING, {"rate": 48000}),
    Condition("8 kHz", _SENDING, {"rate": 8000}),
    Condition("24 kHz over TLS", _SENDING, {"rate": 24000, "tls": True}),
    Condition("24 kHz, twice the streams", _SENDING, {"rate": 24000}),
    Condition(CALLS, [*_PLUGINS, *_SAME_RATE, *_FLOORS], {"rate": 24000, "traffic": CALL}),
    Condition(REPLIES, [*_PLUGINS, *_SAME_RATE, *_FLOORS], {"rate": 24000, "traffic": DENSE}),
    Condition(REPLIES_16, [*_PLUGINS, *_FLOORS], {"rate": 16000, "traffic": DENSE}),
    Condition("24 kHz, 1 stream", [*_PLUGINS, *_FLOORS], {"rate": 24000, "streams": 1}, True),
)
"""In the order in which they are measured. The first one comes with fresh processes."""


_RIVALS = [variant for variant in _SENDING if variant.target != "tiro"]
BY_TURNS = {
    MAIN: [*_RIVALS, *_SAME_RATE],
    "16 kHz": _RIVALS,
    CALLS: [*_RIVALS, *_SAME_RATE],
    REPLIES: [*_RIVALS, *_SAME_RATE],
    REPLIES_16: _RIVALS,
}
"""What tiro is measured against by turns: its cost divided by theirs."""


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    rounds: int = 5
    streams: int = 100
    seconds: dict[str, float] = field(
        default_factory=lambda: {MAIN: 3.0, "16 kHz": 2.0, CALLS: 3.0, "24 kHz, 1 stream": 8.0}
    )
    """Measured s by condition; 1.5 s for those that are not in it."""
    warm_up: float = 0.8
    turns: int = 3
    """Turns of each target in a round, against each that it is compared with."""
    conditions: Sequence[str] = tuple(condition.name for condition in CONDITIONS)
    targets: Sequence[str] = ("tiro", *PEERS, *FLOORS)
    call_streams: int = 10
    growth_rounds: int = 2
    growth_streams: Sequence[int] = (10, 50, 100, 200, 400)
    minutes: Sequence[int] = (1, 5, 15, 30, 60, 90, 120)
    unfinished: Sequence[int] = (5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60)
    words: Sequence[int] = (1, 10, 25, 50, 100, 200, 350, 500)

    def measured(self) -> list[Condition]:
        """Return the conditions at this scale, of the targets that take part."""
        chosen = []
        for condition in CONDITIONS:
            if condition.name in self.conditions:
                variants = [v for v in condition.variants if v.target in self.targets]
                chosen.append(replace(condition, variants=variants, load=self._load(condition)))
        return chosen

    def _load(self, condition: Condition) -> dict[str, Any]:
        streams = self.streams * (2 if "twice" in condition.name else 1)
        seconds = self.seconds.get(condition.name, 1.5)
        return {
            "streams": streams,
            "seconds": seconds,
            "warm_up": self.warm_up,
            **condition.load,
        }


FULL = Scale()
QUICK = Scale(
    rounds=1,
    streams=10,
    seconds={MAIN: 1.0, "16 kHz": 1.0},
    warm_up=0.5,
    turns=1,
    conditions=(MAIN, "16 kHz", CALLS, REPLIES),
    call_streams=3,
    growth_rounds=1,
    growth_streams=(5, 10),
    minutes=(1, 2),
    unfinished=(5, 10),
    words=(1, 50),
)
"""Shows that everything runs; its figures mean little."""
