"""When the service is asked for a final: at once, in the next pause, or once more."""

from __future__ import annotations

import asyncio
import time
from math import inf
from typing import TYPE_CHECKING

from .endpointer import DECIDED_AFTER, FLUSH_SILENCE
from .endpointing import NEXT_PAUSE, QuietWatch
from .loudness import FRAMES_PER_SECOND

if TYPE_CHECKING:
    from collections.abc import Callable

    from .backlog import Backlog
    from .clock import Clock
    from .exchange import Parts
    from .feed import Feed

# s without an answer to a flush and without more audio, after which the silence is sent once more:
# the service may need more silence than it was sent. The framework waits 2 s for the answer.
_ASK_AGAIN_AFTER = 1.5
# s without more audio, after which a flush that waits for a pause is made all the same.
_NO_MORE_AFTER = 0.3
# s by which a network can delay the next frame: with long frames it takes their length and that.
_FRAME_LATE = 0.2
# s that a frame of live audio has at most; longer ones are parts of a file.
_LONGEST_FRAME = 0.5
# s that the timer of a flush that waits may be late. If it is later, the event loop has stalled,
# and audio had to wait as well.
_STALLED = 0.02
# s of audio without a word, by what the service says, after which a flush that waits for a pause is
# made: the audio is no speech.
_NO_WORD_AFTER = 1.5
# s after the end of a final within which somebody may still flush for it: the framework's detectors
# of the end of a turn wait for 3 s at most.
_ASKED_LATEST = 3.5
# s that hypotheses may be later than at their fastest on this connection. Beyond that, silence
# would only put the service further behind: one no faster than speech would never catch up.
_TOO_FAR_BEHIND = 1.5
# s: the most of a word that has just begun, and the least quiet before it. Whoever flushes after a
# pause, as a VAD does, is 0.1 s late. The shortest words have 0.1 s of sound.
_BEGUN = 0.16
_BEFORE_IT = 0.1
# s at the end of the audio that have to be loud: one frame, in which loudness is measured.
_ONE_FRAME = 0.02


class Flusher:
    """Asks for finals on one connection."""

    def __init__(
        self,
        feed: Feed,
        parts: Parts,
        wake: Callable[[], None],
        *,
        endpointing: float | None,
        ended: bool,
    ) -> None:
        """Ask for nothing yet, except for a final that was awaited on the previous connection.

        Args:
            feed: The connection's, which sends the silence that makes the service decide.
            parts: The stream's.
            wake: Has the feed's silence sent.
            endpointing: The option: seconds of quiet.
            ended: Whether the caller's input has ended.
        """
        self.quiet = QuietWatch()
        """Where to look for the quiet in which to ask."""
        self.ask_again_at = time.monotonic() + _ASK_AGAIN_AFTER
        """When to call `ask_again`; monotonic seconds."""
        self._feed = feed
        self._parts = parts
        self._wake = wake
        self._timer = _Timer()
        self._is_over = ended
        # While a flush is left to the caller's quiet: by when the service must have decided, and
        # the position up to which the final was asked for.
        self._ask_by: float | None = None
        self._left_to = 0
        self._least_lag = inf
        # s that the last final was behind what was sent, which tells where hypotheses do not.
        self._final_lag = 0.0
        # The position at which the timer was late once, because the loop stalled: that is excused.
        self._excused: int | None = None
        self.set_endpointing(endpointing)
        self.quiet.take_over(parts.backlog, somebody_waits=parts.transcript.flush_pending)
        if self.quiet.is_waiting:
            self._wait_for_more()

    def set_endpointing(self, seconds: float | None) -> None:
        """Set after how much quiet the final is asked for; None leaves that to the service."""
        self._endpointing = seconds
        self._note_state()

    def _note_state(self) -> None:
        """Tell the watch whether a hypothesis is open, and how many finals there were."""
        backlog, transcript = self._parts.backlog, self._parts.transcript
        self.quiet.note(
            self._feed.undecided_from if transcript.speaking else 0,
            is_open=transcript.speaking,
            finals=transcript.finals,
            endpointing=self._endpointing,
            rate=backlog.sample_rate,
        )

    def note_answer(self) -> None:
        """Take in that the service began to hear words, or decided."""
        self._note_state()
        lag = self._feed.lag
        if lag is None:
            unheard = self._feed.sent_to - self._feed.heard_to
            lag = self._final_lag = unheard / self._parts.backlog.sample_rate
        self._least_lag = min(self._least_lag, lag)
        if self._ask_by is not None:
            # A final about earlier audio is no answer, but the service comes nearer.
            backlog = self._parts.backlog
            open_from = backlog.first_sound(backlog.start, self._left_to)
            self._ask_by = None if open_from is None else self._decided_at

    # -- for the caller --------------------------------------------------------------------------

    def flush(self) -> None:
        """Bring the service's endpointer to a decision on what was pushed so far.

        Wait if a word has just begun, or if the service is behind and silence does not help.
        """
        if self.quiet.is_waiting:
            # It is asked in the next pause: a caller in the middle of a word is not done.
            return
        backlog = self._parts.backlog
        if _is_at_onset(backlog, self._parts.clock):
            self.quiet.wait_for_pause(backlog)
            self._wait_for_more()
        elif self._put_off_if_behind(time.monotonic()):
            self._left_to = backlog.end
        else:
            self._ask()

    def send_held_unless_more_comes(self) -> None:
        """Have held audio sent if no more audio comes: it can be the onset of a word."""
        if not self.quiet.is_waiting and self._ask_by is None:
            self._start_timer(self._release)

    def _release(self, position: int) -> None:
        if self._parts.backlog.end == position:
            self._parts.take_rest()
            if self._feed.release():
                self._wake()

    def end_input(self) -> None:
        """Have the remaining audio sent and decided on: no more comes."""
        self.close()
        if self._parts.backlog.end:
            # Audio that is too short for a message, or for a word, is sent all the same.
            self._feed.flush(again=self._feed.sent_to < self._parts.backlog.end)
        self._wake()

    def close(self) -> None:
        """Ask for nothing more."""
        self._is_over = True
        self._timer.cancel()

    # -- what waits ------------------------------------------------------------------------------

    def _put_off_if_behind(self, now: float) -> bool:
        """Put the flush off if the service is behind: silence takes it as long as any other quiet.

        Return True until the service, counted from its last answer, has had the time to hear all
        that it was sent and to decide on it. The first call starts that wait.
        """
        if not self._is_behind(now):
            return False
        if self._ask_by is None:
            self._ask_by, self._left_to = self._decided_at, self._parts.backlog.end
            self.ask_again_at = inf
            # A new connection, which is not behind, is sent silence right there.
            self._parts.backlog.flush()
            self._wait_for_more()
        return now < self._ask_by

    def _is_behind(self, now: float) -> bool:
        """Tell whether the service is behind live audio, by what it says and what it was sent.

        A service that is merely far away is just as late from the first word on.
        """
        lag = self._final_lag if self._feed.lag is None else self._feed.lag
        later = lag - self._least_lag
        is_late = min(later, self._feed.ahead(now)) > _TOO_FAR_BEHIND
        return is_late and not self._parts.clock.is_early

    @property
    def _decided_at(self) -> float:
        """When a service at the pace of speech has decided on what it was sent; monotonic s."""
        return self._feed.drained_at + DECIDED_AFTER

    def _wait_for_more(self) -> None:
        self._start_timer(self._ask_or_wait_on)

    def _start_timer(self, call: Callable[[int], None]) -> None:
        if not self._is_over:
            frame = min(self._parts.clock.latest, _LONGEST_FRAME)
            wait = max(_NO_MORE_AFTER, frame + _FRAME_LATE)
            self._timer.start(wait, call, self._parts.backlog.end)

    def _ask_or_wait_on(self, position: int) -> None:
        """Ask for the final if no audio has come after a position, or no word in what came.

        Else wait on: for a pause, once the service has caught up or its time is over.
        """
        if not self.quiet.is_waiting and self._ask_by is None:
            return
        now, end = time.monotonic(), self._parts.backlog.end
        if end == position and (not self._timer.is_late or self._excused == position):
            self._parts.take_rest()
            self._ask()
            return
        self._excused = position if end == position else None
        if self.quiet.is_waiting:
            if self._is_no_speech(now):
                self._ask()
                return
        elif not self._put_off_if_behind(now):
            self.quiet.wait_for_pause(self._parts.backlog)
        self._wait_for_more()

    def _is_no_speech(self, now: float) -> bool:
        """Tell whether the audio is no speech: the service keeps up and hears no word in it."""
        backlog, feed = self._parts.backlog, self._feed
        if feed.lag is None:
            return False
        heard_to = max(feed.heard_to, self.quiet.waits_from)
        unheard = (backlog.end - heard_to) / backlog.sample_rate
        # A new connection has only given hypotheses of what was said before.
        usual = max(min(self._least_lag, feed.lag), feed.ahead(now))
        return unheard - usual > _NO_WORD_AFTER

    # -- asking ----------------------------------------------------------------------------------

    def _ask(self, *, again: bool = False) -> None:
        """Have silence sent after what was pushed so far.

        Args:
            again: Whether silence may be sent a second time for the same audio.
        """
        now, end = time.monotonic(), self._parts.backlog.end
        busy = self._feed.ahead(now) if self._is_behind(now) else 0.0
        self.ask_again_at = inf if again else now + busy + _ASK_AGAIN_AFTER
        # A service at the pace of speech takes that long for the silence.
        self.quiet.asked(end, now + FLUSH_SILENCE)
        self._ask_by = None
        if self._feed.flush(again=again):
            self._wake()

    def ask_again(self) -> None:
        """Send more silence for a flush that is not answered, if the caller sends no more audio."""
        backlog = self._parts.backlog
        if time.monotonic() < self.ask_again_at:
            return
        self.ask_again_at = inf
        is_last = backlog.flushes[-1:] == [backlog.end]
        if is_last and not self._is_over and self._parts.transcript.flush_pending:
            self._ask(again=True)

    def notice_end_of_utterance(self, seconds: float, now: float) -> None:
        """Ask for the final after as much quiet as the options say, or in a long monologue.

        Args:
            seconds: The length of the latest push; all that was pushed is sent.
            now: Monotonic seconds.
        """
        backlog, quiet_from = self._parts.backlog, self.quiet.quiet_from(self._parts.backlog)
        # A sound ends somewhere in the last frame of 20 ms in which it is loud.
        step = (seconds + 1 / FRAMES_PER_SECOND) * backlog.sample_rate
        silent = quiet_from is None or backlog.first_loud(quiet_from, backlog.end) is None
        if self.quiet.is_due(backlog.end, quiet_from, now, step, silent=silent):
            # A monologue can not be left to the quiet: the service would cut a word first.
            if backlog.end >= self.quiet.monologue_from or not self._put_off_if_behind(now):
                self._ask()
        self.quiet.look_again(quiet_from, step)

    def notice_mute(self, now: float) -> None:
        """Bring an utterance to its end when the caller's audio stops in the middle of it.

        The service's endpointer runs on audio: without any, it would wait for ever.
        """
        clock, mute = self._parts.clock, self._parts.mute
        if self._is_over or not clock.is_paused(now):
            return
        self._parts.take_rest()
        if self._feed.release():
            self._wake()
        if mute.look(clock.pushed, now) and self._parts.backlog.may_hold_words():
            mute.noticed()
            self._ask(again=True)


def mark_flush(backlog: Backlog, clock: Clock, *, somebody_waits: bool) -> None:
    """Have the next connection ask for what was pushed so far; during a word, in the next pause.

    Args:
        backlog: The audio.
        clock: Knows the pauses in the audio.
        somebody_waits: Whether a final was asked for before, perhaps in the same word.
    """
    latest = max(0, backlog.end - round(NEXT_PAUSE * backlog.sample_rate))
    quiet_from = backlog.quiet_from()
    # Noise above the floor that was learned can be quiet compared with the words before.
    is_quiet = quiet_from is not None and quiet_from <= latest
    is_talking = somebody_waits and not is_quiet and backlog.is_loud(latest, backlog.end)
    if not is_talking and not _is_at_onset(backlog, clock):
        backlog.flush()


def _is_at_onset(backlog: Backlog, clock: Clock) -> bool:
    """Tell whether a word has begun just now, so that silence would cut it.

    The word may follow audio that became final a moment ago: its flush may still come.
    """
    final_to, rate = backlog.finalized_to, backlog.sample_rate
    is_recent = 0 < final_to and backlog.end - final_to < _ASKED_LATEST * rate
    after_final = is_recent and not clock.pauses_after(final_to / rate)
    return has_begun_anew(backlog, after_final=after_final)


def has_begun_anew(backlog: Backlog, *, after_final: bool = False) -> bool:
    """Tell whether a word has begun just now, after a pause.

    Args:
        backlog: The audio.
        after_final: Whether the pause may follow final audio; else it is in audio not final.
    """
    rate, start, end = backlog.sample_rate, backlog.start, backlog.end
    word = end - round(_BEGUN * rate)
    pause = word - round(_BEFORE_IT * rate)
    if pause < start or not backlog.is_loud(end - round(_ONE_FRAME * rate), end):
        return False
    quiet_from = backlog.quiet_from()
    if quiet_from is not None and quiet_from <= word:
        # The end is soft compared with the words before: a breath.
        return False
    is_first = not backlog.speaking and backlog.first_sound(start, word) is None
    if is_first and not after_final:
        return False
    if backlog.first_loud(pause, word) is None:
        return True
    # Noise above the floor that was learned can be quiet compared with the words before: the
    # final ones, if no others are open.
    latest, loudness = round(_ONE_FRAME * rate), backlog.loudness
    is_after_words = after_final and not backlog.speaking
    if is_after_words and loudness.is_quiet_after_words(pause, word - latest):
        return True
    quiet = backlog.longest_quiet(start, pause, word, silent=False)
    return quiet is not None and quiet[1] - quiet[0] >= word - pause - latest


class _Timer:
    """Makes one call some seconds later: the one that was started last, unless it is cancelled."""

    def __init__(self) -> None:
        self._handle: asyncio.TimerHandle | None = None

    @property
    def is_late(self) -> bool:
        """Whether the loop makes the call late."""
        assert self._handle is not None
        return asyncio.get_running_loop().time() - self._handle.when() > _STALLED

    def start(self, seconds: float, call: Callable[[int], None], position: int) -> None:
        self.cancel()
        self._handle = asyncio.get_running_loop().call_later(seconds, call, position)

    def cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
