"""What one connection is sent, in what pieces, and where its seconds are in the caller's audio.

No I/O: the present is passed in as `now`, monotonic seconds. A *position* counts samples of the
caller's audio; a *second* is one of the connection, in which injected silence counts too.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from .backlog import BYTES_PER_SAMPLE, KEEP_AT_MOST
from .drift import FARTHEST
from .endpointer import EMPTY_SEGMENT, FLUSH_SILENCE, SHORTEST_PAUSE
from .monologue import Monologue
from .onset import Onset
from .replay import plan_replay

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .backlog import Backlog
    from .clock import Clock

# s of audio left to process, above which a service counts as behind what it is sent.
_BEHIND = 0.3
# s of audio from one trim to the next; up to this much more than needed is kept.
TRIM_INTERVAL = 1.0
# s of audio from one look for a pause to the next: a pause in which the service decides is longer.
_PAUSE_LOOK_INTERVAL = 0.4
# s from the start of the audio sent again, which mostly is the end of a final word: a sound that
# begins within them may be the rest of that word, and its start is not compared with any time.
_REST = 0.1
# s of zeros after audio that is sent again because nothing was said about it: an endpointer that
# heard no word decides after 5 s.
_INSISTING_SILENCE = 6.0
# s; the zeros go out in pieces, because the service runs its endpointer between messages only.
_SILENCE_PIECE = 0.25
# s that a result trails what was sent although the service keeps up: the endpointer's silence, the
# look-ahead, the way there and back.
_USUAL_LAG = 5.0
# Seconds of the service's clock per second of audio, at most; a time farther ahead is not believed.
_FASTEST_CLOCK = 1.0 + FARTHEST


class Segment(NamedTuple):
    """What the connection got from one of its samples on: audio, or injected silence."""

    sample: int
    """The connection's sample at which it starts."""
    position: int
    """The position at which it starts; silence stays there."""
    is_audio: bool


class Feed:
    """One connection's way through the backlog. A new connection has a new feed."""

    def __init__(self, backlog: Backlog, clock: Clock, now: float, *, insist: bool = False) -> None:
        """Start at the first sample that is not final.

        Args:
            backlog: The audio.
            clock: Knows the pauses in the audio.
            now: Monotonic seconds.
            insist: Whether the service is to answer even if it hears no word. Then the first
                message has 20 ms, which opens its voice gate, and a flush sends 6 s of silence.
        """
        backlog.begin()
        replay = plan_replay(backlog, clock)
        self.left_out = replay.quiet
        """The samples of long quiet that are not sent again."""
        self.sent_to = replay.start
        """The position up to which audio was handed out."""
        self.heard_to = self.sent_to
        """The position up to which the service has said what is in the audio, as far as known."""
        self.drained_at = now
        """When a service at the pace of speech has heard all that was sent; monotonic seconds."""
        self.lag: float | None = None
        """Seconds that the last hypothesis was behind what was sent; None before the first."""
        self._backlog = backlog
        self._clock = clock
        self._drift = backlog.drift
        self._insist = insist
        self._onset = Onset(backlog, gathering=not insist)
        self._monologue = Monologue(backlog, self.sent_to)
        self._to_leave_out, self._silences = replay.left_out, replay.silences
        self._pending_flushes = list(self._silences)
        self._nothing_to: int | None = None
        self._silent_at: int | None = None
        # Seconds of the connection that the service has heard at least.
        self._least_heard = 0.0
        self.samples = 0
        """Samples sent on this connection, silence included."""
        self._silence_left = 0
        self._segments = [Segment(0, self.sent_to, True)]
        self._trim_at = self._look_at = self._acknowledged_to = self.sent_to

    # -- out -------------------------------------------------------------------------------------

    def flush(self, *, again: bool = False) -> bool:
        """Have silence sent after what was pushed so far, so that the service decides.

        Return False if silence was sent there already.

        Args:
            again: Whether to do so even if nothing was said since silence was last sent.
        """
        self._backlog.flush()
        end, flushes = self._backlog.end, self._pending_flushes
        last = flushes[-1] if flushes else self._silent_at
        asked = last is not None and not _is_said_after(last, self._backlog, self.heard_to)
        if asked and flushes:
            # The flush that waits moves to the new end.
            flushes.pop()
        elif asked and (not again or self._silences.get(end, 0.0) > FLUSH_SILENCE):
            # Or the silence that was sent there is enough for any decision.
            return False
        flushes.append(end)
        return True

    def next_chunk(self, now: float) -> bytes | None:
        """Hand out the next message, or None if there is too little audio; drop what may go."""
        backlog, start, first = self._backlog, self.sent_to, self.samples
        ready = (self._pending_flushes[0] if self._pending_flushes else backlog.end) - start
        chunk = backlog.chunk if first or not self._insist else backlog.sample_rate // 50
        if ready >= chunk and not self._silence_left:
            size_of_next = None
            if self._onset.is_gathering:
                size_of_next = self._onset.decide_while_gathering
            elif self.drained_at > now + _BEHIND and (first or not self._insist):
                size_of_next = self._onset.decide_while_behind
            elif self._onset.is_pausing:
                size_of_next = self._onset.decide_in_pause
            if size_of_next is not None:
                chunk = size_of_next(start, start + ready, chunk, bool(self._pending_flushes))
        if self._silence_left or (ready < chunk and self._pending_flushes):
            pcm = self._take_silence(ready)
        elif ready >= chunk > 0:
            self.sent_to = start + chunk
            self.samples = first + chunk
            pcm = backlog.take(start, self.sent_to)
        else:
            return None
        self.drained_at = max(self.drained_at, now) + (self.samples - first) / backlog.sample_rate
        if self.sent_to >= self._look_at:
            self._look_at = self.sent_to + round(_PAUSE_LOOK_INTERVAL * backlog.sample_rate)
            self._onset.look(self.sent_to)
            if self._monologue.look_from <= self.sent_to < backlog.end - chunk:
                if (breath := self._monologue.plan(self.sent_to)) is not None:
                    insort(self._pending_flushes, breath)
            if self._to_leave_out and self.sent_to >= self._to_leave_out[0][0]:
                self.sent_to = max(self.sent_to, self._to_leave_out.pop(0)[1])
                self._segments.append(Segment(self.samples, self.sent_to, True))
        if self.sent_to >= self._trim_at:
            self._trim_at = self.sent_to + round(TRIM_INTERVAL * backlog.sample_rate)
            self._trim(now, self.sent_to)
            self._onset.note_quiet(self.sent_to)
        return pcm

    def release(self) -> bool:
        """Hold back nothing of what was pushed so far. Return whether a chunk of it waits."""
        self._onset.release()
        return self.has_chunk

    def _take_silence(self, ready: int) -> bytes:
        """Return the next piece of silence; the first one begins with `ready` samples of audio."""
        pcm = b""
        if not self._silence_left:
            self.sent_to, self.samples = self.sent_to + ready, self.samples + ready
            self._silent_at = self._pending_flushes.pop(0)
            self._monologue.decided(self._silent_at)
            silence = self._silences.get(self._silent_at, FLUSH_SILENCE)
            silence = _INSISTING_SILENCE if self._insist else silence
            self._silence_left = round(silence * self._backlog.sample_rate)
            pcm = self._backlog.take(self.sent_to - ready, self.sent_to)
        # The odd end of the audio is filled up, so that each message is of whole milliseconds.
        samples = _silence_piece(self._backlog) - len(pcm) // BYTES_PER_SAMPLE
        if self._segments[-1].sample == self.samples:
            # No audio came in between: the earlier silence goes on.
            del self._segments[-1]
        if not self._segments or self._segments[-1].is_audio:
            self._segments.append(Segment(self.samples, self.sent_to, False))
        self.samples += samples
        self._segments.append(Segment(self.samples, self.sent_to, True))
        self._silence_left = max(0, self._silence_left - samples)
        if not self._silence_left:
            self._onset.note_silence()
        return pcm + bytes(samples * BYTES_PER_SAMPLE)

    @property
    def has_audio(self) -> bool:
        """Whether any audio, or silence, waits to be sent."""
        return self._backlog.end > self.sent_to or bool(self._pending_flushes)

    @property
    def has_chunk(self) -> bool:
        """Whether a whole chunk waits to be sent."""
        return self._backlog.end - self.sent_to >= self._backlog.chunk

    # -- how far the service is ------------------------------------------------------------------

    @property
    def undecided_from(self) -> int:
        """The position from which on the service may not have decided yet."""
        return self._monologue.since(self.sent_to)

    def ahead(self, now: float) -> float:
        """Return for how many more seconds a service at the pace of speech is busy, as a guess."""
        return max(0.0, self.drained_at - now)

    def heard_before(self, moment: float) -> int:
        """Return the position up to which a service at the pace of speech had heard by then."""
        sent = self.samples / self._backlog.sample_rate
        return self.locate(sent - max(0.0, self.drained_at - moment))

    def throttle(self, now: float, most: float) -> float:
        """Keep the service at most `most` seconds behind, so that what it has not heard is kept.

        Return the seconds to wait. If all that was sent is quiet, it is taken for heard now.
        """
        wait = self.ahead(now) - most
        if wait > 0 and self._backlog.first_sound(self._backlog.start, self.sent_to) is None:
            self.drained_at = now
            return 0.0
        return max(0.0, wait)

    def acknowledge(self, position: int) -> None:
        """Note that the peer has taken the audio up to a position: it is not lost on the way."""
        self._acknowledged_to = max(self._acknowledged_to, position)

    def give_up_old_audio(self, now: float) -> None:
        """Give up live audio that has waited too long for a connection; a file can wait."""
        self._trim(now, self._backlog.end if self._clock.is_live(now) else self.sent_to)

    def _trim(self, now: float, newest: int) -> None:
        backlog, segments = self._backlog, self._segments
        heard = self.sent_to - round(self.ahead(now) * backlog.sample_rate)
        backlog.trim(heard=min(heard, self._acknowledged_to), newest=newest)
        bound = backlog.kept_from - round(KEEP_AT_MOST * backlog.sample_rate)
        while len(segments) > 1 and segments[1].position <= max(backlog.finalized_to, bound):
            del segments[0]

    # -- what the service says -------------------------------------------------------------------

    def compare_clocks(self, start: float, end: float) -> None:
        """Compare where a final is, in seconds by the service's clock, with where sounds are."""
        if end >= self._drift.due_at:
            sounds = _sounds_by_connection(self._backlog, self.sent_to, self._segments)
            self._drift.compare(start, end, sounds)

    def finalize(self, start: float | None, end: float | None, now: float) -> None:
        """Let go of the audio that a final covers, whose words are from second `start` to `end`."""
        if start is None or end is None:
            self._backlog.finalize_without_times(self.sent_to)
            if self._backlog.first_sound(self._backlog.start, self.sent_to) is None:
                # All that the service can have left to hear is the silence after the last sound.
                self.drained_at = min(self.drained_at, now + FLUSH_SILENCE)
            # The service decides 0.5 s after a word at the earliest: no newer audio is covered.
            newer = round(max(SHORTEST_PAUSE, self.ahead(now)) * self._backlog.sample_rate)
            self._note_unplaced(max(self._backlog.start, self.sent_to - newer), now)
        else:
            self._backlog.finalize(self.locate(start), self._note_heard(end, now))
        # Before the trim: whether somebody still talks shows in what the final covers.
        self._onset.note_decision(self.sent_to, self._silent_at or 0)
        self._trim(now, self.sent_to)

    def _note_unplaced(self, heard_to: int, now: float) -> None:
        """Note an answer without times: it may be about all audio before a position."""
        self.heard_to = max(self.heard_to, heard_to)
        self._backlog.answered(self.sent_to)
        if self.drained_at <= now + _BEHIND:
            self._monologue.decided(self.sent_to)

    def hear(self, second: float, now: float) -> bool:
        """Note how far a hypothesis is. Return False if finals cover all of that by their times."""
        position = self._note_heard(second, now)
        self.lag = (self.sent_to - position) / self._backlog.sample_rate
        return position > self._backlog.finalized_to

    def _note_heard(self, second: float, now: float) -> int:
        """Note how far the service has heard. Return the position of the second."""
        position = self.locate(second)
        self.heard_to = max(self.heard_to, position)
        self._nothing_to = None
        self._least_heard = second / self._drift.pace
        behind = max(0.0, self.samples / self._backlog.sample_rate - self._least_heard)
        if behind > _USUAL_LAG or now + behind < self.drained_at:
            self.drained_at = now + behind
        return position

    def found_nothing(self, now: float) -> None:
        """Note that the service found no word in a segment; it does not say in which."""
        self._nothing_to = self.sent_to
        self._least_heard += EMPTY_SEGMENT
        behind = max(0.0, self.samples / self._backlog.sample_rate - self._least_heard)
        self.drained_at = min(self.drained_at, now + behind)
        self._note_unplaced(self.sent_to, now)
        self._onset.note_decision(self.sent_to, self._silent_at or 0)

    @property
    def found_nothing_in_all(self) -> bool:
        """Whether the service last said that it heard no word, and no sound follows that audio."""
        heard = self._nothing_to
        return heard is not None and self._backlog.first_sound(heard) is None

    # -- seconds and positions -------------------------------------------------------------------

    def is_possible(self, second: float) -> bool:
        """Tell whether a time that the service gives is within what was sent, 10 % to spare."""
        return second <= _FASTEST_CLOCK * max(1.0, self.samples / self._backlog.sample_rate)

    def spans(self, times: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
        """Turn seconds of the connection into seconds of the caller's audio, pauses included.

        The pauses before the middle of a span count for both of its ends.
        """
        rate = self._backlog.sample_rate
        found = []
        low = high = shift = 0
        pause = since = until = 0.0
        scale = rate / self._drift.pace
        for start, end in times:
            first, last = round(start * scale), round(end * scale)
            if not low <= first <= last < high:
                low, high, shift = self._audio_around(last)
            if low <= first <= last < high:
                first, last = first + shift, last + shift
            else:
                first, last = self.locate(start), self.locate(end)
            begins, ends = first / rate, last / rate
            middle = (begins + ends) / 2
            if not since <= middle < until:
                pause, since, until = self._clock.pause_around(middle)
            found.append((begins + pause, ends + pause))
        return found

    def _audio_around(self, sample: int) -> tuple[int, int, int]:
        """Return where the audio around a sample starts and ends, and its offset to positions."""
        segments = self._segments
        index = bisect_right(segments, (sample, inf)) - 1
        if index < 0 or not segments[index].is_audio:
            return 0, 0, 0
        segment = segments[index]
        shift = segment.position - segment.sample
        after = segments[index + 1].sample if index + 1 < len(segments) else self.samples + 1
        return segment.sample, min(after, self.sent_to - shift + 1), shift

    def locate(self, second: float) -> int:
        """Return the position of a second of the connection, within what was sent on it."""
        sample = round(second * self._backlog.sample_rate / self._drift.pace)
        segment = self._segments[max(0, bisect_right(self._segments, (sample, inf)) - 1)]
        if not segment.is_audio:
            return segment.position
        return min(segment.position + max(0, sample - segment.sample), self.sent_to)


def _is_said_after(position: int, backlog: Backlog, heard_to: int) -> bool:
    """Tell whether there can be words after a position: a sound, or what the service heard there.

    A hypothesis can be about words that are too soft to count as a sound.
    """
    is_heard = backlog.speaking and heard_to > position
    return is_heard or backlog.first_sound(position) is not None


def _sounds_by_connection(
    backlog: Backlog, sent_to: int, segments: list[Segment]
) -> list[tuple[float, float]]:
    """Return the seconds of the connection at which the sounds that are not final start and end."""
    start, rate = backlog.start, backlog.sample_rate
    rest = start + round(_REST * rate)
    found = backlog.sounds(start, sent_to)
    going_on = backlog.first_sound(found[-1][1] if found else start, sent_to)
    if going_on is not None:
        found.append((going_on, sent_to))
    return [
        # Silence that was injected right before a sound comes before its first sample.
        ((_sample_of(first + 1, segments) - 1) / rate, _sample_of(last, segments) / rate)
        for first, last in found
        if first > rest
    ]


def _sample_of(position: int, segments: list[Segment]) -> int:
    """Return the sample of the connection at which the audio up to a position ends."""
    before = [part for part in segments if part.is_audio and part.position < position]
    part = before[-1] if before else segments[0]
    return part.sample + position - part.position


def _silence_piece(backlog: Backlog) -> int:
    """Return the samples of a message of silence: a whole number of chunks."""
    return max(1, int(_SILENCE_PIECE * backlog.sample_rate / backlog.chunk)) * backlog.chunk
