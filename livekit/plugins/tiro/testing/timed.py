"""A conversation by the clock: what the caller says, and at which second."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from .checks import check_number, is_number
from .placing import CallAudio, EndedCall, Place
from .recognizer import (
    PACES,
    RECOGNIZER_RATE,
    WORDS_PER_SECOND,
    Ending,
    Hypothesis,
    Samples,
    ScriptWord,
    Word,
    script_parts,
    script_words,
    variant,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .record import ConnectionRecord
    from .wire import SpeechConfig

# Seconds of tolerance for times truncated to milliseconds, and for sums of floats.
ROOM = 0.002
# Seconds after the end of a word in which a sound still belongs to it.
REST_OF_WORD = 0.4
# Factor above the noise floor from which audio counts as a sound. The noise floor is the level
# that a tenth of the latest messages stay below; so many messages are some 10 s.
SOUND = 3
LATEST_MESSAGES = 200
# Connections in a row without a word after which a sound at the end is taken to hold none;
# `tiro.STT` stops sending it again after as many.
NOTHING_FOR_CERTAIN = 3
# Shortest and longest message, in seconds, of the silence that `tiro.STT` adds. It sends quiet
# audio in shorter messages, and longer ones end with a sound.
ADDED_SILENCE = 0.2, 0.3
# Seconds within which a client reconnects that closed the connection to change an option, or whose
# audio ended with a sound that no final covers.
BACK_AT_ONCE = 1.0
# Seconds within which a client reconnects after a connection broke off; LiveKit retries for less.
BACK_AFTER_BREAKING_OFF = 30.0


@dataclass(frozen=True)
class At:
    """What the caller says from a second of the call on: `At(1.2, "Góðan daginn.")`.

    Attributes:
        seconds: When the first word starts, in seconds of the caller's audio.
        text: One or more sentences.
        speaker: A number from 1, for clients that ask for diarization; 0 for nobody known.

    Raises:
        ValueError: The time or the speaker is negative, the time is not a number, or there is no
            word.
    """

    seconds: float
    text: str
    speaker: int = 0

    def __post_init__(self) -> None:
        if not is_number(self.seconds):
            raise ValueError(
                f"{self.seconds!r} is no time to say something at: give seconds, 0 or more"
            )
        if not isinstance(self.text, str):
            raise ValueError(f"{self.text!r} is nothing to say: give a sentence as text")
        if not isinstance(self.speaker, int) or self.speaker < 0:
            raise ValueError(f"speakers are numbered from 1, and 0 is nobody, not {self.speaker!r}")
        if not self.words:
            raise ValueError("there are no words to say")

    @property
    def words(self) -> Sequence[ScriptWord]:
        """The words, each in its two spellings."""
        return script_words([(self.speaker, self.text)])


@dataclass(frozen=True)
class Cue:
    """A word, and the seconds of the call in which it is said."""

    word: ScriptWord
    start: float
    end: float


@dataclass(frozen=True)
class Rest:
    """What is left of a call when a connection ends.

    Attributes:
        cues: The words that are in no delivered final.
        since: The second of the call after the last final: nothing before it is sent again.
        audio: What the client may send again.
        began: When the call began, in seconds of the clock; None if that is not known.
        patience: Seconds within which the client has to reconnect.
        must_match: Whether a connection goes on with the call only if it gets its audio again.
        found_nothing: How many connections in a row ended without a word.
        left_at: When the connection ended, in seconds of `time.monotonic`.
    """

    cues: Sequence[Cue]
    since: float | None
    audio: CallAudio
    began: float | None = None
    patience: float = 0.0
    must_match: bool = False
    found_nothing: int = 0
    left_at: float = field(default_factory=lambda: time.monotonic())


class TimedRecognizer:
    """A factory of recognitions that say given words at given seconds, whatever the audio is.

    The audio may be silence, a tone or speech: a second of it is a second of the script. The
    silence that `tiro.STT` adds of its own, to bring a final on, takes no time of the script.
    Endpoints are the service's: a final comes when there was no word for `endpoint_silence`, and
    for longer after an utterance that ends in a comma or in "…", see `Ending`.

    The script is said once in a call. The first connection of a call starts at second 0. One that
    follows a connection which a fault broke off or stopped reading, or which the client left for
    less than a second (it does so when an option is changed), goes on with that call: what was said
    in a final is not said again, all else is said at its time, and never before it. Where in the
    call the connection begins is found out as follows:

    - By its audio, if an earlier connection got the same: exactly at 16 kHz, and mostly at other
      rates. Digital silence, and sounds that repeat exactly, such as a tone, can not be told apart.
    - Else by the clock, if the caller is live and pauses at no time between two connections. Words
      are late by 0.25 s at most, and the first answer is late by half a second.
    - Else, as for a file of digital silence, it is taken to begin where the last final ends. Words
      are late by what the client has left out after that.

    Words whose audio the client leaves out are said where the connection begins. If the client does
    not connect again, they are not said: `tiro.STT` does not for a file that has ended in which
    nothing stands out from its noise.

    An end marker, or hanging up, ends the call; but a client whose audio ends with a sound that no
    final covers sends that again, and may do so within a second.

    Args:
        script: The utterances. One that starts before another is out follows it at once.
        words_per_second: The pace of the words of an utterance.

    Raises:
        ValueError: There is no utterance, or the pace is out of `PACES`.
    """

    def __init__(self, script: Sequence[At], *, words_per_second: float = WORDS_PER_SECOND) -> None:
        check_number("words_per_second", words_per_second, *PACES)
        utterances = script_parts(script)
        if not utterances:
            raise ValueError("the script has no words")
        for each in utterances:
            if not isinstance(each, At):
                raise ValueError(f'{each!r} has no time: give At(1.2, "Góðan daginn.")')
        duration = 1 / words_per_second
        self._cues = [
            Cue(word, utterance.seconds + n * duration, utterance.seconds + (n + 1) * duration)
            for utterance in sorted(utterances, key=lambda utterance: utterance.seconds)
            for n, word in enumerate(utterance.words)
        ]
        self._rests: list[Rest] = []
        self._under_way: list[TimedRecognition] = []

    def __call__(self, config: SpeechConfig) -> TimedRecognition:
        """Open a connection's recognition, in a new call or in one that goes on."""
        now = time.monotonic()
        self._rests[:] = [rest for rest in self._rests if now <= rest.left_at + rest.patience]
        self._under_way[:] = [each for each in self._under_way if not each.is_over]
        rest, ended = self._left_off() or self._left_behind(), list[Rest]()
        if rest is None:
            rest, ended = Rest(self._cues, None, CallAudio()), list(self._rests)
        recognition = TimedRecognition(rest, config, self._rests, ended)
        self._under_way.append(recognition)
        return recognition

    def _left_off(self) -> Rest | None:
        """Take the first call that its client goes on with, whatever the audio is."""
        for number, rest in enumerate(self._rests):
            if not rest.must_match:
                return self._rests.pop(number)
        return None

    def _left_behind(self) -> Rest | None:
        """Take over the call of a connection that is not read, as its end would not be noticed."""
        for each in self._under_way:
            if each.is_unread:
                return each.take_rest()
        return None


class TimedRecognition:
    """What `TimedRecognizer` hears on one connection.

    Cues have times of the call, words those of the connection.
    """

    blocking = False

    def __init__(
        self,
        rest: Rest,
        config: SpeechConfig,
        rests: list[Rest],
        ended: Sequence[Rest] = (),
    ) -> None:
        """Begin with what is left of a call.

        Args:
            rest: Of the call that the connection belongs to.
            config: What the client asks for.
            rests: Takes what this connection leaves.
            ended: Those of `rests` with one of which it goes on instead, if its audio does.
        """
        self.is_over = False
        """Whether the connection is over, or another one goes on with its call."""
        self._ahead = deque(rest.cues)
        self._config = config
        self._rests, self._ended = rests, ended
        self._connection: ConnectionRecord | None = None
        calls = [EndedCall(each.audio, each.began) for each in ended]
        self._place = Place(rest.since, rest.audio, rest.began, ended=calls)
        # The second of the call before which no word is said.
        self._in_line_from: float | None = None
        # Silence that the client added: of messages that are yet to be attended to, and of all.
        self._silences: deque[float] = deque()
        self._silence_placed = self._silence_before = 0.0
        # Seconds of the connection less those of the call.
        self._shift = 0.0
        self._heard: deque[tuple[Cue, Word]] = deque()
        self._undelivered: list[Cue] = []
        self._now = 0.0
        self._usual = 0
        self._patience = BACK_AFTER_BREAKING_OFF
        # Connections in a row whose last segment held no words, without this one and with it.
        self._nothing_before = self._found_nothing = rest.found_nothing
        # Seconds of the call at which the last final and the latest messages end.
        self._final_to = rest.since or 0.0
        self._peaks: deque[tuple[float, int]] = deque(maxlen=LATEST_MESSAGES)

    def watch(self, connection: ConnectionRecord) -> None:
        """Take the arrival times of messages from this record."""
        self._connection = connection

    @property
    def is_unread(self) -> bool:
        """Whether the server does not read the connection, whose client may have left it."""
        return self._connection is not None and self._connection.line.is_unread

    def place(self, samples: Samples, start: float) -> bool:
        """Take note of where the connection is in the call."""
        added = self._measure_added_silence(samples)
        size = len(samples) - round(added * RECOGNIZER_RATE)
        self._silences.append(added)
        end = start + size / RECOGNIZER_RATE - self._silence_placed
        arrived = self._connection.arrived_at if self._connection else None
        self._place.note(samples[:size], end, arrived)
        if self._ended and self._place.goes_on is not None:
            rest, self._ended = self._ended[self._place.goes_on], ()
            # Another connection may have gone on with it, with the same audio.
            self._rests[:] = [each for each in self._rests if each is not rest]
            self._ahead, self._final_to = deque(rest.cues), rest.since or 0.0
            self._nothing_before = self._found_nothing = rest.found_nothing
        self._silence_placed += added
        return self._place.start is not None

    def give_up_placing(self) -> None:
        """Let the connection begin where the last final ends, as no more audio comes."""
        self._place.give_up()

    def attend(self, samples: Samples, start: float) -> bool:
        """Advance to the end of the message; ask for a segment if there are words."""
        self._go_in_line()
        added = self._silences.popleft()
        now = start + len(samples) / RECOGNIZER_RATE - added - self._shift
        while self._ahead and self._ahead[0].end <= now + ROOM:
            cue = self._ahead.popleft()
            self._heard.append((cue, self._say(cue)))
        if added:
            self._interrupt(now)
            self._silence_before += added
            self._shift += added
        else:
            peak = int(np.abs(samples.astype(np.int32)).max(initial=0))
            self._peaks.append((now, peak))
        return bool(self._heard or (self._ahead and self._ahead[0].start < now))

    def _go_in_line(self) -> None:
        """Say no word before the connection begins in the call, as soon as that is known."""
        start = self._place.start
        assert start is not None
        if start != self._in_line_from:
            self._in_line_from = start
            self._shift = self._silence_before - start
            self._ahead = deque(_in_line(self._ahead, start))

    def feed(self, samples: Samples, start: float) -> None:
        """Note how far decoding is."""
        self._now = start + len(samples) / RECOGNIZER_RATE

    def silence(self) -> float | None:
        """Return the seconds after the last word that has begun, 0 during it; None without one."""
        ends = [word.end for word in self._words() if word.start < self._now]
        return max(0.0, self._now - ends[-1]) if ends else None

    def ending(self) -> Ending:
        """Judge by the punctuation marks of the last word that is over."""
        over = [cue for cue, word in self._heard if word.end <= self._now + ROOM]
        return over[-1].word.ending if over else Ending.COMPLETE

    def partial(self) -> Hypothesis:
        """Return the words so far, and the first half of the next once half of it is over."""
        words = []
        for word in self._words():
            if word.end <= self._now + ROOM:
                words.append(word)
            elif word.start + word.end <= 2 * self._now:
                half = word.text[: (len(word.text) + 1) // 2]
                words.append(replace(word, text=half, end=self._now))
        return tuple(words)

    def final(self, alternatives: int) -> Sequence[Hypothesis]:
        """Return the words that are over; leave the others to the next segment."""
        words = []
        while self._heard and self._heard[0][1].end <= self._now + ROOM:
            cue, word = self._heard.popleft()
            self._undelivered.append(cue)
            words.append(word)
        self._found_nothing = 0 if words else self._nothing_before + 1
        return [variant(tuple(words), n) for n in range(alternatives)] if words else []

    def delivered(self) -> None:
        """Take note that the words of the finals so far need not be said again."""
        if self._undelivered:
            self._final_to = self._undelivered[-1].end
            self._place.audio.forget(round(self._final_to * RECOGNIZER_RATE))
            self._undelivered.clear()

    def ended(self, *, hung_up: bool) -> None:
        """Set how long to wait for the client: after an end marker `close` decides."""
        self._patience = BACK_AT_ONCE if hung_up else 0.0

    def close(self) -> None:
        """Leave the words that were not delivered to the connection that goes on with the call."""
        patience = self._patience or self._patience_at_the_end()
        if patience and not self.is_over:
            is_settled = not self._patience and not self._undelivered
            rest = replace(
                self.take_rest(),
                patience=patience,
                must_match=is_settled and not self._ends_with_sound(),
                found_nothing=0 if self._patience else self._found_nothing,
            )
            self._rests.append(rest)
        self.is_over = True

    def take_rest(self) -> Rest:
        """Return what is left of the call, which another connection goes on with."""
        self.is_over = True
        cues = [*self._undelivered, *(cue for cue, _ in self._heard), *self._ahead]
        return Rest(cues, self._final_to, self._place.audio, self._place.call_began)

    def _patience_at_the_end(self) -> float:
        """Return the seconds in which the client may reconnect after an end marker; 0 if none."""
        if self._undelivered:
            # What had to be said to it did not go out.
            return BACK_AFTER_BREAKING_OFF
        settled = self._found_nothing >= NOTHING_FOR_CERTAIN or not self._loudest_after_final()
        return 0.0 if settled else BACK_AT_ONCE

    def _ends_with_sound(self) -> bool:
        """Tell whether anything after the last final stands out from the noise of the line."""
        levels = sorted(peak for _, peak in self._peaks) or [0]
        return self._loudest_after_final() > SOUND * max(1, levels[len(levels) // 10])

    def _loudest_after_final(self) -> int:
        """Return the peak of what follows the last final and the rest of its word."""
        after = self._final_to + REST_OF_WORD
        return max((peak for end, peak in self._peaks if end > after), default=0)

    def _words(self) -> list[Word]:
        """Return the words whose audio has arrived, and the next one."""
        return [word for _, word in self._heard] + [self._say(cue) for cue in list(self._ahead)[:1]]

    def _say(self, cue: Cue) -> Word:
        text, speaker = cue.word.say(self._config)
        return Word(text, cue.start + self._shift, cue.end + self._shift, speaker)

    def _interrupt(self, now: float) -> None:
        """Move the start of a word that has begun to where the caller goes on."""
        if self._ahead and self._ahead[0].start < now:
            self._ahead[0] = replace(self._ahead[0], start=now)

    def _measure_added_silence(self, samples: Samples) -> float:
        """Return the seconds of zeros at the end of a message that a client adds to get a final.

        They are told from the caller's own by the usual length of messages, which this learns.
        """
        size = len(samples)
        self._usual = min(self._usual or size, size)
        shortest, longest = (seconds * RECOGNIZER_RATE for seconds in ADDED_SILENCE)
        if not max(1.5 * self._usual, shortest) <= size < longest:
            return 0.0
        return (size - len(np.trim_zeros(samples, "b"))) / RECOGNIZER_RATE


def _in_line(cues: Iterable[Cue], clock: float) -> list[Cue]:
    """Return the words one after the other, none before `clock`."""
    line: list[Cue] = []
    for cue in cues:
        start = max(cue.start, clock)
        clock = start + cue.end - cue.start
        line.append(replace(cue, start=start, end=clock))
    return line
