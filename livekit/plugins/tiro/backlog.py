"""The caller's audio that no final covers: what a new connection is sent again. No I/O.

Audio that may hold words is dropped for two reasons only: a final covers it (a final without times
covers the least that it can be about), or it exceeds the limit of 60 s. Quiet audio before the
first sound that can be a word is kept for some seconds.

A *position* counts samples of the caller's audio from its start.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right, insort
from functools import cache
from itertools import pairwise

from .drift import Drift
from .endpointer import SHORTEST_PAUSE
from .loudness import FRAMES_PER_SECOND, Loudness

BYTES_PER_SAMPLE = 2
"""16-bit linear PCM, mono."""

LOOKBACK = 3.0
"""Seconds of quiet audio that are kept: enough to hold the onset of speech before its first
interim (0.35 s between interims, 0.3 s of look-ahead, the network, a slow first hypothesis)."""

KEEP_AT_MOST = 60.0
"""Seconds of audio that are kept at most without a final: the service cuts unbroken speech every
20 s, so speech without a final never gets that long."""

# s of audio kept before a sound: its onset can be too quiet to stand out.
_ONSET = 0.5
# s that a service can be behind in digital silence: there is nothing to decode in it.
_SILENCE_LAG = 1.0
# s of quiet that end a sound: longer than the gaps between the words of a sentence.
_WORD_PAUSE = 0.3
# Digital silence, as long as a microphone's frame can be: 0.1 s at 48 kHz.
_SILENCE = bytes(9600)


def chunk_samples(sample_rate: int) -> int:
    """Return the length of the messages to send at `sample_rate` Hz, in samples.

    It is 50 ms, or the nearest length of 40 to 100 ms that is a whole number of both milliseconds
    and samples: the service cuts the length of each message to whole milliseconds, and an odd
    length would make its clock run slow. Without such a length, it is the one that loses least.
    """

    def loss_and_distance(ms: int) -> tuple[float, int]:
        return -(-sample_rate * ms // 1000) * 1000 / sample_rate - ms, abs(ms - 50)

    return -(-sample_rate * min(range(40, 101), key=loss_and_distance) // 1000)


class Backlog:
    """Keeps audio until a final covers it. It lives as long as the stream.

    The samples stay in the pieces in which they were pushed: none is moved as others come and go.
    """

    def __init__(self) -> None:
        """Start with no audio."""
        self.kept_from = 0
        """The position of the first sample that is kept."""
        self.end = 0
        """The position right after the last sample."""
        self.flushes: list[int] = []
        """The positions at which a final was asked for: a new connection is sent silence there."""
        self.finalized_to = 0
        """The position up to which all audio is final, by the times of the finals."""
        self.speaking = False
        """Whether a hypothesis is open."""
        self.open_from = 0
        """The position at which the open hypothesis starts; 0 if the service does not say where."""
        self.answerable_to = 0
        """The position up to which a service that keeps up had the time to say what it hears."""
        self.showable_to = 0
        """The position up to which it had the time to show a hypothesis of it."""
        self.wordless_to = 0
        """Audio up to here was sent twice, and the second time no word was recognised."""
        self.wordless_at_limit_to = 0
        """As `wordless_to`, where a limit of the service may have ended the second connection."""
        self.sent_to = 0
        """The position up to which audio was sent on any connection."""
        self.loudness, self.drift = Loudness(), Drift()
        self._pieces: list[bytes] = []
        self._starts = array("q")
        # From here on there is only digital silence, as from a mute, noise suppression or DTX.
        self._silent_from = 0
        self._interims = True
        self._covered_to = self._answered_to = 0
        self._given_up = self._unplaced_finals = self._samples_sent = 0
        self._set_rate(16000)

    # -- in and out ------------------------------------------------------------------------------

    def push(self, pcm: bytes | memoryview, sample_rate: int) -> None:
        """Take in 16-bit mono samples; they are copied. The rate is the same each time."""
        if sample_rate != self.sample_rate:
            self._set_rate(sample_rate)
        piece = bytes(pcm)
        self._starts.append(self.end)
        self.end += len(piece) // BYTES_PER_SAMPLE
        if _SILENCE.startswith(piece):
            # Pieces of digital silence share one object of their size: they take no more memory.
            piece = _silence(len(piece))
        else:
            self._silent_from = self.end
        self._pieces.append(piece)

    def _set_rate(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self.chunk = chunk_samples(sample_rate)
        self.loudness.set_rate(sample_rate)

    def flush(self) -> None:
        """Mark the end of what was pushed so far as a place for silence."""
        if self.flushes and self.first_sound(self.flushes[-1]) is None:
            self.flushes.pop()
        self.flushes.append(self.end)

    def plan_flush(self, position: int) -> None:
        """Mark a place for silence, in audio that is yet to be sent."""
        insort(self.flushes, position)

    def take(self, start: int, stop: int) -> bytes:
        """Count the audio between two positions as sent, and return its samples."""
        if stop > self.sent_to:
            self._samples_sent += stop - max(self.sent_to, start)
            self.sent_to = stop
        if stop == self.end and start == self._starts[-1]:
            # A live frame of one chunk goes out as it came in.
            return self._pieces[-1]
        return self._read(start, stop)

    def _read(self, start: int, stop: int) -> bytes:
        if start == stop:
            return b""
        first, past = bisect_right(self._starts, start) - 1, bisect_left(self._starts, stop)
        pieces = self._pieces[first:past]
        skipped = (start - self._starts[first]) * BYTES_PER_SAMPLE
        wanted = (stop - self._starts[past - 1]) * BYTES_PER_SAMPLE
        if len(pieces) == 1:
            # A whole piece is not copied; of a file in one piece, only the wanted part is.
            return pieces[0][skipped:wanted]
        pieces[0], pieces[-1] = pieces[0][skipped:], pieces[-1][:wanted]
        return b"".join(pieces)

    @property
    def has_unsent(self) -> bool:
        """Whether there is audio that no connection was sent: nobody can know what is in it."""
        return self.sent_to < self.end

    @property
    def has_unsent_chunk(self) -> bool:
        """Whether the unsent audio fills a message; less waits for more."""
        return self.end - self.sent_to >= self.chunk

    @property
    def start(self) -> int:
        """The position from which a new connection is fed."""
        return max(self.kept_from, self._covered_to)

    # -- what the service says -------------------------------------------------------------------

    def begin(self) -> None:
        """Note that a new connection is fed from `start` on: its finals cover that audio again."""
        self._unplaced_finals = 0
        self.drift.begin()

    def set_speaking(self, speaking: bool, start: int = 0) -> None:
        """Note whether a hypothesis is open, and where it starts; 0 if that is not known.

        While one is open, all of its audio is kept.
        """
        self.speaking, self.open_from = speaking, start

    def set_interims(self, wanted: bool) -> None:
        """Set whether hypotheses show what the service hears; else only finals do, much later."""
        self._interims = wanted

    def finalize(self, start: int, stop: int) -> None:
        """Note that a final covers all up to `stop`, with its first word at `start`."""
        self._measure(self.end)
        self.loudness.learn_no_words(self.start, start, stop)
        self.loudness.learn_words(start, stop)
        self.finalized_to = max(self.finalized_to, stop)
        self._unplaced_finals = 0
        self._let_go(stop)

    def finalize_without_times(self, sent: int) -> None:
        """Note a final that does not say what it covers, with audio sent up to `sent`.

        The least that it can be about is one stretch of sound, up to a pause in which an endpointer
        can have decided. If no pause is found because the noise is not known, the next final covers
        this final's stretch too. Times show that a final says nothing new; this estimate does not.
        """
        self._measure(self.end)
        self.loudness.learn_pause(self.start, sent, SHORTEST_PAUSE)
        finals, start = self._unplaced_finals + 1, self.start
        for _ in range(finals):
            end = self._end_of_stretch(sent)
            if end is not None:
                self._let_go(end)
        placed = self.start > start or self.loudness.is_learned
        self._unplaced_finals = 0 if placed else finals

    def _end_of_stretch(self, sent: int) -> int | None:
        """Return the position at which the first sound after the final audio ends, or None."""
        bounds = [self.start, *(mark for mark in self.flushes if self.start < mark < sent), sent]
        for first, last in pairwise(bounds):
            sounds = self.loudness.sounds(first, last, SHORTEST_PAUSE)
            end = sounds[0][1] if sounds else None
            if end is None and last in self.flushes and self.first_sound(first, last) is not None:
                # The silence that is sent at a flush is a pause too.
                end = last
            if end is not None:
                return end
        return None

    def _let_go(self, position: int) -> None:
        self._covered_to = max(self._covered_to, position)
        self._given_up = self.wordless_to = self.wordless_at_limit_to = 0

    def answered(self, sent: int) -> None:
        """Note an answer, with audio sent up to `sent`: all after that has got none."""
        self._answered_to = max(self._answered_to, sent)

    def note_answerable(self, sent: int) -> None:
        """Note that a service that keeps up had the time to answer audio sent up to `sent`."""
        self.answerable_to = max(self.answerable_to, sent)
        if self._interims:
            self.showable_to = max(self.showable_to, sent)

    def note_wordless(self, sent: int, *, at_limit: bool = False) -> None:
        """Note that two connections were sent audio up to `sent`, the second in vain."""
        self.wordless_to = max(self.wordless_to, sent)
        self.wordless_at_limit_to = max(self.wordless_at_limit_to, sent if at_limit else 0)

    # -- what is kept ----------------------------------------------------------------------------

    def trim(self, *, heard: int, newest: int) -> None:
        """Drop quiet audio that need not be kept, and audio beyond the limit.

        Args:
            heard: The position up to which the service can have heard.
            newest: The position before which at most `KEEP_AT_MOST` is kept.
        """
        floor, onset = self.start, round(_ONSET * self.sample_rate)
        if not self.speaking:
            if floor >= self._silent_from:
                silence_heard = min(newest, self.sent_to) - round(_SILENCE_LAG * self.sample_rate)
                heard = max(heard, silence_heard)
            lookback = LOOKBACK if self._interims else KEEP_AT_MOST
            quiet_to = heard - round(lookback * self.sample_rate)
            if quiet_to > floor:
                # What begins before `quiet_to` may show only later that it is as long as a word.
                sound = self.first_sound(floor, quiet_to + 2 * onset)
                floor = max(floor, quiet_to if sound is None else min(quiet_to, sound - onset))
        bound = newest - round(KEEP_AT_MOST * self.sample_rate)
        if bound > floor:
            self._give_up(floor, bound)
            floor = bound
        self._keep_from(floor)

    def _keep_from(self, floor: int) -> None:
        if floor > self.kept_from:
            self._measure(floor)
            self.kept_from = floor
            # Audio that fills no frame of 20 ms is yet to be measured.
            passed = bisect_right(self._starts, min(floor, self.loudness.measured_to)) - 1
            del self._pieces[:passed], self._starts[:passed]
            del self.flushes[: bisect_left(self.flushes, floor)]
            self.loudness.forget(floor)

    def _give_up(self, start: int, stop: int) -> None:
        """Count audio that is dropped although the service said nothing about it."""
        unheard = start if self.speaking else max(start, min(stop, self._answered_to))
        if self.speaking or self.first_sound(unheard, stop) is not None:
            self._given_up += stop - unheard

    def take_given_up(self) -> float:
        """Return the seconds of audio that were given up, and forget them."""
        samples, self._given_up = self._given_up, 0
        return samples / self.sample_rate

    # -- what is known of it ---------------------------------------------------------------------

    def first_sound(self, start: int, stop: int | None = None) -> int | None:
        """Return the position of the first sound from `start` on that can be a word, or None."""
        stop = self.end if stop is None else stop
        self._measure(stop)
        if start >= self._silent_from:
            return None
        if not start == self.finalized_to > 0:
            return self.loudness.first_sound(start, stop)
        # Nobody flushes in the middle of a word: a sound after a flush is no rest of one.
        mark = next((mark for mark in self.flushes if start <= mark < stop), stop)
        sound = self.loudness.first_sound(start, mark, after_word=True)
        return self.loudness.first_sound(mark, stop) if sound is None and mark < stop else sound

    def is_loud(self, start: int, stop: int) -> bool:
        """Tell whether any kept audio stands out from the noise of the line; the cheapest check."""
        start = max(start, self.kept_from)
        if start >= stop or start >= self._silent_from:
            return False
        newest = stop == self.end and start == self._starts[-1]
        return self.loudness.stands_out(self._pieces[-1] if newest else self._read(start, stop))

    def first_loud(self, start: int, stop: int) -> int | None:
        """Return the position of the first audio that stands out, word or not; None without any."""
        self._measure(stop)
        return None if start >= self._silent_from else self.loudness.first_loud(start, stop)

    def last_loud(self, start: int, stop: int) -> int | None:
        """Return the position at which the last audio that stands out ends, or None."""
        self._measure(stop)
        return self.loudness.last_loud(start, stop)

    def sounds(
        self, start: int, stop: int, pause: float = _WORD_PAUSE, **which: bool
    ) -> list[tuple[int, int]]:
        """Return where the sounds between two positions start and end, as `Loudness.sounds`."""
        self._measure(stop)
        return self.loudness.sounds(start, stop, pause, **which)

    def longest_quiet(
        self, start: int, look_from: int, stop: int, *, silent: bool
    ) -> tuple[int, int] | None:
        """Return the longest stretch of relative quiet or None, as `Loudness.longest_quiet`."""
        self._measure(stop)
        return self.loudness.longest_quiet(start, look_from, stop, silent=silent)

    def quiet_from(self) -> int | None:
        """Return where the quiet at the end starts, compared with the audio not final, or None."""
        self._measure(self.end)
        return self.loudness.quiet_from(self.start, self._read(self.loudness.measured_to, self.end))

    def may_hold_words(self) -> bool:
        """Tell whether there is audio that can hold words which are not final."""
        known = self.speaking or self._given_up > 0
        return known or self.first_sound(self.start) is not None

    def _measure(self, stop: int) -> None:
        """Measure all whole frames of 20 ms, unless all up to a position are measured."""
        measured_to = self.loudness.measured_to
        if stop > measured_to and self.end - measured_to >= self.sample_rate // FRAMES_PER_SECOND:
            self.loudness.measure(self._read(measured_to, self.end))

    @property
    def seconds_sent(self) -> float:
        """Seconds sent so far, each counted once."""
        return self._samples_sent / self.sample_rate


@cache
def _silence(size: int) -> bytes:
    return _SILENCE[:size]
