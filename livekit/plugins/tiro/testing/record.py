"""What the server remembers of each connection, for the tests that look at it afterwards."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from .line import Line

if TYPE_CHECKING:
    from .wire import SpeechConfig

logger = logging.getLogger(__name__)

# Bytes that an entry of a list takes beside what is in it.
_ENTRY_BYTES = 100


class Space:
    """The memory that the records of a server share; what finds no room in it is not recorded.

    Args:
        size: Bytes; 0 records nothing.
    """

    def __init__(self, size: int) -> None:
        self._left = size
        # Nobody who asked for no records misses them.
        self._is_told = size <= 0

    def take(self, size: int) -> bool:
        """Take room for an entry of so many bytes; return whether there was any."""
        needed = size + _ENTRY_BYTES
        if needed <= self._left:
            self._left -= needed
            return True
        if not self._is_told:
            self._is_told = True
            logger.warning("the local server's records are full, see its argument recorded_bytes")
        return False

    def give_back(self, sizes: list[int]) -> None:
        """Free the room of entries of so many bytes."""
        self._left += sum(sizes) + _ENTRY_BYTES * len(sizes)


@dataclass
class ConnectionRecord:
    """The record of one connection; grows while the connection lives and stays after it.

    Attributes:
        number: Counts the connections of a server from 0: the one of number 0 is `@1` of a fault
            that is written as text, as for `serve --fault`.
        path: The path of the request, without the query.
        token: The key the client sent, by query, subprotocol or cookie; None without one.
        headers: The headers of the handshake, by their names in lower case; of a name that came
            more than once, the last.
        opened_at: When the handshake came, in seconds of the event loop's clock.
        arrived_at: When the message of the client that is being taken up arrived, likewise; hooks
            and a slow recogniser may take it up later.
        is_delayed: Whether a fault has frames come late, each by the same time.
        closed_at: When the connection was over, None while it lives.
        closed_by: Who ended it: a close frame or a lost connection counts as the client.
        speech: What the config asks for, as read; None before it.
        audio: The PCM received, in the client's sample rate, 16 bits, mono; all of it while there
            is room in the server's `recorded_bytes`.
        sizes: Bytes of PCM of each message in `audio`.
        received: Bytes of PCM received, recorded or not.
        messages: How many audio messages came, recorded or not.
        end: How the audio ended: `audio_content`, `END`, `empty message`, `streaming_config` or
            `half-close`, None while it has not.
        frames: The texts of the frames sent, while there is room.
        status: The gRPC code that ended the connection, 0 for none.
        closed: Set once the connection is over.
        line: The transport itself, for faults.
        space: Where the room for `audio` and `frames` comes from.
    """

    number: int
    path: str
    token: str | None = field(repr=False)
    opened_at: float
    arrived_at: float = 0.0
    is_delayed: bool = False
    closed_at: float | None = None
    closed_by: Literal["client", "server"] | None = None
    speech: SpeechConfig | None = None
    audio: bytearray = field(default_factory=bytearray, repr=False)
    sizes: list[int] = field(default_factory=list, repr=False)
    received: int = 0
    messages: int = 0
    end: str | None = None
    frames: list[str] = field(default_factory=list, repr=False)
    status: int = 0
    closed: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    line: Line = field(default_factory=lambda: Line(None), repr=False)
    space: Space = field(default_factory=lambda: Space(0), repr=False)
    headers: dict[str, str] = field(default_factory=dict, repr=False)

    def add_audio(self, pcm: bytes) -> None:
        """Record a message of audio."""
        self.messages += 1
        self.received += len(pcm)
        if self.space.take(len(pcm)):
            self.audio += pcm
            self.sizes.append(len(pcm))

    def add_frame(self, text: str) -> None:
        """Record a frame that was sent."""
        if self.space.take(len(text)):
            self.frames.append(text)

    def forget(self) -> None:
        """Give back the room of the audio and the frames, which are gone then."""
        self.space.give_back(self.sizes)
        self.space.give_back([len(text) for text in self.frames])
        self.audio, self.sizes, self.frames = bytearray(), [], []

    @property
    def streaming_config(self) -> dict[str, Any]:
        """The `streamingConfig` object as sent; empty before it."""
        return dict(self.speech.raw) if self.speech else {}

    @property
    def config(self) -> dict[str, Any]:
        """The `config` object inside `streaming_config`, as sent; empty without one."""
        return dict(self.streaming_config.get("config") or {})

    @property
    def phrases(self) -> list[str]:
        """The words and phrases to listen for, of all `speechContexts`; empty before the config."""
        return list(self.speech.phrases) if self.speech else []

    @property
    def language(self) -> str:
        """The language tag, letter by letter; empty before the config."""
        return self.speech.language if self.speech else ""

    @property
    def sample_rate(self) -> int:
        """Hz of `audio`; 0 before the config."""
        return self.speech.sample_rate if self.speech else 0

    @property
    def ended(self) -> bool:
        """Whether the client marked the end of its audio, in whatever way; closing is none."""
        return self.end not in (None, "half-close")

    @property
    def seconds(self) -> float:
        """How much audio came, in seconds; 0 before the config."""
        return self.received / 2 / self.sample_rate if self.sample_rate else 0.0
