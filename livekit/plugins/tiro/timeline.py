"""The caller's audio: what no final covers yet, and what second of it a server's second is.

Two measures run through this module. A *position* counts samples of the caller's audio from its
start; a *time* is that in seconds, plus the pauses in which the caller sent nothing. No I/O: the
present is passed in as `now`, monotonic seconds.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from math import inf
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

BYTES_PER_SAMPLE = 2
"""16-bit linear PCM, mono."""

# s; enough to hold the onset of speech before its first interim: 0.35 s between interims,
# 0.3 s of look-ahead, the network, and a slow first hypothesis.
KEEP_SILENT = 3.0
# s; the service cuts unbroken speech every 20 s, so three times that is never reached by speech.
KEEP_SPEAKING = 60.0
# s of audio from one clean-up to the next: so much more than needed is kept.
TRIM_INTERVAL = 1.0
# s; audio sent ahead of what the service can have heard. A burst longer than this is fed on at
# the pace of the service, so that what it has not heard can still be replayed.
MAX_AHEAD = 30.0
# Seconds of audio a second: the slowest pace at which a service is taken to work off a burst.
ASSUMED_PACE = 4.0
# s; longer gaps between frames are a muted microphone, shorter ones are the network's.
PAUSE = 1.0
# s of zeros sent to bring the service's endpointer to a decision: 0.5 s of silence behind the
# speech and 0.3 s of look-ahead in the recordings; the rest is for a slower endpointer.
FLUSH_SILENCE = 1.5
# s; the zeros go out in pieces, because the endpointer is asked between messages only.
_SILENCE_PIECE = 0.25
# Of 32767 (-40 dBFS): quieter than any speech that can be understood, louder than a good line.
_LOUD = 328
# s; the sound of the last word can outlast the end that the service gave it, up to the next gap.
# Sent once more on its own, it could be heard as a word that nobody said.
_REST_OF_WORD = 0.4
_GAP = 0.1
# s of loud audio that can be a word; shorter is a click.
_SHORTEST_WORD = 0.2
# s; the service decides no sooner than this behind the speech it decides on.
_DECISION = 0.5


def chunk_samples(sample_rate: int) -> int:
    """Return the length of the messages to send at `sample_rate` Hz, in samples.

    50 ms, or the nearest length of 40 to 100 ms that is a whole number of both milliseconds and
    samples: the service cuts the length of each message to whole milliseconds, and an odd length
    would make its clock run slow. Where no such length exists, the one that loses least.
    """

    def loss_and_distance(ms: int) -> tuple[float, int]:
        return -(-sample_rate * ms // 1000) * 1000 / sample_rate - ms, abs(ms - 50)

    return -(-sample_rate * min(range(40, 101), key=loss_and_distance) // 1000)


class Clock:
    """Turns seconds of pushed audio into seconds since the caller's first sample, pauses included.

    The framework adds these times to a wall-clock anchor, so a pause in the audio (a muted
    microphone pushes nothing) has to take time here too. Audio that was only late comes in a
    burst after the gap; what the burst makes good is given back, so that no time lies in the
    future. Audio that comes in a burst at the start was recorded before the call stood.
    """

    __slots__ = ("_audio", "_early", "_extra", "_from", "_last", "_started", "_wall_anchor")

    def __init__(self) -> None:
        self._audio = 0.0
        self._from = [0.0]
        self._extra = [0.0]
        self._early = [0.0]
        self._started = 0.0
        self._last: float | None = None
        self._wall_anchor = 0.0

    def push(self, seconds: float, now: float, wall: float) -> None:
        """Count `seconds` of audio that were pushed at monotonic `now`, epoch seconds `wall`."""
        if self._last is None:
            # A frame longer than any microphone's was not recorded just now.
            self._started = now - min(seconds, MAX_AHEAD)
            self._wall_anchor = wall - seconds
        elif now - self._last - seconds > PAUSE:
            self._jump(now - self._started - seconds)
        self._last = now
        self._audio += seconds
        ahead = self._audio + self._extra[-1] - (now - self._started)
        if ahead > 0:
            ahead = self._give_back(ahead)
            self._early[-1] = max(self._early[-1], ahead)

    def _jump(self, time: float) -> None:
        """Let the next sample be at `time`, unless it is later than that already."""
        if time > self._audio + self._extra[-1]:
            self._from.append(self._audio)
            self._extra.append(time - self._audio)
            self._early.append(0.0)

    def _give_back(self, seconds: float) -> float:
        """Shorten the latest pauses by `seconds`: the audio of that time has come after all.

        Return the seconds for which there was no pause.
        """
        while seconds > 0 and len(self._extra) > 1:
            latest = self._extra[-1] - self._extra[-2]
            if latest > seconds:
                self._extra[-1] -= seconds
                return 0.0
            seconds -= latest
            del self._from[-1], self._extra[-1], self._early[-1]
        return seconds

    @property
    def pushed(self) -> float:
        """Seconds of audio pushed so far."""
        return self._audio

    def is_paused(self, now: float) -> bool:
        """Tell whether live audio has stopped coming."""
        if self._last is None:
            return False
        behind = now - self._started - (self._audio + self._extra[-1])
        return min(now - self._last, behind) > PAUSE

    def is_live(self, now: float) -> bool:
        """Tell live audio from a file that is pushed as fast as it can be read."""
        return self._last is not None and self._audio < now - self._started + MAX_AHEAD

    def pause_before(self, seconds: float) -> float:
        """Return how long the pauses before the sample at `seconds` of audio were, together."""
        return self._extra[bisect_right(self._from, seconds) - 1]

    def wall(self, time: float) -> float | None:
        """Return the epoch seconds of `time`, pauses included; None before there is any audio."""
        if self._last is None:
            return None
        starts = [start + extra for start, extra in zip(self._from, self._extra, strict=True)]
        stretch = max(0, bisect_right(starts, time) - 1)
        return self._wall_anchor + time - self._early[stretch]


class _Stretch(NamedTuple):
    """What one connection got from one of its samples on: audio, or silence of our making."""

    server: int
    """The connection's sample at which it starts."""
    position: int
    """The caller's sample at which it starts; silence stays there."""
    is_audio: bool


class _Pcm:
    """16-bit samples in the pieces in which they came: none is moved while others come and go."""

    __slots__ = ("_pieces", "_starts", "end", "start")

    def __init__(self) -> None:
        self.start = 0
        """The position of the first sample that is kept."""
        self.end = 0
        """The position behind the last one."""
        self._pieces: list[bytes] = []
        self._starts: list[int] = []

    def __len__(self) -> int:
        return (self.end - self.start) * BYTES_PER_SAMPLE

    def append(self, pcm: bytes | memoryview) -> None:
        """Take in a copy of `pcm`."""
        self._pieces.append(bytes(pcm))
        self._starts.append(self.end)
        self.end += len(self._pieces[-1]) // BYTES_PER_SAMPLE

    def read(self, start: int, stop: int) -> bytes:
        """Return the samples from `start` to `stop`, which must be there."""
        if start == stop:
            return b""
        if stop == self.end and start == self._starts[-1]:
            return self._pieces[-1]
        first = bisect_right(self._starts, start) - 1
        pcm = b"".join(self._pieces[first : bisect_left(self._starts, stop)])
        offset, size = start - self._starts[first], stop - start
        return pcm[offset * BYTES_PER_SAMPLE :][: size * BYTES_PER_SAMPLE]

    def drop(self, start: int) -> None:
        """Forget the samples before `start`."""
        self.start = start
        passed = bisect_right(self._starts, start) - 1
        del self._pieces[:passed], self._starts[:passed]


class Timeline:
    """Keeps the audio that no final covers, and says when things were said.

    The life of audio: `push` takes it in, `next_chunk` hands it out once a connection, `cover`
    lets it go. `rewind` starts a new connection, which is handed all that is left.
    """

    def __init__(self, clock: Clock) -> None:
        """Start an empty timeline; `clock` knows of the pauses in the caller's audio."""
        self.speaking = False
        """Whether a hypothesis is open, so that all of its audio has to be kept."""
        self.in_doubt = False
        """Whether audio that may be speech waits for any answer, so that it has to be kept."""
        self.keep_silent = KEEP_SILENT
        """Seconds to keep while no hypothesis is open."""
        self._clock = clock
        self._set_rate(16000)
        self._pcm = _Pcm()
        self._covered = 0
        self._said = 0
        self._given_up = 0
        self._fresh = 0
        self._fresh_to = 0
        self._flushes: list[int] = []
        self._decided = 0
        self._stretches: list[_Stretch] = []
        self._start_connection(0.0)

    # -- in --------------------------------------------------------------------------------------

    def push(self, pcm: bytes | memoryview, sample_rate: int) -> None:
        """Take in 16-bit mono samples; they are copied.

        Args:
            pcm: The samples.
            sample_rate: Hz; the same each time.
        """
        if sample_rate != self.sample_rate:
            self._set_rate(sample_rate)
        self._pcm.append(pcm)

    def _set_rate(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self._chunk = chunk_samples(sample_rate)
        self._pace = ASSUMED_PACE * sample_rate
        self._decision = round(_DECISION * sample_rate)
        self._piece = max(1, round(_SILENCE_PIECE * sample_rate / self._chunk)) * self._chunk

    def flush(self) -> None:
        """Have silence sent behind what was pushed so far, so that the service decides."""
        if self._flushes[-1:] != [self._pcm.end]:
            self._flushes.append(self._pcm.end)
        elif self._next_flush == len(self._flushes):
            self._next_flush -= 1

    # -- out -------------------------------------------------------------------------------------

    def rewind(self, now: float) -> None:
        """Start a new connection: all that no final covers is handed out again."""
        self.limit(now)
        self._start_connection(now)

    def limit(self, now: float) -> None:
        """Give up live audio that had to wait for too long for a connection; a file can wait."""
        self._trim(self._pcm.end if self._clock.is_live(now) else self._next)

    def _start_connection(self, now: float) -> None:
        self._next_flush = 0
        self._silence_left = 0
        self._next = self._pcm.start
        self._server = 0
        self._stretches = [_Stretch(0, self._pcm.start, True)]
        self._trim_at = self._next
        self._now = self._done_at = now
        self._reached = self._pcm.start

    def next_chunk(self, now: float) -> bytes | None:
        """Return the samples of the next message, or None if there is not enough for one."""
        if self._silence_left:
            return self._take_silence(b"", self._piece)
        start = self._next
        flush = self._next_flush < len(self._flushes)
        ready = (self._flushes[self._next_flush] if flush else self._pcm.end) - start
        if ready >= self._chunk:
            pcm = self._take(self._chunk)
        elif flush:
            self._next_flush += 1
            self._silence_left = round(FLUSH_SILENCE * self.sample_rate)
            # The odd end of the audio is filled up, so that each message is of whole milliseconds.
            pcm = self._take_silence(self._take(ready), self._piece - ready)
        else:
            return None
        self._now = now
        self._done_at = max(self._done_at, now) + (self._next - start) / self._pace
        if self._next >= self._trim_at:
            self._trim_at = self._next + round(TRIM_INTERVAL * self.sample_rate)
            self._trim(self._next)
        return pcm

    def _take(self, samples: int) -> bytes:
        start = self._next
        self._next += samples
        self._server += samples
        if self._next > self._fresh_to:
            self._fresh += self._next - max(self._fresh_to, self._next - samples)
            self._fresh_to = self._next
        return self._pcm.read(start, self._next)

    def _take_silence(self, pcm: bytes, samples: int) -> bytes:
        if self._stretches[-1].server == self._server:
            # No audio came in between, so that the silence goes on.
            del self._stretches[-1]
        if not self._stretches or self._stretches[-1].is_audio:
            self._stretches.append(_Stretch(self._server, self._next, False))
        self._server += samples
        self._stretches.append(_Stretch(self._server, self._next, True))
        self._silence_left = max(0, self._silence_left - samples)
        return pcm + bytes(samples * BYTES_PER_SAMPLE)

    def ahead(self, now: float) -> float:
        """Return how many seconds of audio the service has yet to work off, as far as is known."""
        self._now = now
        return max(0.0, self._done_at - now) * ASSUMED_PACE

    @property
    def _heard(self) -> int:
        """The sample up to which the service has heard, at the pace that it is trusted with."""
        return self._next - round(max(0.0, self._done_at - self._now) * self._pace)

    @property
    def position(self) -> int:
        """The caller's sample up to which audio was handed out on this connection."""
        return self._next

    def reach(self, position: int) -> None:
        """Note that the peer has got the audio up to `position`: it is not lost on the way."""
        self._reached = max(self._reached, position)

    # -- what is final ---------------------------------------------------------------------------

    def is_covered(self, server_end: float) -> bool:
        """Tell whether all up to this second of the connection is final by its own words."""
        return self._locate(server_end) <= self._said

    def cover(self, server_end: float | None) -> None:
        """Let go of the audio up to `server_end`, seconds of the connection: it is final.

        A final without times (None) covers what was sent, but for the last half second: it can
        hold the start of what comes next. That is a guess, by which no other final is judged.
        """
        if server_end is None:
            end = self._next - self._decision
        else:
            end = self._said = max(self._said, self._locate(server_end))
        self._covered = max(self._covered, end)
        self._done_at = min(self._done_at, self._now + (self._next - end) / self._pace)
        self._given_up = 0
        self._trim(self._next)

    def decide(self, now: float) -> None:
        """Note that the service has decided on a segment: what it did not find there is no word.

        Which one that was it did not say; it has had the time for what it is taken to have heard.
        """
        self._now = now
        self._decided = max(self._decided, self._heard - self._decision)

    def _trim(self, newest: int) -> None:
        """Drop what need not be kept, and what is too much behind the sample `newest`."""
        floor = max(self._covered, self._pcm.start)
        keep_all = self.speaking or self.in_doubt
        if not keep_all:
            heard = min(self._heard, self._reached)
            floor = max(floor, heard - round(self.keep_silent * self.sample_rate))
        bound = newest - round(KEEP_SPEAKING * self.sample_rate)
        if bound > floor:
            self._given_up += max(0, bound - (floor if keep_all else max(floor, self._next)))
            floor = bound
        if floor > self._pcm.start:
            self._drop(floor)

    def _drop(self, floor: int) -> None:
        """Forget the audio before `floor`, and what is noted about it."""
        self._pcm.drop(floor)
        passed = bisect_left(self._flushes, floor)
        del self._flushes[:passed]
        self._next_flush = max(0, self._next_flush - passed)
        oldest = max(self._said, floor - round(KEEP_SPEAKING * self.sample_rate))
        while len(self._stretches) > 1 and self._stretches[1].position <= oldest:
            del self._stretches[0]

    @property
    def has_given_up(self) -> bool:
        """Whether there are seconds that can not be sent any more, and nobody was told."""
        return self._given_up > 0

    def take_given_up(self) -> float:
        """Return the seconds that can not be sent any more, and forget them."""
        samples, self._given_up = self._given_up, 0
        return samples / self.sample_rate

    # -- what is known of it ---------------------------------------------------------------------

    @property
    def is_empty(self) -> bool:
        """Whether no audio ever came."""
        return self._pcm.end == 0

    @property
    def has_backlog(self) -> bool:
        """Whether a whole chunk waits to be sent."""
        return self._pcm.end - self._next >= self._chunk

    @property
    def start(self) -> int:
        """The position from which a new connection would be fed."""
        return max(self._pcm.start, self._covered)

    @property
    def sent(self) -> float:
        """Seconds of the caller's audio that were sent, each of them counted once."""
        return self._fresh / self.sample_rate

    def is_loud(self) -> bool:
        """Tell whether there can be words in the audio on which the service did not decide yet."""
        first = max(self._covered, self._decided, self._pcm.start)
        frame = self.sample_rate // 50
        samples = np.frombuffer(self._pcm.read(first, self._pcm.end), np.int16)
        frames = samples[: len(samples) // frame * frame].reshape(-1, frame).astype(np.int32)
        loud = np.abs(frames).max(axis=1, initial=0) >= _LOUD
        if 0 < self._covered >= self._decided:
            loud = loud[_rest_of_word(loud) :]
        return float(np.count_nonzero(loud)) / 50 >= _SHORTEST_WORD

    def is_loud_since(self, position: int) -> bool:
        """Tell whether there can be speech in what was handed out from `position` on.

        A glance, not a look: every eighth sample.
        """
        return self._is_loud_within(position, self._next)

    def is_loud_behind_flush(self) -> bool:
        """Tell whether there can be speech behind the last flush."""
        return not self._flushes or self._is_loud_within(self._flushes[-1], self._pcm.end)

    def _is_loud_within(self, start: int, stop: int) -> bool:
        first = min(max(start, self._pcm.start), stop)
        samples = np.frombuffer(self._pcm.read(first, stop), np.int16)[::8]
        loud = np.count_nonzero((samples >= _LOUD) | (samples <= -_LOUD))
        return bool(loud * 50 > samples.size)

    def span(self, start: float, end: float) -> tuple[float, float]:
        """Turn seconds of the connection into seconds of the caller's audio, pauses included.

        A span never straddles a pause: the pauses before its middle count for both ends.
        """
        first, last = self._locate(start), self._locate(end)
        pause = self._clock.pause_before((first + last) / 2 / self.sample_rate)
        return first / self.sample_rate + pause, last / self.sample_rate + pause

    def _locate(self, server: float) -> int:
        """Return the position of a second of the connection, within what was sent on it."""
        sample = round(server * self.sample_rate)
        stretch = self._stretches[max(0, bisect_right(self._stretches, (sample, inf)) - 1)]
        if not stretch.is_audio:
            return stretch.position
        return min(stretch.position + max(0, sample - stretch.server), self._next)


def _rest_of_word(loud: npt.NDArray[np.bool_]) -> int:
    """Return how many 20 ms frames behind a final can be the rest of its last word."""
    gap = round(_GAP * 50)
    limit = round(_REST_OF_WORD * 50)
    for start in range(limit):
        if not loud[start : start + gap].any():
            return start
    return limit
