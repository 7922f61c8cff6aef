"""Runs the processes, round by round, and gathers what they measure."""

from __future__ import annotations

import json
import os
import platform
import select
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from .load import STEADY
from .plan import BY_TURNS, Condition, Scale, Variant
from .targets import PEERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

# s to wait for a process to answer.
PATIENCE = 180.0
Samples = dict[str, dict[str, list[dict[str, float]]]]
"""The figures of each round, by condition and label."""


class Child:
    """A process that answers each line with a line."""

    def __init__(self, module: str, *arguments: str, core: int, bytecode: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"benchmarks.{module}", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPYCACHEPREFIX": bytecode, "PYTHONDONTWRITEBYTECODE": ""},
        )
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(self._process.pid, {core})
        self._module = " ".join((module, *arguments[:1]))
        self._asked = 0
        self.ready: dict[str, Any] = self.answer()

    def ask(self, experiment: str, **arguments: Any) -> None:
        """Start an experiment."""
        self._asked += 1
        command = {"experiment": experiment, "arguments": arguments, "id": self._name()}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()

    def _name(self) -> str:
        return f"{self._process.pid}-{self._asked}"

    def answer(self) -> dict[str, Any]:
        """Return what the process answers.

        Raises:
            RuntimeError: The process ended, or is still silent after a long time.
        """
        output = self._process.stdout
        assert output is not None
        ready, _, _ = select.select([output], [], [], PATIENCE)
        line = output.readline() if ready else ""
        if not line:
            raise RuntimeError(f"{self._module} gave no answer")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process, in good order or not."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Bench:
    """A run: the services on one core, what is measured on another."""

    def __init__(self, scale: Scale, say: Callable[[str], None]) -> None:
        self._scale = scale
        self._say = say
        self._core, self._service_core = cores()
        self._bytecode = ""
        """The folder for what the processes compile."""
        self.samples: Samples = {}

    def run(self) -> dict[str, Any]:
        """Measure everything. Return the results, fit for JSON."""
        began = time.monotonic()
        machine = describe_machine()
        broken_off: list[str] = []
        with ExitStack() as stack:
            self._bytecode = stack.enter_context(tempfile.TemporaryDirectory())
            services = Child("services", core=self._service_core, bytecode=self._bytecode)
            stack.callback(services.close)
            ports = json.dumps(services.ready)
            with self._clients(ports, self._scale.targets):
                # The processes compile what they import, as an installer would have done.
                pass
            for number in range(self._scale.rounds):
                # A client that gets stuck costs what is left of its round, and no other round.
                try:
                    self._round(number, ports)
                except RuntimeError as failure:
                    broken_off.append(f"round {number + 1}: {failure}")
            growth = self._growth(ports)
        return {
            "machine": machine,
            "minutes": round((time.monotonic() - began) / 60, 1),
            "rounds": self._scale.rounds,
            "broken_off": broken_off,
            "conditions": {c.name: c.load for c in self._scale.measured()},
            "samples": self.samples,
            "growth": growth,
        }

    def _round(self, number: int, ports: str) -> None:
        """Measure everything once, each target in a fresh process, in another order each time."""
        with self._clients(ports, rotated(self._scale.targets, number)) as clients:
            for target, client in clients.items():
                self._note("process", target, client.ready)
            for condition in self._scale.measured():
                self._say(f"round {number + 1}: {condition.name}")
                self._measure(clients, condition, number)
            self._measure_by_turns(clients, number)
            self._say(f"round {number + 1}: single calls")
            plugins = [t for t in rotated(self._scale.targets, number) if t in ("tiro", *PEERS)]
            for target in plugins:
                streams = self._scale.call_streams
                for experiment in ("first_audio", "reconnect"):
                    clients[target].ask(experiment, streams=streams)
                    self._note("call", target, clients[target].answer())
            if "tiro" in clients:
                clients["tiro"].ask("last_word", streams=self._scale.call_streams)
                self._note("last word", "tiro", clients["tiro"].answer())

    @contextmanager
    def _clients(self, ports: str, targets: Sequence[str]) -> Iterator[dict[str, Child]]:
        with ExitStack() as stack:
            clients = {}
            for target in targets:
                clients[target] = Child(
                    "client", target, ports, core=self._core, bytecode=self._bytecode
                )
                stack.callback(clients[target].close)
            yield clients

    def _measure(self, clients: dict[str, Child], condition: Condition, number: int) -> None:
        variants = rotated(condition.variants, number)
        if condition.name == self._scale.measured()[0].name:
            # Memory is read where nothing ran before: as shipped first.
            variants = sorted(variants, key=lambda variant: variant.wire_rate is not None)
        waiting: list[Variant] = []
        for variant in variants:
            load = {**condition.load, "wire_rate": variant.wire_rate}
            clients[variant.target].ask("load", **load)
            waiting.append(variant)
            if not condition.at_once:
                self._collect(clients, condition, waiting)
        self._collect(clients, condition, waiting)

    def _collect(
        self, clients: dict[str, Child], condition: Condition, waiting: list[Variant]
    ) -> None:
        while waiting:
            variant = waiting.pop(0)
            self._note(condition.name, variant.label, clients[variant.target].answer())

    def _measure_by_turns(self, clients: dict[str, Child], number: int) -> None:
        """Note what tiro costs divided by what each of the others costs."""
        for condition in self._scale.measured():
            self._say(f"round {number + 1}: {condition.name}, by turns")
            for rival in BY_TURNS.get(condition.name, ()):
                if {"tiro", rival.target} <= clients.keys():
                    ratio = self._ratio(clients, condition, rival, number)
                    self._note(f"{condition.name} by turns", rival.label, {"ratio": ratio})

    def _ratio(
        self, clients: dict[str, Child], condition: Condition, rival: Variant, number: int
    ) -> float:
        pair = [Variant("tiro"), rival]
        for turn, variant in enumerate(rotated(pair, number)):
            clients[variant.target].ask(
                "by_turns",
                turn=turn,
                turns=self._scale.turns,
                rate=condition.load["rate"],
                streams=condition.load["streams"],
                wire_rate=variant.wire_rate,
                traffic=condition.load.get("traffic", STEADY),
            )
        own, others = (clients[variant.target].answer()["cpu_s_per_hour"] for variant in pair)
        return float(own / others)

    def _note(self, condition: str, label: str, figures: dict[str, float]) -> None:
        self.samples.setdefault(condition, {}).setdefault(label, []).append(figures)

    def _growth(self, ports: str) -> dict[str, Any]:
        scale = self._scale
        curves: dict[str, Any] = {"streams": {}}
        with self._clients(
            ports, [t for t in ("tiro", "floor-json") if t in scale.targets]
        ) as all_:
            for target in all_:
                curves["streams"][target] = [
                    [streams, self._cost_of_streams(all_[target], streams)]
                    for streams in scale.growth_streams
                ]
            for experiment, name, values in (
                ("call_length", "minutes", scale.minutes),
                ("unfinished_audio", "seconds", scale.unfinished),
                ("words_in_final", "words", scale.words),
            ):
                self._say(f"growth: {experiment}")
                all_["tiro"].ask(experiment, **{name: list(values)})
                curves[experiment] = all_["tiro"].answer()
        return curves

    def _cost_of_streams(self, client: Child, streams: int) -> float:
        self._say(f"growth: {streams} streams")
        costs: list[float] = []
        for _ in range(self._scale.growth_rounds):
            client.ask("load", streams=streams, seconds=2.0, warm_up=self._scale.warm_up)
            costs.append(client.answer()["cpu_s_per_hour"])
        return statistics.median(costs)


def cores() -> tuple[int, int]:
    """Return the cores for what is measured and for the services: the first and the last one."""
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    return allowed[0], allowed[-1]


def rotated(items: Sequence[Any], by: int) -> list[Any]:
    """Return the items in their order, beginning with another one."""
    return [*items[by % len(items) :], *items[: by % len(items)]]


def describe_machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    model = platform.processor() or platform.machine()
    with open("/proc/cpuinfo") as file:
        names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    packages = ["livekit-agents", "livekit", "aiohttp"]
    packages += [f"livekit-plugins-{name}" for name in PEERS]
    return {
        "cpu": names[0] if names else model,
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
        "packages": {name: version(name) for name in packages if _is_there(name)},
    }


def _is_there(package: str) -> bool:
    try:
        version(package)
    except ModuleNotFoundError:
        return False
    return True
