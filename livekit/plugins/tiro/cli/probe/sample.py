"""The speech that a probe sends: two sentences, the second of which breaks off."""

from __future__ import annotations

import json
import math
import unicodedata
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler

from ..audio import open_audio
from ..call import Samples
from ..exits import Exit, FileError
from ..source import Source

RATE = 16000
"""Hz of the sample."""

# s of a given file that are used at most, and the least that can be cut in two.
_LONGEST = 6.0
_SHORTEST = 1.0
# s of a given file that are looked through for speech.
_SEARCHED = 30.0
# Share of a given file's speech that is said again as the sentence that "breaks off".
_BROKEN = 0.6
# Share of the peak below which sound at either end of a given file is not speech.
_QUIET = 0.02


class SpokenWord(NamedTuple):
    """A word, with its start and end in seconds of its utterance."""

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class Utterance:
    """Speech without quiet around it."""

    samples: Samples
    """16 kHz, shape `(n,)`."""
    words: tuple[SpokenWord, ...] = ()
    """What is said, if that is known."""

    @property
    def seconds(self) -> float:
        """Its length."""
        return len(self.samples) / RATE


@dataclass(frozen=True)
class Sample:
    """What a probe says."""

    whole: Utterance
    """A sentence that is complete."""
    broken: Utterance
    """A sentence that breaks off."""


def own_sample() -> Sample:
    """Return the sample that comes with the package."""
    folder = files(__package__)
    about = json.loads((folder / "sample.json").read_text(encoding="utf-8"))
    with as_file(folder / "sample.flac") as path:
        samples = _read(path, math.inf)
    whole, broken = (_utterance(samples, sentence) for sentence in about["sentences"])
    return Sample(whole, broken)


def sample_from(path: Path) -> Sample:
    """Return the first 6 s of a file's sound as a sample whose words nobody knows.

    Raises:
        FileError: It cannot be read, or holds less than a second of sound.
    """
    try:
        samples = _read(path, _SEARCHED)
    except FileError as error:
        raise FileError(error.code, f"{path}: {error}") from None
    size = np.abs(samples.astype(np.int32))
    loud = np.flatnonzero(size > _QUIET * size.max()) if size.any() else np.zeros(0, np.int64)
    if not len(loud) or loud[-1] - loud[0] < _SHORTEST * RATE:
        raise FileError(Exit.NO_AUDIO, f"{path}: there is less than a second of sound in it")
    samples = samples[loud[0] : loud[-1] + 1][: round(_LONGEST * RATE)]
    return Sample(Utterance(samples), Utterance(samples[: round(_BROKEN * len(samples))]))


def _read(path: Path, most: float) -> Samples:
    """Return the samples of a file at 16 kHz: little more than its first `most` seconds."""
    pcm = bytearray()
    with open_audio(Source(str(path))) as audio:
        for block in audio.blocks():
            pcm += block.pcm
            if len(pcm) >= 2 * most * audio.sample_rate:
                break
    return convert(np.frombuffer(bytes(pcm), np.int16), RATE, source=audio.sample_rate)


def _utterance(samples: Samples, sentence: Any) -> Utterance:
    start, end = sentence["start"], sentence["end"]
    words = (
        SpokenWord(word, first - start, last - start) for word, first, last in sentence["words"]
    )
    return Utterance(samples[round(start * RATE) : round(end * RATE)], tuple(words))


def convert(samples: Samples, rate: int, *, source: int = RATE) -> Samples:
    """Return audio at another rate.

    Args:
        samples: 16-bit mono, shape `(n,)`.
        rate: Hz to convert to.
        source: Hz that it has.
    """
    if rate == source or not len(samples):
        return samples
    resampler = AudioResampler(format="s16", layout="mono", rate=rate)
    frame = AudioFrame.from_ndarray(samples[np.newaxis], format="s16", layout="mono")
    frame.sample_rate = source
    frames = [*resampler.resample(frame), *resampler.resample(None)]
    return np.concatenate([each.to_ndarray()[0] for each in frames])


def plain(word: str) -> str:
    """Return a word in the form for comparing: without case and punctuation."""
    letters = (letter for letter in unicodedata.normalize("NFC", word) if letter.isalnum())
    return "".join(letters).casefold()
