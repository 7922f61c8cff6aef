"""A room in memory: participants with microphones come and go, and what is published stays.

LiveKit's own `RoomIO` and `JobContext` run on it; only the network and its tracks are missing.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest import mock

from livekit import rtc
from livekit.agents import JobContext, utils
from livekit.agents.testing import fake_job_context

from .session_fakes import Microphone

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@dataclass
class Published:
    """A text that was published to the room: a transcription, or a part of one."""

    identity: str
    """Who said it."""
    text: str
    final: bool


class Track:
    """A participant's audio track, which is a microphone."""

    def __init__(self, identity: str) -> None:
        self.sid = f"TR_{identity}"
        self.microphone = Microphone()
        self.microphone.on_attached()


@dataclass
class Participant:
    """Somebody in the room."""

    identity: str
    track: Track
    name: str = ""
    kind: int = rtc.ParticipantKind.PARTICIPANT_KIND_STANDARD
    attributes: dict[str, str] = field(default_factory=dict)
    disconnect_reason: int = rtc.DisconnectReason.CLIENT_INITIATED

    def __post_init__(self) -> None:
        self.sid = f"PA_{self.identity}"
        self.metadata = ""
        # A client that reads transcriptions as text streams.
        self._info = SimpleNamespace(client_protocol=99)
        publication = SimpleNamespace(
            sid=self.track.sid,
            track=self.track,
            source=rtc.TrackSource.SOURCE_MICROPHONE,
            kind=rtc.TrackKind.KIND_AUDIO,
            audio_features=[],
            subscribed=True,
        )
        self.track_publications = {self.track.sid: publication}

    @property
    def microphone(self) -> Microphone:
        return self.track.microphone


class AudioStream:
    """What `rtc.AudioStream` is to a track."""

    def __init__(self, track: Track) -> None:
        self._microphone = track.microphone

    def __aiter__(self) -> AudioStream:
        return self

    async def __anext__(self) -> Any:
        return SimpleNamespace(frame=await self._microphone.__anext__())

    async def aclose(self) -> None:
        self._microphone.on_detached()


class _Writer:
    """One text stream."""

    def __init__(self, room: Room, identity: str, attributes: dict[str, str]) -> None:
        self._room = room
        self._identity = identity
        self._final = attributes.get("lk.transcription_final") == "true"
        self._text = ""

    async def write(self, text: str) -> None:
        self._text += text

    async def aclose(self, *, attributes: dict[str, str] | None = None, **_: Any) -> None:
        final = self._final or (attributes or {}).get("lk.transcription_final") == "true"
        self._room.published.append(Published(self._identity, self._text, final))


class _LocalParticipant:
    """The agent in the room."""

    def __init__(self, room: Room) -> None:
        self.identity = "agent"
        self.sid = "PA_agent"
        self.attributes: dict[str, str] = {}
        self.track_publications: dict[str, Any] = {}
        self._room = room

    async def stream_text(self, *, topic: str, sender_identity: str, **options: Any) -> _Writer:
        assert topic == "lk.transcription"
        return _Writer(self._room, sender_identity, options["attributes"])

    async def publish_transcription(self, transcription: rtc.Transcription) -> None:
        """The older way, which every text takes as well."""

    async def send_bytes(self, data: bytes, **_: Any) -> None:
        """What a session tells those who watch it."""

    async def set_attributes(self, attributes: dict[str, str]) -> None:
        self.attributes.update(attributes)

    def __getattr__(self, name: str) -> Any:
        # Whatever a session registers with its participant (RPC methods and the like).
        return mock.MagicMock(name=name)


class Room(rtc.EventEmitter[str]):
    """A room that is connected from the start."""

    def __init__(self) -> None:
        super().__init__()
        self.name = "herbergi"
        self.metadata = ""
        self.remote_participants: dict[str, Participant] = {}
        self.local_participant = _LocalParticipant(self)
        self.published: list[Published] = []
        self.connected = False
        """Whether a job has connected; the room takes it for granted."""

    def isconnected(self) -> bool:
        return True

    def join(self, identity: str) -> Participant:
        """Let somebody in."""
        participant = Participant(identity, Track(identity))
        self.remote_participants[identity] = participant
        self.emit("participant_connected", participant)
        return participant

    def leave(self, participant: Participant) -> None:
        """Let somebody go."""
        del self.remote_participants[participant.identity]
        self.emit("participant_disconnected", participant)

    def finals(self, identity: str) -> list[str]:
        """Return the final transcriptions of what somebody said."""
        return [p.text for p in self.published if p.identity == identity and p.final and p.text]

    def register_text_stream_handler(self, topic: str, handler: Any) -> None: ...

    def unregister_text_stream_handler(self, topic: str) -> None: ...

    def register_byte_stream_handler(self, topic: str, handler: Any) -> None: ...

    def unregister_byte_stream_handler(self, topic: str) -> None: ...


@asynccontextmanager
async def job_in(room: Room) -> AsyncIterator[JobContext]:
    """Run a job in the room: its HTTP session is open, and its shutdown is that of the worker."""
    stream = mock.patch.object(
        rtc.AudioStream, "from_track", lambda *, track, **_: AudioStream(track)
    )
    async with utils.http_context.open():
        with stream, fake_job_context(room=room) as ctx:  # type: ignore[arg-type]
            with mock.patch.object(ctx, "connect", lambda **_: _connect(ctx, room)):
                yield ctx
            for callback in ctx._shutdown_callbacks:
                await callback("")
            ctx._tempdir.cleanup()


async def _connect(ctx: JobContext, room: Room) -> None:
    """Connect once; a session asks for it again."""
    if room.connected:
        return
    room.connected = True
    for participant in list(room.remote_participants.values()):
        ctx._participant_available(participant)  # type: ignore[arg-type]
