"""Small stand-ins for what an `AgentSession` has around it: a room, an LLM and a loudspeaker.

Everything else in the session tests is real: the session, its VAD, its turn taking, the STT.
"""

from __future__ import annotations

import asyncio
import functools
import time
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar
from unittest import mock

import numpy as np
import numpy.typing as npt

from livekit import rtc
from livekit.agents import (
    DEFAULT_API_CONNECT_OPTIONS,
    Agent,
    AgentSession,
    APIConnectOptions,
    ModelSettings,
    llm,
    stt,
    tts,
    utils,
)
from livekit.agents.types import NOT_GIVEN
from livekit.agents.voice import io
from livekit.agents.voice.turn import TurnHandlingOptions
from livekit.plugins import tiro
from livekit.plugins.tiro.testing import TiroServer

from . import virtual
from .harness import read_wav, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine

RATE = 24000
"""Hz; what an AgentSession gets from a room."""
FRAME = RATE // 20
"""Samples; a room gives 50 ms frames."""

SCRIPT = "einn tveir þrír fjórir fimm sex sjö átta"
"""What the local server hears: a word for each 0.2 s of voice, so four in a `speech()`."""

Pcm = npt.NDArray[np.int16]
Params = ParamSpec("Params")
T = TypeVar("T")


def speech(start: float = 0.6, end: float = 1.6) -> Pcm:
    """Return Icelandic speech as a room delivers it: a part of is.wav, at 24 kHz."""
    pcm = read_wav("is.wav")[round(start * 16000) : round(end * 16000)]
    at = np.arange(round(len(pcm) * RATE / 16000)) * 16000 / RATE
    return np.interp(at, np.arange(len(pcm)), pcm).astype(np.int16)


def voiced(pcm: Pcm) -> tuple[float, float]:
    """Return where the first and the last sound of `pcm` are, in seconds."""
    loud = np.flatnonzero(np.abs(pcm.astype(np.int32)) > 1000)
    return float(loud[0]) / RATE, float(loud[-1]) / RATE


def local_server(**options: Any) -> TiroServer:
    """Return a server that says `SCRIPT`, with hypotheses in quick succession."""
    defaults = {"script": SCRIPT, "words_per_second": 5, "interim_interval": 0.1}
    return TiroServer(**{**defaults, **options})


def new_stt(server: TiroServer, **options: Any) -> tiro.STT:
    """Return an STT for the server, without punctuation unless asked."""
    return tiro.STT(
        **{"base_url": server.base_url, "api_key": "test", "punctuate": False, **options}
    )


def in_virtual_time(
    test: Callable[Params, Coroutine[Any, Any, None]],
) -> Callable[Params, None]:
    """Decorate a test whose time passes only when nobody has anything to do."""

    @functools.wraps(test)
    def wrapper(*args: Params.args, **kwargs: Params.kwargs) -> None:
        # LiveKit's native library opens sockets of its own at its first use, and keeps them.
        rtc.AudioResampler(RATE, 16000)
        with mock.patch("livekit.agents.inference.vad.ThreadPoolExecutor", _OnTheSpot):
            virtual.run(test(*args, **kwargs))

    return wrapper


class _OnTheSpot(Executor):
    """Runs each call at once: virtual time would not wait for a thread."""

    def __init__(self, **_: object) -> None:
        pass

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        done: Future[T] = Future()
        done.set_result(fn(*args, **kwargs))
        return done


class Microphone(io.AudioInput):
    """The caller's microphone: live, silent while nobody speaks, and nothing while detached."""

    def __init__(self) -> None:
        super().__init__(label="Microphone")
        self.pushed = 0.0
        """Seconds of audio that the session got."""
        self.heard_at: list[tuple[float, float]] = []
        """Epoch seconds of the first and last sample of each `say`."""
        self._attached = asyncio.Event()
        self._due: float | None = None
        self._speech: list[Pcm] = []
        self._said = asyncio.Event()
        self._said.set()

    def on_attached(self) -> None:
        self._due = None
        self._attached.set()

    def on_detached(self) -> None:
        self._attached.clear()

    async def say(self, pcm: Pcm) -> None:
        """Speak, and return when the last sample is out."""
        size = -(-len(pcm) // FRAME) * FRAME
        whole = np.concatenate((pcm, np.zeros(size - len(pcm), np.int16)))
        self._said.clear()
        self._speech = list(whole.reshape(-1, FRAME))
        await self._said.wait()
        self.heard_at.append((time.time() - len(whole) / RATE, time.time()))

    async def __anext__(self) -> rtc.AudioFrame:
        loop = asyncio.get_running_loop()
        while True:
            await self._attached.wait()
            if self._due is None:
                self._due = loop.time() + FRAME / RATE
            await asyncio.sleep(self._due - loop.time())
            if self._attached.is_set() and self._due is not None:
                break
        self._due += FRAME / RATE
        pcm = self._speech.pop(0) if self._speech else np.zeros(FRAME, np.int16)
        if not self._speech:
            self._said.set()
        self.pushed += FRAME / RATE
        return rtc.AudioFrame(pcm.tobytes(), RATE, 1, FRAME)


class Loudspeaker(io.AudioOutput):
    """Plays everything in no time."""

    def __init__(self) -> None:
        super().__init__(
            label="Loudspeaker",
            capabilities=io.AudioOutputCapabilities(pause=False),
            sample_rate=RATE,
        )
        self._position = 0.0

    async def capture_frame(self, frame: rtc.AudioFrame) -> None:
        await super().capture_frame(frame)
        if not self._position:
            self.on_playback_started(created_at=time.time())
        self._position += frame.duration

    def flush(self) -> None:
        super().flush()
        self._finish(interrupted=False)

    def clear_buffer(self) -> None:
        self._finish(interrupted=True)

    def _finish(self, *, interrupted: bool) -> None:
        position, self._position = self._position, 0.0
        if position:
            self.on_playback_finished(playback_position=position, interrupted=interrupted)


class Answers(llm.LLM[Any]):
    """An LLM that answers each turn with its number, and keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def chat(
        self,
        *,
        chat_ctx: llm.ChatContext,
        tools: list[llm.Tool] | None = None,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
        **_: Any,
    ) -> llm.LLMStream:
        said = [item for item in chat_ctx.items if item.type == "message" and item.role == "user"]
        self.asked.append(said[-1].text_content or "" if said else "")
        return _Answer(self, chat_ctx=chat_ctx, tools=tools or [], conn_options=conn_options)


class _Answer(llm.LLMStream):
    async def _run(self) -> None:
        delta = llm.ChoiceDelta(role="assistant", content="Já.")
        self._event_ch.send_nowait(llm.ChatChunk(id=utils.shortuuid(), delta=delta))


class Voice(tts.TTS[Any]):
    """A TTS that says everything as 0.1 s of silence."""

    def __init__(self) -> None:
        super().__init__(
            capabilities=tts.TTSCapabilities(streaming=False), sample_rate=RATE, num_channels=1
        )

    def synthesize(
        self, text: str, *, conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS
    ) -> tts.ChunkedStream:
        return _Utterance(tts=self, input_text=text, conn_options=conn_options)


class _Utterance(tts.ChunkedStream):
    async def _run(self, output_emitter: tts.AudioEmitter) -> None:
        output_emitter.initialize(
            request_id=utils.shortuuid(), sample_rate=RATE, num_channels=1, mime_type="audio/pcm"
        )
        output_emitter.push(bytes(RATE // 10 * 2))
        output_emitter.flush()


class Listener(Agent):
    """An agent that notes every event of its STT."""

    def __init__(self) -> None:
        super().__init__(instructions="Svaraðu stutt.")
        self.events: list[stt.SpeechEvent] = []

    async def stt_node(
        self, audio: AsyncIterable[rtc.AudioFrame], model_settings: ModelSettings
    ) -> AsyncIterator[stt.SpeechEvent]:
        async for event in Agent.default.stt_node(self, audio, model_settings):
            self.events.append(event)
            yield event


class Call:
    """A caller, and an `AgentSession` that listens to him; use as `async with`.

    Args:
        stt: What the session hears with; None for the agent's own.
        turn_detection: Who decides that a turn is over.
        agent: Who is called; a `Listener` if not given.
        options: More arguments of `AgentSession`.
    """

    def __init__(
        self,
        stt: stt.STT[Any] | None,
        turn_detection: Any = "vad",
        *,
        agent: Agent | None = None,
        **options: Any,
    ) -> None:
        handling = TurnHandlingOptions(
            turn_detection=turn_detection,
            endpointing={"min_delay": 0.3, "max_delay": 1.0},
            interruption={"mode": "vad"},
            preemptive_generation={"enabled": False},
        )
        self.agent = agent or Listener()
        self.llm = Answers()
        self.microphone = Microphone()
        self.session: AgentSession[None] = AgentSession(
            stt=stt or NOT_GIVEN,
            turn_handling=handling,
            aec_warmup_duration=None,
            user_away_timeout=None,
            **{"llm": self.llm, "tts": Voice(), **options},
        )
        self.session.input.audio = self.microphone
        self.session.output.audio = Loudspeaker()
        self.transcribed: list[tuple[str, bool]] = []
        """Text and whether it is final, of each `user_input_transcribed`."""
        self.user_items: list[llm.ChatMessage] = []
        self.replies: list[str] = []
        """Where each speech of the agent came from."""
        self.errors: list[Any] = []
        self.closed: list[Any] = []
        self._listen()

    def _listen(self) -> None:
        on = self.session.on
        on(
            "user_input_transcribed",
            lambda event: self.transcribed.append((event.transcript, event.is_final)),
        )
        on("conversation_item_added", lambda event: self._on_item(event.item))
        on("speech_created", lambda event: self.replies.append(event.source))
        on("error", lambda event: self.errors.append(event.error))
        on("close", self.closed.append)

    def _on_item(self, item: Any) -> None:
        if isinstance(item, llm.ChatMessage) and item.role == "user":
            self.user_items.append(item)

    @property
    def events(self) -> list[stt.SpeechEvent]:
        """Every event of the STT, if the agent is a `Listener`."""
        assert isinstance(self.agent, Listener)
        return self.agent.events

    @property
    def finals(self) -> list[str]:
        """What the session was told was said."""
        return [text for text, final in self.transcribed if final]

    async def turns(self, count: int, seconds: float = 5.0) -> None:
        """Wait until the caller had so many turns, and each of them was answered."""
        await until(lambda: len(self.user_items) >= count, seconds)
        await until(lambda: len(self.replies) >= count, seconds)
        await until(lambda: self.session.agent_state == "listening", seconds)

    async def __aenter__(self) -> Call:
        await self.session.start(self.agent)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.aclose()
