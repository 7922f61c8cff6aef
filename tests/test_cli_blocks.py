"""Frames to blocks of mono PCM, each at its place."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pytest
from av.audio.frame import AudioFrame

from livekit.plugins.tiro.cli.blocks import Block, Blocks
from livekit.plugins.tiro.cli.exits import Exit, FileError
from livekit.plugins.tiro.cli.timing import Placed

from .support.recordings import Channels, tone

if TYPE_CHECKING:
    from collections.abc import Sequence

RATE = 16000
SIZE = 320


def frames(
    samples: Channels, rate: int = RATE, start: float = 0.0, silence: float = 0.0
) -> list[Placed[AudioFrame]]:
    """Frames of 20 ms one after the other; the silence is before the first."""
    placed = []
    size = rate // 50
    for first in range(0, samples.shape[1], size):
        part = np.ascontiguousarray(samples[:, first : first + size].T).reshape(1, -1)
        layout = {1: "mono", 2: "stereo"}.get(len(samples), f"{len(samples)} channels")
        frame = AudioFrame.from_ndarray(part, format="flt", layout=layout)
        frame.sample_rate = rate
        placed.append(Placed(frame, start + first / rate, 0.0 if first else silence))
    return placed


def made(blocks: Blocks, *parts: Sequence[Placed[AudioFrame]]) -> list[Block]:
    return list(blocks.make(placed for part in parts for placed in part))


def samples_of(blocks: Sequence[Block]) -> npt.NDArray[np.int16]:
    return np.frombuffer(b"".join(block.pcm for block in blocks), np.int16)


def test_frames_are_gathered_to_tenths_of_a_second() -> None:
    found = made(Blocks(RATE, None), frames(tone(0.25, RATE)))
    assert [len(block.pcm) // 2 for block in found] == [1600, 1600, 800]
    assert [block.time for block in found] == pytest.approx([0.0, 0.1, 0.2])
    assert np.array_equal(samples_of(found), np.rint(tone(0.25, RATE)[0] * 2**15))


def test_channels_are_mixed() -> None:
    blocks = Blocks(RATE, None)
    found = made(blocks, frames(np.concatenate([tone(1.0, RATE), tone(1.0, RATE)])))
    assert np.abs(samples_of(found)).max() == pytest.approx(2**14, abs=2)
    assert blocks.notes == []


def test_channels_that_cancel_are_told_of_once() -> None:
    blocks = Blocks(RATE, None)
    found = made(blocks, frames(np.concatenate([tone(1.0, RATE), -tone(1.0, RATE)])))
    assert np.abs(samples_of(found)).max() == pytest.approx(2**14, abs=2)
    assert blocks.notes == [
        "its channels cancel each other out: channel 1 is heard alone; --channel chooses another"
    ]


def test_a_channel_that_is_asked_for_is_heard_alone() -> None:
    both = frames(np.concatenate([tone(1.0, RATE), tone(1.0, RATE, peak=0.25)]))
    blocks = Blocks(RATE, 2)
    blocks.check_channel(both[0].item)
    assert np.abs(samples_of(made(blocks, both))).max() == pytest.approx(2**13, abs=2)


@pytest.mark.parametrize(("count", "has"), [(1, "one channel"), (2, "2 channels")])
def test_a_channel_that_is_not_there(count: int, has: str) -> None:
    (first, *_) = frames(np.concatenate([tone(0.1, RATE)] * count))
    with pytest.raises(FileError, match=f"there is no --channel 3: it has {has}") as caught:
        Blocks(RATE, 3).check_channel(first.item)
    assert caught.value.code is Exit.NO_AUDIO


def test_a_channel_that_ends_in_the_middle_of_a_file_is_replaced_by_the_mix() -> None:
    both = frames(np.concatenate([tone(0.2, RATE), tone(0.2, RATE, peak=0.25)]))
    one = frames(tone(0.2, RATE), start=0.2)
    found = samples_of(made(Blocks(RATE, 2), both, one))
    assert np.abs(found[:3200]).max() == pytest.approx(2**13, abs=2)
    assert np.abs(found[3200:]).max() == pytest.approx(2**14, abs=2)


def test_a_gap_is_filled_with_silence() -> None:
    later = frames(tone(0.1, RATE), start=2.6, silence=2.5)
    found = made(Blocks(RATE, None), frames(tone(0.1, RATE)), later)
    assert [round(len(block.pcm) / 2 / RATE, 3) for block in found] == [0.1, 1.0, 1.0, 0.5, 0.1]
    assert [block.time for block in found] == pytest.approx([0.0, 0.1, 1.1, 2.1, 2.6])
    assert not samples_of(found[1:4]).any()


def test_of_a_long_gap_the_beginning_is_filled_and_the_rest_is_skipped() -> None:
    later = frames(tone(0.1, RATE), start=600.1, silence=600.0)
    found = made(Blocks(RATE, None), frames(tone(0.1, RATE)), later)
    assert len(samples_of(found)) == RATE * 5.2
    assert found[-1].time == 600.1


def test_a_frame_that_is_out_of_place_starts_a_block_of_its_own() -> None:
    early = frames(tone(0.04, RATE), start=0.03)
    found = made(Blocks(RATE, None), frames(tone(0.04, RATE)), early)
    assert [(len(block.pcm) // 2, block.time) for block in found] == [(640, 0.0), (640, 0.03)]


def test_a_slow_drift_is_kept_within_a_block() -> None:
    drifting = [Placed(placed.item, placed.start * 1.02, 0.0) for placed in frames(tone(1.0, RATE))]
    found = made(Blocks(RATE, None), drifting)
    assert len(found) <= 11
    assert max(after.time - before.time for before, after in pairwise(found)) < 0.11


def test_a_rate_that_the_service_does_not_take_is_converted() -> None:
    found = made(Blocks(48000, None), frames(tone(1.0, 96000), 96000))
    assert len(samples_of(found)) == 48000


def test_a_file_may_change_its_rate_and_its_channels() -> None:
    stereo = frames(np.concatenate([tone(1.0, 48000)] * 2), 48000, start=1.0)
    again = frames(tone(1.0, RATE), start=2.0)
    found = made(Blocks(RATE, None), frames(tone(1.0, RATE)), stereo, again)
    assert len(samples_of(found)) == pytest.approx(3 * RATE, abs=20)
    assert np.abs(samples_of(found)).max() < 2**14 * 1.1


def test_a_rate_of_which_nothing_is_ready_yet_gives_no_empty_block() -> None:
    found = made(Blocks(8000, None), frames(tone(0.0003, 96000), 96000))
    assert found == []


def test_a_frame_that_cannot_be_converted_is_silence() -> None:
    odd = AudioFrame("fltp", "65 channels", samples=SIZE)
    odd.sample_rate = RATE
    blocks = Blocks(RATE, None)
    found = made(blocks, [Placed(odd, 0.0, 0.0)], frames(tone(0.1, RATE), start=0.02))
    assert blocks.damaged == 1
    assert not samples_of(found)[:SIZE].any()
    assert len(samples_of(found)) == SIZE + 1600


def test_no_frames_make_no_blocks() -> None:
    assert made(Blocks(RATE, None)) == []
