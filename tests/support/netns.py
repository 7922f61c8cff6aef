"""Calls over links of their own, between network namespaces: loss, delay, 20 s without a link.

Nothing of the machine's own network is touched: the namespaces are made for a trial, and so are
both ends of the link. Threads enter them; a socket stays where it was opened.

The trials run in real time, side by side, and wait for most of it: `start` runs them in a process
of their own, `result` reads what came of one.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from livekit.plugins.tiro.testing import Hooks

from .numbered import Talk, talk
from .proxy import Proxy
from .trial import Outcome, hear

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from livekit.plugins.tiro.testing import ConnectionRecord

T = TypeVar("T")

_NEWNET = 0x40000000
HERE, THERE = "192.0.2.1", "192.0.2.2"
OUTAGE = 20.0
# s; the longest trial takes some 25 s.
_PATIENCE = 100.0


@dataclass(frozen=True)
class Result:
    """What came of a trial."""

    skipped: str = ""
    """Why it cannot be made here."""
    failed: str = ""
    """The traceback of what went wrong with the trial itself."""
    broken: str = ""
    exact: bool = False
    connections: int = 0
    seconds: float = 0.0
    lost_packets: int = 0
    outcome: str = ""


class Unavailable(Exception):
    """Why there can be no such link here."""


def run(command: str, *, check: bool = True) -> str:
    """Run a command. Return what it writes to stderr."""
    done = subprocess.run(command.split(), capture_output=True, text=True, timeout=20)
    assert not check or done.returncode == 0, f"{command}: {done.stderr}"
    return done.stderr.strip() if done.returncode else ""


@dataclass
class Link:
    """Two namespaces with a link between them."""

    names: tuple[str, str]
    threads: dict[str, ThreadPoolExecutor]

    def inside(self, name: str, action: Callable[[], T]) -> T:
        """Do something in a namespace."""
        return self.threads[name].submit(action).result(timeout=60)

    def shape(self, discipline: str) -> None:
        """Put a queueing discipline on both ends.

        Raises:
            Unavailable: There is no such discipline here.
        """
        why = run(f"tc -n {self.names[0]} qdisc add dev a root {discipline}", check=False)
        if why:
            raise Unavailable(f"there is no {discipline.split()[0]} here: {why}")
        run(f"tc -n {self.names[1]} qdisc add dev b root {discipline}")

    def lost_packets(self) -> int:
        """Count the packets that the queueing disciplines dropped."""
        ends = [
            subprocess.check_output(["tc", "-n", name, "-s", "-j", "qdisc", "show", "dev", end])
            for name, end in zip(self.names, "ab", strict=True)
        ]
        return sum(discipline["drops"] for end in ends for discipline in json.loads(end))

    def turn(self, state: str) -> None:
        """Turn the far end `up` or `down`."""
        run(f"ip -n {self.names[1]} link set dev b {state}")

    def hear(self, said: Talk, outage: tuple[float, float] | None = None) -> Outcome:
        """Speak over the link.

        Args:
            said: What is said.
            outage: How many seconds after the first connection the link goes down, and for how
                many seconds.
        """
        listener = self.inside(self.names[1], lambda: socket.create_server((THERE, 0)))
        return self.inside(self.names[0], lambda: asyncio.run(self._hear(said, listener, outage)))

    async def _hear(
        self, said: Talk, listener: socket.socket, outage: tuple[float, float] | None
    ) -> Outcome:
        hooks = Hooks() if outage is None else _Outage(self, *outage)
        return await hear(said, hooks, live=True, proxy=Proxy(listener=listener))


class _Outage(Hooks):
    """Turns a link down and up again; the time counts from the first connection."""

    def __init__(self, link: Link, start: float, duration: float) -> None:
        self._link, self._start, self._duration = link, start, duration
        self._is_due = False

    async def opened(self, connection: ConnectionRecord) -> None:
        if self._is_due:
            return
        self._is_due = True
        loop = asyncio.get_running_loop()
        loop.call_later(self._start, self._link.turn, "down")
        loop.call_later(self._start + self._duration, self._link.turn, "up")


def _enter(name: str) -> None:
    """Move the calling thread into a namespace."""
    handle = os.open(f"/run/netns/{name}", os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(handle, _NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(handle)


@contextmanager
def linked(label: str) -> Iterator[Link]:
    """Make a link; it is gone when the block ends.

    Raises:
        Unavailable: There can be none here.
    """
    if os.name != "posix" or os.geteuid() != 0:
        raise Unavailable("network namespaces are for root")
    for tool in ("ip", "tc"):
        if shutil.which(tool) is None:
            raise Unavailable(f"{tool} is not installed")
    names = f"tiro-{os.getpid()}-{label}-a", f"tiro-{os.getpid()}-{label}-b"
    threads = {name: ThreadPoolExecutor(1, name, _enter, (name,)) for name in names}
    with ExitStack() as stack:
        for name in names:
            stack.callback(threads[name].shutdown)
        stack.callback(_remove, names)
        for name in names:
            why = run(f"ip netns add {name}", check=False)
            if why:
                raise Unavailable(f"there are no network namespaces here: {why}")
        why = run(
            f"ip -n {names[0]} link add name a type veth peer name b netns {names[1]}", check=False
        )
        if why:
            raise Unavailable(f"there are no links between namespaces here: {why}")
        for name, end, address in zip(names, "ab", (HERE, THERE), strict=True):
            run(f"ip -n {name} addr add {address}/30 dev {end}")
            run(f"ip -n {name} link set dev {end} up")
            run(f"ip -n {name} link set dev lo up")
        yield Link(names, threads)


def _remove(names: tuple[str, str]) -> None:
    """Remove the namespaces; the link goes with them."""
    for name in names:
        run(f"ip netns del {name}", check=False)
    left = [name for name in names if Path("/run/netns", name).exists()]
    assert not left, f"namespaces left behind: {left}"


# -- the trials ------------------------------------------------------------------------------------


def _outage(link: Link) -> Outcome:
    return link.hear(talk(3, 30, 2, word=0.5), (3.5, OUTAGE))


def _shaped(discipline: str) -> Callable[[Link], Outcome]:
    def trial(link: Link) -> Outcome:
        link.shape(discipline)
        return link.hear(talk(3, 2))

    return trial


TRIALS: dict[str, Callable[[Link], Outcome]] = {
    "outage": _outage,
    "netem": _shaped("netem delay 60ms 20ms loss 3%"),
    # Where there is no netem: a narrow link with a short queue loses packets too.
    "tbf": _shaped("tbf rate 600kbit burst 3000 limit 6000"),
}


def _try(name: str) -> Result:
    try:
        with linked(name) as link:
            outcome = TRIALS[name](link)
            lost = link.lost_packets()
    except Unavailable as why:
        return Result(skipped=str(why))
    except Exception:
        return Result(failed=traceback.format_exc())
    return Result(
        broken=outcome.broken(),
        exact=outcome.is_exact,
        connections=len(outcome.connections),
        seconds=outcome.seconds,
        lost_packets=lost,
        outcome=str(outcome),
    )


def main(path: Path) -> None:
    """Make all trials at the same time, and write what came of them."""
    with ThreadPoolExecutor(len(TRIALS)) as threads:
        results = dict(zip(TRIALS, threads.map(_try, TRIALS), strict=True))
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps({name: asdict(each) for name, each in results.items()}))
    unfinished.rename(path)


# -- the tests' side -------------------------------------------------------------------------------


def _path() -> Path:
    """Where the results of this run of the tests are; all of its processes know it."""
    run_id = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    return Path(tempfile.gettempdir()) / f"tiro-netns-{run_id}.json"


def start() -> subprocess.Popen[bytes]:
    """Start the trials in a process of their own; end it with `finish`."""
    command = (sys.executable, "-m", __name__, str(_path()))
    return subprocess.Popen(command, cwd=Path(__file__).parents[2])


def finish(process: subprocess.Popen[bytes]) -> None:
    """Wait for the process: if it were killed, its namespaces would stay."""
    process.wait(_PATIENCE)
    _path().unlink(missing_ok=True)


def result(name: str) -> Result:
    """Wait for the trials, and return what came of one."""
    deadline = time.monotonic() + _PATIENCE
    while not _path().exists():
        assert time.monotonic() < deadline, "the trials do not come to an end"
        time.sleep(0.1)
    return Result(**json.loads(_path().read_text())[name])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
