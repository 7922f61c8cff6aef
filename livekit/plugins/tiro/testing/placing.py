"""Tells at which second of a call the audio of a connection begins. No I/O.

A client whose connection broke off sends again what no final covers, and may leave out quiet audio.
Where it begins shows in two ways:

- by the audio itself, to the sample, if an earlier connection of the call got the same audio;
- by the clock, if the caller is live: once the client has caught up, it sends each second of audio
  as it is said.

Digital silence that does not come live shows neither. It is taken to begin where the last final
ends: no client begins earlier, so that nothing is said before its second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .recognizer import RECOGNIZER_RATE, Samples

if TYPE_CHECKING:
    from collections.abc import Sequence

# Seconds of audio of a call that are kept; `tiro.STT` sends no more than a minute again.
KEPT = 62.0
# Seconds of kept audio that may be too much, so that not every message moves all of it.
TOO_MUCH = 10.0
# Samples that are looked for in the audio of the call (50 ms), how many of them are not zero at
# least, and how many are passed over first, as a resampler that starts anew changes some.
WINDOW = 800
LEAST_IN_WINDOW = 80
PASSED_OVER = 320
# As `WINDOW`, to tell the end of a call that is over from the beginning of another (0.3 s): that is
# less than what follows the rest of a call's last word.
LONG_WINDOW = 4800
# Seconds in which audio comes at its own pace, after which the client has caught up.
STEADY = 0.5
# Seconds by which live audio comes earlier than before, or later, and still at its own pace.
EARLY, LATE = 0.02, 0.25
# Of 32767: what is softer is quiet. `tiro.STT` gathers quiet audio to messages of so many seconds,
# and holds back as much of the newest.
LOUD = 328
GATHERED = 0.14, 0.18
HELD_BACK = 0.15
# Seconds by which audio is ahead of a live caller: it is a file, then.
AHEAD = 0.5
# Seconds of a pause in what the caller sends: more than the clock can be wrong by.
PAUSE = 0.5
# Seconds by which a connection may begin sooner than the clock says: a frame of a microphone.
MARGIN = 0.05


class CallAudio:
    """The latest audio of a call, of all of its connections; positions are samples of the call."""

    def __init__(self) -> None:
        self._start = 0
        self._pcm = bytearray()

    def add(self, position: int, samples: Samples) -> None:
        """Take in samples from a position on; what is known already does not change."""
        end = self._start + len(self._pcm) // 2
        if position > end:
            self._pcm += bytes(2 * (position - end))
            end = position
        self._pcm += samples[max(0, end - position) :].astype("<i2").tobytes()
        surplus = len(self._pcm) // 2 - round(KEPT * RECOGNIZER_RATE)
        if surplus > TOO_MUCH * RECOGNIZER_RATE:
            self.forget(self._start + surplus)

    def forget(self, position: int) -> None:
        """Let go of what is before a position."""
        count = max(0, position - self._start)
        del self._pcm[: 2 * count]
        self._start += count

    def find(self, samples: Samples) -> int | None:
        """Return the position of samples, None if they are nowhere, or in more than one place."""
        wanted = samples.astype("<i2").tobytes()
        first = self._find(wanted, 0)
        if first < 0 or self._find(wanted, first + 2) >= 0:
            return None
        return self._start + first // 2

    def _find(self, wanted: bytes, start: int) -> int:
        """Return the offset of a whole sample at which the bytes are, or -1."""
        at = self._pcm.find(wanted, start)
        while at % 2 and at >= 0:
            at = self._pcm.find(wanted, at + 1)
        return at


class Pace:
    """When the audio of a connection began, by the clock, if it were all live."""

    def __init__(self) -> None:
        self.began: float | None = None
        """By the latest audio; None before any."""
        self.steady: float | None = None
        """By the latest audio that came at its own pace for a while; None before any."""
        self._since = 0.0

    def note(self, end: float, arrived: float) -> None:
        """Take note of a message.

        Args:
            end: The second of the connection's audio at which it ends.
            arrived: When it came, in seconds of the clock.
        """
        began = arrived - end
        if self.began is None or not self.began - EARLY <= began <= self.began + LATE:
            self.began, self._since = began, arrived
        self.began = min(self.began, began)
        if arrived - self._since >= STEADY:
            self.steady = self.began


class EndedCall(NamedTuple):
    """A call that is over, though its client may send the end of it again."""

    audio: CallAudio
    began: float | None
    """When it began, in seconds of the clock; None if that is not known."""


class Place:
    """Where in its call a connection begins.

    Args:
        since: The second of the call before which nothing is sent again; None in a new call.
        audio: That of the earlier connections.
        call_began: When the call began, in seconds of the clock; None if that is not known.
        ended: Calls that are over, with None for `since`: the connection begins a call of its own
            unless it begins with audio of one of them.
    """

    def __init__(
        self,
        since: float | None,
        audio: CallAudio,
        call_began: float | None = None,
        *,
        ended: Sequence[EndedCall] = (),
    ) -> None:
        self.start = 0.0 if since is None and not ended else None
        """The second of the call at which the connection's audio begins; None as yet."""
        self.audio = audio
        self.goes_on: int | None = None
        """With which of the calls that are over it goes on; None if with none, or none as yet."""
        self._ended = ended
        self._since = since or 0.0
        self._call_began = call_began
        self._pace = Pace()
        self._is_exact = since is None
        self._is_by_clock = False
        self._is_sought = since is not None or bool(ended)
        # Samples that are not in `audio` yet, and how many came before them.
        self._rest: Samples = np.zeros(0, np.int16)
        self._before_rest = 0

    def note(self, samples: Samples, end: float, arrived: float | None) -> None:
        """Take note of a message, and say where the connection begins as soon as that shows.

        Args:
            samples: Audio of the caller.
            end: The second of the connection's audio at which it ends.
            arrived: When it came, in seconds of the clock; None if that is not known.
        """
        if arrived is not None:
            self._pace.note(end, arrived)
        self._rest = np.concatenate((self._rest, samples))
        if self._is_sought:
            self._seek()
        if self.start is None and self._ended:
            # A client that sends the end of a call again begins with a sound.
            if self._before_rest or not self._is_sought:
                self.start, self._is_sought = 0.0, False
        elif self.start is None:
            held_back = HELD_BACK if _is_gathered(samples) else 0.0
            self._ask_clock(end, arrived, held_back)
        if self.start is not None and not self._is_sought:
            position = round(self.start * RECOGNIZER_RATE) + self._before_rest
            self.audio.add(position, self._rest)
            self._pass(len(self._rest))

    def give_up(self) -> None:
        """Take the earliest place that is possible, as no more audio comes that would tell."""
        if self.start is None:
            self.start = self._since

    @property
    def call_began(self) -> float | None:
        """When the call began, in seconds of the clock, or a little later; None if unknown."""
        began = self._pace.began if self._pace.steady is None else self._pace.steady
        if began is None or self.start is None or not (self._is_exact or self._is_by_clock):
            return self._call_began
        began -= self.start
        if self._is_by_clock and self._call_began is not None and began - self._call_began < PAUSE:
            # No pause came since, and it was known better.
            return self._call_began
        return began

    def _seek(self) -> None:
        """Look for the first sound of the connection in the audio of the call."""
        size = LONG_WINDOW if self._ended else WINDOW
        while len(self._rest) >= PASSED_OVER + size:
            window = self._rest[PASSED_OVER : PASSED_OVER + size]
            if np.count_nonzero(window) >= LEAST_IN_WINDOW:
                self._is_sought = False
                found = self.audio.find(window)
                for number, (audio, began) in enumerate(self._ended):
                    if found is None and (found := audio.find(window)) is not None:
                        self.goes_on, self.audio, self._call_began = number, audio, began
                if found is not None:
                    start = (found - PASSED_OVER - self._before_rest) / RECOGNIZER_RATE
                    self.start, self._is_exact, self._is_by_clock = max(0.0, start), True, False
                return
            self._pass(size)

    def _pass(self, count: int) -> None:
        self._rest = self._rest[count:]
        self._before_rest += count

    def _ask_clock(self, end: float, arrived: float | None, held_back: float) -> None:
        """Go by the clock, if the client has caught up with a live caller."""
        if arrived is None or self._call_began is None:
            self.start = self._since
        elif self._since + end > arrived - self._call_began + AHEAD:
            # That can not have been said by now: it is no live call.
            self.start = self._since
        elif self._pace.steady is not None:
            start = self._pace.steady - self._call_began - held_back - MARGIN
            self.start, self._is_by_clock = max(self._since, start), True


def _is_gathered(samples: Samples) -> bool:
    """Tell whether a client gathered quiet audio to a message, and may hold some back."""
    is_quiet = np.abs(samples.astype(np.int32)).max(initial=0) < LOUD
    return bool(is_quiet) and GATHERED[0] <= len(samples) / RECOGNIZER_RATE <= GATHERED[1]
