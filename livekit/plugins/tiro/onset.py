"""How audio is cut into messages, so that the first sound of an utterance arrives whole. No I/O.

Tiro's published server opens its decoder by a voice gate that looks at one message at a time, and
throws away every message before the one that opened it; the gate is closed again after every final.
So while the service has nothing to decode, quiet audio is gathered and the last of it held back:
the first loud audio goes out together with what was before it, as one message. Then messages go at
once, except the first sound after a pause in which the service can have decided: its answer may be
on the way. Steady noise opens the gate by itself, so that holding it back does no harm. Where there
is no such gate, holding back delays the first sound of an utterance by 0.1 s.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from .endpointer import DECIDED_AFTER, SHORTEST_PAUSE, STILL_TALKING

if TYPE_CHECKING:
    from .backlog import Backlog

# s. Quiet audio goes out in messages of this length, five of the gate's frames of 30 ms. As much of
# the newest audio is held back: the onset of a word can be too soft to be told from noise.
_HELD_BACK = 0.15
# s of audio from the first loud frame on that go in one message: enough voice for the gate.
_WITH_FIRST_SOUND = 0.1


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

    def decide_while_gathering(self, start: int, stop: int, chunk: int, is_flushed: bool) -> int:
        """Decide on the next message. Return its samples, 0 to wait for more audio.

        Args:
            start: The position from which audio is to be sent.
            stop: The position up to which there is any.
            chunk: The samples that messages are multiples of.
            is_flushed: Whether silence follows at `stop`, so that nothing is held back.
        """
        held = _held(self._backlog.sample_rate, chunk)
        # Later audio does not matter yet, and a file can be long.
        loud = self._first_loud(start, min(stop, start + 2 * held))
        if (stop if loud is None else loud) - start >= 2 * held:
            return held
        if loud is not None:
            size = self._with_sound(start, loud, chunk)
            if start + size <= stop:
                # The rest of a final word, or a click, is not what opens the gate.
                self.is_gathering = self._backlog.first_sound(loud, start + size) is None
                return size
        size = self._if_not_held(start, stop, chunk, is_flushed)
        # If any of it is loud, all of it is one message.
        return min(size, held) if loud is None else size

    def decide_in_pause(self, start: int, stop: int, chunk: int, is_flushed: bool) -> int:
        """Decide on the next message while the service may be about to decide. Return its samples.

        Its gate closes as soon as a pause is long enough, and the caller may go on before the
        service's answer is here. So quiet audio goes at once, and a sound after such a pause as one
        message that is long enough for the gate.

        The arguments are those of `decide_while_gathering`.
        """
        if not self._backlog.is_loud(start, start + chunk):
            return chunk
        loud = self._sound_after_pause(start, start + chunk)
        if loud is not None and loud < start:
            self.is_pausing = False
            return chunk
        # Audio that fills no frame can be loud too.
        size = self._with_sound(start, start + chunk if loud is None else loud, chunk)
        if start + size > stop:
            size = self._if_not_held(start, stop, chunk, is_flushed)
        self.is_pausing = size == 0
        return size

    def decide_while_behind(self, start: int, stop: int, chunk: int, is_flushed: bool) -> int:
        """Return the samples of the next message while the service is behind.

        Its gate may close in any pause that is long enough. A service that is behind can wait for
        audio, so a sound after such a pause goes with what is right before it. That message is
        short: when the service decides, between messages, it drops what it has looked ahead over.

        The arguments are those of `decide_while_gathering`.
        """
        loud = self._sound_after_pause(start, min(start + 2 * chunk, stop))
        if loud is not None and loud < start:
            return chunk
        size = 2 * chunk if loud is None else self._with_sound(start, loud, chunk)
        if start + size > stop:
            return self._if_not_held(start, stop, chunk, is_flushed)
        return chunk if loud is None else size

    def _sound_after_pause(self, start: int, stop: int) -> int | None:
        """Return the first loud position or None; it is before `start` if there is no pause."""
        paused_from = start - round(SHORTEST_PAUSE * self._backlog.sample_rate)
        return self._backlog.first_loud(max(0, paused_from), stop)

    def _if_not_held(self, start: int, stop: int, chunk: int, is_flushed: bool) -> int:
        """Return the samples of a message with all there is, 0 to wait for more audio."""
        if not is_flushed and stop > self._released_to:
            return 0
        return (stop - start) // chunk * chunk

    def _first_loud(self, start: int, stop: int) -> int | None:
        """Return the position of the first loud audio, or None. Look at all audio only once."""
        if self._loud_at is None or self._loud_at < start:
            start = max(start, self._looked_to)
            is_loud = self._backlog.is_loud(start, stop)
            self._loud_at = self._backlog.first_loud(start, stop) if is_loud else None
            # Loud audio at the end that fills no frame yet has no known position.
            self._looked_to = stop if not is_loud else self._loud_at or start
        return self._loud_at

    def _with_sound(self, start: int, loud: int, chunk: int) -> int:
        """Return the samples of a message that goes on after the start of its first sound."""
        end = loud + round(_WITH_FIRST_SOUND * self._backlog.sample_rate)
        return -(-(end - start) // chunk) * chunk

    def release(self) -> None:
        """Hold back nothing of what was pushed so far."""
        self._released_to = self._backlog.end

    # -- when there is nothing to decode ---------------------------------------------------------

    def look(self, sent_to: int) -> None:
        """Check whether the latest audio sent is quiet: a pause may have begun.

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
        """Gather after silence that was sent in full: within it, any rule has decided.

        The service hears later audio after that decision, whether its answer is here or not.
        """
        self._gather()

    def note_decision(self, sent_to: int, silent_at: int) -> None:
        """Gather quiet audio after a decision of the service, unless there is more to decide.

        More remains after a cut in the middle of speech, or if another utterance was sent before
        the decision came. Words in a long message would be lost: when the service decides, between
        messages, it drops what it has looked ahead over.

        Args:
            sent_to: The position up to which audio was sent.
            silent_at: The position after which silence was last sent: within that silence, all that
                was sent before is decided on.
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
