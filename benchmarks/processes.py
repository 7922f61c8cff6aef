"""Calls per core as people deploy them: LiveKit's worker pool, a process each, a VAD, turns.

`python -m benchmarks.processes` has 1, 4 and 16 calls at once in a worker on one core, round after
round, against imitations of the services on another core. A caller speaks 40 % of the time, for 2
or 6 s. Of the processes alone, not of the worker itself, it reads CPU, memory (what is the
process's own: USS), and the time from the start of a job to its first audio at the service. Few
calls are measured side by side, with one worker for each plugin; many of them by turns.
`lk-null` is the framework with a plugin that does nothing.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from .job import CYCLE
from .progress import open_console, progress
from .run import Child, cores, describe_machine, rotated
from .world import median

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console

TARGETS = ("tiro", "deepgram", "gladia", "lk-null")
# Calls of each plugin, at most, that a core carries side by side with those of all others.
FEW = 4
# s from a call to the next one of the same plugin.
STAGGER = 0.5
_RESULTS = Path(__file__).with_name("processes.json")
_FIGURES = ("cpu_share", "uss_mb", "first_audio_ms")

Samples = dict[str, dict[str, list[dict[str, float]]]]
"""The figures of each round, by number of calls and target."""


def measure(
    calls: Sequence[int], rounds: int, cycles: int, say: Callable[[str], None], path: Path
) -> dict[str, Any]:
    """Measure everything; write the results to a file, after each round. Return them."""
    samples: Samples = {str(count): {target: [] for target in TARGETS} for count in calls}
    results = {"machine": describe_machine(), "rounds": 0, "samples": samples}
    with ExitStack() as stack:
        bytecode = stack.enter_context(tempfile.TemporaryDirectory())
        core, service_core = cores()
        services = Child("services", core=service_core, bytecode=bytecode)
        stack.callback(services.close)
        workers = {}
        for target in TARGETS:
            say(f"starting: {target}")
            ports = json.dumps(services.ready)
            workers[target] = Child("worker", target, ports, core=core, bytecode=bytecode)
            stack.callback(workers[target].close)
            # Its process compiles what it imports, as an installer would have done.
            workers[target].ask("measure", calls=1, seconds=1.0)
            workers[target].answer()
        for number in range(rounds):
            for count in calls:
                say(f"round {number + 1} of {rounds}: {count} calls")
                answers = _measure(workers, rotated(TARGETS, number), count, cycles * CYCLE)
                for target, figures in answers.items():
                    samples[str(count)][target].append(figures)
            results["rounds"] = number + 1
            path.write_text(json.dumps(results, indent=1) + "\n")
    return results


def _measure(
    workers: dict[str, Child], targets: Sequence[str], count: int, seconds: float
) -> dict[str, dict[str, float]]:
    """Have `count` calls of each target: few side by side, many by turns."""
    if count > FEW:
        answers = {}
        for target in targets:
            workers[target].ask("measure", calls=count, seconds=seconds, stagger=STAGGER)
            answers[target] = workers[target].answer()
        return answers
    for place, target in enumerate(targets):
        # One call starts at a time.
        workers[target].ask(
            "measure",
            calls=count,
            seconds=seconds,
            stagger=STAGGER * len(targets),
            delay=STAGGER * place,
        )
    return {target: workers[target].answer() for target in targets}


def _figure(rounds: Sequence[dict[str, float]], name: str, scale: float, digits: int) -> str:
    values = [figures[name] * scale for figures in rounds if name in figures]
    return f"{median(values):.{digits}f}" if values else "–"


def _ratio(own: Sequence[dict[str, float]], others: Sequence[dict[str, float]], name: str) -> str:
    """Return what tiro needs divided by what another needs: median, lowest and highest round."""
    pairs = zip(own, others, strict=True)
    ratios = [mine[name] / theirs[name] for mine, theirs in pairs if name in theirs]
    if not ratios:
        return "–"
    return f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def show(results: dict[str, Any], console: Console) -> None:
    """Print a table for each number of calls."""
    machine = results["machine"]
    console.print(
        f"{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}, load before "
        f"{machine['load_before']}; {results['rounds']} rounds"
    )
    samples: Samples = results["samples"]
    for count, by_target in samples.items():
        table = Table(
            title=f"calls at once: {count}; ratios: median of the rounds (lowest to highest)"
        )
        table.add_column("")
        for title in ("CPU of a call, %", "calls / core", "USS, MB", "job to first audio, ms"):
            table.add_column(title, justify="right")
        for title in ("tiro's CPU / its", "memory", "first audio"):
            table.add_column(title, justify="right")
        for target, rounds in by_target.items():
            share = median(figures["cpu_share"] for figures in rounds)
            ratios = [_ratio(by_target["tiro"], rounds, name) for name in _FIGURES]
            table.add_row(
                target,
                f"{share * 100:.2f}",
                f"{1 / share:.0f}",
                _figure(rounds, "uss_mb", 1, 1),
                _figure(rounds, "first_audio_ms", 1, 0),
                *(ratios if target != "tiro" else []),
            )
        console.print(table)


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.processes")
    parser.add_argument("--calls", type=int, nargs="+", default=[1, 4, 16], help="at once")
    parser.add_argument("--rounds", type=int, default=3, help="how often")
    parser.add_argument(
        "--cycles", type=int, default=1, help=f"how many times {CYCLE:.0f} s are measured"
    )
    parser.add_argument("--output", type=Path, default=_RESULTS, help="the file of results")
    parser.add_argument("--again", action="store_true", help="only show the results that are there")
    arguments = parser.parse_args()
    console = open_console()
    if arguments.again:
        results = json.loads(arguments.output.read_text())
    else:
        with progress(console) as say:
            results = measure(
                arguments.calls, arguments.rounds, arguments.cycles, say, arguments.output
            )
    show(results, console)


if __name__ == "__main__":
    main()
