"""Which of the caller's audio stands out from the noise of the line, so that it may hold words.

There is no absolute level: quiet callers exist, and so do loud lines. What counts is the *noise
floor*, which is learned from the line itself: from its quietest stretches, and from audio in which
the service heard no words. Until then the floor is one step of the 16-bit scale, so that anything
but digital silence stands out: to send quiet audio once too often costs little, a word is lost
for good. No I/O.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FRAMES_PER_SECOND = 50
"""The audio is measured in frames of 20 ms; the level of a frame is its peak, 0 to 32768."""

Levels = npt.NDArray[np.uint16]

# No level is above it.
_HIGHEST = int(np.iinfo(np.uint16).max)
# How far above the floor a frame stands out: 3 is 10 dB. The peaks of steady noise are within a
# factor of 2 of each other, and speech that can be understood is 20 dB above its noise.
_RATIO = 3
# How far below its own level an utterance is quiet: 10 is 20 dB. Its level is what three frames of
# the last 5 s exceed or reach: a click is shorter, and who has come to speak softly is not cut.
_UTTERANCE_RATIO = 10
_UTTERANCE_FRAMES = 3
_UTTERANCE_WINDOW = 5 * FRAMES_PER_SECOND
# Frames that stand out within 0.2 s and can be a word: 60 ms. The shortest words ("já", "ha")
# have 100 ms of sound; a click is shorter.
_WORD_FRAMES = 3
_WORD_WINDOW = FRAMES_PER_SECOND // 5
# The tenth of the frames of a second that is its noise: speech pauses for that long in a second.
_QUIET_SHARE = 10
# Seconds that are compared. Speech does not go on for that long without a quiet moment.
_SECONDS_TO_LEARN = 3
_SECONDS_REMEMBERED = 10
# Frames in a row that are quieter than the noise: it has stopped. A packet or two that are lost
# leave less. That is remembered until whole seconds behind it tell the same, or that it goes on.
_STOPPED_FRAMES = FRAMES_PER_SECOND // 10
_STOPPED_REMEMBERED = _SECONDS_TO_LEARN * FRAMES_PER_SECOND + _STOPPED_FRAMES - 1
_STOPPED = np.ones(_STOPPED_FRAMES, np.bool_).tobytes()
# Frames of audio without words that say how loud the line is.
_SHORTEST_LESSON = FRAMES_PER_SECOND // 5
# Behind a final comes the rest of its last word, up to the next quiet frame, and for 0.4 s at most.
# It sinks by 3 dB each 80 ms, as the end of a word in a room does, and then it is 30 dB below the
# word: 10 dB below the softest part of one. But for a moment, as the service can put the end of a
# word too early: what is louder for longer can be another word, a soft one behind a loud one too.
_REST_AT_MOST = FRAMES_PER_SECOND * 2 // 5
_SINKING_FRAMES = 4
_SINKING = 0.7
_REST_SHARE = _RATIO * _UTTERANCE_RATIO
_LOUD_REST = 3


class Loudness:
    """The levels of the audio that is kept, and the noise floor.

    Positions are samples of the caller's audio from its start.
    """

    def __init__(self) -> None:
        """Start with no audio."""
        self.floor = 1.0
        """The peak level of the line's noise; 1 until it is learned."""
        self._limit = _RATIO
        self._learned = 1.0
        self._recent: Levels = np.zeros(0, np.uint16)
        self.is_learned = False
        """Whether the floor is known."""
        self.measured_to = 0
        """The position up to which audio was measured."""
        self._frame = 0
        self._levels: Levels = np.zeros(0, np.uint16)
        self._first = 0
        self._learned_to = 0
        self._seconds: list[float] = []
        self._word_level = 0.0

    def set_rate(self, sample_rate: int) -> None:
        """Measure audio of `sample_rate` Hz from now on, before any has come."""
        self._frame = sample_rate // FRAMES_PER_SECOND

    # -- measuring -------------------------------------------------------------------------------

    def measure(self, pcm: bytes) -> None:
        """Take in the 16-bit samples from `measured_to` on; what fills no frame is left."""
        frame = self._frame
        end = len(pcm) // (2 * frame) * frame
        if not end:
            return
        # The absolute value of -32768 does not fit 16 bits with a sign, but those without.
        peaks = np.abs(np.frombuffer(pcm, np.int16, end)).view(np.uint16)
        levels = np.maximum.reduceat(peaks, np.arange(0, end, frame))
        self._levels = np.concatenate((self._levels, levels))
        self.measured_to += end
        self._learn_from_seconds()
        latest = levels[-_STOPPED_REMEMBERED:]
        self._recent = np.concatenate((self._recent, latest))[-_STOPPED_REMEMBERED:]
        # Mostly it goes on; and where there is none, it does not stop.
        if self.floor != self._learned or (
            self._learned > 1 and _STOPPED in (self._recent < self._learned).tobytes()
        ):
            self._follow_stop()

    def forget(self, position: int) -> None:
        """Drop the levels before a position."""
        first = min(position, self.measured_to) // self._frame
        if first > self._first:
            self._levels = self._levels[first - self._first :]
            self._first = first

    # -- the noise floor -------------------------------------------------------------------------

    def _learn_from_seconds(self) -> None:
        """Follow the quietest tenth of the latest seconds: down at once, up only slowly."""
        self._learned_to = max(self._learned_to, self._first)
        levels = self._levels[self._learned_to - self._first :]
        count = len(levels) // FRAMES_PER_SECOND
        if not count:
            return
        self._learned_to += count * FRAMES_PER_SECOND
        levels = levels[: count * FRAMES_PER_SECOND]
        for quiet in _quietest_tenths(levels.reshape(count, FRAMES_PER_SECOND)):
            self._seconds = [*self._seconds, quiet][-_SECONDS_REMEMBERED:]
            if quiet < self._learned or len(self._seconds) >= _SECONDS_TO_LEARN:
                self._set_floor(min(self._seconds))

    def _follow_stop(self) -> None:
        """Follow noise that stops before a second is over, as what is behind it can be words.

        A gap in it, which is over soon, is soon forgotten.
        """
        runs = np.lib.stride_tricks.sliding_window_view(self._recent, _STOPPED_FRAMES)
        quiet = int(runs.max(axis=1).min())
        self._use_floor(min(self._learned, max(1.0, quiet)))

    def learn_words(self, start: int, stop: int) -> None:
        """Learn that there are words from `start` to `stop`: that is not the line's noise."""
        last = self._between(max(start, stop - _WORD_WINDOW * self._frame), stop)
        self._word_level = float(np.maximum.reduce(last, initial=0))
        self._learned_to = max(self._learned_to, -(-stop // self._frame))
        self._seconds = []

    def learn_no_words(self, start: int, stop: int, end: int) -> None:
        """Learn that the service heard no word from `start` to `stop`, but one behind it.

        That is noise, or a sound that is no word ("er"); so it never makes the floor so high that
        the words behind it, up to `end`, do not stand out by far.
        """
        levels = self._between(start, stop)
        if len(levels) < _SHORTEST_LESSON:
            return
        (quiet,) = _quietest_tenths(levels.reshape(1, -1))
        words = float(self._between(stop, end).max(initial=0))
        below_words = max(1.0, words / (_RATIO * _UTTERANCE_RATIO))
        self._set_floor(min(quiet, max(self.floor, below_words)))

    def _set_floor(self, level: float) -> None:
        self._learned, self.is_learned = level, True
        self._use_floor(level)

    def _use_floor(self, level: float) -> None:
        self.floor = level
        # A whole number: levels are compared as they are, and not turned into others first.
        self._limit = min(int(_RATIO * level), _HIGHEST)

    # -- what stands out -------------------------------------------------------------------------

    def first_sound(self, start: int, stop: int, *, after_word: bool = False) -> int | None:
        """Return the position of the first sound that can be a word, or None.

        Args:
            start: The position to look from.
            stop: The position to look to.
            after_word: Whether a word ends at `start`, whose rest is no other word.
        """
        levels = self._between(start, stop)
        if len(levels) < _WORD_FRAMES:
            return None
        loud = levels > self._limit
        if after_word:
            loud[: self._rest_of_word(levels, loud)] = False
        frames = loud.nonzero()[0]
        words = _starts_word(frames).nonzero()[0]
        if not len(words):
            return None
        first = int(frames[words[0]])
        return self._position(start, first)

    def stands_out(self, pcm: bytes) -> bool:
        """Tell whether any of the 16-bit samples stands out, measured or not yet."""
        if pcm == bytes(len(pcm)):
            # As a mute, noise suppression and DTX have it.
            return False
        samples, limit = np.frombuffer(pcm, np.int16), self._limit
        return bool(np.maximum.reduce(samples) > limit or np.minimum.reduce(samples) < -limit)

    def first_loud(self, start: int, stop: int) -> int | None:
        """Return the position of the first frame that stands out, be it a word or not, or None."""
        loud = self._between(start, stop) > self._limit
        first = int(loud.argmax()) if len(loud) else 0
        if not len(loud) or not loud[first]:
            return None
        return self._position(start, first)

    def quiet_from(self, start: int) -> int | None:
        """Return the position from which on it is quiet against the audio from `start` on.

        None without audio that is louder than that: with noise so loud, no pause can be told.
        """
        levels = self._between(start, self.measured_to)[-_UTTERANCE_WINDOW:]
        if len(levels) < _UTTERANCE_FRAMES:
            return None
        voice = np.flatnonzero(levels > _quiet_level(levels))
        if not len(voice):
            return None
        return self.measured_to - (len(levels) - 1 - int(voice[-1])) * self._frame

    def longest_quiet(
        self, start: int, look_from: int, stop: int, *, silent: bool
    ) -> tuple[int, int] | None:
        """Return the positions of the longest quiet from `look_from` to `stop`, or None.

        It is quiet against the audio from `start` to `stop`, as in `quiet_from`. If it is to be
        silent, nothing in it stands out from the noise either: it is no soft word.
        """
        levels = self._between(start, stop)
        if len(levels) < _UTTERANCE_FRAMES:
            return None
        limit = _quiet_level(levels)
        if silent:
            limit = min(limit, self._limit)
        first = min(len(levels), max(0, -(-(look_from - start) // self._frame)))
        voice = np.flatnonzero(levels[first:] > limit) + first
        bounds = np.concatenate(([first - 1], voice, [len(levels)]))
        longest = int(np.diff(bounds).argmax())
        begin, end = (int(bound) for bound in bounds[longest : longest + 2])
        if end - begin < 2:
            return None
        return self._position(start, begin + 1), min(stop, self._position(start, end))

    def last_loud(self, start: int, stop: int) -> int | None:
        """Return the position behind the last frame that stands out, or None."""
        loud = self._between(start, stop) > self._limit
        quiet = int(loud[::-1].argmax()) if len(loud) else 0
        if not len(loud) or not loud[-1 - quiet]:
            return None
        return min(stop, self._position(start, len(loud) - quiet))

    def _rest_of_word(self, levels: Levels, loud: npt.NDArray[np.bool_]) -> int:
        """Return how many frames are the rest of the word before them, and no other word."""
        quiet = np.flatnonzero(~loud)
        run = int(quiet[0]) if len(quiet) else len(loud)
        earlier = levels[: max(0, run - _SINKING_FRAMES)]
        holds = np.flatnonzero(levels[_SINKING_FRAMES:run] > _SINKING * earlier)
        sinks = int(holds[0]) if len(holds) else run
        rest = max(sinks, min(run, _REST_AT_MOST))
        # A multiple of a level may not fit its 16 bits.
        as_loud_as_words = levels[sinks:rest] >= self._word_level / _REST_SHARE
        return sinks if np.count_nonzero(as_loud_as_words) > _LOUD_REST else rest

    def ends_of_sounds(self, start: int, stop: int, pause: float) -> list[int]:
        """Return the positions at which the sounds end that can be words.

        Args:
            start: The position to look from.
            stop: The position to look to.
            pause: Seconds for which it is quiet behind the end of a sound; at least 0.2.
        """
        frames = (self._between(start, stop) > self._limit).nonzero()[0]
        if len(frames) < _WORD_FRAMES:
            return []
        first = max(start // self._frame, self._first)
        behind = np.append(frames[1:], -(-stop // self._frame) - first)
        last = (behind - frames > round(pause * FRAMES_PER_SECOND)).nonzero()[0]
        # A word is shorter than a pause, so it is in one of the sounds.
        words = frames[_starts_word(frames).nonzero()[0]]
        ends = []
        for frame in frames[last].tolist():
            count = int(words.searchsorted(frame))
            if count:
                ends.append(min(self._position(start, frame + 1), stop))
                words = words[count:]
        return ends

    def _position(self, start: int, number: int) -> int:
        """Return where the frame of a number starts, of those that are known from `start` on."""
        return max(start, (max(start // self._frame, self._first) + number) * self._frame)

    def _between(self, start: int, stop: int) -> Levels:
        first = max(0, start // self._frame - self._first)
        return self._levels[first : max(first, -(-stop // self._frame) - self._first)]


def _starts_word(frames: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
    """Tell of each of the frames that stand out whether enough others follow for a word."""
    return frames[_WORD_FRAMES - 1 :] - frames[: 1 - _WORD_FRAMES] < _WORD_WINDOW


def _quiet_level(levels: Levels) -> float:
    """Return the level up to which a frame is quiet against an utterance of these."""
    peak: int = np.partition(levels, -_UTTERANCE_FRAMES)[-_UTTERANCE_FRAMES]
    return peak / _UTTERANCE_RATIO


def _quietest_tenths(levels: Levels) -> list[float]:
    """Return the level that a tenth of the frames of each row do not exceed, at least 1."""
    rank = levels.shape[1] // _QUIET_SHARE
    # In one call: that costs more than to sort so few.
    quiet: list[int] = np.partition(levels, rank, axis=1)[:, rank].tolist()
    return [max(1.0, float(level)) for level in quiet]
