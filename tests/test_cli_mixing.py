"""Channels to one: what can hold speech is heard, whatever a channel is called."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from livekit.plugins.tiro.cli.mixing import Mixer, Samples, silent

RATE = 16000
BLOCK = RATE // 10
SURROUND = ["FL", "FR", "FC", "LFE", "BL", "BR"]


def tone(seconds: float = 1.0, hertz: float = 440.0, peak: float = 0.5) -> Samples:
    times = np.arange(round(seconds * RATE)) / RATE
    return (peak * np.sin(2 * np.pi * hertz * times)).astype(np.float32)


def noise(seed: int, peak: float = 0.3, seconds: float = 1.0) -> Samples:
    draw = np.random.default_rng(seed)
    return draw.uniform(-peak, peak, round(seconds * RATE)).astype(np.float32)


NOTHING = np.zeros(RATE, np.float32)


def mix(mixer: Mixer, *channels: Samples) -> Samples:
    """The mix of channels, block by block."""
    whole = np.stack(channels, axis=1)
    blocks = [mixer.mix(whole[at : at + BLOCK]) for at in range(0, len(whole), BLOCK)]
    return np.concatenate(blocks)


def close(mixed: Samples, expected: npt.NDArray[Any]) -> bool:
    return bool(np.allclose(mixed, expected, atol=1e-6))


def test_one_channel_is_not_touched() -> None:
    assert mix(Mixer(["FC"], RATE), tone()) is not None
    assert np.array_equal(mix(Mixer(["FC"], RATE), tone()), tone())


@pytest.mark.parametrize("names", [["FL", "FR"], ["NONE", "NONE"]])
def test_two_channels_are_mixed_evenly(names: list[str]) -> None:
    left, right = noise(1), noise(2)
    assert close(mix(Mixer(names, RATE), left, right), (left + right) / 2)


@pytest.mark.parametrize("count", [3, 6, 32])
@pytest.mark.parametrize("speaking", [0, -1])
def test_a_voice_on_one_of_many_channels_is_heard_in_full(count: int, speaking: int) -> None:
    channels: list[Samples] = [NOTHING] * count
    channels[speaking] = tone()
    assert close(mix(Mixer(["NONE"] * count, RATE), *channels), tone())


def test_a_channel_that_holds_only_the_noise_of_its_cable_does_not_make_the_others_quiet() -> None:
    mixed = mix(Mixer(["NONE"] * 2, RATE), tone(), noise(1, peak=0.0002))
    assert np.abs(mixed).max() == pytest.approx(0.5, abs=0.001)


def test_a_quiet_voice_beside_a_loud_one_is_mixed() -> None:
    loud, quiet = noise(1), noise(2, peak=0.003)
    assert close(mix(Mixer(["NONE"] * 2, RATE), loud, quiet), (loud + quiet) / 2)


def test_channels_without_a_name_are_mixed_evenly_however_many_there_are() -> None:
    channels = [noise(seed) for seed in range(6)]
    assert close(mix(Mixer(["NONE"] * 6, RATE), *channels), np.mean(channels, axis=0))


def test_the_dialogue_of_a_film_is_louder_than_what_is_around_it() -> None:
    channels = [noise(seed) for seed in range(6)]
    channels[3] = tone(hertz=60.0)
    mixed = mix(Mixer(SURROUND, RATE), *channels)
    shares = np.array([0.7, 0.7, 1.0, 0.0, 0.5, 0.5], np.float32)
    assert close(mixed, np.stack(channels, axis=1) @ (shares / shares.sum()))


def test_a_voice_on_the_bass_channel_is_heard() -> None:
    """A recorder of six microphones names its fourth channel so, whatever is on it."""
    channels: list[Samples] = [NOTHING] * 6
    channels[3] = tone()
    assert close(mix(Mixer(SURROUND, RATE), *channels), tone())
    channels[0] = noise(1)
    mixed = mix(Mixer(SURROUND, RATE), *channels)
    assert close(mixed, (0.7 * channels[0] + 0.5 * channels[3]) / 1.2)


def test_rumble_alone_is_better_than_nothing() -> None:
    channels: list[Samples] = [NOTHING] * 6
    channels[3] = tone(hertz=60.0)
    assert close(mix(Mixer(SURROUND, RATE), *channels), channels[3])


def test_where_left_and_right_cancel_one_of_them_is_heard() -> None:
    mixer = Mixer(["FL", "FR"], RATE)
    assert mixer.cancelled is None
    assert close(mix(mixer, tone(), -tone()), tone())
    assert mixer.cancelled == 0


def test_the_louder_of_two_that_nearly_cancel_is_heard() -> None:
    mixer = Mixer(["FL", "FR"], RATE)
    assert close(mix(mixer, 0.9 * tone(), -tone()), -tone())
    assert mixer.cancelled == 1


def test_they_are_mixed_again_when_they_do_not_cancel_any_more() -> None:
    mixer = Mixer(["FL", "FR"], RATE)
    left = np.concatenate([tone(1.0), noise(1, seconds=10.0)])
    right = np.concatenate([-tone(1.0), noise(2, seconds=10.0)])
    mixed = mix(mixer, left, right)
    assert close(mixed[:RATE], tone())
    assert close(mixed[-RATE:], ((left + right) / 2)[-RATE:])


def test_a_change_of_the_mix_is_no_click() -> None:
    late = np.concatenate([np.zeros(RATE // 2, np.float32), tone(0.5, hertz=100.0, peak=0.3)])
    mixed = mix(Mixer(["NONE"] * 2, RATE), tone(hertz=100.0, peak=0.3), late)
    assert np.abs(np.diff(mixed)).max() < 0.05


def test_silence_stays_silence() -> None:
    assert not mix(Mixer(["FL", "FR"], RATE), NOTHING, NOTHING).any()
    assert not mix(Mixer(SURROUND, RATE), *[NOTHING] * 6).any()


def test_a_channel_that_is_asked_for_is_heard_alone() -> None:
    assert close(mix(Mixer(["FL", "FR"], RATE, channel=1), tone(), noise(1)), noise(1))


def test_what_is_silent() -> None:
    assert silent(np.zeros((0, 2), np.float32))
    assert silent(np.full((10, 2), 2 / 32768, np.float32))
    assert not silent(np.full((10, 2), -4 / 32768, np.float32))
