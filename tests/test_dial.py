"""How a connection comes about: the key, the tries, and the time for them."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from livekit.agents import APIError, APIStatusError
from livekit.plugins.tiro import errors
from livekit.plugins.tiro.backlog import Backlog
from livekit.plugins.tiro.clock import Clock
from livekit.plugins.tiro.dial import Dialer
from livekit.plugins.tiro.errors import Redactor
from livekit.plugins.tiro.journal import Journal
from livekit.plugins.tiro.options import Options
from livekit.plugins.tiro.recovery import Budget, Ending, Progress, Reason, Recovery
from livekit.plugins.tiro.testing import TiroServer, faults

from .support.session_fakes import in_virtual_time

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from livekit.plugins.tiro.testing import Hooks

KEY = "lykill-0123456789"
BUDGET = Budget(max_retry=3, timeout=4.0, retries=0, outlived=False)


class Dial:
    """A dialer, and what it is made of."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self.redact = Redactor()
        self.recovery = Recovery(self.redact)
        self.journal = Journal(Clock(), Backlog())
        self.dialer = Dialer(lambda: http, self.recovery, self.redact, self.journal)
        self.url = url

    def in_a_call(self) -> None:
        """Have had a connection that went well."""
        progress = Progress(0, 0, False, False)
        self.recovery.connected(progress)
        self.recovery.after(Ending(Reason.CLOSED, 60.0, answered=True), progress, BUDGET)

    async def connect(self, budget: Budget = BUDGET, **options: Any) -> str:
        """Connect and hang up. Return the id of the connection."""
        return await self.connect_as(lambda: self.settings(**options), budget)

    def settings(self, **options: Any) -> Options:
        return Options(**{"api_key": KEY, "base_url": self.url, **options})

    async def connect_as(self, options: Callable[[], Options], budget: Budget = BUDGET) -> str:
        connection = await self.dialer.connect(options, lambda: budget)
        await connection.close()
        return connection.id

    @property
    def failures(self) -> dict[str, int]:
        return self.journal.tally.snapshot().failures


@asynccontextmanager
async def dialing(*hooks: Hooks) -> AsyncIterator[tuple[Dial, TiroServer]]:
    server = TiroServer(api_key=None, hooks=faults.PerConnection(*hooks))
    async with server, aiohttp.ClientSession() as http:
        yield Dial(http, server.base_url), server


@in_virtual_time
async def test_a_connection_with_its_key_which_is_known_then() -> None:
    async with dialing() as (dial, server):
        assert await dial.connect(extra_headers={"X-Login": "Basic c2VjcmV0MTIz"})
        assert server.connections[0].token == KEY
        assert dial.redact(f"{KEY} Basic c2VjcmV0MTIz c2VjcmV0MTIz") == "[key] [key] [key]"


@in_virtual_time
async def test_the_first_connection_of_a_call_is_tried_once() -> None:
    async with dialing(faults.Refuse(503)) as (dial, server):
        with pytest.raises(APIStatusError, match="503"):
            await dial.connect()
        assert len(server.connections) == 1
        assert dial.failures == {}, "the caller, which raises it, counts it"


@in_virtual_time
async def test_in_a_call_it_is_tried_again_while_the_attempt_lasts() -> None:
    async with dialing(*[faults.Refuse(503)] * 3) as (dial, server):
        dial.in_a_call()
        began = time.monotonic()
        await dial.connect()
        # 0.1, 0.2 and 0.4 s in between.
        assert time.monotonic() - began == pytest.approx(0.7, abs=0.05)
        assert (len(server.connections), dial.failures) == (4, {"status_503": 3})


@in_virtual_time
async def test_each_try_is_by_the_settings_of_the_moment() -> None:
    """A key that is revoked in an outage has been replaced by another."""
    async with dialing(*[faults.Refuse(503)] * 2) as (dial, server):
        dial.in_a_call()
        keys = iter(["old", "old", "new"])
        await dial.connect_as(lambda: dial.settings(api_key=next(keys)))
        assert [session.token for session in server.connections] == ["old", "old", "new"]


@in_virtual_time
async def test_no_try_is_so_short_that_it_can_but_fail() -> None:
    """The error is that of the last try, and not that too little time was left."""
    async with dialing() as (dial, _):
        dial.in_a_call()
        failure = errors.dropped("before it said anything")
        await dial.dialer.wait_after(failure, BUDGET)
        # 2 s in all; the next wait is of 0.2 s.
        await asyncio.sleep(1.55)
        with pytest.raises(APIError) as caught:
            await dial.dialer.wait_after(failure, BUDGET)
        assert caught.value is failure


@in_virtual_time
async def test_an_attempt_has_half_of_the_timeout() -> None:
    async with dialing(*[faults.Refuse(503)] * 30) as (dial, server):
        dial.in_a_call()
        began = time.monotonic()
        with pytest.raises(APIError):
            await dial.connect()
        assert time.monotonic() - began <= 2.0
        # The last failure is counted by the caller, which gets the error.
        assert dial.failures == {"status_503": len(server.connections) - 1}


@in_virtual_time
async def test_the_key_takes_its_time_from_the_same_attempt() -> None:
    async def slow() -> str:
        await asyncio.sleep(1.5)
        return KEY

    async with dialing(faults.StalledHandshake()) as (dial, _):
        began = time.monotonic()
        with pytest.raises(APIError, match=r"no connection to Tiro at .* within 0\.5 s"):
            await dial.connect(api_key=slow)
        assert time.monotonic() - began == pytest.approx(2.0, abs=0.05)


@in_virtual_time
async def test_a_key_that_leaves_no_time_to_connect_is_told_as_such() -> None:
    async def slow() -> str:
        await asyncio.sleep(1.9)
        return KEY

    async with dialing() as (dial, server):
        with pytest.raises(APIError, match="no key for Tiro: the function .* took so long"):
            await dial.connect(api_key=slow)
        assert not server.connections


@in_virtual_time
async def test_a_short_timeout_is_not_blamed_on_a_key_that_is_there() -> None:
    async with dialing(faults.StalledHandshake()) as (dial, _):
        with pytest.raises(APIError, match=r"no connection to Tiro at .* within 0\.15 s"):
            await dial.connect(BUDGET._replace(timeout=0.3))


@in_virtual_time
async def test_a_connection_with_no_service_behind_it_is_one_more_try() -> None:
    """All tries of an outage take their time from the same attempt."""
    async with dialing() as (dial, server):
        dial.in_a_call()
        failure, began = errors.dropped("before it said anything"), time.monotonic()
        for _ in range(4):
            await dial.connect()
            await dial.dialer.wait_after(failure, BUDGET)
        # 0.1, 0.2, 0.4 and 0.8 s.
        assert time.monotonic() - began == pytest.approx(1.5, abs=0.05)
        await dial.connect()
        with pytest.raises(APIError) as caught:
            await dial.dialer.wait_after(failure, BUDGET)
        assert caught.value is failure
        assert (len(server.connections), dial.failures) == (5, {"connection": 4})


@in_virtual_time
async def test_an_outage_begins_when_the_service_was_there_last() -> None:
    async with dialing() as (dial, _):
        dial.in_a_call()
        await dial.connect()
        await asyncio.sleep(60)
        with pytest.raises(APIError):
            await dial.dialer.wait_after(errors.dropped("at last"), BUDGET)
        dial.dialer.start_over()
        began = time.monotonic()
        await dial.dialer.wait_after(errors.dropped("at last"), BUDGET)
        assert time.monotonic() - began == pytest.approx(0.1, abs=0.02)


@in_virtual_time
async def test_who_has_another_stt_to_turn_to_gets_the_error_at_once() -> None:
    async with dialing(faults.Refuse(503)) as (dial, server):
        dial.in_a_call()
        with pytest.raises(APIStatusError):
            await dial.connect(BUDGET._replace(max_retry=1))
        assert len(server.connections) == 1
