"""Where a new connection begins in the audio that is kept, and where it needs silence. No I/O.

A *position* counts samples of the caller's audio.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .onset import DECIDED_AFTER

if TYPE_CHECKING:
    from .backlog import Backlog
    from .clock import Clock

# s on either side of a pause that are loud if the pause is in the middle of a word.
_EDGE = 0.1
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
        if not is_open and backlog.first_sound(backlog.start, pause) is None:
            return pause
    return backlog.start


def due_flushes(backlog: Backlog, clock: Clock, start: int) -> list[int]:
    """Return where a new connection that is fed from `start` on needs silence.

    That is at each flush with anything to decide, or that no connection was sent yet; and at each
    pause of the caller's audio, as the audio on both sides of a mute is not one utterance. Where
    the quiet around it is so long that the service decides by itself, silence would only add to it,
    up to the length of an empty segment, which could end at the onset of the next word.
    """

    def is_due(mark: int) -> bool:
        if mark < start or mark > backlog.sent_to:
            return mark >= start
        if backlog.first_sound(start, mark) is not None:
            return True
        behind = backlog.first_sound(mark)
        if behind is None:
            # A hypothesis can be about words that are too soft to count as a sound.
            return backlog.speaking
        # The rest of a final word keeps the service listening, too: without silence here, it would
        # decide just as the next word begins.
        return behind - mark < soon and backlog.first_loud(start, mark) is not None

    def is_in_word(mark: int) -> bool:
        return backlog.is_loud(mark - edge, mark) and backlog.is_loud(mark, mark + edge)

    def is_decided(mark: int) -> bool:
        before, after = backlog.last_loud(start, mark), backlog.first_loud(mark, backlog.end)
        return before is not None and after is not None and after - before >= decided

    rate, decided = backlog.sample_rate, round(DECIDED_AFTER * backlog.sample_rate)
    edge, soon = round(_EDGE * rate), round(_SOON * rate)
    pauses = {
        # A resampler may still hold audio that was pushed before the pause.
        min(round(seconds * rate), backlog.end)
        for seconds in clock.pauses_after(start / rate)
        # A pause at which the connection starts comes before all that it is sent. And a gap that is
        # not settled may be late audio, in the middle of a word.
        if round(seconds * rate) > start
        and (seconds < clock.settled_to or not is_in_word(round(seconds * rate)))
    }
    flushes = set(filter(is_due, backlog.flushes))
    marks: list[int] = []
    for mark in sorted(pauses | flushes):
        # Pauses with nothing but quiet between them need silence once.
        is_needed = mark in flushes or not marks or backlog.first_loud(marks[-1], mark) is not None
        if is_needed and not is_decided(mark):
            marks.append(mark)
    return marks
