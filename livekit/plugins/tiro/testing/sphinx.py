"""Real English words without a network: PocketSphinx 5 with the model that comes with it."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from .backend import LOOKAHEAD_SAMPLES
from .recognizer import RECOGNIZER_RATE, Hypothesis, Samples, Word
from .wire import FAILED_PRECONDITION, RESOURCE_EXHAUSTED, SpeechConfig, StatusError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Seconds; the decoder's grid.
FRAME = 0.01
# How much WebRTC's detector takes for a voice, from 0, nearly all, to 3.
VAD_MODE = 2
# Seconds by which the end of the last word in a running hypothesis is behind what was said, at
# most. Only in noise that the detector takes for a voice, the hypothesis is what tells silence.
LAG = 1.0
# Seconds of silence from which on a segment that ends has not been cut in the middle of a word.
BETWEEN_WORDS = 0.2
# Seconds of a word at most that is heard again, whole, by the segment after a cut.
LONGEST_WORD = 2.0
# Samples that are kept for the next segment.
KEPT_SAMPLES = LOOKAHEAD_SAMPLES + round(LONGEST_WORD * RECOGNIZER_RATE)
# Cepstral mean to start each connection from: of the usual loudness of speech, so that the first
# words are right before the running mean is; with the model's own, fox.wav has a wrong word.
CEPSTRAL_MEAN = "50,0,0"
# Entries of the decoder's list looked at for each alternative, as many of them read the same.
NBEST_DEPTH = 20
# Decoders kept for the next connection: loading one takes half a second and 90 MB.
MAX_IDLE = 2
# Connections at a time; more would wait for the processor anyway.
MAX_CONNECTIONS = 16


class Decoder(Protocol):
    """What is used of `pocketsphinx.Decoder`, which has no types of its own."""

    def set_cmn(self, mean: str) -> None:
        """Set the cepstral mean."""
        ...

    def start_utt(self) -> None:
        """Start an utterance."""
        ...

    def process_raw(self, data: bytes) -> object:
        """Decode samples."""
        ...

    def end_utt(self) -> None:
        """End the utterance."""
        ...

    def hyp(self) -> Any:
        """Return the best hypothesis, None if there is none."""
        ...

    def seg(self) -> Iterator[Any]:
        """Yield the words of the best hypothesis, with their frames."""
        ...

    def nbest(self) -> Iterator[Any]:
        """Yield the hypotheses, best first."""
        ...


class Vad(Protocol):
    """What is used of `pocketsphinx.Vad`, which has no types of its own."""

    frame_bytes: int

    def is_speech(self, frame: bytes) -> bool:
        """Tell whether there is a voice in `frame_bytes` of audio."""
        ...


_idle: deque[Decoder] = deque(maxlen=MAX_IDLE)
_open: weakref.WeakSet[SphinxRecognition] = weakref.WeakSet()


_NOTHING: Samples = np.zeros(0, np.int16)


class SphinxRecognizer:
    """A factory of recognitions by PocketSphinx; imports it for the first connection only."""

    def __call__(self, config: SpeechConfig) -> SphinxRecognition:
        """Open a connection's recognition.

        Raises:
            StatusError: FAILED_PRECONDITION, PocketSphinx is not installed; RESOURCE_EXHAUSTED,
                it hears as many connections as it may.
        """
        if importlib.util.find_spec("pocketsphinx") is None:
            how = "pip install pocketsphinx"
            text = f"{config.language} needs PocketSphinx, which is not installed: {how}"
            raise StatusError(FAILED_PRECONDITION, text)
        if len(_open) >= MAX_CONNECTIONS:
            text = f"{MAX_CONNECTIONS} connections are recognised already"
            raise StatusError(RESOURCE_EXHAUSTED, text)
        recognition = SphinxRecognition()
        _open.add(recognition)
        return recognition


class SphinxRecognition:
    """What PocketSphinx hears on one connection; the decoder is fetched with the first audio."""

    blocking = True

    def __init__(self) -> None:
        self._decoder: Decoder | None = None
        self._start: float | None = None
        self._decoded = 0
        self._voice = _Voice()
        # The newest audio, the last of which is not decoded when a segment ends.
        self._newest: Samples = _NOTHING
        # What of the last segment is for the next one to hear.
        self._left: Samples = _NOTHING
        self._is_over = False
        # Whether the decoder knows the connection's cepstral mean.
        self._is_adapted = False

    def attend(self, samples: Samples, start: float) -> bool:
        """Keep what the backend holds back; open a segment for what the last one left over."""
        self._newest = np.concatenate((self._newest, samples))[-KEPT_SAMPLES:]
        if not self._left.any():
            self._left = _NOTHING
        return len(self._left) > 0

    def delivered(self) -> None:
        """Do nothing: what was delivered makes no difference."""

    def ended(self, *, hung_up: bool) -> None:
        """Take note; the last of the audio is not decoded then, as at the service."""
        self._is_over = True

    def feed(self, samples: Samples, start: float) -> None:
        """Decode; the first call of a segment starts an utterance."""
        decoder = self._decoder = self._decoder or _take()
        if self._start is None:
            self._start = start - len(self._left) / RECOGNIZER_RATE
            samples, self._left = np.concatenate((self._left, samples)), _NOTHING
            if not self._is_adapted:
                decoder.set_cmn(CEPSTRAL_MEAN)
                self._is_adapted = True
            decoder.start_utt()
        self._decoded += len(samples)
        self._voice.feed(samples)
        decoder.process_raw(samples.tobytes())

    def silence(self) -> float | None:
        """Return the seconds of audio after the last voice, None if there is no word yet."""
        words = self.partial()
        return max(self._voice.silence, self._now - words[-1].end - LAG) if words else None

    def partial(self) -> Hypothesis:
        """Return the words of the running hypothesis."""
        if self._start is None or self._decoder is None or self._decoder.hyp() is None:
            return ()
        return tuple(
            Word(_bare(segment.word), *self._span(segment.start_frame, segment.end_frame))
            for segment in self._decoder.seg()
            if segment.word[0] not in "<["
        )

    def final(self, alternatives: int) -> Sequence[Hypothesis]:
        """End the utterance; alternatives have the words only, all with the time of the whole."""
        if self._start is None or self._decoder is None:
            return []
        self._decoder.end_utt()
        best = self._leave_over(self.partial())
        found = [best] if best else []
        if best and alternatives > 1:
            found += self._others(best, alternatives - 1)
        self._start, self._decoded = None, 0
        self._voice.begin()
        return found

    def close(self) -> None:
        """Keep the decoder for the next connection, unless it is in the middle of an utterance."""
        _open.discard(self)
        decoder, self._decoder = self._decoder, None
        if decoder is not None and self._start is None:
            _idle.append(decoder)

    @property
    def _now(self) -> float:
        """Where in the stream the decoded audio ends, in seconds."""
        return (self._start or 0.0) + self._decoded / RECOGNIZER_RATE

    def _leave_over(self, words: Hypothesis) -> Hypothesis:
        """Leave what is not decoded to the next segment, and a word that is cut; return the others.

        Nothing is left over at the end of the audio, and no word if it is all there is.
        """
        count = LOOKAHEAD_SAMPLES
        if len(words) > 1 and not self._is_over and self._voice.silence < BETWEEN_WORDS:
            heard = self._now - words[-1].start
            if heard < LONGEST_WORD:
                words = words[:-1]
                count += round(heard * RECOGNIZER_RATE)
        self._left, self._newest = self._newest[-count:], _NOTHING
        return words

    def _others(self, best: Hypothesis, count: int) -> list[Hypothesis]:
        assert self._decoder is not None
        texts = {" ".join(word.text for word in best)}
        others: list[Hypothesis] = []
        for entry in itertools.islice(self._decoder.nbest(), NBEST_DEPTH * count):
            if entry is None or len(others) == count:
                break
            if entry.hypstr and entry.hypstr not in texts:
                texts.add(entry.hypstr)
                span = best[0].start, best[-1].end
                others.append(tuple(Word(text, *span) for text in entry.hypstr.split()))
        return others

    def _span(self, first: int, last: int) -> tuple[float, float]:
        start = self._start or 0.0
        return start + first * FRAME, start + (last + 1) * FRAME


class _Voice:
    """Tells how long ago there was a voice in the audio."""

    def __init__(self) -> None:
        self._vad: Vad | None = None
        self.begin()

    def begin(self) -> None:
        """Start a segment."""
        self._rest = b""
        self._silent = 0

    def feed(self, samples: Samples) -> None:
        """Look at each whole frame."""
        vad = self._vad = self._vad or _vad()
        data, size = self._rest + samples.tobytes(), vad.frame_bytes
        whole = len(data) // size * size
        for start in range(0, whole, size):
            is_voice = vad.is_speech(data[start : start + size])
            self._silent = 0 if is_voice else self._silent + size
        self._rest = data[whole:]

    @property
    def silence(self) -> float:
        """Seconds since then."""
        return self._silent / 2 / RECOGNIZER_RATE


def _bare(word: str) -> str:
    """Return the word without the number of its pronunciation, as in `the(2)`."""
    return word.split("(")[0]


def _take() -> Decoder:
    try:
        return _idle.popleft()
    except IndexError:
        pocketsphinx = importlib.import_module("pocketsphinx")
        return cast("Decoder", pocketsphinx.Decoder(loglevel="FATAL"))


def _vad() -> Vad:
    pocketsphinx = importlib.import_module("pocketsphinx")
    return cast("Vad", pocketsphinx.Vad(VAD_MODE))
