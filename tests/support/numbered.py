"""Audio in which every 10 ms carries its own number, and a recogniser that reads the numbers.

It makes every mistake visible: a word is heard only if all of its samples arrived on one
connection, in order and without a gap. What arrived in part is heard as `#` and the word.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from livekit.plugins.tiro.testing.recognizer import Hypothesis, Samples, Word

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

RATE = 16000
BLOCK = 160
"""Samples of 10 ms."""
SECONDS = BLOCK / RATE

PEAK, NOISE = 12000, 300
"""How loud words are, and how loud what is between them; of 32767."""

# What a block of a word holds, as shares of its peak: the peak marks its start; then come the
# binary digits of its number, plus or minus a half each; then minus the peak; the rest is a third.
_DIGITS = 20
_HALF, _REST = 2, 3

# Blocks; a shorter part of a word is not heard as one.
_AUDIBLE = 3


@dataclass(frozen=True)
class Spoken:
    """A word and the blocks of the audio in which it is said, the last one excluded."""

    text: str
    first: int
    last: int
    softer: int = 1
    """How many times softer it is than the loudest words."""

    @property
    def start(self) -> float:
        return self.first * SECONDS

    @property
    def end(self) -> float:
        return self.last * SECONDS


@dataclass(frozen=True)
class Talk:
    """Numbered audio and what is said in it."""

    words: tuple[Spoken, ...]
    blocks: int
    peak: int = PEAK
    noise: int = NOISE
    hums: tuple[tuple[int, int], ...] = ()
    """Sounds that are no words, half as loud as one: the block of the start, and of the end."""
    noisy_to: int | None = None
    """The block at which the noise stops; None if it goes on."""

    @property
    def texts(self) -> list[str]:
        return [word.text for word in self.words]

    @property
    def seconds(self) -> float:
        return self.blocks * SECONDS

    def pcm(self) -> npt.NDArray[np.int16]:
        """Return the samples, 16 kHz."""
        chance = np.random.default_rng(len(self.words))
        shape = (self.blocks, BLOCK)
        audio = chance.integers(-self.noise, self.noise, shape, np.int16, endpoint=True)
        audio[:, 0] = self.noise
        if self.noisy_to is not None:
            audio[self.noisy_to :] = 0
        for first, last in self.hums:
            audio[first:last] = np.where(np.arange(BLOCK) % 2, 1, -1) * (self.peak // _HALF)
        for word in self.words:
            numbers = np.arange(word.first, word.last)
            digits = numbers[:, np.newaxis] >> np.arange(_DIGITS) & 1
            peak = self.peak // word.softer
            audio[word.first : word.last] = peak // _REST
            audio[word.first : word.last, 0] = peak
            audio[word.first : word.last, 1 : 1 + _DIGITS] = (2 * digits - 1) * (peak // _HALF)
            audio[word.first : word.last, 1 + _DIGITS] = -peak
        return audio.reshape(-1)


def talk(*utterances: int, word: float = 0.3, gap: float = 1.0, lead: float = 0.5) -> Talk:
    """Return a talk of utterances with so many words each.

    Args:
        utterances: How many words each utterance has.
        word: Seconds a word.
        gap: Seconds of silence after each utterance.
        lead: Seconds of silence before the first.
    """
    at = round(lead / SECONDS)
    words: list[Spoken] = []
    for count in utterances:
        for _ in range(count):
            words.append(Spoken(f"w{len(words)}", at, at + round(word / SECONDS)))
            at = words[-1].last
        at += round(gap / SECONDS)
    return Talk(tuple(words), at)


def in_one_breath(rng: Random, at: int, runs: int) -> tuple[list[Spoken], int]:
    """Return words with no pause but for breaths of 0.22 to 0.3 s, and the block after the last.

    Args:
        rng: Chooses how many words a run has, and how long they and the breaths are.
        at: The block of the first word.
        runs: How many runs of words there are, each followed by a breath.
    """
    words: list[Spoken] = []
    for _ in range(runs):
        for _ in range(rng.randint(6, 14)):
            words.append(Spoken(f"w{len(words)}", at, at + rng.randint(15, 50)))
            at = words[-1].last
        at += rng.randint(22, 30)
    return words, at


class NumberedRecognizer:
    """A recogniser factory for `TiroServer`: hears the words of a talk by the audio's numbers."""

    def __init__(self, said: Talk) -> None:
        self._said = said

    def __call__(self, config: object) -> NumberedRecognition:
        return NumberedRecognition(self._said.words, self._said.peak)


class NumberedRecognition:
    """One connection's hearing."""

    blocking = False

    def __init__(self, words: Sequence[Spoken], peak: int = PEAK) -> None:
        self._words = words
        self._peaks = sorted({peak // word.softer for word in words}) or [peak]
        self._samples: Samples = np.zeros(0, np.int16)
        self._start = 0.0
        self._heard: list[tuple[int, float]] = []
        self._now = 0.0
        self._last_loud: float | None = None

    def feed(self, samples: Samples, start: float) -> None:
        if abs(self._start + len(self._samples) / RATE - start) > 1e-6:
            # A new segment: the service has dropped its look-ahead.
            self._start, self._samples = start, self._samples[:0]
        self._samples = np.concatenate((self._samples, samples))
        self._now = start + len(samples) / RATE
        blocks, rest = self._blocks()
        self._read(blocks)
        self._start += rest / RATE
        self._samples = self._samples[rest:]

    def _blocks(self) -> tuple[list[int], int]:
        """Return where the whole blocks start, and where the rest after the last of them starts."""
        starts: list[int] = []
        end = 0
        is_mark = self._samples == self._peaks[0]
        for peak in self._peaks[1:]:
            is_mark |= self._samples == peak
        for mark in np.flatnonzero(is_mark).tolist():
            if mark < end:
                continue
            if mark + BLOCK > len(self._samples):
                return starts, mark
            starts.append(mark)
            end = mark + BLOCK
        return starts, len(self._samples)

    def _read(self, starts: list[int]) -> None:
        """Note the numbers of the blocks that arrived whole."""
        if not starts:
            return
        blocks = self._samples[np.array(starts)[:, np.newaxis] + np.arange(BLOCK)]
        peaks, digits = blocks[:, :1], blocks[:, 1 : 1 + _DIGITS]
        whole = np.all(blocks[:, 2 + _DIGITS :] == peaks // _REST, axis=1)
        whole &= blocks[:, 1 + _DIGITS] == -peaks[:, 0]
        whole &= np.all(np.abs(digits) == peaks // _HALF, axis=1)
        numbers = (digits > 0).astype(int) @ (1 << np.arange(_DIGITS))
        for at, number, is_whole in zip(starts, numbers.tolist(), whole.tolist(), strict=True):
            if is_whole:
                time = self._start + at / RATE
                self._heard.append((number, time))
                self._last_loud = time + SECONDS

    def silence(self) -> float | None:
        return None if self._last_loud is None else max(0.0, self._now - self._last_loud)

    def partial(self) -> Hypothesis:
        return self._hear(whole=False)

    def final(self, alternatives: int) -> Sequence[Hypothesis]:
        words = self._hear(whole=True)
        # A word that is cut in two by the service's own limit is heard in the next segment.
        end = words[-1].end if words else 0.0
        self._heard = [(number, time) for number, time in self._heard if time >= end - 1e-6]
        silent = (self.silence() or 0.0) > 0.1
        if silent:
            self._heard = []
        self._last_loud = None
        return [words] if words else []

    def close(self) -> None: ...

    def _hear(self, *, whole: bool) -> Hypothesis:
        times = dict(self._heard)
        ongoing = self._heard[-1][0] if self._heard and not (self.silence() or 0.0) > 0.1 else -1
        heard = []
        earliest, latest = min(times, default=0), max(times, default=-1)
        for word in self._words:
            if word.last <= earliest or word.first > latest:
                continue
            blocks = [n for n in range(word.first, word.last) if n in times]
            if len(blocks) < _AUDIBLE:
                continue
            start, end = times[blocks[0]], times[blocks[-1]] + SECONDS
            unbroken = abs(end - start - (word.last - word.first) * SECONDS) < 1e-6
            if len(blocks) == word.last - word.first and unbroken:
                heard.append(Word(word.text, start, end))
            elif blocks[0] == word.first and blocks[-1] == ongoing:
                if not whole:
                    heard.append(Word(word.text[:-1], start, end))
            else:
                heard.append(Word("#" + word.text, start, end))
        return tuple(heard)
