"""A voice agent that goes on hearing when Tiro cannot be reached: another provider takes over.

    pip install . livekit-plugins-openai
    export TIRO_API_KEY=...  OPENAI_API_KEY=...
    python examples/fallback.py console         # talk to it in the terminal
    export LIVEKIT_URL=...  LIVEKIT_API_KEY=...  LIVEKIT_API_SECRET=...
    python examples/fallback.py start           # take the calls of that LiveKit server

To see it take over, run `python -m livekit.plugins.tiro serve` in another terminal, set the two
variables that it prints, and stop it in the middle of a call.
"""

from __future__ import annotations

import logging
import os
import sys

from livekit.agents import Agent, AgentServer, AgentSession, JobContext, cli, stt
from livekit.agents.stt import AvailabilityChangedEvent

try:
    from livekit.plugins import openai, tiro  # type: ignore[attr-defined,unused-ignore]
except ImportError:
    sys.exit("not installed; in the clone: pip install . livekit-plugins-openai")

KEYS = ("TIRO_API_KEY or TIRO_SPEECH_KEY", "OPENAI_API_KEY")
SERVER = ("LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET")
WORKING = {"console", "start", "dev", "connect"}

logger = logging.getLogger("fallback")
server = AgentServer()


def new_stt() -> stt.FallbackAdapter:
    """Return Tiro with a second provider that takes over when it fails."""
    # A service that is down or refuses is given up within `attempt_timeout`, which is for two
    # attempts together. Words that were said in that time and were not shown yet are lost: the
    # adapter keeps no audio. It can do only what both can: with this pair the framework does not
    # make Tiro decide at the end of a turn (`manual_flush`), so that `endpointing` has to.
    adapter = stt.FallbackAdapter(
        [
            tiro.STT(endpointing=0.35),
            openai.STT(model="gpt-4o-transcribe", language="is", use_realtime=True),
        ],
        attempt_timeout=5.0,
    )
    adapter.on("stt_availability_changed", _on_change)
    return adapter


def _on_change(event: AvailabilityChangedEvent) -> None:
    """Log which provider is gone or back: Tiro is tried again with each new stream."""
    state = "available" if event.available else "not available"
    logger.warning("%s is %s", event.stt.provider, state)


def new_session() -> AgentSession[None]:
    """Return a session with everything that a conversation needs."""
    return AgentSession(
        stt=new_stt(),
        llm=openai.LLM(model="gpt-4.1-mini"),
        tts=openai.TTS(model="gpt-4o-mini-tts", instructions="Talaðu íslensku, skýrt og rólega."),
        # As in voice_agent.py: the VAD works for Icelandic, turn-detection models do not know it.
        turn_handling={"turn_detection": "vad"},
    )


@server.rtc_session()
async def entrypoint(ctx: JobContext) -> None:
    """Take one call."""
    agent = Agent(instructions="Svaraðu á íslensku, í einni eða tveimur stuttum setningum.")
    await new_session().start(agent, room=ctx.room)


def main() -> None:
    """Run the worker, or say in one line which variables are missing; other commands need none."""
    needed = KEYS if {"console", "--url"} & {*sys.argv} else KEYS + SERVER
    missing = [key for key in needed if not any(map(os.environ.get, key.split(" or ")))]
    if missing and WORKING & {*sys.argv[1:2]} and "--help" not in sys.argv:
        sys.exit(f"not set: {', '.join(missing)}")
    cli.run_app(server)


if __name__ == "__main__":
    main()
