"""What the probes share: the service, the sample, the audio used, the call to compare with."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import NamedTuple

import aiohttp

from livekit.agents import APIConnectionError, APIError, APIStatusError, APITimeoutError

from ... import errors
from ...errors import GRPC_STATUS
from ...options import Options
from ...protocol import ServiceError
from ...watch import DRAIN_TIMEOUT
from ..call import Call, WatchedConnection, faint_noise
from .report import Row
from .sample import RATE, Sample, convert, plain

HANDSHAKE = 10.0
"""Seconds for a handshake."""

LEAD_IN = 0.3
"""Seconds of faint noise before what is said, so that a voice gate is open by then."""

TIME_ERROR = 0.06
"""Seconds that the time of a word may be off."""

# s of noise after the sample, so that the last word is not lost at the end marker.
_TAIL = 1.0
# s to wait, after the end marker, for the last final and the end of the connection.
_DRAIN = DRAIN_TIMEOUT + 1.0
# Share of the earlier words that must be heard again, with times, for the times to be compared.
_ENOUGH = 0.5


class Unanswerable(Exception):
    """Why a probe cannot be made. The text is this package's, not the service's."""


class Refused(Unanswerable):
    """The service answered a request with an error."""

    def __init__(self, error: ServiceError) -> None:
        super().__init__(f"refused: {name_of(error)}")
        self.is_answer = not errors.from_service(error, errors.Redactor("-")).retryable
        """Whether it would do so again: it rejects the request, and has no fault that passes."""


class HeardWord(NamedTuple):
    """A word as the service heard it."""

    text: str
    """In the form for comparing: without case and punctuation."""
    start: float | None
    """Seconds of the connection's audio; None without times."""


@dataclass
class Lab:
    """Opens calls and counts what they use."""

    http: aiohttp.ClientSession
    options: Options
    sample: Sample
    used: float = 0.0
    """Seconds of audio sent."""
    connections: int = 0
    """How many were opened."""
    open_for: float = 0.0
    """Seconds that connections were open, added up."""
    pings: int = 0
    """How many pings the service sent, on all connections."""
    whole: list[HeardWord] = field(default_factory=list)
    """The words of the whole sentence in the first call; those of others are compared with them."""
    broken: list[HeardWord] = field(default_factory=list)
    """The words heard, in the same call, of the sentence that breaks off."""
    broken_at: float = 0.0
    """Where that sentence began, in seconds of the audio of the first call."""
    allowed: float = 0.0
    """Seconds of audio that the present probe may still send."""

    def spend(self, seconds: float) -> None:
        """Count audio that is about to be sent.

        Raises:
            Unanswerable: It would be more than the user was told before the start.
        """
        if seconds > self.allowed + 0.001:
            raise Unanswerable("it would have used more audio than was announced")
        self.allowed -= seconds
        self.used += seconds

    @asynccontextmanager
    async def call(
        self, *, rate: int = RATE, options: Options | None = None
    ) -> AsyncIterator[Call]:
        """Open a call and send its config.

        Args:
            rate: Hz of its audio.
            options: Settings to use in place of the lab's.

        Raises:
            APIError: The handshake failed.
        """
        options = options or self.options
        self.connections += 1
        connection = await WatchedConnection.open(self.http, options, HANDSHAKE)
        async with Call(connection, rate, self.spend) as call:
            await connection.configure(options, rate)
            try:
                yield call
            finally:
                self.open_for += connection.age
                self.pings += connection.pings

    async def hear(self, call: Call, *, rate: int = RATE) -> list[HeardWord]:
        """Say the whole sentence on a call, with quiet around it, and end the call.

        Args:
            call: A call on which no audio was sent yet.
            rate: Hz of its audio.

        Raises:
            Refused: The service answered with an error.
        """
        await call.send(faint_noise(LEAD_IN, rate))
        await call.send(convert(self.sample.whole.samples, rate))
        await call.send(faint_noise(_TAIL, rate))
        await call.connection.end()
        await call.until_over(_DRAIN)
        check(call)
        return words_of(call)

    def needed(self) -> list[HeardWord]:
        """Return what was heard of the whole sentence in the first call.

        Raises:
            Unanswerable: Nothing was heard of it.
        """
        if not self.whole:
            raise Unanswerable("the first call heard no words to compare with")
        return self.whole


def hearing_of(sample: Sample) -> float:
    """Return the seconds of audio that `Lab.hear` sends."""
    return LEAD_IN + sample.whole.seconds + _TAIL


@dataclass(frozen=True)
class Probe:
    """One thing to do with the service, and the questions that it answers."""

    questions: tuple[str, ...]
    """The names of its rows, in order."""
    run: Callable[[Lab], AsyncIterator[Row]]
    """Yields the rows as they become known."""
    audio: Callable[[Sample], float] = lambda sample: 0.0
    """Returns how many seconds of audio it sends at most."""
    waits: float = 30.0
    """How many seconds it takes at most, in addition to those of its audio."""


def check(call: Call) -> None:
    """Raise Refused if the service reported an error."""
    if call.error is not None:
        raise Refused(call.error)


def name_of(error: ServiceError) -> str:
    """Return the kind of an error of the service, without its text."""
    status = GRPC_STATUS.get(error.code) if error.code is not None else None
    if status is not None:
        return f"{status.name} (code {error.code})"
    return f"HTTP {error.http_status}" if error.http_status else f"code {error.code}"


def kind_of(error: APIError) -> str:
    """Return the kind of a failure, in words of this package alone."""
    if isinstance(error, APIStatusError):
        return f"refused with status {error.status_code}"
    if isinstance(error, APITimeoutError):
        return "no answer in time"
    if isinstance(error, APIConnectionError):
        return "it could not be reached, or hung up"
    return type(error).__name__


def words_of(call: Call) -> list[HeardWord]:
    """Return the words of a call's finals."""
    heard: list[HeardWord] = []
    for answer in call.finals:
        for result in answer.response.results:
            if not result.is_final:
                continue
            best = result.alternatives[0]
            if best.words:
                heard += [HeardWord(plain(word.text), word.start) for word in best.words]
            else:
                heard += [HeardWord(plain(word), None) for word in best.text.split()]
    return [word for word in heard if word.text]


class Comparison(NamedTuple):
    """How the words heard now differ from those heard before."""

    same: int
    """How many words are the same, in the same order."""
    wanted: int
    """How many words there were before."""
    heard: int
    """How many words there are now."""
    shift: float | None
    """The largest difference in the times of the same words, in seconds; None without times."""

    @property
    def is_same(self) -> bool:
        """Whether the words are the same, and their times as far as they are known."""
        words = self.same == self.wanted == self.heard
        return words and (self.shift is None or abs(self.shift) <= TIME_ERROR)

    def __str__(self) -> str:
        text = f"{self.same} of {self.wanted} words the same"
        if self.heard != self.wanted:
            text += f" ({self.heard} heard)"
        return (
            text if self.shift is None else f"{text}, times off by {round(1000 * self.shift):+d} ms"
        )


def compare(heard: list[HeardWord], before: list[HeardWord], *, later: float = 0.0) -> Comparison:
    """Compare words and their times.

    Args:
        heard: The words heard now.
        before: The words heard before, which they should be.
        later: How many seconds later, in the audio of its call, the speech was now than before.
    """
    pairs = _pairs(heard, before)
    shifts = [
        new.start - old.start - later
        for new, old in pairs
        if new.start is not None and old.start is not None
    ]
    shift = max(shifts, key=abs) if len(shifts) >= _ENOUGH * len(before) and shifts else None
    return Comparison(len(pairs), len(before), len(heard), shift)


def _pairs(heard: list[HeardWord], before: list[HeardWord]) -> list[tuple[HeardWord, HeardWord]]:
    """Return the words that are in both, in the same order."""
    new, old = [word.text for word in heard], [word.text for word in before]
    blocks = SequenceMatcher(None, new, old, autojunk=False).get_matching_blocks()
    return [(heard[at + n], before[to + n]) for at, to, size in blocks for n in range(size)]
