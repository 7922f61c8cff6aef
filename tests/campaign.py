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
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from livekit.plugins.tiro.testing.faults import Fault

from .support import virtual
from .support.draws import Trial, draw
from .support.trial import TIME_ERROR

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .support.trial import Outcome

# Streams that run side by side, on one clock.
BATCH = 40


@dataclass
class Report:
    """The results of a campaign so far."""

    streams: int = 0
    connections: int = 0
    struck: Counter[str] = field(default_factory=Counter)
    said: int = 0
    lost: int = 0
    given_up: int = 0
    """Words in audio that the plugin gave up after a minute without an answer, as it told."""
    doubled: int = 0
    errors: int = 0
    minutes: float = 0.0
    """How long the calls took, in the virtual time of the callers."""
    time_error: float = 0.0
    deaf: dict[str, float] = field(default_factory=dict)
    """The longest time until audio flowed again, by the kind of the fault, seconds."""
    broken: list[str] = field(default_factory=list)

    def add(self, trial: Trial, outcome: Outcome) -> None:
        self.streams += 1
        self.connections += len(outcome.connections)
        self.said += len(trial.said.words)
        self.lost += outcome.lost
        self.given_up += len(trial.said.words) - len(outcome.due)
        self.doubled += outcome.doubled
        self.errors += outcome.error is not None
        self.minutes += outcome.seconds / 60
        if trial.expected.time_error == TIME_ERROR:
            self.time_error = max(self.time_error, outcome.time_error)
        self.struck.update(trial.kinds[: len(outcome.connections)])
        self.struck.update(trial.beside)
        if trial.live and trial.faults:
            self._add_deaf(trial, outcome)
        wrong = outcome.broken() or ("" if outcome.is_exact else str(outcome))
        if wrong:
            self.broken.append(f"{trial}\n  {wrong}")

    def _add_deaf(self, trial: Trial, outcome: Outcome) -> None:
        """Note how long no audio flowed after the last fault: no later fault prolongs that time."""
        kind, fault = trial.kinds[-1], trial.faults[-1]
        if isinstance(fault, Fault):
            silent = outcome.silence_after(fault)
            self.deaf[kind] = max(self.deaf.get(kind, 0.0), silent)

    def __str__(self) -> str:
        lines = [
            f"{self.streams} streams, {self.minutes / 60:.1f} hours of calls, "
            f"{self.connections} connections, {sum(self.struck.values())} faults",
            f"{self.said} words said, {self.lost} lost, {self.doubled} doubled, "
            f"{self.given_up} given up after a minute, {self.errors} streams ended by an error",
            f"worst error of a word's time: {self.time_error * 1000:.0f} ms, where the service's "
            "clock is right",
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
    report, told = Report(), 0
    for report in run(arguments.streams, arguments.seed):
        print(f"\r{report.streams} streams, {len(report.broken)} broken", end="", file=sys.stderr)
        for broken in report.broken[told:]:
            print(f"\n{broken}", flush=True)
        told = len(report.broken)
    print("", file=sys.stderr)
    print(report)
    sys.exit(bool(report.broken))


if __name__ == "__main__":
    main()
