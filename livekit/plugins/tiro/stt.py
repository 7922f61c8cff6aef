# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""The STT that is passed to an `AgentSession`: options in, capabilities out. It knows no socket."""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from livekit.agents import DEFAULT_API_CONNECT_OPTIONS, APIConnectOptions, LanguageCode, stt, utils
from livekit.agents.types import NOT_GIVEN, NotGivenOr
from livekit.agents.utils import AudioBuffer, is_given

from .connection import new_session
from .options import DEFAULT_BASE_URL, KEY_VARIABLES, Options
from .stream import SpeechStream, changed_options

if TYPE_CHECKING:
    import aiohttp


class STT(stt.STT[Any]):
    """Icelandic speech recognition by Tiro, streaming.

    Guarantees: no word is lost or doubled when a connection ends, times run on over connections,
    and every failure is an `APIError`.
    """

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
        extra_config: NotGivenOr[Mapping[str, Any]] = NOT_GIVEN,
        api_key: NotGivenOr[str] = NOT_GIVEN,
        base_url: NotGivenOr[str] = NOT_GIVEN,
        http_session: aiohttp.ClientSession | None = None,
    ) -> None:
        """Set up the STT; nothing is connected yet.

        Args:
            language: BCP-47 tag. `is`, `icelandic` and the like mean `is-IS`; a tag with a private
                part, such as `is-IS-x-exp`, is sent exactly as given.
            interim_results: Whether to get hypotheses while somebody speaks.
            punctuate: Whether to get punctuation and capitals.
            max_alternatives: Readings of each final, 1 to 30, best first.
            sample_rate: Hz on the wire, 8000 to 48000. Not given, audio is sent at its own rate,
                as Tiro advises; resampling costs CPU and delay.
            diarization: Whether to tell speakers apart.
            min_speakers: How many speakers there are at least; needs `diarization`.
            max_speakers: How many speakers there are at most; needs `diarization`.
            extra_config: Fields merged into Tiro's `RecognitionConfig` last, as in its JSON.
            api_key: Tiro's key; else `TIRO_API_KEY`, then `TIRO_SPEECH_KEY` of the environment.
            base_url: Where the service is; else `TIRO_BASE_URL` of the environment, then
                `wss://speech.talgreinir.is/v2beta1`.
            http_session: The session to connect with, which stays the caller's; else that of the
                LiveKit job, or outside a job one that `aclose` closes.

        Raises:
            ValueError: A value is not valid, or no key is found.
        """
        options = changed_options(
            Options(
                api_key=_find_key(api_key),
                base_url=(base_url if is_given(base_url) else os.environ.get("TIRO_BASE_URL"))
                or DEFAULT_BASE_URL,
                language=language,
                interim_results=interim_results,
                punctuate=punctuate,
                max_alternatives=max_alternatives,
                diarization=diarization,
            ),
            {
                "sample_rate": sample_rate,
                "min_speakers": min_speakers,
                "max_speakers": max_speakers,
                "extra_config": extra_config,
            },
        )
        super().__init__(
            capabilities=stt.STTCapabilities(
                streaming=True,
                interim_results=options.interim_results,
                diarization=options.diarization,
                aligned_transcript="word",
                offline_recognize=True,
                manual_flush=True,
            )
        )
        self._options = options
        self._given_session = http_session
        self._own_session: aiohttp.ClientSession | None = None
        self._streams: weakref.WeakSet[SpeechStream] = weakref.WeakSet()

    @property
    def model(self) -> str:
        """The language tag that is sent: Tiro chooses its model by it."""
        return self._options.language

    @property
    def provider(self) -> str:
        """Who recognises: "Tiro"."""
        return "Tiro"

    def stream(
        self,
        *,
        language: NotGivenOr[str] = NOT_GIVEN,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
    ) -> SpeechStream:
        """Start a live transcription.

        Args:
            language: The language of this stream alone.
            conn_options: Retries, and the seconds for connecting; a handshake may take half of
                them.

        Raises:
            ValueError: `language` is not a language tag.
        """
        return self._start(SpeechStream, language, conn_options)

    def _start(
        self,
        kind: type[SpeechStream],
        language: NotGivenOr[str],
        conn_options: APIConnectOptions,
    ) -> SpeechStream:
        stream = kind(
            stt=self,
            options=changed_options(self._options, {"language": language}),
            conn_options=conn_options,
            session=self._http_session,
        )
        self._streams.add(stream)
        return stream

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
        finals: list[stt.SpeechEvent] = []
        stream = self._start(_BatchStream, language, once)
        async with stream:
            for frame in buffer if isinstance(buffer, list) else [buffer]:
                stream.push_frame(frame)
            stream.end_input()
            async for event in stream:
                if event.type == stt.SpeechEventType.FINAL_TRANSCRIPT:
                    finals.append(event)
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
        extra_config: NotGivenOr[Mapping[str, Any]] = NOT_GIVEN,
    ) -> None:
        """Change the defaults, and the settings of every live stream of this STT.

        A stream applies a real change by a new connection, which gets the utterance in progress
        again from its start. Values that change nothing do nothing.

        Raises:
            ValueError: A value is not valid; nothing is changed then.
        """
        changes = locals()
        del changes["self"]
        options = changed_options(self._options, changes)
        changed = [(stream, changed_options(stream.options, changes)) for stream in self._streams]
        self._options = options
        self._capabilities.interim_results = options.interim_results
        self._capabilities.diarization = options.diarization
        for stream, stream_options in changed:
            stream.apply_options(stream_options)

    async def __aenter__(self) -> STT:
        return self

    async def aclose(self) -> None:
        """Close every live stream, and the HTTP session if it is this object's own."""
        for stream in list(self._streams):
            await stream.aclose()
        self._streams.clear()
        if self._own_session is not None:
            await self._own_session.close()
            self._own_session = None

    def _http_session(self) -> aiohttp.ClientSession:
        if self._given_session is not None:
            return self._given_session
        try:
            return utils.http_context.http_session()
        except RuntimeError:
            # Outside a LiveKit job there is none to share.
            if self._own_session is None or self._own_session.closed:
                self._own_session = new_session()
            return self._own_session


class _BatchStream(SpeechStream):
    """A stream for `recognize`, which reports usage and errors itself."""

    def _report_usage(self, *, at_least: float) -> None:
        pass

    def _emit_error(self, api_error: Exception, recoverable: bool) -> None:
        pass


def _find_key(api_key: NotGivenOr[str]) -> str:
    key = api_key if is_given(api_key) else None
    key = key or next(filter(None, map(os.environ.get, KEY_VARIABLES)), None)
    if not key:
        raise ValueError(
            "Tiro needs a key: pass api_key, or set TIRO_API_KEY or TIRO_SPEECH_KEY in the "
            "environment"
        )
    return key


def _joined(finals: list[stt.SpeechEvent], language: str) -> stt.SpeechEvent:
    """Make one final of many: texts joined with a blank, times from the first to the last."""
    spoken = [event.alternatives[0] for event in finals if event.alternatives[0].text]
    data = stt.SpeechData(LanguageCode(language.lower().partition("-x-")[0]), "")
    if spoken:
        data = replace(
            spoken[0],
            text=" ".join(part.text for part in spoken),
            end_time=spoken[-1].end_time,
            confidence=sum(part.confidence for part in spoken) / len(spoken),
            words=[word for part in spoken for word in part.words or ()] or None,
        )
    request_id = finals[-1].request_id if finals else ""
    return stt.SpeechEvent(stt.SpeechEventType.FINAL_TRANSCRIPT, request_id, [data])
