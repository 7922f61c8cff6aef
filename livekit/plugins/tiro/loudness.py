"""Which of the caller's audio stands out from the noise of the line, so that it may hold words.

There is no absolute level: quiet callers exist, and so do loud lines. What counts is the *noise
floor*, which is learned from the line itself: from its quietest stretches, and from audio in which
the service heard no words. Until it is learned, the floor is one step of the 16-bit scale, so that
anything but digital silence stands out: to send quiet audio again costs little, but a lost word is
lost for good. No I/O.
"""

from __future__ import annotations

from array import array
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

FRAMES_PER_SECOND = 50
"""The audio is measured in frames of 20 ms; the level of a frame is its peak, 0 to 32768."""

REST_AT_MOST = 0.4
"""Seconds after a final that can be the rest of its last word even if the level does not sink."""

# How far above the floor a frame stands out: 3 is 10 dB. The peaks of steady noise are within a
# factor of 2 of each other, and speech that can be understood is 20 dB above its noise.
_RATIO = 3
# How far above the floor soft words stand out at least: 2 is 6 dB.
_SOFT_RATIO = 2
# How far below its own level an utterance is quiet: 10 is 20 dB. Its level is what three frames of
# the last 5 s exceed or reach: a click is shorter, and a caller who now speaks softly is not cut.
_UTTERANCE_RATIO = 10
_UTTERANCE_FRAMES = 3
_UTTERANCE_WINDOW = 5 * FRAMES_PER_SECOND
# Frames that stand out within 0.2 s and can be a word: 60 ms. The shortest words ("já", "ha")
# have 100 ms of sound; a click is shorter.
_WORD_FRAMES = 3
_WORD_WINDOW = FRAMES_PER_SECOND // 5
# Numbers of frames so long before the first that they make no word with any frame after them.
_LONG_AGO = (-_WORD_WINDOW,) * _WORD_FRAMES
# One in this many frames of a second is noise: speech pauses for that long in a second.
_QUIET_SHARE = 10
# Seconds that are compared. Speech does not go on for that long without a quiet moment.
_SECONDS_TO_LEARN = 3
_SECONDS_REMEMBERED = 10
# This many frames in a row below the noise: it has stopped; a lost packet or two leave fewer. The
# stop is remembered until whole seconds after it confirm it, or show that the noise goes on.
_STOPPED_FRAMES = FRAMES_PER_SECOND // 10
_STOPPED = b"\1" * _STOPPED_FRAMES
_STOPPED_REMEMBERED = _SECONDS_TO_LEARN * FRAMES_PER_SECOND + _STOPPED_FRAMES - 1
# The least frames of audio without words that tell how loud the line is.
_SHORTEST_LESSON = FRAMES_PER_SECOND // 5
# After a final comes the rest of its last word, up to the next quiet frame: all that sinks by 3 dB
# each 80 ms, as a word does in a room, or 0.4 s. What no longer sinks must be 30 dB below the word
# (10 dB below a word's softest part), except for 60 ms, as the service can put a word's end too
# early. Audio that is louder for longer can be another word, also a soft one after a loud one.
_REST_FRAMES = round(REST_AT_MOST * FRAMES_PER_SECOND)
_SINKING_FRAMES = 4
_SINKING = 0.7
_REST_SHARE = _RATIO * _UTTERANCE_RATIO
_LOUD_REST = 3
# One in this many samples is looked at first: if any stands out, mostly one of these does.
_PROBE_STEP = 16
# The first bytes, which mostly tell that audio is not digital silence.
_PROBED = 16


class Loudness:
    """The levels of the audio that is kept, and the noise floor.

    Positions are samples of the caller's audio from its start.
    """

    def __init__(self) -> None:
        """Start with no audio."""
        self.floor = 1.0
        """The peak level of the line's noise; 1 until it is learned."""
        # What is louder stands out.
        self._limit = _RATIO
        # The floor before it is lowered for noise that has stopped, and the latest levels, which
        # show that it has.
        self._learned = 1.0
        self._recent = array("H")
        self.is_learned = False
        """Whether the floor is known."""
        self.measured_to = 0
        """The position up to which audio was measured."""
        self._frame = 0
        # Mostly a few levels are read, up to the first loud one. A loop costs less for that than
        # numpy, whose code has left the CPU's caches by the time it is needed again.
        self._levels = array("H")
        self._first = 0
        # Up to which frame the floor is learned; and the quiet of each of the latest seconds.
        self._learned_to = 0
        self._seconds: list[float] = []
        # The level of the last words that are final.
        self._word_level = 0

    def set_rate(self, sample_rate: int) -> None:
        """Set the rate of the audio to `sample_rate` Hz, before any has come."""
        self._frame = sample_rate // FRAMES_PER_SECOND

    # -- measuring -------------------------------------------------------------------------------

    def measure(self, pcm: bytes) -> None:
        """Take in the 16-bit samples from `measured_to` on; leave those that fill no frame."""
        frame = self._frame
        end = len(pcm) // (2 * frame) * frame
        if not end:
            return
        levels = _peaks(pcm, end, frame)
        self._levels.frombytes(levels)
        self.measured_to += end
        self._learn_from_seconds()
        self._recent.frombytes(levels)
        del self._recent[:-_STOPPED_REMEMBERED]
        if self._learned > 1:
            self._follow_stop()

    def forget(self, position: int) -> None:
        """Drop the levels before a position."""
        first = min(position, self.measured_to) // self._frame
        if first > self._first:
            del self._levels[: first - self._first]
            self._first = first

    # -- the noise floor -------------------------------------------------------------------------

    def _learn_from_seconds(self) -> None:
        """Follow the quietest tenth of the latest seconds: down at once, up only slowly."""
        self._learned_to = max(self._learned_to, self._first)
        while self._learned_to + FRAMES_PER_SECOND <= self._first + len(self._levels):
            begin = self._learned_to - self._first
            quiet = _quietest_tenth(self._levels[begin : begin + FRAMES_PER_SECOND])
            self._learned_to += FRAMES_PER_SECOND
            self._seconds = [*self._seconds, quiet][-_SECONDS_REMEMBERED:]
            if quiet < self._learned or len(self._seconds) >= _SECONDS_TO_LEARN:
                self._set_floor(min(self._seconds))

    def _follow_stop(self) -> None:
        """Lower the floor when noise stops, before the second is over: words can follow.

        A short gap in the noise is soon forgotten.
        """
        recent, floor = self._recent, self._learned
        # Any five frames in a row hold one of those checked here: mostly none of those is quiet,
        # and there is nothing to search.
        is_quiet = min(recent[_STOPPED_FRAMES - 1 :: _STOPPED_FRAMES], default=floor) < floor
        if is_quiet and bytes([level < floor for level in recent]).find(_STOPPED) >= 0:
            loudest = map(max, *(recent[number:] for number in range(_STOPPED_FRAMES)))
            floor = min(floor, max(1.0, min(loudest, default=floor)))
        self._use_floor(floor)

    def learn_words(self, start: int, stop: int) -> None:
        """Learn that there are words from `start` to `stop`: that is not the line's noise."""
        last = self._between(max(start, stop - _WORD_WINDOW * self._frame), stop)
        self._word_level = max(last, default=0)
        self._learned_to = max(self._learned_to, -(-stop // self._frame))
        self._seconds = []

    def learn_no_words(self, start: int, stop: int, end: int) -> None:
        """Learn that the service heard no word from `start` to `stop`, but one after that.

        This audio is noise, or a sound that is no word ("er"). So it never makes the floor so high
        that the words after it, up to `end`, do not stand out by far.
        """
        levels = self._between(start, stop)
        if len(levels) < _SHORTEST_LESSON:
            return
        words = max(self._between(stop, end), default=0)
        below_words = max(1.0, words / (_RATIO * _UTTERANCE_RATIO))
        self._set_floor(min(_quietest_tenth(levels), max(self.floor, below_words)))

    def learn_pause(self, start: int, stop: int, pause: float) -> None:
        """Learn that there are words somewhere from `start` to `stop`.

        If the noise is not known yet, it is what is quiet for `pause` seconds, compared with them.
        """
        quiet = None if self.is_learned else self.longest_quiet(start, start, stop, silent=False)
        if quiet is not None and quiet[1] - quiet[0] >= pause * FRAMES_PER_SECOND * self._frame:
            levels = self._between(start, stop)
            # Soft words can be as long as a pause, but then other audio is quieter yet.
            quietest = min(_quietest_tenth(self._between(*quiet)), _quietest_tenth(levels))
            self._set_floor(max(1.0, min(quietest, _quiet_level(levels) / _RATIO)))

    def _set_floor(self, level: float) -> None:
        self._learned, self.is_learned = level, True
        self._use_floor(level)

    def _use_floor(self, level: float) -> None:
        self.floor = level
        self._limit = int(_RATIO * level)

    # -- what stands out -------------------------------------------------------------------------

    def first_sound(self, start: int, stop: int, *, after_word: bool = False) -> int | None:
        """Return the position of the first sound that can be a word, or None.

        Args:
            start: The position to look from.
            stop: The position to look to.
            after_word: Whether a word ends at `start`; its rest is no other word.
        """
        levels = self._between(start, stop)
        skipped = self._rest_of_word(levels) if after_word else 0
        first = _first_of_word(levels, self._limit, skipped)
        return None if first is None else self._position(start, first)

    def stands_out(self, pcm: bytes) -> bool:
        """Tell whether any of the 16-bit samples stands out, measured or not yet."""
        limit = self._limit
        if max(array("h", pcm)[::_PROBE_STEP]) > limit:
            # At a third of the cost.
            return True
        samples = np.frombuffer(pcm, np.int16)
        return bool(np.maximum.reduce(samples) > limit or np.minimum.reduce(samples) < -limit)

    def first_loud(self, start: int, stop: int) -> int | None:
        """Return the position of the first frame that stands out, word or not; None without any."""
        limit = self._limit
        for number, level in enumerate(self._between(start, stop)):
            if level > limit:
                return self._position(start, number)
        return None

    def quiet_from(self, start: int, rest: bytes = b"") -> int | None:
        """Return where the quiet at the end starts, compared with the audio from `start` on.

        None if no audio is louder. Noise less than 20 dB below the utterance hides its pauses.

        Args:
            start: The position at which an utterance starts.
            rest: The samples after `measured_to`, which fill no frame.
        """
        levels = self._between(start, self.measured_to)[-_UTTERANCE_WINDOW:]
        if len(levels) < _UTTERANCE_FRAMES:
            return None
        limit = _quiet_level(levels)
        samples = array("h", rest)
        if samples and max(max(samples), -min(samples)) > limit:
            return self.measured_to + len(samples)
        for quiet, level in enumerate(reversed(levels)):
            if level > limit:
                return self.measured_to - quiet * self._frame
        return None

    def is_quiet_after_words(self, start: int, stop: int) -> bool:
        """Tell whether `start` to `stop` is quiet compared with the words of the last final."""
        loudest = max(self._between(start, stop), default=0)
        return loudest <= self._word_level / _UTTERANCE_RATIO

    def longest_quiet(
        self, start: int, look_from: int, stop: int, *, silent: bool
    ) -> tuple[int, int] | None:
        """Return where the longest quiet from `look_from` to `stop` starts and ends, or None.

        It is quiet compared with the audio from `start` to `stop`, as in `quiet_from`. If `silent`,
        nothing in it stands out from the noise either: it is no soft word.
        """
        levels = self._between(start, stop)
        if len(levels) < _UTTERANCE_FRAMES:
            return None
        limit = _quiet_level(levels)
        if silent:
            limit = min(limit, self._limit)
        first = min(len(levels), max(0, -(-(look_from - start) // self._frame)))
        voice = (number for number in range(first, len(levels)) if levels[number] > limit)
        begin, end = max(
            pairwise([first - 1, *voice, len(levels)]), key=lambda bounds: bounds[1] - bounds[0]
        )
        if end - begin < 2:
            return None
        return self._position(start, begin + 1), min(stop, self._position(start, end))

    def last_loud(self, start: int, stop: int) -> int | None:
        """Return the position at which the last frame that stands out ends, or None."""
        levels, limit = self._between(start, stop), self._limit
        for quiet, level in enumerate(reversed(levels)):
            if level > limit:
                return min(stop, self._position(start, len(levels) - quiet))
        return None

    def _rest_of_word(self, levels: Sequence[int]) -> int:
        """Return how many frames are the rest of the word before them, and no other word."""
        limit, sinks = self._limit, -1
        # Up to the first quiet frame; up to the frame that sinks no more; what is louder after it.
        run = len(levels)
        for number, level in enumerate(levels):
            if level <= limit or (number >= _REST_FRAMES and sinks >= 0):
                run = number
                break
            if sinks < 0 and number >= _SINKING_FRAMES:
                before = number - _SINKING_FRAMES
                if level > _SINKING * levels[before]:
                    sinks = before
        if sinks < 0:
            sinks = run
        rest = max(sinks, min(run, _REST_FRAMES))
        as_loud_as_words = self._word_level / _REST_SHARE
        held = sum(level >= as_loud_as_words for level in levels[sinks:rest])
        return sinks if held > _LOUD_REST else rest

    def sounds(
        self, start: int, stop: int, pause: float, *, soft: bool = False, cut: bool = False
    ) -> list[tuple[int, int]]:
        """Return the positions at which the sounds that can be words start and end.

        Args:
            start: The position to look from.
            stop: The position to look to.
            pause: Seconds of quiet that end a sound; at least 0.2.
            soft: Whether sounds count that are softer than the others, but no steady noise.
            cut: Whether the sound that goes on at `stop` counts, up to there.
        """
        levels = self._between(start, stop)
        limit = int(_SOFT_RATIO * self.floor) if soft else self._limit
        # The end of the audio, if it fills no frame, counts as quiet.
        count = -(-stop // self._frame) - max(start // self._frame, self._first)
        loud = bytes([level > limit for level in levels]).ljust(count, b"\0")
        quiet = bytes(round(pause * FRAMES_PER_SECOND))
        loud += quiet if cut else b""
        # A word is shorter than a pause, so it is in one of the sounds.
        found: list[tuple[int, int]] = []
        first = loud.find(1)
        while first >= 0 and (end := loud.find(quiet, first)) >= 0:
            if _first_of_word(levels[first:end], limit) is not None:
                stops = min(self._position(start, end), stop)
                found.append((self._position(start, first), stops))
            first = loud.find(1, end)
        return found

    def _position(self, start: int, number: int) -> int:
        """Return where a frame starts, by its number among the known frames from `start` on."""
        return max(start, (max(start // self._frame, self._first) + number) * self._frame)

    def _between(self, start: int, stop: int) -> array[int]:
        first = max(0, start // self._frame - self._first)
        return self._levels[first : max(first, -(-stop // self._frame) - self._first)]


def _peaks(pcm: bytes, samples: int, frame: int) -> bytes:
    """Return the levels of the frames of the first samples, 16 bits each without a sign.

    Args:
        pcm: Samples of 16 bits.
        samples: How many of them are looked at, a whole number of frames.
        frame: The samples of a frame.
    """
    if not any(pcm[:_PROBED]) and pcm == bytes(len(pcm)):
        return bytes(2 * samples // frame)
    # The absolute value of -32768 does not fit 16 bits with a sign, but those without.
    peaks = np.abs(np.frombuffer(pcm, np.int16, samples)).view(np.uint16)
    return np.maximum.reduceat(peaks, np.arange(0, samples, frame)).tobytes()


def _first_of_word(levels: Sequence[int], limit: int, skipped: int = 0) -> int | None:
    """Return the number of the first frame of what can be a word, or None."""
    sounding = list(_LONG_AGO)
    for number in range(skipped, len(levels)):
        if levels[number] > limit:
            sounding.append(number)
            first = sounding[-_WORD_FRAMES]
            if number - first < _WORD_WINDOW:
                return first
    return None


def _quiet_level(levels: Sequence[int]) -> float:
    """Return the level up to which a frame is quiet in an utterance with these levels."""
    return sorted(levels)[-_UTTERANCE_FRAMES] / _UTTERANCE_RATIO


def _quietest_tenth(levels: Sequence[int]) -> float:
    """Return the level that a tenth of the frames do not exceed, at least 1."""
    return max(1.0, sorted(levels)[len(levels) // _QUIET_SHARE])
