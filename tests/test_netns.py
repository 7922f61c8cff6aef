"""A call over a link of its own, between two network namespaces: loss, delay, and 20 s without it.

Nothing of the machine's own network is touched: the namespaces are made for the test, and so are
both ends of the link. Threads enter them; a socket stays where it was opened.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from .support.numbered import Talk, talk
from .support.proxy import Proxy
from .support.trial import Outcome, hear

T = TypeVar("T")

pytestmark = pytest.mark.slow

_NEWNET = 0x40000000
NAMES = f"tiro-{os.getpid()}-a", f"tiro-{os.getpid()}-b"
HERE, THERE = "192.0.2.1", "192.0.2.2"
OUTAGE = 20.0


def run(command: str, *, check: bool = True) -> str:
    """Run a command. Return what it has to complain of."""
    done = subprocess.run(command.split(), capture_output=True, text=True, timeout=20)
    assert not check or done.returncode == 0, f"{command}: {done.stderr}"
    return done.stderr.strip() if done.returncode else ""


@dataclass
class Link:
    """Two namespaces with a link between them."""

    threads: dict[str, ThreadPoolExecutor]

    def inside(self, name: str, action: Callable[[], T]) -> T:
        """Do something in a namespace."""
        return self.threads[name].submit(action).result(timeout=60)

    def shape(self, discipline: str) -> str:
        """Put a queueing discipline on both ends. Return why that can not be."""
        return run(f"tc -n {NAMES[0]} qdisc add dev a root {discipline}", check=False) or run(
            f"tc -n {NAMES[1]} qdisc add dev b root {discipline}"
        )

    def lost_packets(self) -> int:
        """Count the packets that the queueing disciplines dropped."""
        ends = [
            subprocess.check_output(["tc", "-n", name, "-s", "-j", "qdisc", "show", "dev", end])
            for name, end in zip(NAMES, "ab", strict=True)
        ]
        return sum(discipline["drops"] for end in ends for discipline in json.loads(end))

    def turn(self, state: str) -> None:
        """Turn the far end `up` or `down`."""
        run(f"ip -n {NAMES[1]} link set dev b {state}")

    def hear(self, said: Talk, outage: tuple[float, float] | None = None) -> Outcome:
        """Speak over the link; the outage is from when on, and how long, in seconds."""
        listener = self.inside(NAMES[1], lambda: socket.create_server((THERE, 0)))
        return self.inside(NAMES[0], lambda: asyncio.run(self._hear(said, listener, outage)))

    async def _hear(
        self, said: Talk, listener: socket.socket, outage: tuple[float, float] | None
    ) -> Outcome:
        loop = asyncio.get_running_loop()
        if outage is not None:
            loop.call_later(outage[0], self.turn, "down")
            loop.call_later(sum(outage), self.turn, "up")
        return await hear(said, live=True, proxy=Proxy(listener=listener))


def enter(name: str) -> None:
    """Move the calling thread into a namespace."""
    handle = os.open(f"/run/netns/{name}", os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(handle, _NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(handle)


@pytest.fixture
def link() -> Iterator[Link]:
    if os.name != "posix" or os.geteuid() != 0:
        pytest.skip("network namespaces are for root")
    for tool in ("ip", "tc"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    threads = {name: ThreadPoolExecutor(1, name, enter, (name,)) for name in NAMES}
    with ExitStack() as stack:
        for name in NAMES:
            stack.callback(threads[name].shutdown)
        stack.callback(remove)
        for name in NAMES:
            why = run(f"ip netns add {name}", check=False)
            if why:
                pytest.skip(f"there are no network namespaces here: {why}")
        pair = f"name a type veth peer name b netns {NAMES[1]}"
        why = run(f"ip -n {NAMES[0]} link add {pair}", check=False)
        if why:
            pytest.skip(f"there are no links between namespaces here: {why}")
        for name, end, address in zip(NAMES, "ab", (HERE, THERE), strict=True):
            run(f"ip -n {name} addr add {address}/30 dev {end}")
            run(f"ip -n {name} link set dev {end} up")
            run(f"ip -n {name} link set dev lo up")
        yield Link(threads)


def remove() -> None:
    """Remove the namespaces; the link goes with them."""
    for name in NAMES:
        run(f"ip netns del {name}", check=False)
    left = [name for name in NAMES if Path("/run/netns", name).exists()]
    assert not left, f"namespaces left behind: {left}"


def test_a_link_that_is_down_for_20_s_costs_no_words(link: Link) -> None:
    outcome = link.hear(talk(3, 30, 2, word=0.5), (3.5, OUTAGE))
    assert not outcome.broken(), outcome.broken()
    assert outcome.is_exact, outcome
    assert len(outcome.sessions) > 1, "nothing was noticed of it"
    assert outcome.seconds > OUTAGE


@pytest.mark.parametrize(
    "discipline",
    [
        "netem delay 60ms 20ms loss 3%",
        # Where there is no netem: a narrow link with a short queue loses packets too.
        "tbf rate 600kbit burst 3000 limit 6000",
    ],
    ids=["netem", "tbf"],
)
def test_packets_that_are_late_or_lost_cost_no_words(link: Link, discipline: str) -> None:
    why = link.shape(discipline)
    if why:
        pytest.skip(f"there is no {discipline.split()[0]} here: {why}")
    outcome = link.hear(talk(3, 2))
    assert not outcome.broken(), outcome.broken()
    assert outcome.is_exact, outcome
    assert link.lost_packets() > 0
