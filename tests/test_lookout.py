"""A connection is looked after once a second, and ends for the reason that a look finds."""

from __future__ import annotations

import asyncio

import pytest

from livekit.plugins.tiro.lookout import Lookout
from livekit.plugins.tiro.recovery import Reason

from .support.session_fakes import in_virtual_time


class Looks:
    """Notes when it is asked, and answers what it is told to."""

    def __init__(self, *answers: Reason | float | Exception) -> None:
        self.at: list[float] = []
        self._answers = list(answers)
        self._began = asyncio.get_running_loop().time()

    def __call__(self) -> Reason | float:
        self.at.append(round(asyncio.get_running_loop().time() - self._began, 2))
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@in_virtual_time
async def test_it_looks_when_asked_to_and_at_least_once_a_second() -> None:
    looks = Looks(0.25, 60.0, -3.0, Reason.GONE)
    lookout = Lookout(looks)
    lookout.start(0.5)
    assert await lookout.over is Reason.GONE
    assert looks.at == [0.5, 0.75, 1.75, 1.75]
    await asyncio.sleep(5.0)
    assert len(looks.at) == 4


@in_virtual_time
async def test_the_first_look_waits_a_second_at_most() -> None:
    looks = Looks(Reason.CLOSED)
    lookout = Lookout(looks)
    lookout.start(7.0)
    await lookout.over
    assert looks.at == [1.0]


@in_virtual_time
async def test_a_fault_in_a_look_is_raised_where_the_end_is_waited_for() -> None:
    lookout = Lookout(Looks(ZeroDivisionError("a fault")))
    lookout.start(0.0)
    with pytest.raises(ZeroDivisionError, match="a fault"):
        await lookout.over


@in_virtual_time
async def test_a_fault_after_the_end_changes_nothing() -> None:
    lookout = Lookout(Looks(ZeroDivisionError("a fault"), Reason.GONE))
    lookout.end(Reason.OPTIONS_CHANGED)
    lookout.look()
    lookout.look()
    assert await lookout.over is Reason.OPTIONS_CHANGED


@in_virtual_time
async def test_once_closed_it_looks_no_more() -> None:
    looks = Looks(0.5)
    lookout = Lookout(looks)
    lookout.close()
    lookout.start(0.1)
    await asyncio.sleep(0.3)
    lookout.close()
    await asyncio.sleep(5.0)
    assert looks.at == [0.1]
    assert not lookout.over.done()
