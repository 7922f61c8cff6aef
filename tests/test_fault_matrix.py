"""Faults at each moment of a file or a call: words exact, or a clear error; never deaf.

Nothing is left open. The cells are generated from lists of faults and moments; `expected` alone
says what must come of each, by the fault and by what the service had said before it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from livekit.agents import APIConnectionError, APIError, APIStatusError, APITimeoutError
from livekit.plugins.tiro.errors import GRPC_STATUS, ROTATION_CODES
from livekit.plugins.tiro.testing.faults import (
    Close,
    Combined,
    Delay,
    Disconnect,
    Drift,
    Fail,
    Fault,
    Garbage,
    HalfOpen,
    IdleLimit,
    IgnoreEnd,
    LongLine,
    Moment,
    Mute,
    PerConnection,
    Refuse,
    ResetHandshake,
    SessionLimit,
    Shape,
    StalledHandshake,
    StopReading,
    When,
)

from .support import virtual
from .support.harness import usage
from .support.numbered import Talk, talk
from .support.trial import Outcome, close_amid, hear

if TYPE_CHECKING:
    from livekit.plugins.tiro.testing import Hooks

SAID = talk(3, 2, word=0.3, gap=1.0, lead=0.5)
# s of the caller's time for a cell: a dead peer is noticed after 15 s, and so is a mute one.
LONGEST = 40.0
# s until a service that never gets better is given up, retries and all.
FOREVER = 230.0
# s; the session waits for the old stream before it hears the new one.
CLOSED_WITHIN = 1.0

MOMENTS: dict[str, When] = {
    "connecting": Moment.OPENED,
    "config sent": Moment.CONFIG,
    "silence": 0.25,
    "mid-word, nothing heard": 0.7,
    "mid-word, first hypothesis": Moment.INTERIM,
    "mid-word": 1.3,
    "between final and next word": Moment.FINAL,
    "mid-word, after a final": 2.6,
    "flushing": Moment.FLUSH,
    "draining": Moment.END,
    "while closing": Moment.DONE,
}
UNHEARD = ("connecting", "config sent", "silence", "mid-word, nothing heard")
"""The moments at which the service has said nothing yet."""
FEW = ("config sent", "mid-word, first hypothesis", "between final and next word", "draining")
"""The moments of the faults that differ from others in nothing but a number or a spelling."""

Make = Callable[[When], Fault]

MAIN: dict[str, Make] = {
    "FIN": Disconnect,
    "RST": partial(Disconnect, reset=True),
    "close 1001": partial(Close, code=1001),
    "close 1000, stays": partial(Close, code=1000, stay=True),
    "mute": Mute,
    "dead": HalfOpen,
    "stops reading": StopReading,
    "code 14": partial(Fail, 14),
    "code 14, stays": partial(Fail, 14, stay=True),
    "code 11": partial(Fail, 11),
    "code 16": partial(Fail, 16),
}
SHAPES: tuple[Shape, ...] = ("v2", "gateway v1", "gateway v2", "result")
# Each code and status by itself is tried in test_contracts (L2, L3); here is one of each kind.
MORE: dict[str, Make] = {
    **{f"close {code}": partial(Close, code=code) for code in (0, 1000, 65535)},
    **{f"code {code}": partial(Fail, code) for code in (1, 3, 6, 8, 10, 99)},
    **{f"code 14, {shape}": partial(Fail, 14, shape=shape) for shape in SHAPES},
}
LIVE = ("FIN", "RST", "close 1001", "code 14", "code 11")
SLOW = ("mute", "dead", "stops reading")
"""Noticed only after some 15 s, and then as the end of the connection."""
SLOW_MOMENTS = (*FEW, "silence", "flushing")


@dataclass(frozen=True)
class Promise:
    """What has to become of a cell: the words, an error, or either."""

    exact: bool
    error: type[APIError] | None = None
    status: int | None = None

    def broken(self, outcome: Outcome) -> str:
        if outcome.is_exact and self.exact:
            return ""
        if self.error is None or type(outcome.error) is not self.error:
            return f"not as promised: {outcome}"
        if isinstance(outcome.error, APIStatusError) and outcome.error.status_code != self.status:
            return f"not {self.status}: {outcome.error!r}"
        return ""


EXACT = Promise(exact=True)


def expected(fault: Fault, moment: str, max_retry: int, live: bool) -> Promise:
    """Say what one strike on the first of many connections has to come to."""
    # What is gone before the config was sent is not missed; but often the config is on its way.
    early = moment == "connecting"
    unheard = moment in UNHEARD
    if isinstance(fault, Fail):
        http, retryable = http_status(fault.code)
        rotation = fault.code in ROTATION_CODES
        # A key that was good is asked for anew.
        expired = fault.code == 16
        if ((rotation or expired) and not unheard) or (retryable and max_retry):
            return EXACT
        return Promise(exact=early and rotation, error=APIStatusError, status=http)
    # In a call, a peer without a sign of life gets one more connection, whatever `max_retry` is.
    is_mute = isinstance(fault, (Mute, HalfOpen, StopReading))
    if max_retry or not unheard or (is_mute and live):
        return EXACT
    if is_mute:
        # Some of the audio that it took before it stopped reading may yet be answered.
        return Promise(exact=isinstance(fault, StopReading), error=APITimeoutError)
    return Promise(exact=early, error=APIConnectionError)


def http_status(code: int) -> tuple[int, bool]:
    """Return the HTTP status of a gRPC code, and whether it is worth another try."""
    if code == 6:
        return 409, False
    status = GRPC_STATUS.get(code)
    return (status.http, status.retryable) if status else (500, True)


async def cell(make: Make, moment: str, max_retry: int, live: bool) -> str:
    """Try a fault once. Return what is wrong, or nothing."""
    fault = make(MOMENTS[moment])
    flush_at = SAID.words[-1].end + 0.05 if live and moment == "flushing" else None
    outcome = await hear(
        SAID, PerConnection(fault), live=live, flush_at=flush_at, max_retry=max_retry
    )
    promise = expected(fault, moment, max_retry, live)
    wrong = outcome.broken() or promise.broken(outcome)
    if not wrong and not fault.struck:
        wrong = "it never struck"
    if not wrong and outcome.seconds > LONGEST:
        wrong = f"it took {outcome.seconds:.1f} s"
    if not wrong and outcome.is_exact and not live:
        counted = usage(outcome.events)
        wrong = "" if abs(counted - outcome.pushed) < 0.01 else f"usage {counted:.2f} s"
    return wrong and f"{moment}, max_retry {max_retry}: {wrong}"


async def cells(make: Make, moments: Iterable[str], live: bool) -> str:
    """Try a fault at all moments, with and without retries. Return what is wrong.

    Retries are for errors: where there may be none without them, they have nothing to change.
    """
    trials = []
    for moment in moments:
        unaided = expected(make(MOMENTS[moment]), moment, 0, live)
        retries = (0,) if unaided == EXACT else (0, 3)
        trials += [cell(make, moment, retry, live) for retry in retries]
    return "\n".join(filter(None, await asyncio.gather(*trials)))


def check(trial: Coroutine[Any, Any, str]) -> None:
    wrong = virtual.run(trial)
    assert not wrong, wrong


@pytest.mark.parametrize("name", MAIN)
def test_a_fault_at_any_moment_of_a_file(name: str) -> None:
    check(cells(MAIN[name], MOMENTS, live=False))


@pytest.mark.parametrize("name", MORE)
def test_its_relatives_at_some_moments_of_a_file(name: str) -> None:
    check(cells(MORE[name], FEW, live=False))


@pytest.mark.parametrize("name", LIVE)
def test_a_fault_at_any_moment_of_a_call(name: str) -> None:
    check(cells(MAIN[name], MOMENTS, live=True))


@pytest.mark.parametrize("name", SLOW)
def test_silence_of_the_service_in_a_call(name: str) -> None:
    check(cells(MAIN[name], SLOW_MOMENTS, live=True))


# -- the handshake -------------------------------------------------------------------------------


async def handshake(hooks: Hooks, max_retry: int, promise: Promise) -> str:
    outcome = await hear(SAID, PerConnection(hooks), max_retry=max_retry)
    return outcome.broken() or promise.broken(outcome)


@pytest.mark.parametrize("status", [200, 302, 401, 429, 499, 501, 503])
@pytest.mark.parametrize("max_retry", [0, 3])
def test_a_refused_handshake(status: int, max_retry: int) -> None:
    retryable = status in (429, 499, 503)
    error = Promise(exact=False, error=APIStatusError, status=status)
    promise = EXACT if retryable and max_retry else error
    check(handshake(Refuse(status), max_retry, promise))


@pytest.mark.parametrize("max_retry", [0, 3])
@pytest.mark.parametrize(
    ("hooks", "error"),
    [
        (Refuse(503, delay=4.0), APIStatusError),
        (Refuse(503, delay=20.0), APITimeoutError),
        (StalledHandshake(), APITimeoutError),
        (ResetHandshake(), APIConnectionError),
    ],
    ids=repr,
)
def test_a_handshake_that_fails_slowly_or_not_at_all(
    hooks: Hooks, error: type[APIError], max_retry: int
) -> None:
    # aiohttp itself reopens a connection that is gone at once.
    exact = bool(max_retry) or isinstance(hooks, ResetHandshake)
    check(handshake(hooks, max_retry, Promise(exact=exact, error=error, status=503)))


def test_refused_as_often_as_there_are_retries() -> None:
    check(refusals(3, EXACT))


def test_refused_once_more_than_there_are_retries() -> None:
    check(refusals(4, Promise(exact=False, error=APIConnectionError)))


async def refusals(times: int, promise: Promise) -> str:
    outcome = await hear(SAID, PerConnection(*[Refuse()] * times))
    return outcome.broken() or promise.broken(outcome)


# -- what lasts, or comes by the clock -----------------------------------------------------------


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize(
    "hooks",
    [
        SessionLimit(1.1),
        SessionLimit(1.1, code=None),
        SessionLimit(2.7, code=4),
        IdleLimit(5.0),
        IdleLimit(5.0, code=None),
        IgnoreEnd(),
        Delay(1.0),
        Delay(1.0, finals=False),
        Garbage(),
        Combined(Garbage(), Drift(0.005), Delay(0.2)),
        PerConnection(LongLine()),
        Drift(0.01),
        Drift(-0.01),
    ],
    ids=repr,
)
def test_what_costs_nothing(hooks: Hooks, live: bool) -> None:
    """Not even a retry."""

    async def trial() -> str:
        outcome = await hear(SAID, hooks, live=live, max_retry=0)
        return outcome.broken() or EXACT.broken(outcome)

    check(trial())


def test_an_idle_service_that_hangs_up_is_called_again_when_there_is_audio() -> None:
    """A muted microphone sends nothing; the service takes that for the end of the call."""

    async def trial() -> str:
        pauses = {1.9: 30.0, 3.9: 30.0}
        said = talk(3, 2, 2, gap=1.5)
        outcome = await hear(said, IdleLimit(5.0), live=True, pauses=pauses, max_retry=0)
        wrong = outcome.broken()
        return wrong or ("" if len(outcome.connections) == 3 else str(outcome))

    check(trial())


async def hopeless(said: Talk, fault: Fault, *, live: bool) -> str:
    outcome = await hear(said, fault, live=live)
    if not isinstance(outcome.error, APIError):
        return f"no error: {outcome}"
    if not outcome.reported or outcome.reported[-1].recoverable:
        return "the last error event is not that it is over"
    if outcome.seconds > FOREVER:
        return f"it took {outcome.seconds:.1f} s"
    return "" if live else outcome.broken()


@pytest.mark.parametrize("when", [Moment.CONFIG, Moment.INTERIM], ids=str)
@pytest.mark.parametrize("name", MAIN)
def test_what_never_gets_better_ends_the_stream_of_a_file(name: str, when: When) -> None:
    """Each connection has the fault, and none gets as far as a final."""
    check(hopeless(SAID, MAIN[name](when), live=False))


@pytest.mark.parametrize("name", ["FIN", "mute", "dead", "stops reading", "code 14", "code 11"])
def test_what_never_gets_better_ends_the_stream_of_a_call(name: str) -> None:
    """Nothing is ever heard, and the user talks on."""
    check(hopeless(talk(*[3] * 60, gap=3.0), MAIN[name](Moment.CONFIG), live=True))


@pytest.mark.parametrize("name", ["FIN", "mute", "dead", "code 14", "code 11"])
def test_a_fault_tied_to_what_is_said_ends_the_stream_of_a_call(name: str) -> None:
    """Each connection shows a hypothesis, which makes it a healthy one, and none decides."""
    check(hopeless(talk(30, word=0.5), MAIN[name](2.0), live=True))


# -- while the caller closes ---------------------------------------------------------------------


@pytest.mark.parametrize("name", MAIN)
def test_the_caller_closes_in_the_moment_of_the_fault(name: str) -> None:
    async def trial() -> str:
        faults = [MAIN[name](when) for when in MOMENTS.values()]
        took = await asyncio.gather(*(close_amid(SAID, fault) for fault in faults))
        return "" if max(took) < CLOSED_WITHIN else f"it took {max(took):.2f} s"

    check(trial())
