"""What the server remembers of each client, for the tests that look at it afterwards."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, Literal


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
        streaming_config: The `streamingConfig` as sent, empty before it.
        audio: All PCM received, in the client's sample rate, 16 bits, mono.
        sizes: Bytes of PCM of each audio message.
        end: How the audio ended: `audio_content`, `END`, `empty message`, `streaming_config` or
            `half-close`, None while it has not.
        frames: The texts of the frames sent.
        status: The gRPC code that ended the session, 0 for none.
        closed: Set once the connection is over.
    """

    number: int
    path: str
    token: str | None = field(repr=False)
    opened_at: float
    closed_at: float | None = None
    closed_by: Literal["client", "server"] | None = None
    streaming_config: dict[str, Any] = field(default_factory=dict)
    audio: bytearray = field(default_factory=bytearray, repr=False)
    sizes: list[int] = field(default_factory=list, repr=False)
    end: str | None = None
    frames: list[str] = field(default_factory=list, repr=False)
    status: int = 0
    closed: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    @property
    def config(self) -> dict[str, Any]:
        """The `config` inside `streaming_config`, as sent; empty before it."""
        config = self.streaming_config.get("config")
        return config if isinstance(config, dict) else {}

    @property
    def language(self) -> str:
        """The language tag, letter by letter; empty before the config."""
        return str(self.config.get("languageCode", self.config.get("language_code", "")))

    @property
    def sample_rate(self) -> int:
        """Hz of `audio`; 0 before the config."""
        return int(self.config.get("sampleRateHertz", self.config.get("sample_rate_hertz", 0)))

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
