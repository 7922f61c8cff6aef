"""Any rate that the service takes, converted to that of the recognisers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from livekit.plugins.tiro.testing.resample import Resampler

from .support.examples import examples


@pytest.mark.parametrize("rate", [8000, 11025, 12000, 22050, 24000, 32000, 44100, 48000])
def test_resampler_keeps_a_tone(rate: int) -> None:
    """1 kHz comes out as loud as it went in, up to 0.8 ms late."""
    tone = np.rint(10000 * np.sin(2 * np.pi * 1000 * np.arange(rate) / rate)).astype(np.int16)
    out = Resampler(rate).feed(tone)[800:].astype(np.float64)
    at = np.arange(len(out)) / 16000
    basis = np.stack([np.sin(2 * np.pi * 1000 * at), np.cos(2 * np.pi * 1000 * at)])
    weights = basis @ out * 2 / len(out)
    assert np.hypot(*weights) == pytest.approx(10000, rel=0.05 if rate > 16000 else 0.06)
    residual = out - weights @ basis
    assert np.abs(residual).max() < (50 if rate > 16000 else 1500)


@pytest.mark.parametrize("rate", [22050, 44100, 48000])
def test_resampler_removes_what_16_khz_cannot_hold(rate: int) -> None:
    tone = np.rint(10000 * np.sin(2 * np.pi * 10000 * np.arange(rate) / rate)).astype(np.int16)
    assert np.abs(Resampler(rate).feed(tone)[800:]).max() < 300


def test_resampler_takes_single_samples() -> None:
    audio = np.arange(0, 3000, 7, dtype=np.int16)
    for rate in (16000, 48000):
        cut = Resampler(rate)
        parts = [cut.feed(audio[at : at + 1]) for at in range(len(audio))]
        assert np.array_equal(np.concatenate(parts), Resampler(rate).feed(audio))
    assert np.array_equal(Resampler(16000).feed(audio), audio)


@given(
    st.sampled_from([8000, 11025, 16000, 22050, 24000, 44100, 48000]),
    st.lists(st.integers(0, 3000), min_size=1, max_size=6),
)
@examples(40)
def test_resampler_does_not_see_the_borders_of_messages(rate: int, sizes: list[int]) -> None:
    audio = np.random.default_rng(1).integers(-3000, 3000, rate // 2).astype(np.int16)
    whole = Resampler(rate).feed(audio)
    cut, parts, position = Resampler(rate), [], 0
    while position < len(audio):
        for size in [*sizes, 999]:
            parts.append(cut.feed(audio[position : position + size]))
            position += size
    assert np.array_equal(np.concatenate(parts), whole)
    assert len(whole) == -(-len(audio) * 16000 // rate)


def test_resampler_leaves_silence_alone() -> None:
    """The speech gate of the server depends on it."""
    assert not Resampler(44100).feed(np.zeros(4410, np.int16)).any()
