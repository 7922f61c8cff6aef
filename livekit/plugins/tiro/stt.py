"""The STT that is passed to an `AgentSession`: options in, capabilities out. It knows no socket."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from livekit import rtc
from livekit.agents import DEFAULT_API_CONNECT_OPTIONS, APIConnectOptions, stt, utils
from livekit.agents.types import NOT_GIVEN, NotGivenOr
from livekit.agents.utils import AudioBuffer, is_given

from . import errors
from .environment import EITHER_KEY, key_of_environment, url_of_environment
from .log import logger
from .options import (
    DEFAULT_BASE_URL,
    ApiKey,
    Key,
    KeySource,
    Options,
    changed_options,
    hidden_headers,
    hidden_key,
    usable_terms,
)
from .reach import OwnSessions
from .stats import Stats, Tally
from .stream import SpeechStream, given
from .transcript import event_language, main_speaker

if TYPE_CHECKING:
    import aiohttp

Stream = TypeVar("Stream", bound=SpeechStream)

# s that `aclose` waits for streams in the event loops of other threads.
_ELSEWHERE = 1.0


class STT(stt.STT[Any]):
    """Icelandic speech recognition by Tiro, streaming.

    Guarantees: no word is lost or doubled when a connection ends, times run on over connections,
    and every failure of a call is an `APIError`. `stream` is for live audio. `recognize` takes a
    recording, one `rtc.AudioFrame` or a list, of any length, and joins all texts to one final.
    """

    # How many reports of metrics are being handed out, one within the other.
    _emitting = 0

    def __init__(
        self,
        *,
        language: str = "is-IS",
        interim_results: bool = True,
        punctuate: bool = True,
        max_alternatives: int = 1,
        sample_rate: NotGivenOr[int] = NOT_GIVEN,
        diarization: bool = False,
        min_speakers: NotGivenOr[int | None] = NOT_GIVEN,
        max_speakers: NotGivenOr[int | None] = NOT_GIVEN,
        extra_config: NotGivenOr[Mapping[str, Any] | None] = NOT_GIVEN,
        endpointing: NotGivenOr[float | None] = NOT_GIVEN,
        keyterms: NotGivenOr[Sequence[str] | None] = NOT_GIVEN,
        api_key: NotGivenOr[ApiKey] = NOT_GIVEN,
        base_url: NotGivenOr[str] = NOT_GIVEN,
        extra_headers: NotGivenOr[Mapping[str, str] | None] = NOT_GIVEN,
        http_session: aiohttp.ClientSession | None = None,
    ) -> None:
        """Set up the STT; nothing is connected yet.

        Args:
            language: BCP-47 tag. `is`, `icelandic` and the like mean `is-IS`; a tag with a private
                part, such as `is-IS-x-exp`, is sent exactly as given.
            interim_results: Whether to get hypotheses while somebody speaks.
            punctuate: Whether to get punctuation and capitals.
            max_alternatives: Readings of each final, 1 to 30, best first; `recognize` gives the
                best one.
            sample_rate: Hz on the wire, 8000 to 48000. Not given, audio is sent at its own rate,
                as Tiro advises; resampling costs CPU and delay.
            diarization: Whether to tell speakers apart. LiveKit's `MultiSpeakerAdapter` counts
                pushed audio, and these times run on through a mute: with it, push silence while
                the microphone is off.
            min_speakers: How many speakers there are at least; needs `diarization`.
            max_speakers: How many speakers there are at most; needs `diarization`.
            extra_config: Fields merged into Tiro's `RecognitionConfig` last, as in its JSON;
                None is no fields.
            endpointing: Seconds of quiet (0.1 to 2), 20 dB below the utterance's own level, until
                the final of an open hypothesis is asked for; a line that is noisier than that is
                left to the service. Not given, the service's own endpointer decides, or whoever
                calls `flush`. With `interim_results=False` it does nothing, and a
                warning says so.
            keyterms: Words and phrases to listen for, such as names. Once given, even as an
                empty list, those that an `AgentSession` sets or finds are sent as well. Tiro's API
                definition has them; what the live service makes of them is not known.
            api_key: Tiro's key, or a function, plain or async, that returns one: it is called for
                each connection, shares half of `conn_options.timeout` with the handshake, and must
                not block. What it raises is an `APIConnectionError`, without its text. Else
                `TIRO_API_KEY`, then `TIRO_SPEECH_KEY` of the environment.
            base_url: Where the service is; else `TIRO_BASE_URL` of the environment, then
                `wss://speech.talgreinir.is/v2beta1`.
            extra_headers: Sent with the handshake of each connection, as a gateway of your own may
                want. Their values are never shown, like the key.
            http_session: The session to connect with, which stays the caller's; else that of the
                LiveKit job, or outside a job one that `aclose` closes.

        Raises:
            ValueError: A value, given or of the environment, is not valid, or no key is found.
        """
        # A traceback with locals shows this frame.
        api_key, extra_headers = _find_key(api_key), hidden_headers(extra_headers)
        asked = {
            "sample_rate": sample_rate,
            "min_speakers": min_speakers,
            "max_speakers": max_speakers,
            "extra_config": extra_config,
            "endpointing": endpointing,
            "keyterms": keyterms,
            "extra_headers": extra_headers,
        }
        options = Options(
            api_key=api_key,
            base_url=_find_url(base_url),
            language=language,
            interim_results=interim_results,
            punctuate=punctuate,
            max_alternatives=max_alternatives,
            diarization=diarization,
            **given(asked),
        )
        super().__init__(
            capabilities=stt.STTCapabilities(
                streaming=True,
                interim_results=options.interim_results,
                diarization=options.diarization,
                aligned_transcript="word",
                offline_recognize=True,
                keyterms=options.keyterms is not None,
                manual_flush=True,
            )
        )
        _warn_of_no_effect(options)
        self._options = options
        self._given_session = _checked_session(http_session)
        self._own_sessions = OwnSessions()
        self._closed = False
        self._streams: weakref.WeakSet[SpeechStream] = weakref.WeakSet()
        # The counts of streams that are over, and so are not in `_streams` any more.
        self._tally = Tally()

    @property
    def model(self) -> str:
        """The language tag that is sent: Tiro chooses its model by it."""
        return self._options.language

    @property
    def provider(self) -> str:
        """Who recognises: "Tiro"."""
        return "Tiro"

    @property
    def stats(self) -> Stats:
        """What all streams did so far together, those of `recognize` and closed ones too."""
        tally = Tally()
        for one in (self._tally, *[stream.tally() for stream in list(self._streams)]):
            tally.add(one)
        return tally.snapshot()

    def emit(self, event: Any, *args: Any) -> None:
        """Call the listeners of an event. What one of them raises is logged, and ends no call."""
        self._emitting += event == "metrics_collected"
        try:
            super().emit(event, *args)
        except Exception:
            logger.exception("a listener of the event %s failed", event)
        finally:
            self._emitting -= event == "metrics_collected"

    def off(self, event: Any, callback: Callable[..., Any]) -> None:
        """Stop calling `callback`. One that takes metrics is told what was used so far first.

        An `AgentSession` stops listening before it closes its stream.
        """
        # A listener that leaves while it is called, as one of `once` does, has been told.
        if event == "metrics_collected" and not self._emitting:
            for stream in list(self._streams):
                stream.account()
        super().off(event, callback)

    def stream(
        self,
        *,
        language: NotGivenOr[str] = NOT_GIVEN,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
    ) -> SpeechStream:
        """Start a live transcription.

        Args:
            language: The language of this stream alone.
            conn_options: Retries, and the seconds for connecting; an attempt (key,
                handshake, further tries) may take half of them.

        Raises:
            ValueError: `language` is not a language tag.
            RuntimeError: The STT is closed.
        """
        return self._start(SpeechStream, language, conn_options)

    def _start(
        self,
        kind: type[Stream],
        language: NotGivenOr[str],
        conn_options: APIConnectOptions,
    ) -> Stream:
        if self._closed:
            raise RuntimeError(errors.closed().message)
        stream = kind(
            stt=self,
            options=changed_options(self._options, given({"language": language})),
            conn_options=conn_options,
            http_session=self._http_session,
            on_closed=self._keep_counts,
        )
        self._streams.add(stream)
        return stream

    def _keep_counts(self, stream: SpeechStream) -> None:
        self._streams.discard(stream)
        self._tally.add(stream.tally())
        self._tally.forget_old()

    async def _recognize_impl(
        self,
        buffer: AudioBuffer,
        *,
        language: NotGivenOr[str] = NOT_GIVEN,
        conn_options: APIConnectOptions,
    ) -> stt.SpeechEvent:
        """Transcribe a whole buffer: the same connection as a stream, and the finals joined."""
        # `recognize` itself retries, and starts over with the whole buffer.
        once = replace(conn_options, max_retry=0)
        frames = _frames(buffer)
        finals: list[stt.SpeechEvent] = []
        async with self._start(_BatchStream, language, once) as stream:
            for frame in frames:
                stream.push_frame(frame)
            stream.end_input()
            async for event in stream:
                if event.type == stt.SpeechEventType.FINAL_TRANSCRIPT:
                    finals.append(event)
            if not stream.is_done:
                raise errors.closed_while_recognizing()
            return _joined(finals, stream.options.language)

    def update_options(
        self,
        *,
        language: NotGivenOr[str] = NOT_GIVEN,
        interim_results: NotGivenOr[bool] = NOT_GIVEN,
        punctuate: NotGivenOr[bool] = NOT_GIVEN,
        max_alternatives: NotGivenOr[int] = NOT_GIVEN,
        diarization: NotGivenOr[bool] = NOT_GIVEN,
        min_speakers: NotGivenOr[int | None] = NOT_GIVEN,
        max_speakers: NotGivenOr[int | None] = NOT_GIVEN,
        extra_config: NotGivenOr[Mapping[str, Any] | None] = NOT_GIVEN,
        endpointing: NotGivenOr[float | None] = NOT_GIVEN,
        keyterms: NotGivenOr[Sequence[str] | None] = NOT_GIVEN,
        api_key: NotGivenOr[ApiKey] = NOT_GIVEN,
        extra_headers: NotGivenOr[Mapping[str, str] | None] = NOT_GIVEN,
    ) -> None:
        """Change the defaults, and the settings of every live stream of this STT.

        All can be changed but `sample_rate`, `base_url` and `http_session`: for another of those,
        make another STT.

        A stream applies a real change by a new connection, which gets the utterance in progress
        again from its start; `endpointing` needs none. New `keyterms` wait for the next connection,
        which is opened when nobody speaks; `api_key` and `extra_headers` are used from the next one
        on. Values that change nothing do nothing. A value that the service refuses in mid call ends
        the stream, as a wrong key does: by an `APIStatusError`.

        Raises:
            ValueError: A value is not valid; nothing is changed then.
        """
        # A traceback with locals shows this frame.
        api_key, extra_headers = hidden_key(api_key), hidden_headers(extra_headers)
        self._change_options(given(locals()))

    def _update_session_keyterms(self, keyterms: list[str]) -> None:
        # They are kept, as the caller may give his own later. What a model found can be anything.
        self._change_options({"session_keyterms": usable_terms(keyterms)})
        super()._update_session_keyterms(keyterms)

    def _change_options(self, changes: Mapping[str, Any]) -> None:
        options = changed_options(self._options, changes)
        # A stream that is over, and kept for its figures, may not fit these settings.
        live = [stream for stream in self._streams if not stream._task.done()]
        changed = [(stream, changed_options(stream.options, changes)) for stream in live]
        if {"endpointing", "interim_results"} & set(changes):
            _warn_of_no_effect(options)
        self._options = options
        self._capabilities.interim_results = options.interim_results
        self._capabilities.diarization = options.diarization
        self._capabilities.keyterms = options.keyterms is not None
        for stream, stream_options in changed:
            stream.apply_options(stream_options)

    def prewarm(self) -> None:
        """Do in advance what the first call of a process would wait for; connect to nothing.

        The first HTTP session of a LiveKit job reads the machine's certificates, for 30 ms of CPU
        while no audio flows. They are read once a process, so call this where a process is set
        up (`AgentServer(setup_fnc=…)`). It needs no event loop and may be called again.
        """
        # A session of the caller's own came with its certificates.
        if self._given_session is None:
            _read_certificates()

    async def __aenter__(self) -> STT:
        return self

    async def aclose(self) -> None:
        """Close every live stream, and the HTTP session if it is this object's own.

        It can not be used any more then. Streams in the event loop of another thread are closed
        there; if that loop is busy for more than a second, later than this returns.
        """
        self._closed = True
        await asyncio.gather(*map(_close, list(self._streams)))
        await self._own_sessions.close()

    def _http_session(self) -> aiohttp.ClientSession:
        if self._given_session is not None:
            return self._given_session
        try:
            return utils.http_context.http_session()
        except RuntimeError:
            # Outside a LiveKit job there is none to share.
            return self._own_sessions.get(self._options.url)


class _BatchStream(SpeechStream):
    """A stream for `recognize`, which reports usage and errors itself."""

    _reports_usage = False

    def _emit_error(self, api_error: Exception, recoverable: bool) -> None:
        pass


def _read_certificates() -> None:
    # Private to livekit-agents, which may change it: a call can do without.
    build = getattr(utils.http_context, "_create_ssl_context", None)
    if build is None:
        return
    try:
        build()
    except OSError:
        # Certificates that can not be read. Whoever connects says so, as an error of the call.
        logger.debug("could not read the certificates ahead of the call", exc_info=True)


async def _close(stream: SpeechStream) -> None:
    """Close a stream in its own event loop; do not wait long for one of another thread."""
    loop = stream._task.get_loop()
    if loop is asyncio.get_running_loop():
        await stream.aclose()
    elif loop.is_running():
        closing = asyncio.run_coroutine_threadsafe(stream.aclose(), loop)
        await asyncio.wait({asyncio.wrap_future(closing)}, timeout=_ELSEWHERE)


def _find_key(api_key: NotGivenOr[ApiKey]) -> Key | KeySource:
    if is_given(api_key) and api_key is not None:
        found: Key | KeySource = hidden_key(api_key)
        return found
    held = key_of_environment()
    if held is None:
        raise ValueError(f"Tiro needs a key: pass api_key, or set {EITHER_KEY} in the environment")
    return held[1]


def _warn_of_no_effect(options: Options) -> None:
    """Tell of settings that do nothing together."""
    if options.endpointing is not None and not options.interim_results:
        logger.warning(
            "endpointing has no effect without hypotheses: it waits for quiet after one. Set "
            "interim_results=True, or leave endpointing out"
        )


def _checked_session(session: aiohttp.ClientSession | None) -> aiohttp.ClientSession | None:
    if session is not None and not hasattr(session, "_ws_connect"):
        kind = type(session).__name__
        raise ValueError(f"http_session must be an aiohttp.ClientSession, not {kind}")
    return session


def _find_url(base_url: NotGivenOr[str]) -> str:
    if is_given(base_url) and base_url is not None:
        return base_url
    return url_of_environment() or DEFAULT_BASE_URL


def _frames(buffer: AudioBuffer) -> list[rtc.AudioFrame]:
    """Return the frames of what `recognize` is given.

    Raises:
        TypeError: It is anything else.
    """
    frames = buffer if isinstance(buffer, list) else [buffer]
    for frame in frames:
        if not isinstance(frame, rtc.AudioFrame):
            raise TypeError(
                f"recognize takes an rtc.AudioFrame or a list of them, not {type(frame).__name__}: "
                "livekit.agents.utils.audio.audio_frames_from_file makes them of a file"
            )
    return frames


def _joined(finals: list[stt.SpeechEvent], language: str) -> stt.SpeechEvent:
    """Make one final of many: texts joined with a blank, times from the first to the last."""
    spoken = [event.alternatives[0] for event in finals if event.alternatives[0].text]
    data = stt.SpeechData(event_language(language), "")
    if spoken:
        words = [word for part in spoken for word in part.words or ()]
        data = replace(
            spoken[0],
            text=" ".join(part.text for part in spoken),
            end_time=spoken[-1].end_time,
            confidence=sum(part.confidence for part in spoken) / len(spoken),
            words=words or None,
            speaker_id=main_speaker(words),
        )
    request_id = finals[-1].request_id if finals else ""
    return stt.SpeechEvent(stt.SpeechEventType.FINAL_TRANSCRIPT, request_id, [data])
