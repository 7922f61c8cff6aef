"""The command `serve` with a script and a fault, as its user sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from livekit.agents import APIConnectOptions, APIStatusError
from livekit.plugins import tiro
from livekit.plugins.tiro.testing import faults

from .support.command import Forked
from .support.harness import collect, finals, frames

if TYPE_CHECKING:
    from pathlib import Path

F, M = faults, faults.Moment


async def test_a_script_and_a_fault_as_a_process(tmp_path: Path) -> None:
    script = tmp_path / "script.txt"
    script.write_text("# the caller\n0.5 Góðan daginn.\n3.0 Já, takk.\n", encoding="utf-8")
    command = ("serve", "--port", "0", "--script", str(script), "--fault", "refuse:503@1")
    with Forked(*command) as process:
        settings = [process.output.readline().decode().strip() for _ in range(2)]
        url, key = (line.split("=", 1)[1] for line in settings)
        silence = np.zeros(5 * 16000, np.int16)
        async with tiro.STT(base_url=url, api_key=key) as stt:
            with pytest.raises(APIStatusError, match="503"):
                await collect(_stream(stt), frames(silence))
            assert finals(await collect(_stream(stt), frames(silence))) == [
                "Góðan daginn.",
                "Já, takk.",
            ]


def _stream(stt: tiro.STT) -> tiro.SpeechStream:
    return stt.stream(conn_options=APIConnectOptions(max_retry=0))
