"""Where a new connection begins in the audio that is kept, and where it needs silence. No I/O.

A *position* counts samples of the caller's audio.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .loudness import REST_AT_MOST
from .onset import DECIDED_AFTER

if TYPE_CHECKING:
    from .backlog import Backlog
    from .clock import Clock

# s on either side of a pause that are loud if the pause is in the middle of a word.
_EDGE = 0.1
# s before a pause, in which audio that stands out can be the onset of a word that goes on after it.
_ONSET = 0.2
# s of quiet from a flush to the next sound. After more, the service has decided by itself. With
# less, that quiet and the silence of the flush stay under the 5 s of an empty segment.
_SOON = 1.5


def first_to_send(backlog: Backlog, clock: Clock) -> int:
    """Return from where a new connection is fed.

    Quiet audio before a pause of the caller's is not the onset of what follows the pause. But if
    nothing follows, an open hypothesis is about words in it that are too soft to count as a sound.
    """
    rate = backlog.sample_rate
    for seconds in reversed(clock.pauses_after(backlog.start / rate)):
        pause = min(round(seconds * rate), backlog.end)
        is_open = backlog.speaking and backlog.first_sound(pause) is None
        if not is_open and _is_quiet_before(backlog, pause):
            return pause
    return backlog.start


def _is_quiet_before(backlog: Backlog, pause: int) -> bool:
    """Tell whether no word, and no onset of one, comes before a pause."""
    start, rate = backlog.start, backlog.sample_rate
    rest = round(REST_AT_MOST * rate) if start == backlog.finalized_to > 0 else 0
    onset = max(start + rest, pause - round(_ONSET * rate))
    return backlog.first_sound(start, pause) is None and not backlog.is_loud(onset, pause)


def due_flushes(backlog: Backlog, clock: Clock, start: int) -> list[int]:
    """Return where a new connection that is fed from `start` on needs silence.

    That is at each flush with anything to decide, or that no connection was sent yet; and at each
    pause of the caller's audio, as the audio on both sides of a mute is not one utterance.
    """
    flushes = {mark for mark in backlog.flushes if _is_due(backlog, mark, start)}
    marks: list[int] = []
    for mark in sorted(_pauses(backlog, clock, start) | flushes):
        # Pauses with nothing but quiet between them need silence once.
        is_needed = mark in flushes or not marks or backlog.first_loud(marks[-1], mark) is not None
        if is_needed and not _is_decided(backlog, mark, start):
            marks.append(mark)
    return marks


def _is_due(backlog: Backlog, mark: int, start: int) -> bool:
    """Tell whether a flush is yet to be made, or to be made again."""
    if mark < start or mark > backlog.sent_to:
        return mark >= start
    if backlog.first_sound(start, mark) is not None:
        return True
    after = backlog.first_sound(mark)
    if after is None:
        # A hypothesis can be about words that are too soft to count as a sound.
        return backlog.speaking
    # The rest of a final word keeps the service listening, too: without silence here, it would
    # decide just as the next word begins.
    is_soon = after - mark < round(_SOON * backlog.sample_rate)
    return is_soon and backlog.first_loud(start, mark) is not None


def _is_decided(backlog: Backlog, mark: int, start: int) -> bool:
    """Tell whether the quiet around a place is so long that the service decides by itself.

    Silence would only add to it, up to the length of an empty segment, which could end at the onset
    of the next word.
    """
    before, after = backlog.last_loud(start, mark), backlog.first_loud(mark, backlog.end)
    decided = round(DECIDED_AFTER * backlog.sample_rate)
    return before is not None and after is not None and after - before >= decided


def _pauses(backlog: Backlog, clock: Clock, start: int) -> set[int]:
    """Return the positions of the caller's pauses after the start of a connection."""
    rate, settled_to = backlog.sample_rate, clock.settled_to
    marks = ((round(seconds * rate), seconds) for seconds in clock.pauses_after(start / rate))
    return {
        # A resampler may still hold audio that was pushed before the pause.
        min(mark, backlog.end)
        for mark, seconds in marks
        # A pause at which the connection starts comes before all that it is sent. And a gap that is
        # not settled may be late audio, in the middle of a word.
        if mark > start and (seconds < settled_to or not _is_in_word(backlog, mark))
    }


def _is_in_word(backlog: Backlog, mark: int) -> bool:
    edge = round(_EDGE * backlog.sample_rate)
    return backlog.is_loud(mark - edge, mark) and backlog.is_loud(mark, mark + edge)
