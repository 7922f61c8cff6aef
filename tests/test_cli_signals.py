"""Signals end a run: within a second, at any point, and with its work written."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest

from livekit.plugins.tiro.cli import signals
from livekit.plugins.tiro.cli.signals import Interruption, run

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no such signals here")


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """The signals are not ignored, and are again as they were."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, signal.SIG_DFL) for number in numbers]
    yield
    assert [signal.getsignal(number) for number in numbers] == [signal.SIG_DFL] * 3
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


def test_a_run_that_no_signal_ends() -> None:
    ran: list[Interruption] = []

    async def main(interruption: Interruption) -> None:
        ran.append(interruption)

    assert run(main) is None
    assert not ran[0].came.is_set()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_is_told_of_and_gives_the_exit_code(number: int, code: int) -> None:
    async def main(interruption: Interruption) -> None:
        send(number)
        await interruption.came.wait()

    assert run(main) == code


def test_the_first_signal_counts() -> None:
    async def main(interruption: Interruption) -> None:
        send(signal.SIGTERM)
        send(signal.SIGINT)
        await interruption.came.wait()

    assert run(main) == 143


def test_what_does_not_end_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "_CANCEL", 0.01)
    ended: list[str] = []

    async def main(interruption: Interruption) -> None:
        send(signal.SIGINT)
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("written")

    assert run(main) == 130
    assert ended == ["written"]


def test_what_hangs_is_ended_with_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "_EXIT", 0.01)
    exits: list[int] = []
    ended = threading.Event()

    def end(code: int) -> None:
        exits.append(code)
        ended.set()

    monkeypatch.setattr(os, "_exit", end)

    async def main(interruption: Interruption) -> None:
        send(signal.SIGINT)
        # Nothing of the loop runs meanwhile.
        assert ended.wait(10)

    assert run(main) == 130
    assert exits == [130]


@pytest.mark.parametrize("patience", [10.0, 0.01])
def test_what_is_being_written_is_written_to_its_end(
    monkeypatch: pytest.MonkeyPatch, patience: float
) -> None:
    """Unless that takes too long."""
    monkeypatch.setattr(signals, "_EXIT", 0.01)
    monkeypatch.setattr(signals, "_WRITES_WITHIN", patience)
    ended = threading.Event()
    monkeypatch.setattr(os, "_exit", lambda code: ended.set())

    async def main(interruption: Interruption) -> None:
        with signals.uninterrupted:
            send(signal.SIGINT)
            # Nothing of the loop runs meanwhile.
            assert ended.wait(0.2 if patience > 1 else 10) == (patience < 1)
        assert ended.wait(10)

    assert run(main) == 130


def test_what_ends_in_time_is_not_ended_with_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "_EXIT", 0.05)
    exits: list[int] = []
    monkeypatch.setattr(os, "_exit", exits.append)

    async def main(interruption: Interruption) -> None:
        send(signal.SIGINT)

    assert run(main) == 130
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join(5)
    assert exits == []


def test_a_signal_that_comes_before_the_loop_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    start = asyncio.run

    def early(main: Any) -> Any:
        send(signal.SIGINT)
        return start(main)

    monkeypatch.setattr(asyncio, "run", early)

    async def main(interruption: Interruption) -> None:
        await interruption.came.wait()

    assert run(main) == 130


def test_a_signal_that_comes_after_the_loop_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    start = asyncio.run

    def late(main: Any) -> Any:
        start(main)
        send(signal.SIGINT)

    monkeypatch.setattr(asyncio, "run", late)

    async def main(interruption: Interruption) -> None:
        pass

    assert run(main) == 130


def test_a_signal_that_is_ignored_stays_so() -> None:
    """As by nohup, or by a shell that starts a command in the background."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

    async def main(interruption: Interruption) -> None:
        send(signal.SIGHUP)
        await asyncio.sleep(0)
        assert not interruption.came.is_set()

    assert run(main) is None
    assert signal.signal(signal.SIGHUP, signal.SIG_DFL) is signal.SIG_IGN


def test_a_run_that_is_cancelled_without_a_signal_says_so() -> None:
    async def main(interruption: Interruption) -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        run(main)


def test_what_a_run_raises_is_raised() -> None:
    async def main(interruption: Interruption) -> None:
        send(signal.SIGINT)
        await interruption.came.wait()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(main)


def test_a_run_beside_the_main_thread_does_without_signals() -> None:
    codes: list[int | None] = []

    async def main(interruption: Interruption) -> None:
        pass

    thread = threading.Thread(target=lambda: codes.append(run(main)))
    thread.start()
    thread.join()
    assert codes == [None]


# -- who can end early -----------------------------------------------------------------------------


async def test_what_comes_before_a_signal_is_returned(no_leaked_tasks: None) -> None:
    interruption = Interruption()
    assert await interruption.first(asyncio.sleep(0, "it")) == "it"
    interruption.came.set()
    assert await interruption.first(asyncio.sleep(0, "it")) == "it", "it was there first"


async def test_a_signal_ends_the_wait_and_what_is_waited_for(no_leaked_tasks: None) -> None:
    interruption = Interruption()
    ended = asyncio.Event()

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    asyncio.get_running_loop().call_soon(interruption.came.set)
    await asyncio.wait_for(interruption.first(endless()), 5)
    assert ended.is_set()


async def test_what_fails_before_a_signal_raises(no_leaked_tasks: None) -> None:
    async def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await Interruption().first(fail())
