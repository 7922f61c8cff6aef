"""A voice agent that hears and speaks Icelandic: Tiro listens, OpenAI thinks and talks.

    pip install . livekit-plugins-openai
    export TIRO_API_KEY=...  OPENAI_API_KEY=...
    python examples/voice_agent.py console      # talk to it in the terminal
    export LIVEKIT_URL=...  LIVEKIT_API_KEY=...  LIVEKIT_API_SECRET=...
    python examples/voice_agent.py start        # take the calls of that LiveKit server

Without a key of Tiro's, run `python -m livekit.plugins.tiro serve`, and set what it prints.
"""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import asdict

from livekit.agents import Agent, AgentServer, AgentSession, JobContext, JobProcess, cli
from livekit.agents.voice.turn import TurnHandlingOptions

try:
    from livekit.plugins import openai, tiro  # type: ignore[attr-defined,unused-ignore]
except ImportError:
    sys.exit("not installed; in the clone: pip install . livekit-plugins-openai")

KEYS = ("TIRO_API_KEY or TIRO_SPEECH_KEY", "OPENAI_API_KEY")
SERVER = ("LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET")
WORKING = {"console", "start", "dev", "connect"}

# Who decides that the caller has finished ("Turn detection for Icelandic" in the README has more):
# "vad"     The framework's VAD hears that he stopped, in any language, and makes Tiro decide at
#           once: the final is there some 0.35 s after the last word. The best choice here.
# "stt"     Tiro's endpointer, which waits longer; the plugin's with `tiro.STT(endpointing=0.3)`.
# "manual"  Push-to-talk, by `session.commit_user_turn()`.
TURNS = TurnHandlingOptions(
    turn_detection="vad",
    # s of silence that end a turn; callers who think as they speak need more.
    endpointing={"min_delay": 0.5, "max_delay": 3.0},
)


def prewarm(process: JobProcess) -> None:
    """Read the certificates before the call: read in it, they would make it deaf for 30 ms."""
    tiro.STT().prewarm()


server = AgentServer(setup_fnc=prewarm)


class Assistant(Agent):
    """Answers briefly, in Icelandic."""

    def __init__(self) -> None:
        super().__init__(
            instructions="Þú ert vinsamleg rödd í síma. Svaraðu á íslensku, í einni eða tveimur "
            "stuttum setningum, án upptalninga og tákna sem ekki er hægt að lesa upp."
        )

    async def on_enter(self) -> None:
        """Speak first."""
        self.session.generate_reply(instructions="Heilsaðu og spurðu hvernig þú getir hjálpað.")


def new_session(stt: tiro.STT) -> AgentSession[None]:
    """Return a session with everything that a conversation needs."""
    return AgentSession(
        stt=stt,
        llm=openai.LLM(model="gpt-4.1-mini"),
        # Azure has native Icelandic voices: is-IS-GudrunNeural, is-IS-GunnarNeural.
        tts=openai.TTS(model="gpt-4o-mini-tts", instructions="Talaðu íslensku, skýrt og rólega."),
        turn_handling=TURNS,
    )


@server.rtc_session()
async def entrypoint(ctx: JobContext) -> None:
    """Take one call."""
    session = new_session(stt := tiro.STT())

    async def report() -> None:
        usage = [each.model_dump() for each in session.usage.model_usage]
        # `stats` is what only the plugin knows; a gauge's callback may read it too.
        figures = {"usage": usage, "stt": asdict(stt.stats)}
        logging.getLogger("voice-agent").info("the call is over", extra=figures)

    ctx.add_shutdown_callback(report)
    await session.start(Assistant(), room=ctx.room)


def main() -> None:
    """Run the worker, or say in one line which variables are missing; other commands need none."""
    needed = KEYS if {"console", "--url"} & {*sys.argv} else KEYS + SERVER
    missing = [key for key in needed if not any(map(os.environ.get, key.split(" or ")))]
    if missing and WORKING & {*sys.argv[1:2]} and "--help" not in sys.argv:
        sys.exit(f"not set: {', '.join(missing)}")
    cli.run_app(server)


if __name__ == "__main__":
    main()
