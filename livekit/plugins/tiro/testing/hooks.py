"""Where faults get in: the server asks these hooks at every step of a session."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .session import Session


@dataclass(frozen=True)
class HandshakeRefusal:
    """The plain HTTP answer to a handshake that is not granted."""

    status: int
    body: str = ""


class Drop(Exception):
    """Raised by a hook: drop the connection now, without another frame."""


class Hooks:
    """The hooks that change nothing; override some.

    Every hook but `handshake` may wait (the session stands still meanwhile, its client is still
    read), raise `StatusError` (an error frame, then the end) or raise `Drop` (the end). What the
    frames of the service cannot do, `session.line` can. Module `faults` has hooks ready made.
    """

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    async def handshake(self, session: Session) -> HandshakeRefusal | None:
        """Before the upgrade; anything but None refuses it."""
        return None

    async def opened(self, session: Session) -> None:
        """When the connection stands, before the first message of the client."""

    async def beside(self, session: Session) -> None:
        """Runs beside the session, from `opened` on until its end; raising ends the session."""

    async def first_message(self, session: Session) -> None:
        """When the first message is decoded, before its key and config are checked."""

    async def audio(self, session: Session, pcm: bytes) -> None:
        """When a message of audio is taken up, before it is recorded and recognised."""

    async def end(self, session: Session) -> None:
        """When the end marker is taken up, before the last final."""

    async def frame(self, session: Session, text: str) -> str | None:
        """Before each frame to the client: what to send in its place, None for nothing."""
        return text

    async def sent(self, session: Session, text: str) -> None:
        """Behind each frame to the client."""

    async def done(self, session: Session) -> None:
        """When all is said, before the connection is dropped."""
