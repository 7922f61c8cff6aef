"""A live caller in front of a backlog and its feed, without a socket: time is what a test says."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from livekit.plugins.tiro.backlog import Backlog
from livekit.plugins.tiro.clock import Clock
from livekit.plugins.tiro.exchange import ANSWERS_WITHIN
from livekit.plugins.tiro.feed import Feed
from livekit.plugins.tiro.onset import Onset

RATE = 16000
RATES = [8000, 16000, 22050, 24000, 44100, 48000]
"""Hz; what the service takes, the odd ones included."""

# Each sample of numbered audio tells its position, modulo this.
_TAGS = 30_000
# No quieter than speech can be.
_QUIETEST = 1000

Samples = npt.NDArray[np.int64]


def numbers(first: int, count: int) -> Samples:
    """Return what numbered audio holds at `count` positions from `first` on.

    The signs alternate, as in any sound.
    """
    at = np.arange(first, first + count)
    return (at % _TAGS + _QUIETEST) * (1 - 2 * (at % 2))


def numbered(first: int, count: int) -> bytes:
    """Return loud samples that tell their positions."""
    return numbers(first, count).astype(np.int16).tobytes()


def samples(pcm: bytes) -> Samples:
    """Return 16-bit samples as numbers."""
    return np.frombuffer(pcm, np.int16).astype(np.int64)


def tone(seconds: float, level: int = 3000, rate: int = RATE) -> bytes:
    """Return audio of one level: samples of either sign in turn."""
    pair = np.array([level, -level]).clip(-0x8000, 0x7FFF)
    return np.resize(pair, round(seconds * rate)).astype(np.int16).tobytes()


def quiet(seconds: float, rate: int = RATE) -> bytes:
    """Return digital silence."""
    return bytes(2 * round(seconds * rate))


def noise(seconds: float, peak: int, rate: int = RATE) -> bytes:
    """Return the noise of a line: each 20 ms reach the peak."""
    drawn = np.random.default_rng(7).uniform(-peak, peak, round(seconds * rate))
    drawn[:: rate // 100] = peak
    return drawn.astype(np.int16).tobytes()


def silence_of(sent: list[bytes] | bytes) -> float:
    """Return the seconds of zeros in what was sent."""
    pcm = sent if isinstance(sent, bytes) else b"".join(sent)
    return float(np.count_nonzero(samples(pcm) == 0)) / RATE


class Caller:
    """Pushes audio into a backlog, and sends it on one connection after the other."""

    def __init__(self, rate: int = RATE) -> None:
        self.rate = rate
        self.now = 1000.0
        self.clock = Clock()
        self.backlog = Backlog()
        self.feed = at_once(Feed(self.backlog, self.clock, self.now))

    @property
    def start(self) -> float:
        """The second of the audio from which a new connection would be fed."""
        return self.backlog.start / self.rate

    def push(self, audio: bytes | float, *, waits: bool = True) -> None:
        """Push audio in one piece, or so many seconds that are numbered.

        Args:
            audio: What is said.
            waits: Whether as much time passes as it takes to say it.
        """
        if isinstance(audio, float | int):
            audio = numbered(self.backlog.end, round(audio * self.rate))
        seconds = len(audio) / 2 / self.rate
        self.now += seconds if waits else 0
        self.clock.push(seconds, self.now)
        self.backlog.push(audio, self.rate)

    def send(self, limit: int = 1_000_000, *, taken: bool = True) -> list[bytes]:
        """Return up to so many messages that go out now.

        Args:
            limit: How many at most.
            taken: Whether the peer shows that it has taken them.
        """
        sent: list[bytes] = []
        while len(sent) < limit and (pcm := self.feed.next_chunk(self.now)) is not None:
            sent.append(pcm)
        if taken:
            self.feed.acknowledge(self.feed.sent_to)
        return sent

    def say(self, audio: bytes | float) -> bytes:
        """Push and send live, in frames of 50 ms; return what was sent."""
        if isinstance(audio, float | int):
            audio = numbered(self.backlog.end, round(audio * self.rate))
        size = 2 * round(self.rate / 20)
        sent = []
        for at in range(0, len(audio), size):
            self.push(audio[at : at + size])
            sent += self.send()
        return b"".join(sent)

    def reconnect(self, *, insist: bool = False) -> float:
        """Start a new connection; return the second from which it is fed."""
        self.backlog.note_answerable(self.feed.heard_before(self.now - ANSWERS_WITHIN))
        self.feed.give_up_old_audio(self.now)
        self.feed = at_once(Feed(self.backlog, self.clock, self.now, insist=insist))
        start = self.backlog.start
        assert self.feed.sent_to >= start
        assert self.backlog.first_sound(start, self.feed.sent_to) is None, "nothing but quiet"
        return self.start

    def final(self, start: float, end: float) -> None:
        """Have the service say that a final covers seconds of the connection."""
        self.feed.finalize(start, end, self.now)

    def final_without_times(self) -> None:
        self.feed.finalize(None, None, self.now)


class LiveFeed:
    """Audio that is pushed live, mostly 20 ms at a time, and the messages it goes out in."""

    def __init__(self) -> None:
        self.backlog = Backlog()
        self.feed = Feed(self.backlog, Clock(), 0.0)
        self.messages: list[tuple[float, float]] = []
        """When each message went out, and how long it is, seconds."""

    def push(self, pcm: bytes, ms: int = 20) -> None:
        size = 2 * ms * RATE // 1000
        for at in range(0, len(pcm), size):
            self.backlog.push(pcm[at : at + size], RATE)
            self.send()

    def send(self) -> None:
        now = self.backlog.end / RATE
        while (message := self.feed.next_chunk(now)) is not None:
            self.messages.append((now, len(message) / 2 / RATE))


class AtOnce(Onset):
    """Cuts all audio into chunks, loud or quiet; the rest of `Onset` has tests of its own."""

    def __init__(self, backlog: Backlog) -> None:
        super().__init__(backlog, gathering=False)

    def decide_while_behind(self, start: int, stop: int, chunk: int, is_flushed: bool) -> int:
        return chunk

    def look(self, sent_to: int) -> None:
        pass


def at_once(feed: Feed) -> Feed:
    """Have quiet audio sent as it comes."""
    feed._onset = AtOnce(feed._backlog)
    return feed
