"""`endpointing`: the plugin asks for the final itself, behind so much quiet."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import numpy as np
import pytest

from livekit.plugins import tiro
from livekit.plugins.tiro.loudness import Loudness
from livekit.plugins.tiro.testing import TiroServer

from .support.harness import FINAL, frames
from .support.numbered import NumberedRecognizer, Talk, talk
from .support.session_fakes import in_virtual_time

if TYPE_CHECKING:
    from livekit.agents.stt import SpeechEvent

SAID = talk(3, gap=4.0)


async def final_after(endpointing: float | None, said: Talk = SAID) -> float:
    """Return the seconds from the end of an utterance to its final, as heard live."""
    server = TiroServer(
        recognizers={"is": NumberedRecognizer(said)}, endpoint_silence=2.0, interim_interval=0.1
    )
    clock = asyncio.get_running_loop().time
    async with server, tiro.STT(base_url=server.base_url, api_key="test") as stt:
        stt.update_options(endpointing=endpointing)
        stream = stt.stream()
        heard: list[tuple[float, SpeechEvent]] = []

        async def listen() -> None:
            heard.extend([(clock(), event) async for event in stream if event.type is FINAL])

        listening = asyncio.create_task(listen())
        started = clock()
        for frame in frames(said.pcm()):
            stream.push_frame(frame)
            await asyncio.sleep(frame.duration)
        await stream.aclose()
        await listening
        assert len(server.sessions) == 1
    (at, event) = heard[0]
    assert event.alternatives[0].text == " ".join(said.texts)
    return at - started - said.words[-1].end


@pytest.mark.parametrize("endpointing", [0.3, 0.8])
@in_virtual_time
async def test_the_final_comes_behind_so_much_quiet(endpointing: float) -> None:
    assert await final_after(endpointing) == pytest.approx(endpointing, abs=0.2)


@in_virtual_time
async def test_without_it_the_service_decides() -> None:
    assert await final_after(None) > 2.0


@pytest.mark.parametrize("value", [0.05, 6.0, "0.5", True])
def test_what_makes_no_sense_is_refused(value: object) -> None:
    with pytest.raises(
        ValueError, match=r"endpointing must be a number of seconds, from 0\.1 to 5"
    ):
        tiro.STT(api_key="test", endpointing=value)  # type: ignore[arg-type]


def test_quiet_is_measured_against_the_utterance() -> None:
    """Room noise that is far below the voice is quiet, and so is the same call, but whispered."""
    for peak in (12000, 120):
        loudness = Loudness()
        loudness.set_rate(16000)
        voice = np.full(16000, peak, np.int16)
        room = np.full(8000, peak // 20, np.int16)
        loudness.measure(np.concatenate((voice, room)).tobytes())
        assert loudness.is_quiet_for(0.4, 0)
        assert not loudness.is_quiet_for(0.6, 0)
        assert not loudness.is_quiet_for(2.0, 0), "there was nothing before"
