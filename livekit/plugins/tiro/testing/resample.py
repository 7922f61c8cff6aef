"""Any rate the service takes to the recognisers' 16 kHz, whatever the size of the messages."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

# Output samples on each side of a kernel: a millisecond and a half of 16 kHz in all.
HALF_WIDTH = 12
# Share of the output's Nyquist frequency that passes; the rest is the filter's slope.
PASSBAND = 0.92


class Resampler:
    """Converts one stream of mono 16-bit audio, message by message.

    The borders of messages change nothing, and zeros in give zeros out. As many samples are out
    as have begun by the end of those that are in; they come up to 0.8 ms late, for the filter
    looks back only.

    Args:
        rate: Hz of the input.
        target: Hz of the output.
    """

    def __init__(self, rate: int, target: int = 16000) -> None:
        common = math.gcd(rate, target)
        self._up, self._down = target // common, rate // common
        self._kernels = _kernels(self._up, self._down)
        self._tail: npt.NDArray[np.int16] = np.zeros(self._kernels.shape[1] - 1, np.int16)
        # Position of the next output sample after the tail, in units of 1 / up input samples.
        self._position = 0

    def feed(self, samples: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
        """Convert the next samples, shape `(n,)` to shape `(m,)`."""
        if self._up == self._down:
            return samples
        data = np.concatenate((self._tail, samples))
        end = len(samples) * self._up
        positions = np.arange(self._position, end, self._down)
        self._position += len(positions) * self._down - end
        taps = self._kernels.shape[1]
        self._tail = data[len(data) - taps + 1 :]
        if not len(positions):
            return np.zeros(0, np.int16)
        windows = np.lib.stride_tricks.sliding_window_view(data, taps)[positions // self._up]
        mixed = np.einsum("nt,nt->n", windows, self._kernels[positions % self._up])
        return np.asarray(np.clip(np.rint(mixed), -32768, 32767), np.int16)


def _kernels(up: int, down: int) -> npt.NDArray[np.float64]:
    """Return, for each of the `up` positions between two input samples, the weights around it."""
    between = np.arange(up)[:, None] / up
    if down < up:
        # Linear on purpose: its images fill the band above the input's, where PocketSphinx, for
        # one, hears next to nothing right if there is silence.
        return np.hstack((1 - between, between))
    half = math.ceil(HALF_WIDTH * down / up)
    offsets = np.arange(1 - half, half + 1)[None, :] - between
    window = 0.5 + 0.5 * np.cos(np.pi * np.clip(offsets / half, -1, 1))
    kernels = np.sinc(PASSBAND * up / down * offsets) * window
    return np.asarray(kernels / kernels.sum(axis=1, keepdims=True))
