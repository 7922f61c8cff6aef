"""Where faults get in: the server asks these hooks at every step of a connection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .line import Drop as Drop

if TYPE_CHECKING:
    from .record import ConnectionRecord


@dataclass(frozen=True)
class HandshakeRefusal:
    """The plain HTTP answer to a handshake that is not granted."""

    status: int
    body: str = ""


class Hooks:
    """Hooks that change nothing; override some.

    Every hook may wait: the connection stands still meanwhile, and its client is still read. Every
    one but `handshake` may raise `StatusError` (an error frame, then the end) or `Drop` (the end
    without a frame). What no frame of the service can do, `connection.line` can. Module `faults`
    has hooks ready made.
    """

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def for_connection(self, connection: ConnectionRecord) -> Hooks:
        """Return the hooks that a connection has; override it to give each its own.

        The server asks once for each connection, when its handshake comes.
        """
        return self

    async def handshake(self, connection: ConnectionRecord) -> HandshakeRefusal | None:
        """Decide on the handshake, before the upgrade; anything but None refuses it."""
        return None

    async def opened(self, connection: ConnectionRecord) -> None:
        """Act when the connection is open, before the first message of the client."""

    async def beside(self, connection: ConnectionRecord) -> None:
        """Run beside the connection, from `opened` until its end; an exception ends it."""

    async def first_message(self, connection: ConnectionRecord) -> None:
        """Act when the first message is decoded, before its key and config are checked."""

    async def audio(self, connection: ConnectionRecord, pcm: bytes) -> None:
        """Act on a message of audio, before it is recorded and recognised."""

    async def end(self, connection: ConnectionRecord) -> None:
        """Act on the end marker, before the last final."""

    async def frame(self, connection: ConnectionRecord, text: str) -> str | None:
        """Return what to send to the client in place of a frame, None for nothing."""
        return text

    async def sent(self, connection: ConnectionRecord, text: str) -> None:
        """Act after a frame was sent to the client."""

    async def done(self, connection: ConnectionRecord) -> None:
        """Act when all frames were sent, before the connection is dropped."""


def checked(
    hooks: Hooks | None,
    wanted: str = "hooks must be one fault, such as faults.Disconnect(2.5)",
    advice: str = "for several, give faults.PerConnection(...) or faults.Combined(...)",
) -> Hooks:
    """Return the hooks given, or those that do nothing; `wanted` and `advice` are for the error.

    Raises:
        ValueError: They are no hooks, such as a list of them, or a class.
    """
    if hooks is None:
        return Hooks()
    if not isinstance(hooks, Hooks):
        raise ValueError(f"{wanted}, not {hooks!r}: {advice}")
    return hooks
