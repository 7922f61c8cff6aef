"""How audio is cut into messages, so that the first sound of an utterance arrives whole. No I/O.

Tiro's published server opens its decoder by a voice gate that looks at one message at a time, and
throws away every message before the one that opened it; the gate is closed again after every final.
So while the service has nothing to decode, quiet audio is gathered and the last of it held back:
the first loud audio goes out together with what was before it, as one message. Then messages go at
once, but for the first sound behind a pause in which the service can have decided: the word of that
may be on its way. Steady noise opens the gate by itself, so that holding it back does no harm, and
where there is no such gate it costs the first sound of an utterance 0.1 s.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .backlog import Backlog

# s. Quiet audio goes out in messages of this length, five of the gate's frames of 30 ms. As much of
# the newest is held back: the onset of a word can be too soft to be told from noise.
_HELD_BACK = 0.15
# s of audio behind the first loud frame that go in the same message: enough voice for the gate.
_WITH_FIRST_SOUND = 0.1

SHORTEST_PAUSE = 0.5
"""Seconds behind the last loud audio, before which no rule of the endpointer decides."""

DECIDED_AFTER = 2.5
"""Seconds behind the last loud audio by which the last of the endpointer's rules has decided."""

EMPTY_SEGMENT = 5.0
"""Seconds of audio without a word, after which the endpointer says that it heard nothing."""

# s of a word's start at most, and of quiet before it at least: whoever flushes behind a pause, as a
# VAD does, is 0.1 s late. The shortest words have 0.1 s of sound.
_BEGUN = 0.16
_BEFORE_IT = 0.1
# s; the last of the audio, which is to be loud: a frame in which the loudness is measured.
_LATEST = 0.02

STILL_TALKING = 0.3
"""Seconds behind the last loud audio for which somebody may be in the middle of a sentence."""


def has_begun_anew(backlog: Backlog, *, behind_final: bool = False) -> bool:
    """Tell whether a word has begun, just now, behind a pause.

    Args:
        backlog: The audio.
        behind_final: Whether that can be a pause behind what is final; else it is in what is not.
    """
    rate, start, end = backlog.sample_rate, backlog.start, backlog.end
    word = end - round(_BEGUN * rate)
    pause = word - round(_BEFORE_IT * rate)
    if pause < start or not backlog.is_loud(end - round(_LATEST * rate), end):
        return False
    quiet_from = backlog.quiet_from()
    if quiet_from is not None and quiet_from <= word:
        # It is soft against the words before: a breath.
        return False
    is_first = not backlog.speaking and backlog.first_sound(start, word) is None
    if is_first and not behind_final:
        return False
    if backlog.first_loud(pause, word) is None:
        return True
    # Where the noise of the line is louder than is known, it is quiet against the words before: the
    # final ones, if no others are open.
    latest, loudness = round(_LATEST * rate), backlog.loudness
    is_behind_words = behind_final and not backlog.speaking
    if is_behind_words and loudness.is_quiet_behind_words(pause, word - latest):
        return True
    quiet = backlog.longest_quiet(start, pause, word, silent=False)
    return quiet is not None and quiet[1] - quiet[0] >= word - pause - latest


class Onset:
    """Says how long the messages of one connection are while the service has nothing to decode.

    Positions are samples of the caller's audio from its start.
    """

    def __init__(self, backlog: Backlog, *, gathering: bool = True) -> None:
        """Start with a closed gate.

        Args:
            backlog: The audio.
            gathering: Whether to gather quiet audio at all.
        """
        self.is_gathering = gathering
        """Whether the service has nothing to decode, as far as is known."""
        self.is_pausing = False
        """Whether somebody may have stopped talking, and the service may be about to decide."""
        self._backlog = backlog
        self._may_gather = gathering
        self._released_to = 0
        self._looked_to = 0
        self._loud_at: int | None = None

    # -- what the next message is ----------------------------------------------------------------

    def next_message(self, start: int, stop: int, chunk: int, is_flushed: bool) -> int:
        """Return the samples of the next message, 0 to wait for more audio.

        Args:
            start: The position from which audio is to be sent.
            stop: The position up to which there is any.
            chunk: The samples that messages are multiples of.
            is_flushed: Whether silence follows at `stop`, so that nothing is held back.
        """
        held = _held(self._backlog.sample_rate, chunk)
        # What is farther on does not matter yet, and a file can be long.
        loud = self._first_loud(start, min(stop, start + 2 * held))
        if (stop if loud is None else loud) - start >= 2 * held:
            return held
        if loud is not None:
            size = self._with_sound(start, loud, chunk)
            if start + size <= stop:
                # The rest of a word that is final, or a click, is not what the gate is opened by.
                self.is_gathering = self._backlog.first_sound(loud, start + size) is None
                return size
        size = self._if_not_held(start, stop, chunk, is_flushed)
        # If any of it is loud, all of it is one message.
        return min(size, held) if loud is None else size

    def next_in_pause(self, start: int, stop: int, chunk: int, is_flushed: bool) -> int:
        """Return the samples of the next message while the service may be about to decide.

        Its gate closes as soon as a pause is long enough, and the caller may go on before the word
        of that is here. So quiet audio goes at once, and a sound behind such a pause as one message
        that is long enough for the gate.

        Args:
            start: The position from which audio is to be sent.
            stop: The position up to which there is any.
            chunk: The samples that messages are multiples of.
            is_flushed: Whether silence follows at `stop`, so that nothing is held back.
        """
        if not self._backlog.is_loud(start, start + chunk):
            return chunk
        loud = self._sound_behind_pause(start, start + chunk)
        if loud is not None and loud < start:
            self.is_pausing = False
            return chunk
        # What fills no frame can be loud, too.
        size = self._with_sound(start, start + chunk if loud is None else loud, chunk)
        if start + size > stop:
            size = self._if_not_held(start, stop, chunk, is_flushed)
        self.is_pausing = size == 0
        return size

    def next_to_who_is_behind(self, start: int, stop: int, chunk: int, is_flushed: bool) -> int:
        """Return the samples of the next message while the service has yet to decide.

        Its gate may close in any pause that is long enough. As nothing is late for it, a sound
        behind one goes with what is right before it, as one message; but a short one, as what the
        service has looked ahead over when it decides, between two messages, is dropped.

        Args:
            start: The position from which audio is to be sent.
            stop: The position up to which there is any.
            chunk: The samples that messages are multiples of.
            is_flushed: Whether silence follows at `stop`, so that nothing is held back.
        """
        loud = self._sound_behind_pause(start, min(start + 2 * chunk, stop))
        if loud is not None and loud < start:
            return chunk
        size = 2 * chunk if loud is None else self._with_sound(start, loud, chunk)
        if start + size > stop:
            return self._if_not_held(start, stop, chunk, is_flushed)
        return chunk if loud is None else size

    def _sound_behind_pause(self, start: int, stop: int) -> int | None:
        """Return where the first sound is; before `start` if there was no pause of any length."""
        paused_from = start - round(SHORTEST_PAUSE * self._backlog.sample_rate)
        return self._backlog.first_loud(max(0, paused_from), stop)

    def _if_not_held(self, start: int, stop: int, chunk: int, is_flushed: bool) -> int:
        """Return the samples of a message of all there is, 0 if it waits for more audio."""
        if not is_flushed and stop > self._released_to:
            return 0
        return (stop - start) // chunk * chunk

    def _first_loud(self, start: int, stop: int) -> int | None:
        """Return the position of the first loud audio, or None. Look at all audio only once."""
        if self._loud_at is None or self._loud_at < start:
            start = max(start, self._looked_to)
            is_loud = self._backlog.is_loud(start, stop)
            self._loud_at = self._backlog.first_loud(start, stop) if is_loud else None
            # The end of the audio fills no frame that could be told to be loud.
            self._looked_to = stop if not is_loud else self._loud_at or start
        return self._loud_at

    def _with_sound(self, start: int, loud: int, chunk: int) -> int:
        """Return the samples of a message that goes on behind its first sound."""
        behind = loud + round(_WITH_FIRST_SOUND * self._backlog.sample_rate)
        return -(-(behind - start) // chunk) * chunk

    def release(self) -> None:
        """Hold back nothing of what was pushed so far."""
        self._released_to = self._backlog.end

    # -- when there is nothing to decode ---------------------------------------------------------

    def look(self, sent_to: int) -> None:
        """Look whether the latest that was sent is quiet: a pause may have begun.

        Two looks have to be closer to each other than the shortest pause in which the service can
        decide.
        """
        if not self.is_gathering and not self.is_pausing:
            backlog = self._backlog
            self.is_pausing = not backlog.is_loud(sent_to - backlog.chunk, sent_to)

    def note_quiet(self, sent_to: int) -> None:
        """Gather if all that was sent lately is quiet, so that the endpointer has decided."""
        backlog = self._backlog
        since = sent_to - round(DECIDED_AFTER * backlog.sample_rate)
        # Mostly the latest look tells, and nothing needs to be measured.
        if self.is_gathering or since < 0 or not self.is_pausing:
            return
        if backlog.first_loud(since, sent_to) is None:
            self._gather()

    def note_silence(self) -> None:
        """Gather behind silence that was sent in full: within it, any rule has decided.

        What comes next is heard behind that, whether the word of it is here or not.
        """
        self._gather()

    def note_decision(self, sent_to: int, silent_at: int) -> None:
        """Gather quiet audio behind a decision of the service, unless there is more to decide.

        That is a cut in the middle of speech, or an utterance that was sent before the decision
        on the one before it came. A long message would be the end of it: what the service has
        looked ahead over when it decides, between two messages, is dropped.

        Args:
            sent_to: The position up to which audio was sent.
            silent_at: The position behind which silence was sent last: within that, all that was
                sent before is decided on.
        """
        if self.is_gathering:
            return
        backlog, rate = self._backlog, self._backlog.sample_rate
        recent = max(silent_at, sent_to - round(STILL_TALKING * rate))
        undecided = max(backlog.start, silent_at, sent_to - round(DECIDED_AFTER * rate))
        if (
            backlog.first_loud(recent, sent_to) is None
            and backlog.first_sound(undecided, sent_to) is None
        ):
            self._gather()

    def _gather(self) -> None:
        self.is_gathering = self._may_gather


@cache
def _held(sample_rate: int, chunk: int) -> int:
    return max(1, round(_HELD_BACK * sample_rate / chunk)) * chunk
