"""What a new connection is sent of the audio that is kept, and where it needs silence. No I/O.

A *position* counts samples of the caller's audio.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .endpointer import DECIDED_AFTER, EMPTY_SEGMENT, FLUSH_SILENCE
from .loudness import FRAMES_PER_SECOND, REST_AT_MOST

if TYPE_CHECKING:
    from .backlog import Backlog
    from .clock import Clock

# s on either side of a pause that are loud if the pause is in the middle of a word.
_EDGE = 0.1
# s before a pause, in which audio that stands out can be the onset of a word that goes on after it.
_ONSET_BEFORE_PAUSE = 0.2
# s of quiet from a flush to the next sound. After more, the service has decided by itself. With
# less, that quiet and the silence of the flush stay under the 5 s of an empty segment.
_SOON = 1.5
# s before a word in which a segment must not end: the word's onset is in a message of up to 0.4 s,
# and the service drops the 0.3 s that it looks ahead over.
_BEFORE_WORD = 0.7
# s of a word by which the service has heard it, so that the segment is one with a word.
_HEARD = 0.5
# s of long quiet that are sent before the sound that follows it, or before what is not known yet.
_BEFORE_SOUND = 1.0
# s of long quiet that are sent between two sounds: the service decides on words in them, and if it
# hears none, its segment ends in them too, and not at the onset of the second sound.
_BETWEEN_SOUNDS = EMPTY_SEGMENT + _BEFORE_WORD
# The least seconds of quiet worth leaving out: after a sound, and before the first one.
_LEAST_LEFT_OUT = 1.0
_LEAST_LEFT_OUT_BEFORE = 3.0


class Replay(NamedTuple):
    """What a new connection is sent of the audio that is kept."""

    start: int
    """The position of the first sample."""
    left_out: list[tuple[int, int]]
    """Where long quiet starts and ends that is left out after that."""
    silences: dict[int, float]
    """The positions at which silence is injected, and the seconds."""
    quiet: int
    """The samples of long quiet that are left out, those before the start included."""


def plan_replay(backlog: Backlog, clock: Clock) -> Replay:
    """Return what a new connection is sent."""
    start = first_to_send(backlog, clock)
    left_out = long_quiet(backlog, start)
    quiet = sum(end - begin for begin, end in left_out)
    if left_out and left_out[0][0] == start:
        start = left_out.pop(0)[1]
    silences = due_silence(backlog, clock, start)
    for begin, end in left_out:
        # The service decides in what is left of the quiet.
        silences = {mark: s for mark, s in silences.items() if not begin <= mark <= end}
    return Replay(start, left_out, silences, quiet)


def long_quiet(backlog: Backlog, start: int) -> list[tuple[int, int]]:
    """Return where long quiet starts and ends that a new connection need not be sent.

    A service that limits how long nobody speaks would end the connection in it, and a slow one
    would be busy with it. It is kept all the same. There is no word in it if nothing stands out,
    not even softly, and a service that keeps up had the time to show a hypothesis; or if two
    connections were sent it and the second heard no word. Noise that is not steady stands out
    everywhere: where a limit can have ended the second connection, only what is loud counts then.
    """
    heard_to = max(backlog.showable_to, backlog.wordless_to)
    found = _quiet_between(backlog, start, heard_to, soft=True)
    return found or _quiet_between(backlog, start, backlog.wordless_at_limit_to, soft=False)


def _quiet_between(backlog: Backlog, start: int, stop: int, *, soft: bool) -> list[tuple[int, int]]:
    """Return where long quiet starts and ends between two positions; `soft` as in `sounds`."""
    rate = backlog.sample_rate
    if backlog.speaking:
        stop = min(stop, backlog.open_from)
    found: list[tuple[int, int]] = []
    first, least = start, _LEAST_LEFT_OUT_BEFORE * rate
    if stop - start < least:
        return found
    for sound, end in [*backlog.sounds(start, stop, soft=soft, cut=True), (stop, stop)]:
        last = sound - round(_BEFORE_SOUND * rate)
        if last - first >= least:
            found.append((first, last))
        first = end + round((_BETWEEN_SOUNDS - _BEFORE_SOUND) * rate)
        least = _LEAST_LEFT_OUT * rate
    return found


def wordless_segments(backlog: Backlog, start: int, stop: int) -> int:
    """Return in how many segments between two positions a service may say that it hears no word."""
    most = round(EMPTY_SEGMENT * backlog.sample_rate)
    sounds = backlog.sounds(start, stop, EMPTY_SEGMENT, soft=True, cut=True)
    return sum(1 + (end - begin) // most for begin, end in sounds)


def first_to_send(backlog: Backlog, clock: Clock) -> int:
    """Return from where a new connection is fed.

    Quiet audio before a pause of the caller's is not the onset of what follows the pause. But words
    can be too soft to count as a sound: it is sent again if a hypothesis is about it, or if no
    service had the time to hear any in it.
    """
    rate, start = backlog.sample_rate, backlog.start
    # Less than a message at the end was not sent: nothing is said about it. And the rest of a final
    # word needs no answer.
    answerable_to = backlog.answerable_to + backlog.chunk
    rest_to = start + round(REST_AT_MOST * rate) if start == backlog.finalized_to > 0 else start
    for seconds in reversed(clock.pauses_after(start / rate)):
        pause = min(round(seconds * rate), backlog.end)
        is_known = pause <= max(answerable_to, rest_to) and not _is_open(backlog, pause)
        if is_known and _is_quiet_before(backlog, pause, rest_to):
            return pause
    return start


def _is_open(backlog: Backlog, pause: int) -> bool:
    """Tell whether a hypothesis can be about audio before a pause."""
    return backlog.speaking and backlog.open_from < pause - round(_EDGE * backlog.sample_rate)


def _is_quiet_before(backlog: Backlog, pause: int, rest_to: int) -> bool:
    """Tell whether no word, and no onset of one, comes before a pause."""
    onset = max(rest_to, pause - round(_ONSET_BEFORE_PAUSE * backlog.sample_rate))
    return backlog.first_sound(backlog.start, pause) is None and not backlog.is_loud(onset, pause)


def due_silence(backlog: Backlog, clock: Clock, start: int) -> dict[int, float]:
    """Return where a new connection that is fed from `start` on needs silence, and the seconds.

    That is at each flush with anything to decide, or that no connection was sent yet; and at each
    pause of the caller's audio, as the audio on both sides of a mute is not one utterance.
    """
    flushes = {mark for mark in backlog.flushes if _is_due(backlog, mark, start)}
    pauses = _pauses(backlog, clock, start)
    marks: list[int] = []
    for mark in sorted(pauses | flushes):
        if marks and _first_loud(backlog, marks[-1], mark) is None:
            # With nothing but quiet between them, both need silence once: that of a pause, if any.
            last = marks.pop()
            for both in (pauses, flushes):
                if last in both:
                    both.add(mark)
        marks.append(mark)
    found: dict[int, float] = {}
    since = start
    for mark in marks:
        is_pause, is_flush = mark in pauses, mark in flushes
        if seconds := _length(backlog, since, mark, is_pause=is_pause, is_flush=is_flush):
            found[mark], since = seconds, mark
    return found


def _length(backlog: Backlog, since: int, mark: int, *, is_pause: bool, is_flush: bool) -> float:
    """Return the seconds of silence at a place that end the segment which began after `since`.

    A segment in which the service hears no word, but a cough or noise, ends later than others. That
    must not be at the onset of the next word. Where somebody flushed and spoke on, there were words
    before, and the final is wanted soon.
    """
    rate, before = backlog.sample_rate, backlog.last_loud(_next_frame(backlog, since), mark)
    if before is None and not is_flush and not _is_open(backlog, mark):
        # There is nothing to decide.
        return 0.0
    word = _first_loud(backlog, mark, backlog.end)
    if word is None:
        # A file, or the first flush of a call, is not sent again: it wants its final, and no more.
        is_new = backlog.sent_to <= since
        if before is None or backlog.speaking or is_new:
            return FLUSH_SILENCE
        # The next word can come at once.
        return EMPTY_SEGMENT + _BEFORE_WORD
    # After long quiet, the service decides on words by itself.
    is_long = before is not None and word - before >= DECIDED_AFTER * rate
    least = 0.0 if is_long else FLUSH_SILENCE
    is_heard = (word - since) / rate + least + _HEARD < EMPTY_SEGMENT
    if is_heard or not is_pause:
        return least
    return max(least, EMPTY_SEGMENT + _BEFORE_WORD - (word - mark) / rate)


def _first_loud(backlog: Backlog, start: int, stop: int) -> int | None:
    return backlog.first_loud(_next_frame(backlog, start), stop)


def _next_frame(backlog: Backlog, position: int) -> int:
    """Return where the next measured frame starts: one in which sound ends is loud to its end."""
    frame = backlog.sample_rate // FRAMES_PER_SECOND
    return -(-position // frame) * frame


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
