"""How to test an agent of one's own: a caller speaks, the agent answers, and nothing is mocked.

The local server takes the place of Tiro's service, so it needs neither key nor network:

    pip install '.[testing]'
    pytest examples/test_my_agent.py

To have it in a project of your own, copy this file and the setting in `pytest.ini` beside it.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from livekit import rtc
from livekit.agents import Agent, AgentSession, llm, utils
from livekit.agents.voice import io
from livekit.plugins import tiro
from livekit.plugins.tiro.testing import At, TiroServer

pytest_plugins = ["livekit.plugins.tiro.testing.pytest_plugin"]


# -- the agent under test, as it is in production ------------------------------------------------


class Receptionist(Agent):
    def __init__(self) -> None:
        super().__init__(instructions="Þú svarar í símann á stofunni.", stt=tiro.STT())


# -- what stands around it in a test: a caller, and an LLM that costs nothing --------------------


class Caller(io.AudioInput):
    """A microphone: 50 ms frames in real time. They are silent; the script says what is heard.

    `session.input.set_audio_enabled(False)` calls its `on_detached`: one that is to be muted has to
    stop there, and to go on in `on_attached`.
    """

    async def __anext__(self) -> rtc.AudioFrame:
        await asyncio.sleep(0.05)
        return rtc.AudioFrame(bytes(2400), 24000, 1, 1200)


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
    # Half a second into the call, the caller says this.
    return {"script": [At(0.5, "Ég ætla að panta tíma.")]}


@pytest.mark.asyncio
async def test_the_agent_answers_what_the_caller_said(tiro_server: TiroServer) -> None:
    answered = asyncio.Event()
    session: AgentSession[None] = AgentSession(llm=Echo(), turn_handling={"turn_detection": "stt"})
    session.input.audio = Caller(label="Caller")
    session.on(
        "agent_state_changed",
        lambda event: answered.set() if event.old_state == "speaking" else None,
    )
    async with utils.http_context.open(), session:
        await session.start(Receptionist())
        await asyncio.wait_for(answered.wait(), 15)
        turns = [message.text_content for message in session.history.messages()]

    assert turns == ["Ég ætla að panta tíma.", "Þú sagðir: Ég ætla að panta tíma."]
    assert tiro_server.connections[0].language == "is-IS"
    assert tiro_server.connections[0].sample_rate == 24000
