"""Calls in processes of their own: an example's entrypoint, with a wav as its microphone.

An `AgentServer` runs `entrypoint` in a job process. Nothing of the test's process is there, so
what a call is to do stands in the name of its room, and what it heard goes to a file.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
import time
import wave
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from livekit import rtc
from livekit.agents import AgentSession, JobContext, JobProcess, llm, utils
from livekit.agents.ipc.mock_room import create_mock_room
from livekit.agents.voice import io
from livekit.plugins import tiro

from .session_fakes import Answers, Loudspeaker, Voice

if TYPE_CHECKING:
    from collections.abc import Callable

    from livekit.agents import UserInputTranscribedEvent

EXAMPLES = Path(__file__).parents[2] / "examples"
FRAME = 0.05
"""Seconds; a room gives 50 ms frames."""
LAST_FINAL = 15.0
"""Seconds for the final of a call that is closed, after which the framework makes the hypothesis
final; a busy machine may take longer than its default of 2 s."""
KILLED = 13
"""The exit code of a call that is killed."""

# The mock room is cached, and the framework gives it to each job: a forkserver that has imported
# this module has made it for all jobs.
create_mock_room()


@dataclass(frozen=True)
class Order:
    """What a call is to do."""

    example: str
    """The name of the example that takes the call."""
    wav: str
    """The file that its microphone plays; silence follows."""
    base_url: str
    """Where the service is."""
    report: str
    """The file to write to, JSON a line."""
    begin: str
    """The file whose appearance starts the microphone, so that several start at once."""
    words: int
    """How many words are in the wav; the caller hangs up when all of them are final."""
    killed_after: int | None = None
    """The number of final words after which its process is killed, amid the next utterance."""

    @property
    def room(self) -> str:
        """The name of the room in which it takes place."""
        return json.dumps(asdict(self))


class WavMicrophone(io.AudioInput):
    """Plays a wav once, in real time, then silence."""

    def __init__(self, order: Order, on_ready: Callable[[], None]) -> None:
        super().__init__(label="WavMicrophone")
        self._begin = Path(order.begin)
        self._on_ready = on_ready
        with wave.open(order.wav) as file:
            self._rate = file.getframerate()
            self._pcm = file.readframes(file.getnframes())
        self._played = 0
        self._began: float | None = None

    async def __anext__(self) -> rtc.AudioFrame:
        now = asyncio.get_running_loop().time
        if self._began is None:
            self._on_ready()
            while not self._begin.exists():
                await asyncio.sleep(0.02)
            self._began = now()
        size = round(FRAME * self._rate)
        pcm = self._pcm[2 * self._played : 2 * (self._played + size)].ljust(2 * size, b"\0")
        self._played += size
        await asyncio.sleep(self._began + self._played / self._rate - now())
        return rtc.AudioFrame(pcm, self._rate, 1, size)


class Listens(Answers):
    """An LLM that says nothing: while its agent speaks, for 3 s, a session hears nobody else."""

    def chat(self, **options: Any) -> llm.LLMStream:
        return _Nothing(
            self,
            chat_ctx=options["chat_ctx"],
            tools=options.get("tools") or [],
            conn_options=options["conn_options"],
        )


class _Nothing(llm.LLMStream):
    async def _run(self) -> None:
        pass


class Reporter:
    """Writes down what a session hears, and ends the call when it is time."""

    def __init__(self, order: Order, hang_up: Callable[[], None]) -> None:
        self._order = order
        self._hang_up = hang_up
        self._final_words = 0

    def note(self, **what: Any) -> None:
        """Add a line, which is there at once: the process may be killed."""
        with open(self._order.report, "a", encoding="utf-8") as file:
            file.write(json.dumps({**what, "at": time.monotonic()}) + "\n")

    def listen(self, session: AgentSession[None]) -> None:
        """Note its transcripts, and its end."""
        session.on("user_input_transcribed", self._on_transcribed)
        session.on("close", lambda event: self.note(closed=event.reason.value))

    def _on_transcribed(self, event: UserInputTranscribedEvent) -> None:
        self.note(**{"final" if event.is_final else "interim": event.transcript})
        if event.is_final:
            self._final_words += len(event.transcript.split())
            if self._final_words >= self._order.words:
                self._hang_up()
        elif self._final_words == self._order.killed_after:
            os._exit(KILLED)


def prewarm(process: JobProcess) -> None:
    """Get a process ready as examples/voice_agent.py does."""
    os.environ["TIRO_API_KEY"] = "test"
    load("voice_agent").prewarm(process)


def load(name: str) -> Any:
    """Import an example, with stand-ins for what costs money."""
    module = ModuleType("livekit.plugins.openai")
    module.LLM = lambda **_: Listens()  # type: ignore[attr-defined]
    module.TTS = lambda **_: Voice()  # type: ignore[attr-defined]
    # The second provider of a fallback: nobody is there.
    module.STT = lambda **_: tiro.STT(base_url="ws://127.0.0.1:9")  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    if str(EXAMPLES) not in sys.path:
        sys.path.insert(0, str(EXAMPLES))
    return importlib.import_module(name)


async def entrypoint(ctx: JobContext) -> None:
    """Take the call that the room's name describes, as its example does."""
    order = Order(**json.loads(ctx.job.room.name))
    os.environ["TIRO_BASE_URL"] = order.base_url
    reporter = Reporter(order, lambda: ctx.shutdown("hung up"))
    start = AgentSession.start

    async def started(session: AgentSession[None], *args: Any, **options: Any) -> Any:
        """Give a session what a room would have given it."""
        session.input.audio = WavMicrophone(order, lambda: reporter.note(ready=True))
        session.options.session_close_transcript_timeout = LAST_FINAL
        if session.tts is not None:
            session.output.audio = Loudspeaker()
        reporter.listen(session)
        return await start(session, *args, **options)

    AgentSession.start = started  # type: ignore[assignment,method-assign]
    reporter.note(certificates=utils.http_context._ssl_context_for.cache_info().currsize)

    async def note_end(reason: str) -> None:
        reporter.note(ended=reason)

    ctx.add_shutdown_callback(note_end)
    await load(order.example).entrypoint(ctx)
