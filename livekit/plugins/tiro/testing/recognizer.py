"""The seam between the local server and whatever hears the audio, and the scripted recogniser."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from .checks import check_number
from .wire import SpeechConfig

if TYPE_CHECKING:
    from .record import ConnectionRecord

Samples = npt.NDArray[np.int16]

# Hz; recognisers hear this rate only, the server converts to it.
RECOGNIZER_RATE = 16000
# Samples; 20 ms, the grid on which the scripted recogniser's word times lie in the recordings.
FRAME_SAMPLES = 320
# RMS in units of 16-bit samples; with 300 the recorded Icelandic words come out to the frame.
VOICED_RMS = 300.0
# Words a second of voiced audio; a calm talker.
WORDS_PER_SECOND = 2.5
# Words a second, from a word in 100 s to one in 1 ms.
PACES = 0.01, 1000
# Marks that end a sentence of a script.
SENTENCE_MARKS = ".!?…"
# Marks that a transcript without punctuation does not have.
MARKS = SENTENCE_MARKS + ",;:"

# What is a path rather than a sentence: it has a separator and no space, or ends like a file.
_PATH = re.compile(
    r"\S*[/\\]\S*[^\s.!?…]|.*\.(?:txt|text|md|rst|csv|tsv|json|jsonl|ya?ml|srt|vtt|log|html?|docx?)",
    re.IGNORECASE,
)

DEFAULT_SCRIPT = (
    "Góðan daginn og velkomin í prófunina.",
    "Veðrið er milt í dag og sólin skín.",
    "Ég ætla að fara út í búð og kaupa mjólk.",
    "Hesturinn stóð lengi við ána og þagði.",
    "Við skulum sjá hvað setur á morgun.",
    "Þetta er síðasta setningin í þessum lista.",
)


@dataclass(frozen=True)
class Word:
    """A recognised word; `start` and `end` are seconds from the start of the stream."""

    text: str
    start: float
    end: float
    speaker: int = 0


Hypothesis = tuple[Word, ...]


class Recognition(Protocol):
    """What is heard on one connection, a segment at a time.

    Attributes:
        blocking: Whether the calls take long enough to need a thread. They never overlap.
    """

    blocking: bool

    def feed(self, samples: Samples, start: float) -> None:
        """Hear more of the open segment; the first call after `final` opens the next one.

        Args:
            samples: Mono audio at 16 kHz, shape `(n,)`.
            start: Where in the stream the samples start, in seconds.
        """
        ...

    def silence(self) -> float | None:
        """Return the seconds of silence after the segment's last speech, None before any speech."""
        ...

    def partial(self) -> Hypothesis:
        """Return the words of the open segment so far; words and their ends may still change."""
        ...

    def final(self, alternatives: int) -> Sequence[Hypothesis]:
        """Close the segment; return at most `alternatives` hypotheses, best first.

        There is none if there are no words.
        """
        ...

    def close(self) -> None:
        """Free what the connection holds; called once, at its end."""
        ...


@runtime_checkable
class Attentive(Protocol):
    """Optional methods of a recognition that is told of messages, deliveries and the end.

    None of the calls may block.
    """

    def attend(self, samples: Samples, start: float) -> bool:
        """Take note of each message as it arrives, also of silent ones, which open no segment.

        Args:
            samples: The message, as `feed` gets it later.
            start: Where in the stream it starts, in seconds.

        Returns:
            Whether a segment opens even if the message is silent.
        """
        ...

    def delivered(self) -> None:
        """Take note that all results so far were sent to the client."""
        ...

    def ended(self, *, hung_up: bool) -> None:
        """Take note that the client ended its audio, or closed the connection (`hung_up`).

        It is not called for a connection that a fault breaks off. The last `final` comes after it.
        """
        ...


class Ending(Enum):
    """How complete a hypothesis looks; the value is the silence in seconds that ends the segment.

    The values are from the rules of Kaldi's endpointer, which the service uses.
    """

    COMPLETE = 0.5
    """A whole sentence."""
    UNCERTAIN = 1.0
    """It may go on."""
    BROKEN_OFF = 2.0
    """Not a sentence; after so much silence any segment ends."""


@runtime_checkable
class Judging(Protocol):
    """The optional method of a recognition that can tell how complete an utterance looks."""

    def ending(self) -> Ending:
        """Return how complete the words of the open segment look so far."""
        ...


@runtime_checkable
class Placing(Protocol):
    """Optional methods of a recognition that first finds out where in a call its audio belongs.

    Until it has, messages wait; then they are recognised one after the other. None of the calls may
    block.
    """

    def watch(self, connection: ConnectionRecord) -> None:
        """Take the record of the connection, before its first audio."""
        ...

    def place(self, samples: Samples, start: float) -> bool:
        """Take note of each message as it arrives, before `attend`, with the same arguments.

        Returns:
            Whether messages need not wait any more.
        """
        ...

    def give_up_placing(self) -> None:
        """Settle for a place, as no more audio comes; the messages that wait are then heard."""
        ...


# Called once for each connection, with its validated config.
RecognizerFactory = Callable[[SpeechConfig], Recognition]

Script = str | Sequence[str | tuple[int, str]]


@dataclass(frozen=True)
class ScriptWord:
    """A word of a script in its two spellings; a speaker of 0 is nobody known."""

    plain: str
    punctuated: str
    speaker: int

    def say(self, config: SpeechConfig) -> tuple[str, int]:
        """Return the word and its speaker as a config asks for them."""
        text = self.punctuated if config.punctuation else self.plain
        return text, self.speaker if config.diarization else 0

    @property
    def ending(self) -> Ending:
        """How complete what ends with it looks, by its marks: "…" breaks off, a comma may go on."""
        if self.punctuated.endswith(("…", "...")):
            return Ending.BROKEN_OFF
        return Ending.UNCERTAIN if self.punctuated[-1] in ",;:" else Ending.COMPLETE


class ScriptedRecognizer:
    """A factory of recognitions that say a script, word by word, while there is voiced audio.

    Deterministic: the same audio in the same connection always gives the same words and times.
    Every connection starts at the top of the script, and the script loops.

    Args:
        script: A text, or sentences, or pairs of speaker number (from 1) and sentence. Without
            `enableAutomaticPunctuation` the marks and the capital of each sentence's first
            word are left out; with it they are there, supplied where the script lacks them.
            After a word that ends in a comma the endpointer waits for 1.0 s of silence, after
            one that ends in "…" for 2.0 s, see `Ending`.
        words_per_second: How many words a second of voiced audio gives.

    Raises:
        ValueError: The script has no words or the wrong type, or the pace is out of `PACES`.
    """

    def __init__(
        self, script: Script | None = None, *, words_per_second: float = WORDS_PER_SECOND
    ) -> None:
        check_number("words_per_second", words_per_second, *PACES)
        self._words = script_words(DEFAULT_SCRIPT if script is None else script)
        if not self._words:
            raise ValueError("the script has no words")
        frames_per_second = RECOGNIZER_RATE / FRAME_SAMPLES
        self._frames_per_word = max(1, round(frames_per_second / words_per_second))

    def __call__(self, config: SpeechConfig) -> ScriptedRecognition:
        """Open a connection's recognition at the top of the script."""
        return ScriptedRecognition(self._words, self._frames_per_word, config)


class ScriptedRecognition:
    """What `ScriptedRecognizer` hears on one connection.

    It counts voiced frames of 20 ms from the start of the segment.
    """

    blocking = False

    def __init__(
        self, words: Sequence[ScriptWord], frames_per_word: int, config: SpeechConfig
    ) -> None:
        self._words = words
        self._frames_per_word = frames_per_word
        self._config = config
        self._next = 0
        self._reset()

    def _reset(self) -> None:
        self._start: float | None = None
        self._rest: Samples = np.zeros(0, np.int16)
        self._frames = 0
        self._voiced: list[int] = []

    def feed(self, samples: Samples, start: float) -> None:
        """Mark each whole frame as voiced or not."""
        if self._start is None:
            self._start = start
        samples = np.concatenate((self._rest, samples))
        count = len(samples) // FRAME_SAMPLES
        used = count * FRAME_SAMPLES
        self._rest = samples[used:]
        frames = samples[:used].reshape(count, FRAME_SAMPLES).astype(np.float64)
        loud = np.sqrt(np.mean(frames**2, axis=1)) > VOICED_RMS
        self._voiced.extend((np.flatnonzero(loud) + self._frames).tolist())
        self._frames += count

    def silence(self) -> float | None:
        """Return the seconds after the last voiced frame, None if there was none."""
        if not self._voiced:
            return None
        return (self._frames - 1 - self._voiced[-1]) * FRAME_SAMPLES / RECOGNIZER_RATE

    def ending(self) -> Ending:
        """Judge by the punctuation marks of the last complete word."""
        count = len(self._voiced) // self._frames_per_word
        return (
            self._words[(self._next + count - 1) % len(self._words)].ending
            if count
            else (Ending.COMPLETE)
        )

    def partial(self) -> Hypothesis:
        """Return the complete words, and the first half of the next once half of it is heard."""
        words = self._complete()
        done = len(words) * self._frames_per_word
        if 2 * (len(self._voiced) - done) >= self._frames_per_word:
            text, speaker = self._say(len(words))
            half = text[: (len(text) + 1) // 2]
            words += (Word(half, self._at(self._voiced[done]), self._at(self._frames), speaker),)
        return words

    def final(self, alternatives: int) -> Sequence[Hypothesis]:
        """Return the complete words; a word that is cut short is left to the next segment."""
        words = self._complete()
        self._next += len(words)
        self._reset()
        return [variant(words, n) for n in range(alternatives)] if words else []

    def close(self) -> None:
        """Do nothing: there is nothing to free."""

    def _complete(self) -> Hypothesis:
        per = self._frames_per_word
        words = []
        for n in range(len(self._voiced) // per):
            text, speaker = self._say(n)
            first, last = self._voiced[n * per], self._voiced[n * per + per - 1]
            words.append(Word(text, self._at(first), self._at(last + 1), speaker))
        return tuple(words)

    def _say(self, ahead: int) -> tuple[str, int]:
        return self._words[(self._next + ahead) % len(self._words)].say(self._config)

    def _at(self, frame: int) -> float:
        return (self._start or 0.0) + frame * FRAME_SAMPLES / RECOGNIZER_RATE


def variant(words: Hypothesis, number: int) -> Hypothesis:
    """Return the words with one of them changed, another for each `number`; 0 changes nothing."""
    if number == 0:
        return words
    index = (number - 1) % len(words)
    ending = "a" * ((number - 1) // len(words) + 1)
    changed = words[index]
    word = Word(changed.text + ending, changed.start, changed.end, changed.speaker)
    return (*words[:index], word, *words[index + 1 :])


def script_parts(script: Any) -> list[Any]:
    """Return the parts of a script, whatever they are; a text is one part.

    Raises:
        ValueError: It is neither a text nor several parts.
    """
    if isinstance(script, str):
        return [script]
    if isinstance(script, PathLike):
        path = fspath(script)
        raise ValueError(f"{path!r} is not read: give read_script({path!r}) for what is in it")
    if isinstance(script, bytes | bytearray) or not isinstance(script, Iterable):
        raise ValueError(
            "a script must be a text, or a list of sentences or of utterances such as "
            f'At(1.2, "Góðan daginn."), not {script!r}'
        )
    return list(script)


def script_words(script: Script) -> list[ScriptWord]:
    """Return the words of a script in order, each with its two spellings.

    Raises:
        ValueError: It has the wrong type, looks like the name of a file, or has a part that is not
            a sentence.
    """
    words: list[ScriptWord] = []
    for part in script_parts(script):
        if isinstance(part, str) and _PATH.fullmatch(part):
            raise ValueError(
                f"{part!r} looks like the name of a file, which is not read: give "
                f"read_script({part!r}) for what is in it, or end the sentence with a full stop"
            )
        speaker, text = part if isinstance(part, tuple) else (0, part)
        if not isinstance(speaker, int) or not isinstance(text, str):
            raise ValueError(
                f"{part!r} is no sentence and no pair of a speaker's number and a sentence: "
                'for what is said at a second of the call, give At(1.2, "Góðan daginn.")'
            )
        sentence: list[str] = []
        for word in text.split():
            sentence.append(word)
            if word[-1] in SENTENCE_MARKS:
                words += _sentence(sentence, speaker)
                sentence = []
        words += _sentence(sentence, speaker)
    return words


def _sentence(words: list[str], speaker: int) -> list[ScriptWord]:
    plain = [word.rstrip(MARKS) for word in words]
    marked = list(words)
    if words:
        plain[0] = plain[0][:1].lower() + plain[0][1:]
        marked[0] = marked[0][:1].upper() + marked[0][1:]
        if marked[-1][-1] not in MARKS:
            marked[-1] += "."
    pairs = zip(plain, marked, strict=True)
    return [ScriptWord(bare, mark, speaker) for bare, mark in pairs if bare]
