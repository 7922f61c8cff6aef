"""A watched connection, and a call over it: what is sent when, what comes back, and its end."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import numpy as np
import pytest

from livekit.plugins.tiro.cli.call import Answer, Call, WatchedConnection, faint_noise
from livekit.plugins.tiro.options import Options
from livekit.plugins.tiro.reach import new_http_session
from livekit.plugins.tiro.testing import TiroServer
from livekit.plugins.tiro.testing.faults import Close, Disconnect, Fail, Moment
from livekit.plugins.tiro.testing.resample import Resampler

from .support import virtual
from .support.harness import read_wav
from .support.probe_service import OwnPings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from livekit.plugins.tiro.testing import Hooks

RATE = 16000
SPEECH = read_wav("is.wav")


@asynccontextmanager
async def calling(
    hooks: Hooks | None = None, spend: Callable[[float], None] = lambda seconds: None
) -> AsyncIterator[tuple[Call, TiroServer]]:
    """Call a local server, and send the config."""
    async with TiroServer(hooks=hooks) as server:
        options = Options(api_key="test", base_url=server.base_url, sample_rate=RATE)
        async with new_http_session(options.url) as http:
            connection = await WatchedConnection.open(http, options, 5.0)
            await connection.configure(options, RATE)
            async with Call(connection, RATE, spend) as call:
                yield call, server


def test_what_is_sent_comes_back_with_the_second_at_which_it_came() -> None:
    spent: list[float] = []

    async def trial() -> None:
        async with calling(spend=spent.append) as (call, server):
            started = time.monotonic()
            await call.send(SPEECH)
            assert call.sent == pytest.approx(len(SPEECH) / RATE)
            assert time.monotonic() - started == pytest.approx(call.sent, abs=0.1)
            await call.connection.end()
            assert await call.until_over(10.0) and call.is_over
            assert bytes(server.connections[0].audio) == SPEECH.tobytes()
        assert call.over_at is not None and call.over_at >= call.answers[-1].at
        assert call.error is None and call.blocked < 0.1
        check_answers(call)

    virtual.run(trial())
    assert sum(spent) == pytest.approx(len(SPEECH) / RATE)


def check_answers(call: Call) -> None:
    assert call.finals and call.interims
    for answer in call.answers:
        assert isinstance(answer, Answer) and '"results"' in answer.text
        assert 0.0 < answer.sent <= call.sent
    results = [result for answer in call.interims for result in answer.response.results]
    assert results and not any(result.is_final for result in results)


def test_the_pace_is_as_asked_for() -> None:
    async def trial() -> float:
        async with calling() as (call, _):
            started = time.monotonic()
            await call.send(SPEECH[: 2 * RATE], pace=4.0)
            return time.monotonic() - started

    assert virtual.run(trial()) == pytest.approx(0.5, abs=0.05)


def test_a_pause_is_not_made_good() -> None:
    """Audio after a pause goes out at the pace of speech, not in a burst."""

    async def trial() -> float:
        async with calling() as (call, _):
            await call.send(SPEECH[:RATE])
            await asyncio.sleep(3.0)
            started = time.monotonic()
            await call.send(SPEECH[:RATE])
            return time.monotonic() - started

    assert virtual.run(trial()) == pytest.approx(1.0, abs=0.1)


def test_sending_stops_when_it_is_told_to_or_the_connection_is_over() -> None:
    async def trial() -> tuple[float, float]:
        async with calling() as (call, _):
            await call.send(SPEECH, until=lambda: call.sent >= 0.5)
            told = call.sent
        async with calling(Disconnect(0.5)) as (call, _):
            await call.send(SPEECH)
            return told, call.sent

    told, lost = virtual.run(trial())
    assert told == pytest.approx(0.5, abs=0.06)
    assert 0.5 <= lost < 1.0


def test_what_may_not_be_spent_is_not_sent() -> None:
    def spend(seconds: float) -> None:
        raise ValueError("no more")

    async def trial() -> int:
        async with calling(spend=spend) as (call, server):
            with pytest.raises(ValueError, match="no more"):
                await call.send(SPEECH)
        return server.connections[0].received

    assert virtual.run(trial()) == 0


def test_waiting_has_an_end() -> None:
    async def trial() -> None:
        async with calling() as (call, _):
            started = time.monotonic()
            assert not await call.until(lambda: bool(call.answers), 2.0)
            assert time.monotonic() - started == pytest.approx(2.0, abs=0.01)
            assert not await call.until_over(0.5)
            assert not await call.until(lambda: False, 0.0)
            assert await call.until(lambda: True, 0.0)

    virtual.run(trial())


def test_an_error_of_the_service() -> None:
    async def trial() -> None:
        async with calling(Fail(8, Moment.CONFIG)) as (call, _):
            assert await call.until_over(5.0)
            assert call.error is not None and call.error.code == 8

    virtual.run(trial())


def test_a_close_frame_and_its_code_are_noted() -> None:
    async def trial() -> None:
        async with calling(Close(Moment.CONFIG, code=4001)) as (call, _):
            assert await call.until_over(5.0)
            assert call.connection.close_code == 4001
            assert call.connection.frame == "" and call.error is None

    virtual.run(trial())


def test_pings_are_counted_and_answered() -> None:
    async def trial() -> int:
        async with calling(OwnPings(1.0)) as (call, _):
            await call.until_over(3.5)
            assert not call.is_over and call.connection.close_code is None
            return call.connection.pings

    assert virtual.run(trial()) == 3


def test_closing_before_it_was_begun() -> None:
    """What goes wrong before the block leaves no task."""

    async def trial() -> None:
        async with calling() as (call, _):
            other = Call(call.connection, RATE)
            await other.__aexit__(None, None, None)

    virtual.run(trial())


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000])
def test_faint_noise_opens_the_voice_gate_at_every_rate(rate: int) -> None:
    noise = faint_noise(1.0, rate)
    assert len(noise) == rate and (faint_noise(1.0, rate) == noise).all()
    assert 0 < np.abs(noise).max() <= 32, "far from speech"
    heard = Resampler(rate, 16000).feed(noise)
    # In every message of 50 ms there is something left.
    assert all(heard[start : start + 800].any() for start in range(0, 16000 - 800, 800))
