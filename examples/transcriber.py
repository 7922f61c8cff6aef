"""Write down what everybody in a room says: no LLM, no voice, a transcript for each participant.

    pip install .
    export TIRO_API_KEY=...
    export LIVEKIT_URL=...  LIVEKIT_API_KEY=...  LIVEKIT_API_SECRET=...
    python examples/transcriber.py start        # or console, for your own microphone

To try it without a key of Tiro's, run `python -m livekit.plugins.tiro serve` in another terminal,
and set the two variables that it prints.

The transcripts go to the room as LiveKit's transcriptions do (text streams of the topic
`lk.transcription`, each attributed to who spoke), so its frontends show them as they come.
"""

from __future__ import annotations

import os
import sys

from livekit import rtc
from livekit.agents import Agent, AgentServer, AgentSession, AutoSubscribe, JobContext, cli
from livekit.agents.voice.room_io import AudioInputOptions, RoomOptions
from livekit.plugins import tiro

KEYS = ("TIRO_API_KEY or TIRO_SPEECH_KEY",)
SERVER = ("LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET")
WORKING = {"console", "start", "dev", "connect"}

server = AgentServer()


@server.rtc_session()
async def entrypoint(ctx: JobContext) -> None:
    """Transcribe one room, for as long as it lasts."""
    # One STT for all: its `update_options` reaches every stream, and closing it closes them.
    stt = tiro.STT()
    ctx.add_shutdown_callback(stt.aclose)

    async def transcribe(ctx: JobContext, participant: rtc.RemoteParticipant) -> None:
        await listen(ctx, stt, participant.identity)

    ctx.add_participant_entrypoint(transcribe)
    await ctx.connect(auto_subscribe=AutoSubscribe.AUDIO_ONLY)


async def listen(ctx: JobContext, stt: tiro.STT, identity: str) -> None:
    """Give a participant a session of their own, which ends when they leave."""
    # There are no turns to take. The VAD is there to tell Tiro when somebody has stopped, so
    # that the final comes at once; "vad" works for Icelandic as for any language.
    session = AgentSession[None](stt=stt, turn_handling={"turn_detection": "vad"})
    await session.start(
        Agent(instructions=""),
        room=ctx.room,
        room_options=RoomOptions(
            participant_identity=identity,
            # A room has one handler for audio from before the call, but several sessions here.
            audio_input=AudioInputOptions(pre_connect_audio=False),
            audio_output=False,
            text_input=False,
        ),
        # None of these sessions is the agent of the room.
        session_host=False,
        record=False,
    )


def main() -> None:
    """Run the worker, or say in one line which variables are missing; other commands need none."""
    needed = KEYS if {"console", "--url"} & {*sys.argv} else KEYS + SERVER
    missing = [key for key in needed if not any(map(os.environ.get, key.split(" or ")))]
    if missing and WORKING & {*sys.argv[1:2]} and "--help" not in sys.argv:
        sys.exit(f"not set: {', '.join(missing)}")
    cli.run_app(server)


if __name__ == "__main__":
    main()
