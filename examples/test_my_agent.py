"""How to test an agent of one's own: a caller speaks, the agent answers, and nothing is mocked.

The local server takes the place of Tiro's service, so it needs neither key nor network:

    pip install 'livekit-plugins-tiro[testing]'
    pytest examples/test_my_agent.py
"""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from livekit import rtc
from livekit.agents import Agent, AgentSession, llm, utils
from livekit.agents.voice import io
from livekit.plugins import tiro
from livekit.plugins.tiro.testing import TiroServer

pytest_plugins = ["livekit.plugins.tiro.testing.pytest_plugin"]


# -- the agent under test, as it is in production ------------------------------------------------


class Receptionist(Agent):
    def __init__(self) -> None:
        super().__init__(instructions="Þú svarar í símann á stofunni.", stt=tiro.STT())


# -- what stands around it in a test: a caller, and an LLM that costs nothing --------------------


class Caller(io.AudioInput):
    """A microphone: 50 ms frames in real time, silent unless the caller speaks."""

    def __init__(self) -> None:
        super().__init__(label="Caller")
        self._voiced = 0

    def speak(self, seconds: float) -> None:
        """Make noise; the server hears the next words of its script in it, 2.5 a second."""
        self._voiced = round(seconds * 20)

    async def __anext__(self) -> rtc.AudioFrame:
        await asyncio.sleep(0.05)
        self._voiced -= 1
        loudness = 8000 if self._voiced >= 0 else 0
        samples = np.random.default_rng(0).normal(0, 1, 1200).clip(-3, 3) * loudness
        return rtc.AudioFrame(samples.astype(np.int16).tobytes(), 24000, 1, 1200)


class Echo(llm.LLM[Any]):
    """Answers with what it was told last."""

    def chat(
        self, *, chat_ctx: llm.ChatContext, tools: list[llm.Tool] | None = None, **options: Any
    ) -> llm.LLMStream:
        return _Reply(
            self, chat_ctx=chat_ctx, tools=tools or [], conn_options=options["conn_options"]
        )


class _Reply(llm.LLMStream):
    async def _run(self) -> None:
        heard = self._chat_ctx.messages()[-1].text_content
        delta = llm.ChoiceDelta(role="assistant", content=f"Þú sagðir: {heard}")
        self._event_ch.send_nowait(llm.ChatChunk(id="reply", delta=delta))


# -- the test ------------------------------------------------------------------------------------


@pytest.fixture
def tiro_server_options() -> dict[str, Any]:
    return {"script": "Ég ætla að panta tíma."}


async def test_the_agent_answers_what_the_caller_said(tiro_server: TiroServer) -> None:
    caller, answered = Caller(), asyncio.Event()
    session: AgentSession[None] = AgentSession(llm=Echo(), turn_handling={"turn_detection": "stt"})
    session.input.audio = caller
    session.on(
        "agent_state_changed",
        lambda event: answered.set() if event.old_state == "speaking" else None,
    )
    async with utils.http_context.open(), session:
        await session.start(Receptionist())
        caller.speak(seconds=2.2)
        await asyncio.wait_for(answered.wait(), 15)
        turns = [message.text_content for message in session.history.messages()]

    assert turns == ["Ég ætla að panta tíma.", "Þú sagðir: Ég ætla að panta tíma."]
    assert tiro_server.sessions[0].language == "is-IS"
    assert tiro_server.sessions[0].sample_rate == 24000
