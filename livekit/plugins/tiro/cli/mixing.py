"""Channels to one: every channel that can hold speech is heard, whatever it is called; no I/O."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]

# A channel that never came within 60 dB of the loudest one is not in use: it would only make the
# others quieter.
_UNUSED = 1e-3
# Share of full scale: two steps of 16 bit, which is what a codec can make of silence.
_SILENT = 2.5 / 32768
# Where the mix has less than a tenth of the energy that its channels bring in, they cancel each
# other; from three tenths on they do not any more.
_CANCELLED = 0.1
_RESTORED = 0.3
# Seconds in which the energies that decide about this fade.
_MEMORY = 2.0
# Hz; the bass channel of a film has nothing above 120, speech has most of its energy far above.
_BASS = 200.0
_BASS_NAME = "LFE"
# Weights of the channels of a film, by position: the centre has the dialogue. All others weigh
# half.
_FRONT = {"FC": 1.0, "FL": 0.7, "FR": 0.7}
_AROUND = 0.5
# Seconds in which one mix fades into the next; a jump would be a click.
_FADE = 0.01


def silent(samples: Samples) -> bool:
    """Tell whether there is nothing at all in the samples."""
    return not len(samples) or float(np.abs(samples).max()) <= _SILENT


class Mixer:
    """Mixes blocks of the same number of channels, in order.

    Channels that are in use are mixed, evenly unless their names say that it is a film. Where
    they cancel each other out, the strongest is taken alone.

    Args:
        names: The channels' positions, `FL` and so on; anything for those that have none.
        sample_rate: Hz.
        channel: The only one to take, from 0; None mixes.

    Attributes:
        cancelled: The channel that was taken alone because the mix was silent, if ever.
    """

    def __init__(self, names: Sequence[str], sample_rate: int, channel: int | None = None) -> None:
        count = len(names)
        self.cancelled: int | None = None
        self._rate = sample_rate
        self._channel = channel
        self._bass = [index for index, name in enumerate(names) if name == _BASS_NAME]
        film = "FC" in names and count > 2
        shares = [_FRONT.get(name, _AROUND) if film else 1.0 for name in names]
        self._shares = np.array(shares, np.float32)
        self._peaks = np.zeros(count, np.float32)
        self._energies = np.zeros(count)
        self._slopes = np.zeros(count)
        # Energy of the mix, and what it would be if the channels had nothing in common.
        self._mixed = 0.0
        self._brought = 0.0
        self._alone: int | None = None
        self._weights: Samples | None = None

    def mix(self, block: Samples) -> Samples:
        """Return the mix of a block.

        Args:
            block: Samples by channels.
        """
        if block.shape[1] == 1:
            return block[:, 0]
        if self._channel is not None:
            return block[:, self._channel]
        self._listen(block)
        weights = self._weigh(block)
        before = weights if self._weights is None else self._weights
        self._weights = weights
        mixed: Samples = block @ weights
        if not np.array_equal(before, weights):
            length = min(len(block), round(_FADE * self._rate))
            fade = np.linspace(0.0, 1.0, length, dtype=np.float32)
            old: Samples = block[:length] @ before
            mixed[:length] = old + (mixed[:length] - old) * fade
        return mixed

    def _listen(self, block: Samples) -> None:
        """Note how loud the channels are, and how fast they swing."""
        fades = float(np.exp(-len(block) / self._rate / _MEMORY))
        self._peaks = np.maximum(self._peaks, np.abs(block).max(axis=0, initial=0.0))
        self._energies = self._energies * fades + np.einsum("ij,ij->j", block, block)
        if self._bass:
            steps = np.diff(block, axis=0)
            self._slopes = self._slopes * fades + np.einsum("ij,ij->j", steps, steps)

    def _weigh(self, block: Samples) -> Samples:
        used = self._used()
        weights = np.where(used, self._shares, np.float32(0.0))
        total = float(weights.sum())
        if not total:
            return weights
        weights = (weights / total).astype(np.float32)
        self._judge(block, weights)
        if self._alone is None:
            return weights
        alone = np.zeros_like(weights)
        alone[self._alone] = 1.0
        return alone

    def _used(self) -> npt.NDArray[np.bool_]:
        loudest = float(self._peaks.max())
        used: npt.NDArray[np.bool_] = self._peaks > max(_SILENT, loudest * _UNUSED)
        for channel in self._bass:
            others = used.copy()
            others[channel] = False
            if others.any() and self._is_bass(channel):
                used = others
        return used

    def _is_bass(self, channel: int) -> bool:
        """Tell a channel of rumble from one that a recorder only named so."""
        energy = self._energies[channel]
        hertz = np.sqrt(self._slopes[channel] / energy) * self._rate / (2 * np.pi) if energy else 0
        return bool(hertz < _BASS)

    def _judge(self, block: Samples, weights: Samples) -> None:
        """Decide whether the channels cancel each other out."""
        fades = float(np.exp(-len(block) / self._rate / _MEMORY))
        mixed: Samples = block @ weights
        self._mixed = self._mixed * fades + float(mixed @ mixed)
        brought = np.einsum("ij,ij->j", block, block) @ (weights.astype(np.float64) ** 2)
        self._brought = self._brought * fades + float(brought)
        if self._alone is None:
            if self._mixed < _CANCELLED * self._brought:
                self._alone = self.cancelled = int(np.argmax(self._energies * (weights > 0)))
        elif self._mixed > _RESTORED * self._brought:
            self._alone = None
