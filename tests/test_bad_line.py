"""Numbered audio over a bad line: each word exact, or a clear error, and no later than promised."""

from __future__ import annotations

import asyncio
import gc
import logging
import ssl
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import trustme

from livekit.agents import APIConnectionError, APITimeoutError
from livekit.plugins.tiro.testing.faults import Fault, When

from .support import virtual
from .support.harness import START
from .support.numbered import talk
from .support.proxy import Direction, Proxy, Reset
from .support.trial import Outcome, hear

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from livekit.plugins.tiro.testing import ConnectionRecord

SAID = talk(3, 2, word=0.3, gap=1.0, lead=0.5)
# Bytes of the handshake, roughly, of the config after it, and of a message of audio.
HANDSHAKE, CONFIG, MESSAGE = 350, 250, 2170
# s; a peer that is gone is noticed after 15 s at most.
NOTICED = 15.0


class Do(Fault):
    """Does something to the line when a moment has come."""

    def __init__(self, when: When, action: Callable[[], None]) -> None:
        super().__init__(when)
        self._action = action

    async def strike(self, connection: ConnectionRecord) -> None:
        if connection.number == 0:
            self._action()


def run(trial: Coroutine[Any, Any, Outcome]) -> Outcome:
    outcome = virtual.run(trial)
    assert not outcome.broken(), outcome.broken()
    return outcome


def check_exact(trial: Coroutine[Any, Any, Outcome]) -> Outcome:
    outcome = run(trial)
    assert outcome.is_exact, outcome
    return outcome


def check_same_connection(trial: Coroutine[Any, Any, Outcome]) -> Outcome:
    outcome = check_exact(trial)
    assert len(outcome.connections) == 1, outcome
    assert not outcome.reported
    return outcome


def first_heard(outcome: Outcome) -> float:
    """Seconds from the first audio at the server to the first event of speech at the client."""
    heard = [at for at, e in zip(outcome.arrived, outcome.events, strict=True) if e.type is START]
    return heard[0] - outcome.flowing[0]


# -- slow lines ----------------------------------------------------------------------------------


@pytest.mark.parametrize("live", [False, True], ids=["file", "call"])
@pytest.mark.parametrize("latency", [0.02, 0.3, 1.5])
def test_latency_costs_nothing_but_time(latency: float, live: bool) -> None:
    async def trial() -> Outcome:
        return await hear(SAID, live=live, proxy=Proxy(latency=latency))

    outcome = check_same_connection(trial())
    assert first_heard(outcome) >= latency
    # There and back for the handshake, there for the audio, back for the final.
    assert outcome.seconds >= 4 * latency


@pytest.mark.parametrize("live", [False, True], ids=["file", "call"])
@pytest.mark.parametrize("seed", range(3))
def test_jitter_costs_nothing(seed: int, live: bool) -> None:
    async def trial() -> Outcome:
        proxy = Proxy(latency=0.03, jitter=0.4, seed=seed)
        return await hear(SAID, live=live, proxy=proxy)

    check_same_connection(trial())


def test_jitter_is_drawn_from_its_seed() -> None:
    async def trial(seed: int) -> Outcome:
        return await hear(SAID, live=True, proxy=Proxy(jitter=0.4, seed=seed))

    first, again, other = (first_heard(check_exact(trial(seed))) for seed in (1, 1, 3))
    assert first == pytest.approx(again, abs=0.06)
    assert first != pytest.approx(other, abs=0.06)


@pytest.mark.parametrize("live", [False, True], ids=["file", "call"])
@pytest.mark.parametrize("bandwidth", [30_000, 60_000])
def test_a_narrow_line_costs_nothing_but_time(bandwidth: int, live: bool) -> None:
    """16 kHz want 43 kB a second, so that the narrower of the two falls behind a call."""

    async def trial() -> Outcome:
        return await hear(SAID, live=live, proxy=Proxy(bandwidth=bandwidth, latency=0.02))

    outcome = check_same_connection(trial())
    assert outcome.seconds > 0.9 * SAID.seconds * 43_000 / max(bandwidth, 43_000)


# -- dark lines ----------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", [0.7, 2.6])
@pytest.mark.parametrize("seconds", [1.0, 8.0, 20.0])
def test_a_black_hole_that_ends_costs_nothing(
    seconds: float, moment: float, caplog: pytest.LogCaptureFixture
) -> None:
    async def trial() -> Outcome:
        proxy = Proxy()

        def darken() -> None:
            proxy.darken()
            asyncio.get_running_loop().call_later(seconds, proxy.lighten)

        return await hear(SAID, Do(moment, darken), live=True, proxy=proxy)

    outcome = check_exact(trial())
    if seconds < 10:
        assert len(outcome.connections) == 1, "a short one is not even noticed"
    else:
        assert len(outcome.connections) > 1, "a long one is taken for the end of the connection"
    # Nor does the server log one, though it gets a handshake whose client is gone.
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("live", [False, True], ids=["file", "call"])
@pytest.mark.parametrize("moment", [0.25, 1.3])
def test_a_black_hole_without_end_is_a_timeout(moment: float, live: bool) -> None:
    async def trial() -> Outcome:
        proxy = Proxy()
        return await hear(SAID, Do(moment, proxy.darken), live=live, proxy=proxy)

    outcome = run(trial())
    assert type(outcome.error) is APIConnectionError or type(outcome.error) is APITimeoutError
    assert outcome.reported and not outcome.reported[-1].recoverable
    # The time to notice it, four handshakes of 5 s, and 0.1, 2 and 2 s between them.
    assert outcome.seconds < moment + NOTICED + 4 * 5.0 + 4.1 + 1.0


@pytest.mark.parametrize("live", [False, True], ids=["file", "call"])
def test_a_line_that_was_always_dark_is_a_timeout(live: bool) -> None:
    async def trial() -> Outcome:
        proxy = Proxy()
        proxy.darken()
        return await hear(SAID, live=live, max_retry=0, proxy=proxy)

    outcome = run(trial())
    assert type(outcome.error) is APITimeoutError
    assert "TIRO_BASE_URL" in str(outcome.error)
    assert outcome.seconds < 6


@pytest.mark.parametrize("moment", [0.25, 1.3])
def test_a_half_open_connection_is_noticed_and_costs_nothing(moment: float) -> None:
    async def trial() -> Outcome:
        proxy = Proxy()
        fault = Do(moment, proxy.sever)
        outcome = await hear(SAID, fault, live=True, proxy=proxy)
        assert fault.struck[0] and outcome.flowing[1] - fault.struck[0] <= NOTICED
        return outcome

    check_exact(trial())


# -- broken lines --------------------------------------------------------------------------------


@pytest.mark.parametrize("max_retry", [0, 3])
@pytest.mark.parametrize(
    "passed", [40, HANDSHAKE + 100, HANDSHAKE + CONFIG + 1000, 20 * MESSAGE, 50 * MESSAGE + 7]
)
def test_rst_in_the_middle_of_what_is_sent(passed: int, max_retry: int) -> None:
    check_broken("up", passed, max_retry, heard_before=passed > 30 * MESSAGE)


@pytest.mark.parametrize("max_retry", [0, 3])
@pytest.mark.parametrize("passed", [40, 240, 400, 1200, 2000])
def test_rst_in_the_middle_of_what_is_received(passed: int, max_retry: int) -> None:
    check_broken("down", passed, max_retry, heard_before=passed >= 1200)


def check_broken(direction: Direction, passed: int, max_retry: int, heard_before: bool) -> None:
    """RST on the first connection: exact, unless nothing was heard on it and nothing is retried."""

    async def trial() -> Outcome:
        proxy = Proxy(resets=[Reset(direction, passed)])
        outcome = await hear(SAID, live=True, max_retry=max_retry, proxy=proxy)
        assert proxy.connections > 1 or outcome.error is not None, "it was not broken"
        return outcome

    outcome = run(trial())
    assert outcome.seconds < SAID.seconds + 6
    if max_retry or heard_before:
        assert outcome.is_exact, outcome
    elif not outcome.is_exact:
        assert type(outcome.error) is APIConnectionError


def test_rst_time_after_time_costs_nothing_while_it_gets_on() -> None:
    said = talk(3, 3, 3, 3)
    resets = [Reset("up", n * MESSAGE) for n in (45, 38, 61, 52)]

    async def trial() -> Outcome:
        return await hear(said, live=True, proxy=Proxy(resets=resets))

    assert len(check_exact(trial()).connections) >= 4


def test_rst_for_ever_is_an_error() -> None:
    async def trial() -> Outcome:
        proxy = Proxy(resets=[Reset("up", 4 * MESSAGE)] * 100)
        return await hear(SAID, live=True, proxy=proxy)

    outcome = run(trial())
    assert type(outcome.error) is APIConnectionError
    assert len(outcome.connections) == 4
    assert "TIRO_API_KEY" in str(outcome.error) and "firewalls" in str(outcome.error)


# -- TLS -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "resets",
    [(), (Reset("up", 20 * MESSAGE),), (Reset("down", 500),)],
    ids=["whole", "up", "down"],
)
# asyncio of Python 3.10 takes a TLS transport whose peer has gone for one that nobody closed.
@pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning")
def test_it_is_the_same_over_tls(resets: Sequence[Reset], monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    there, here = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(there)
    authority.configure_trust(here)

    def new_http_session(url: str) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=here))

    monkeypatch.setattr("livekit.plugins.tiro.reach.new_http_session", new_http_session)

    async def trial() -> Outcome:
        return await hear(SAID, live=True, proxy=Proxy(resets=resets, tls=there))

    assert len(check_exact(trial()).connections) == 1 + len(resets)
    gc.collect()
