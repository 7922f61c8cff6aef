"""Frames of every sample format as plain numbers, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from av.audio.frame import AudioFrame

from livekit.plugins.tiro.cli.frames import Converter, RateConverter, to_pcm

SAMPLES = np.array([[0.0, 0.5], [-0.5, 0.25], [-1.0, 0.125]], np.float32)


def frame_of(values: npt.NDArray[Any], form: str, layout: str, rate: int = 16000) -> AudioFrame:
    frame = AudioFrame.from_ndarray(np.ascontiguousarray(values), format=form, layout=layout)
    frame.sample_rate = rate
    return frame


@pytest.mark.parametrize(
    ("form", "values"),
    [
        ("u8", (SAMPLES * 128 + 128).astype(np.uint8)),
        ("s16", (SAMPLES * 2**15).astype(np.int16)),
        ("s32", (SAMPLES.astype(np.float64) * 2**31).astype(np.int32)),
        ("flt", SAMPLES),
        ("dbl", SAMPLES.astype(np.float64)),
    ],
)
def test_every_sample_format_gives_the_same_numbers(form: str, values: npt.NDArray[Any]) -> None:
    packed = frame_of(values.reshape(1, -1), form, "stereo")
    assert np.array_equal(Converter().samples(packed), SAMPLES)
    planar = frame_of(values.T, f"{form}p", "stereo")
    assert np.allclose(Converter().samples(planar), SAMPLES, atol=1e-6)
    mono = frame_of(values[:, :1].T, f"{form}p", "mono")
    assert np.array_equal(Converter().samples(mono), SAMPLES[:, :1])


@pytest.mark.parametrize("channels", [8, 16, 25, 32, 43])
@pytest.mark.parametrize("form", ["fltp", "s16p", "s32p", "s64p"])
def test_any_number_of_channels_is_read(channels: int, form: str) -> None:
    """PyAV's own conversion of planar frames ends the process from eight channels on."""
    frame = AudioFrame(form, f"{channels} channels", samples=1024)
    frame.sample_rate = 48000
    converter = Converter()
    for _ in range(2):
        assert converter.samples(frame).shape == (1024, channels)


def test_more_channels_than_libav_converts_are_an_error() -> None:
    frame = AudioFrame("fltp", "65 channels", samples=1024)
    frame.sample_rate = 48000
    with pytest.raises(ValueError, match="Invalid argument"):
        Converter().samples(frame)


def test_a_converter_takes_frames_of_another_shape() -> None:
    converter = Converter()
    for layout in ("stereo", "5.1", "stereo"):
        frame = AudioFrame("fltp", layout, samples=64)
        frame.sample_rate = 16000
        assert len(converter.samples(frame)) == 64


def test_damaged_numbers_are_clipped() -> None:
    values = np.array([[np.nan, np.inf, -np.inf, 1e30, -2.0, 0.5]], np.float32)
    samples = Converter().samples(frame_of(values, "flt", "mono"))
    assert samples[:, 0].tolist() == [0.0, 1.0, -1.0, 1.0, -1.0, 0.5]


def test_pcm_comes_out_as_it_went_in() -> None:
    values = np.arange(-(2**15), 2**15, dtype=np.int16)[np.newaxis]
    samples = Converter().samples(frame_of(values, "s16", "mono"))
    assert to_pcm(samples[:, 0]) == values.tobytes()


def test_pcm_does_not_wrap_around() -> None:
    pcm = to_pcm(np.array([1.0, 1.5, -1.0, -1.5], np.float32))
    assert np.frombuffer(pcm, np.int16).tolist() == [32767, 32767, -32768, -32768]


def test_a_rate_that_stays_is_not_touched() -> None:
    converter = RateConverter(16000, 16000)
    assert converter.push(b"\x01\x02") == b"\x01\x02"
    assert converter.flush() == b""


def test_a_rate_is_converted_and_no_sample_is_lost() -> None:
    converter = RateConverter(96000, 48000)
    pcm = b"".join(converter.push(bytes(2 * 960)) for _ in range(100)) + converter.flush()
    assert len(pcm) == 2 * 48000
