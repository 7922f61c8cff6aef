"""How long the service keeps a connection: without audio, with silence, with speech."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import numpy as np

from ...errors import ROTATION_CODES
from ..call import Call, faint_noise
from .lab import Lab, Probe, name_of
from .report import Row, judged, not_seen
from .sample import RATE

# s between checks of a connection without audio; the plugin checks as often.
_LOOK = 1.0
# s of quiet between the sentences of the long call.
_PAUSE = 6.0
# s that the probe may take in addition to the minutes that were asked for.
_WAITS = 30.0

_Keep = Callable[[Call, float], Awaitable[None]]


def limits(minutes: float) -> Probe:
    """Return the probe that looks for limits, for up to the given minutes."""
    seconds = 60 * minutes

    async def run(lab: Lab) -> AsyncIterator[Row]:
        pause = faint_noise(_PAUSE, RATE)
        speech = np.concatenate((lab.sample.whole.samples, pause))

        async def talk(call: Call, until: float) -> None:
            await _repeat(call, speech, until)

        async def be_silent(call: Call, until: float) -> None:
            await _repeat(call, np.zeros(RATE, np.int16), until)

        ways: tuple[tuple[str, _Keep], ...] = (
            ("no audio", _idle),
            ("silence only", be_silent),
            ("a long call", talk),
        )
        rows = [asyncio.create_task(_row(lab, name, keep, seconds)) for name, keep in ways]
        try:
            for row in rows:
                yield await row
        finally:
            for row in rows:
                row.cancel()
            await asyncio.gather(*rows, return_exceptions=True)

    questions = tuple(f"limit: {name}" for name in ("no audio", "silence only", "a long call"))
    # Two connections send audio, each for the minutes and up to one message more.
    return Probe(questions, run, lambda sample: 2 * seconds + 1.0, seconds + _WAITS)


async def _row(lab: Lab, name: str, keep: _Keep, seconds: float) -> Row:
    """Keep a connection open in one way. Return the row on how long it stayed open."""
    async with lab.call() as call:
        opened = time.monotonic()
        await keep(call, opened + seconds)
        return _limit_row(f"limit: {name}", call, opened, seconds)


async def _idle(call: Call, until: float) -> None:
    """Send nothing but the pings that the plugin would send."""
    while not call.is_over and time.monotonic() < until:
        call.connection.keep_alive(0)
        await call.until_over(min(_LOOK, until - time.monotonic()))


async def _repeat(call: Call, samples: Any, until: float) -> None:
    """Send the same audio again and again."""
    while not call.is_over and time.monotonic() < until:
        await call.send(samples, until=lambda: time.monotonic() >= until)


def _limit_row(question: str, call: Call, opened: float, seconds: float) -> Row:
    if call.over_at is None:
        return not_seen(question, f"none within {seconds / 60:g} minutes", seconds=seconds)
    lasted, error, code = call.over_at - opened, call.error, call.connection.close_code
    how = "dropped" if code is None else f"close frame {code}"
    how = how if error is None else name_of(error)
    rotation = error is None or error.code in ROTATION_CODES
    return judged(
        question,
        rotation,
        f"ended after {lasted:.0f} s: {how}",
        "the plugin takes this end for a fault: a recoverable error, and a retry",
        seconds=lasted,
        code=error.code if error else None,
        close_code=code,
    )
