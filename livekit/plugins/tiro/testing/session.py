"""What the server remembers of each client, for the tests that look at it afterwards."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, Literal

from .line import Line
from .wire import SpeechConfig


@dataclass
class Session:
    """The record of one connection; grows while the connection lives and stays after it.

    Attributes:
        number: Counts the connections of a server from 0.
        path: The path of the request, without the query.
        token: The key the client sent, by query, subprotocol or cookie; None without one.
        opened_at: When the handshake came, in seconds of the event loop's clock.
        closed_at: When the connection was over, None while it lives.
        closed_by: Who ended it: a close frame or a lost connection counts as the client.
        speech: What the config asks for, as read; None before it.
        audio: All PCM received, in the client's sample rate, 16 bits, mono.
        sizes: Bytes of PCM of each audio message.
        end: How the audio ended: `audio_content`, `END`, `empty message`, `streaming_config` or
            `half-close`, None while it has not.
        frames: The texts of the frames sent.
        status: The gRPC code that ended the session, 0 for none.
        closed: Set once the connection is over.
        line: The connection itself, for faults.
    """

    number: int
    path: str
    token: str | None = field(repr=False)
    opened_at: float
    closed_at: float | None = None
    closed_by: Literal["client", "server"] | None = None
    speech: SpeechConfig | None = None
    audio: bytearray = field(default_factory=bytearray, repr=False)
    sizes: list[int] = field(default_factory=list, repr=False)
    end: str | None = None
    frames: list[str] = field(default_factory=list, repr=False)
    status: int = 0
    closed: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    line: Line = field(default_factory=lambda: Line(None), repr=False)

    @property
    def streaming_config(self) -> dict[str, Any]:
        """The `streamingConfig` object as sent; empty before it."""
        return dict(self.speech.raw) if self.speech else {}

    @property
    def config(self) -> dict[str, Any]:
        """The `config` object inside `streaming_config`, as sent; empty without one."""
        return dict(self.streaming_config.get("config") or {})

    @property
    def language(self) -> str:
        """The language tag, letter by letter; empty before the config."""
        return self.speech.language if self.speech else ""

    @property
    def sample_rate(self) -> int:
        """Hz of `audio`; 0 before the config."""
        return self.speech.sample_rate if self.speech else 0

    @property
    def messages(self) -> int:
        """How many audio messages came."""
        return len(self.sizes)

    @property
    def ended(self) -> bool:
        """Whether the client marked the end of its audio, in whatever way; closing is none."""
        return self.end not in (None, "half-close")

    @property
    def seconds(self) -> float:
        """How much audio came, in seconds; 0 before the config."""
        return len(self.audio) / 2 / self.sample_rate if self.sample_rate else 0.0
