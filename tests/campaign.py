"""Many streams with random faults: `python -m tests.campaign --streams 20000`.

Everything about a stream is drawn from its own seed, which is the campaign's seed plus its number.
A failure prints that seed; `--seed SEED --streams 1` is that stream again.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from random import Random

from livekit.plugins.tiro.testing import Hooks
from livekit.plugins.tiro.testing.faults import (
    Close,
    Combined,
    Delay,
    Disconnect,
    Drift,
    Fail,
    Fault,
    Garbage,
    HalfOpen,
    IdleLimit,
    IgnoreEnd,
    LongLine,
    Moment,
    Mute,
    PerConnection,
    Refuse,
    ResetHandshake,
    SessionLimit,
    StalledHandshake,
    StopReading,
    When,
)

from .support import virtual
from .support.numbered import Spoken, Talk
from .support.trial import Outcome, hear
from .support.trouble import Chatter, Latency, Pace, PingWithoutReading, WithoutTimes

# Streams that run side by side, on one clock.
BATCH = 40
# No fault of a trial is one that retrying can not mend, so that with more retries than faults
# every word has to be heard.
RETRIES = 7
_LARGEST_DRIFT = 0.002
# Blocks: a service drops what it looked ahead over when it decides, some 0.8 s behind a word, so
# that it would lose the start of a word that began just then.
_SHORTEST_GAP = 100
# Blocks: with the silence of a flush it comes to less than the 5 s without a word after which the
# service decides too.
_LONGEST_GAP = 150
_RETRYABLE = (1, 2, 4, 8, 13, 14)
_ROTATION = (4, 11)

Maker = Callable[[Random], Hooks]


def _when(rng: Random) -> When:
    if rng.random() < 0.5:
        return rng.choice(list(Moment))
    return round(rng.uniform(0.05, 6.0), 2)


LOUD: dict[str, Maker] = {
    "FIN": lambda rng: Disconnect(_when(rng)),
    "RST": lambda rng: Disconnect(_when(rng), reset=True),
    "close frame": lambda rng: Close(_when(rng), rng.choice((0, 1000, 1001, 1006, 1011, 4000))),
    "close frame, stays": lambda rng: Close(_when(rng), 1001, stay=True),
    "error": lambda rng: Fail(rng.choice(_RETRYABLE), _when(rng), stay=rng.random() < 0.3),
    "limit": lambda rng: Fail(rng.choice(_ROTATION), _when(rng), shape="v2"),
    "session limit": lambda rng: SessionLimit(round(rng.uniform(0.5, 6.0), 2)),
    "idle limit": lambda rng: IdleLimit(round(rng.uniform(1.0, 4.0), 2)),
    "line too long": lambda rng: LongLine(),
}
"""What ends a connection in a way that the client can hear."""
SILENT: dict[str, Maker] = {
    "mute": lambda rng: Mute(_when(rng)),
    "half-open": lambda rng: HalfOpen(_when(rng)),
    "stops reading": lambda rng: StopReading(_when(rng)),
    "ignores the end": lambda rng: IgnoreEnd(),
    "pings, does not read": lambda rng: PingWithoutReading(_when(rng)),
}
"""What the client has to find out."""
CLOSED: dict[str, Maker] = {
    "refused": lambda rng: Refuse(rng.choice((429, 500, 502, 503)), delay=rng.choice((0, 0, 2))),
    "hangs up": lambda rng: ResetHandshake(),
    "no answer": lambda rng: StalledHandshake(),
}
"""What no connection comes of."""
KINDS = {**LOUD, **SILENT, **CLOSED}
_WEIGHTS = [4 if kind in LOUD else 1 for kind in KINDS]

BESIDE: dict[str, Maker] = {
    "garbage": lambda rng: Garbage(),
    "late finals": lambda rng: Delay(round(rng.uniform(0.1, 1.0), 2)),
    "late frames": lambda rng: Delay(round(rng.uniform(0.05, 0.3), 2), finals=False),
    "late": lambda rng: Latency(round(rng.uniform(0.5, 8.0), 2)),
    "slow": lambda rng: Pace(rng.choice((0.5, 1.0, 1.3, 4.0))),
    "empty responses": lambda rng: Chatter(rng.randrange(1000), empty=True),
    "events": lambda rng: Chatter(rng.randrange(1000), empty=False),
    "no times": lambda rng: WithoutTimes(),
    "drift": lambda rng: Drift(rng.uniform(-_LARGEST_DRIFT, _LARGEST_DRIFT)),
}
"""What no connection ends of."""
_UNTIMELY = {"late", "late finals", "late frames", "slow", "empty responses"}
"""What makes decisions of the service come late, or look as if they had come."""


@dataclass
class Trial:
    """One stream: what is said, and what goes wrong."""

    seed: int
    said: Talk
    kinds: list[str]
    faults: list[Hooks]
    beside: list[str]
    hooks: Hooks
    live: bool
    flushes: dict[float, int]
    pauses: dict[float, float]
    changes: list[float]
    ms: float
    buffer: int | None

    async def run(self) -> Outcome:
        return await hear(
            self.said,
            self.hooks,
            live=self.live,
            flushes=self.flushes,
            pauses=self.pauses,
            changes=self.changes,
            ms=self.ms,
            buffer=self.buffer,
            timed="no times" not in self.beside,
            max_retry=RETRIES,
        )

    def __str__(self) -> str:
        said = " ".join(f"{word.text}@{word.start:.2f}" for word in self.said.words)
        return (
            f"--seed {self.seed} --streams 1: {'live' if self.live else 'a file'}, {self.hooks!r}, "
            f"flushes {self.flushes}, muted {self.pauses}, changes {self.changes}, "
            f"frames of {self.ms:g} ms, buffers {self.buffer}, "
            f"peak {self.said.peak}, noise {self.said.noise}, said {said}"
        )


def draw(seed: int) -> Trial:
    """Return the trial of a seed."""
    rng = Random(seed)
    said = _talk(rng)
    kinds = rng.choices(list(KINDS), _WEIGHTS, k=rng.randint(1, 6))
    faults = [KINDS[kind](rng) for kind in kinds]
    beside = rng.sample(list(BESIDE), k=rng.choice((0, 0, 1, 2)))
    if ("mute" in kinds or "late" in beside) and "empty responses" in beside:
        # Who says all the time that nothing was said is not mute, and nobody can tell that he lies;
        # nor that what was said will follow seconds later.
        beside.remove("empty responses")
    if said.noise == 0 and _UNTIMELY & set(beside):
        # Who is not told in time that the gate has closed sends the next sound as if it were open.
        said = replace(said, noise=1)
    hooks = Combined(PerConnection(*faults), *(BESIDE[kind](rng) for kind in beside))
    live = rng.random() < 0.6
    flushes, pauses, changes = {}, {}, []
    if live and rng.random() < 0.3:
        flushes[rng.choice(_ends(said)) + rng.uniform(0.01, 0.9)] = rng.choice((1, 1, 1, 30))
    if live and rng.random() < 0.2:
        pauses[rng.choice(_ends(said)) + 0.5] = rng.choice((2.0, 6.0, 30.0))
    if live and rng.random() < 0.2:
        gaps = [end + 0.5 for end in _ends(said) if end + 0.5 not in pauses]
        pauses.update(dict.fromkeys(gaps, round(rng.uniform(0.2, 0.9), 2)))
    if rng.random() < 0.2:
        changes.append(round(rng.uniform(0.1, said.seconds), 2))
    ms = rng.choice((50, 50, 50, 5, 10, 20, 30, 60, 100))
    buffer = rng.choice((None, None, None, 32768))
    return Trial(
        seed, said, kinds, faults, beside, hooks, live, flushes, pauses, changes, ms, buffer
    )


def _talk(rng: Random) -> Talk:
    at = rng.randint(0, 100)
    words: list[Spoken] = []
    for _ in range(rng.randint(1, 4)):
        for _ in range(rng.randint(1, 5)):
            words.append(Spoken(f"w{len(words)}", at, at + rng.randint(10, 45)))
            at = words[-1].last
        at += rng.randint(_SHORTEST_GAP, _LONGEST_GAP)
    peak = rng.choice((12000, 12000, 32767, 200, 100, 30))
    noise = rng.choice((0, 1, peak // 40, peak // 10))
    return Talk(tuple(words), at, peak, noise)


def _ends(said: Talk) -> list[float]:
    """Return when the utterances end, seconds."""
    following = [word.first for word in said.words[1:]] + [said.blocks]
    return [
        word.end
        for word, after in zip(said.words, following, strict=True)
        if after - word.last >= _SHORTEST_GAP
    ]


@dataclass
class Report:
    """What a campaign came to."""

    streams: int = 0
    connections: int = 0
    struck: Counter[str] = field(default_factory=Counter)
    said: int = 0
    lost: int = 0
    doubled: int = 0
    errors: int = 0
    minutes: float = 0.0
    """Of the callers' time."""
    time_error: float = 0.0
    deaf: dict[str, float] = field(default_factory=dict)
    """The longest time until audio flowed again, by the kind of the fault, seconds."""
    broken: list[str] = field(default_factory=list)

    def add(self, trial: Trial, outcome: Outcome) -> None:
        self.streams += 1
        self.connections += len(outcome.sessions)
        self.said += len(trial.said.words)
        self.lost += outcome.lost
        self.doubled += outcome.doubled
        self.errors += outcome.error is not None
        self.minutes += outcome.seconds / 60
        self.time_error = max(self.time_error, outcome.time_error)
        self.struck.update(trial.kinds[: len(outcome.sessions)])
        self.struck.update(trial.beside)
        if trial.live:
            self._add_deaf(trial, outcome)
        wrong = outcome.broken() or ("" if outcome.is_exact else str(outcome))
        if wrong:
            self.broken.append(f"{trial}\n  {wrong}")

    def _add_deaf(self, trial: Trial, outcome: Outcome) -> None:
        """Note how long no audio flowed after the last fault, which no other one prolongs."""
        kind, fault = trial.kinds[-1], trial.faults[-1]
        if isinstance(fault, Fault):
            silent = outcome.silence_behind(fault)
            self.deaf[kind] = max(self.deaf.get(kind, 0.0), silent)

    def __str__(self) -> str:
        lines = [
            f"{self.streams} streams, {self.minutes / 60:.1f} hours of calls, "
            f"{self.connections} connections, {sum(self.struck.values())} faults",
            f"{self.said} words said, {self.lost} lost, {self.doubled} doubled, "
            f"{self.errors} streams ended by an error",
            f"worst error of a word's time: {self.time_error * 1000:.0f} ms",
            "faults, and for how long no audio flowed at worst:",
        ]
        for kind, count in self.struck.most_common():
            deaf = f"{self.deaf[kind]:9.3f} s" if kind in self.deaf else ""
            lines.append(f"  {kind:20}{count:8}{deaf}")
        return "\n".join(lines)


def run(streams: int, seed: int) -> Iterator[Report]:
    """Run a campaign; yields the report so far after each batch."""
    report = Report()
    for first in range(seed, seed + streams, BATCH):
        trials = [draw(n) for n in range(first, min(first + BATCH, seed + streams))]
        for trial, outcome in zip(trials, virtual.run(_batch(trials)), strict=True):
            report.add(trial, outcome)
        yield report


async def _batch(trials: list[Trial]) -> list[Outcome]:
    return await asyncio.gather(*(trial.run() for trial in trials))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=__doc__)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    report = Report()
    for report in run(arguments.streams, arguments.seed):
        print(f"\r{report.streams} streams, {len(report.broken)} broken", end="", file=sys.stderr)
    print("", file=sys.stderr)
    print("\n".join([*report.broken, str(report)]))
    sys.exit(bool(report.broken))


if __name__ == "__main__":
    main()
