"""Faults by name, for the tests of whoever depends on the service: pass them to `TiroServer`.

```python
from livekit.plugins.tiro.testing import TiroServer, faults

hooks = faults.PerConnection(
    faults.Refuse(503),                         # the first connection is refused,
    faults.Disconnect(2.5),                     # the second is cut after 2.5 s of audio,
    faults.Fail(14, faults.Moment.FINAL),       # the third fails after its first final,
)                                               # and all that follow are left alone.
async with TiroServer(hooks=hooks) as server:
    ...
```

Each fault is a set of `Hooks`, and by itself it strikes every connection. `PerConnection` gives
each connection its own, `Combined` gives one connection several. `CATALOGUE` has
every fault by its name.
"""

from __future__ import annotations

import asyncio
import json
import re
import weakref
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Literal, NoReturn, TypeVar, get_args

from .checks import check_above, check_number, check_one_of, check_whole, is_number
from .conversation import LONGEST_LINE
from .hooks import Drop, HandshakeRefusal, Hooks, checked
from .record import ConnectionRecord
from .wire import FrameStyle, StatusError

_FINAL = '"isFinal":true'
_INTERIM = '"results":[{'

# gRPC has 16 error codes; larger ones test how a client handles a code that it does not know.
_LARGEST_CODE = 99
# Bytes; what a close frame has room for beside its code.
_LONGEST_REASON = 123

# Seconds between looks for a client that left during the handshake.
_LOOK = 0.05

GARBAGE: tuple[str | bytes, ...] = (
    "",
    "not JSON",
    '{"result":',
    "null",
    "[]",
    "42",
    "{}",
    '{"keepAlive":true}',
    b"\xff\xfe\x00",
)
"""Frames that say nothing."""


CATALOGUE: dict[str, type[Hooks]] = {}
"""Every fault, by its name on the command line, such as `half-open` for `HalfOpen`."""

H = TypeVar("H", bound=Hooks)


def _listed(fault: type[H]) -> type[H]:
    """Put a fault into the catalogue."""
    CATALOGUE[re.sub(r"(?<!^)(?=[A-Z])", "-", fault.__name__).lower()] = fault
    return fault


class Moment(Enum):
    """When a fault strikes, in the life of a connection."""

    OPENED = "the connection stands, nothing was sent on it"
    CONFIG = "the config is there, no audio is"
    INTERIM = "the first hypothesis is out"
    FINAL = "the first final is out"
    FLUSH = "the first silence of a flush is there: a message of nothing but zeros"
    END = "the end marker is there, the last final is not out"
    DONE = "the last final is out"


When = Moment | float
"""A moment, or after so many seconds of audio on the connection."""


class Fault(Hooks):
    """Does something once on a connection, at a moment; subclasses say what.

    Args:
        when: The moment it strikes.

    Raises:
        ValueError: `when` is neither a moment nor a number of 0 or more.
    """

    def __init__(self, when: When = Moment.CONFIG) -> None:
        if not isinstance(when, Moment) and not is_number(when):
            known = ", ".join(str(moment) for moment in Moment)
            raise ValueError(
                f"when must be seconds of audio, 0 or more, or one of {known}, not {when!r}"
            )
        self.when = when
        self.struck: dict[int, float] = {}
        """The numbers of the connections it struck, and when, in seconds of the loop's clock.

        Of several servers with the same fault, the latest connection of a number counts.
        """
        # The connections themselves: each server numbers its own from 0. A record goes in the end.
        self._records: dict[int, weakref.ref[ConnectionRecord]] = {}

    def __repr__(self) -> str:
        when = self.when.name if isinstance(self.when, Moment) else f"{self.when:g} s"
        return f"{type(self).__name__}({when})"

    async def strike(self, connection: ConnectionRecord) -> None:
        """Strike the connection; may raise what hooks may raise."""
        raise NotImplementedError

    async def _at(self, connection: ConnectionRecord, moment: Moment) -> None:
        if self.when is moment:
            await self._once(connection)

    async def _once(self, connection: ConnectionRecord) -> None:
        """Strike, unless the connection was struck before."""
        number = connection.number
        if number in self._records and self._records[number]() is connection:
            return
        self._records[number] = weakref.ref(connection)
        self.struck[number] = asyncio.get_running_loop().time()
        await self.strike(connection)

    async def opened(self, connection: ConnectionRecord) -> None:
        """Strike at OPENED."""
        await self._at(connection, Moment.OPENED)

    async def first_message(self, connection: ConnectionRecord) -> None:
        """Strike at CONFIG."""
        await self._at(connection, Moment.CONFIG)

    async def audio(self, connection: ConnectionRecord, pcm: bytes) -> None:
        """Strike at FLUSH, or after so many seconds."""
        if self.when is Moment.FLUSH and not any(pcm):
            await self._at(connection, Moment.FLUSH)
        elif not isinstance(self.when, Moment) and connection.seconds >= self.when:
            await self._once(connection)

    async def sent(self, connection: ConnectionRecord, text: str) -> None:
        """Strike at INTERIM or FINAL."""
        if _FINAL in text:
            await self._at(connection, Moment.FINAL)
        elif _INTERIM in text:
            await self._at(connection, Moment.INTERIM)

    async def end(self, connection: ConnectionRecord) -> None:
        """Strike at END."""
        await self._at(connection, Moment.END)

    async def done(self, connection: ConnectionRecord) -> None:
        """Strike at DONE."""
        await self._at(connection, Moment.DONE)


def _argument(hooks: Any) -> Hooks:
    """Return the hooks that an argument of `PerConnection` or `Combined` stands for."""
    return checked(
        hooks,
        "each argument must be one fault, such as faults.Disconnect(2.5), or None",
        "give several one by one, in no list, and with brackets after the name of each",
    )


class PerConnection(Hooks):
    """Gives each connection its own hooks: the first the first, and so on.

    Args:
        hooks: One for each connection, None for one without a fault.
        then: For all further connections.
    """

    def __init__(self, *hooks: Hooks | None, then: Hooks | None = None) -> None:
        self._hooks = [_argument(each) for each in hooks]
        self._then = _argument(then)

    def __repr__(self) -> str:
        return f"PerConnection({', '.join(map(repr, self._hooks))}, then={self._then!r})"

    def for_connection(self, connection: ConnectionRecord) -> Hooks:
        """Return the hooks for the connection's number."""
        number = connection.number
        hooks = self._hooks[number] if number < len(self._hooks) else self._then
        return hooks.for_connection(connection)


class Combined(Hooks):
    """Several hooks on the same connection, asked in the order given.

    Args:
        hooks: The hooks; what one makes of a frame is what the next one gets.
    """

    def __init__(self, *hooks: Hooks) -> None:
        self._hooks = [_argument(each) for each in hooks]

    def __repr__(self) -> str:
        return f"Combined({', '.join(map(repr, self._hooks))})"

    def for_connection(self, connection: ConnectionRecord) -> Hooks:
        """Return the combination of what each of the hooks gives the connection."""
        return Combined(*(hooks.for_connection(connection) for hooks in self._hooks))

    async def handshake(self, connection: ConnectionRecord) -> HandshakeRefusal | None:
        """Ask all hooks in order; return the first refusal."""
        for hooks in self._hooks:
            refusal = await hooks.handshake(connection)
            if refusal is not None:
                return refusal
        return None

    async def opened(self, connection: ConnectionRecord) -> None:
        """Call all hooks in order."""
        for hooks in self._hooks:
            await hooks.opened(connection)

    async def beside(self, connection: ConnectionRecord) -> None:
        """Run all hooks at the same time; the first exception ends the connection."""
        tasks = [asyncio.ensure_future(hooks.beside(connection)) for hooks in self._hooks]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def first_message(self, connection: ConnectionRecord) -> None:
        """Call all hooks in order."""
        for hooks in self._hooks:
            await hooks.first_message(connection)

    async def audio(self, connection: ConnectionRecord, pcm: bytes) -> None:
        """Call all hooks in order."""
        for hooks in self._hooks:
            await hooks.audio(connection, pcm)

    async def end(self, connection: ConnectionRecord) -> None:
        """Call all hooks in order."""
        for hooks in self._hooks:
            await hooks.end(connection)

    async def frame(self, connection: ConnectionRecord, text: str) -> str | None:
        """Pass the frame through all hooks in order, each with what the one before returned."""
        changed: str | None = text
        for hooks in self._hooks:
            if changed is not None:
                changed = await hooks.frame(connection, changed)
        return changed

    async def sent(self, connection: ConnectionRecord, text: str) -> None:
        """Call all hooks in order."""
        for hooks in self._hooks:
            await hooks.sent(connection, text)

    async def done(self, connection: ConnectionRecord) -> None:
        """Call all hooks in order."""
        for hooks in self._hooks:
            await hooks.done(connection)


# -- the handshake ---------------------------------------------------------------------------------


@_listed
class Refuse(Hooks):
    """The handshake is answered with plain HTTP.

    Args:
        status: Any HTTP status from 200 to 599.
        body: The text of the answer.
        delay: Seconds until the answer.
    """

    def __init__(self, status: int = 503, body: str = "", *, delay: float = 0.0) -> None:
        # After a lower one the client waits for another answer.
        check_whole("status", status, 200, 599)
        check_number("delay", delay)
        self._answer = HandshakeRefusal(status, body)
        self._delay = delay

    def __repr__(self) -> str:
        return f"Refuse({self._answer.status})"

    async def handshake(self, connection: ConnectionRecord) -> HandshakeRefusal | None:
        """Refuse, after the delay if one is given."""
        await _wait(connection, self._delay)
        return self._answer


@_listed
class StalledHandshake(Hooks):
    """The handshake gets no answer.

    Args:
        seconds: For how long; then it is granted.
    """

    def __init__(self, seconds: float = 30.0) -> None:
        check_number("seconds", seconds)
        self._seconds = seconds

    async def handshake(self, connection: ConnectionRecord) -> HandshakeRefusal | None:
        """Wait, at most until the client is gone."""
        await _wait(connection, self._seconds)
        return HandshakeRefusal(503) if connection.line.is_lost else None


@_listed
class ResetHandshake(Hooks):
    """TCP is closed in place of an answer to the handshake, by RST."""

    async def handshake(self, connection: ConnectionRecord) -> HandshakeRefusal | None:
        """Reset the TCP connection."""
        connection.line.reset()
        return HandshakeRefusal(503)


async def _wait(connection: ConnectionRecord, seconds: float) -> None:
    """Wait for some seconds, at most until the client is gone."""
    clock = asyncio.get_running_loop().time
    until = clock() + seconds
    # aiohttp tells a handler only by cancelling it that its client is gone, and not always.
    while clock() < until and not connection.line.is_lost:  # noqa: ASYNC110
        await asyncio.sleep(min(_LOOK, until - clock()))


# -- once, at a moment -----------------------------------------------------------------------------


@_listed
class Disconnect(Fault):
    """The connection is gone without another frame, as when a gateway crashes.

    Args:
        when: The moment it strikes.
        reset: By RST, which can destroy frames that are still on their way; else by FIN.
    """

    def __init__(self, when: When = Moment.CONFIG, *, reset: bool = False) -> None:
        super().__init__(when)
        self._reset = reset

    async def strike(self, connection: ConnectionRecord) -> NoReturn:
        """End the connection."""
        if self._reset:
            connection.line.reset()
        raise Drop


@_listed
class Close(Fault):
    """A close frame, as a load balancer sends it; then the end.

    Args:
        when: The moment it strikes.
        code: Any close code from 0 to 65535, those that must not be sent included.
        reason: Text of the frame, 123 bytes at most.
        stay: Leave it to the client to end the connection.
    """

    def __init__(
        self,
        when: When = Moment.CONFIG,
        code: int = 1001,
        reason: str = "",
        *,
        stay: bool = False,
    ) -> None:
        super().__init__(when)
        check_whole("code", code, 0, 65535)
        if not _fits(reason):
            raise ValueError(
                f"reason must be text of {_LONGEST_REASON} bytes at most in UTF-8, not {reason!r}"
            )
        self._code = code
        self._reason = reason
        self._stay = stay

    async def strike(self, connection: ConnectionRecord) -> NoReturn:
        """Send the frame."""
        await connection.line.send_close(self._code, self._reason)
        if self._stay:
            await connection.line.wait_until_lost()
        raise Drop


def _fits(reason: Any) -> bool:
    """Tell whether a reason can be sent in a close frame."""
    try:
        return len(reason.encode()) <= _LONGEST_REASON
    except (AttributeError, UnicodeEncodeError):
        return False


Shape = Literal["v1", "v2", "gateway v1", "gateway v2", "result", "text"]
"""How an error is written.

`v1`, `v2`: by the service, through grpc-gateway 1 or 2. `gateway v1`, `gateway v2`: by the gateway
itself. `result`: in the `error` field of a response. `text`: a bare HTTP reason phrase.
"""


@_listed
class Fail(Fault):
    """An error frame.

    Args:
        code: Any gRPC code of an error, from 1 to 16, or one up to 99 that gRPC does not have.
        when: The moment it strikes.
        message: The text in the frame.
        shape: How it is written.
        stay: Leave the connection open and say nothing more.
    """

    def __init__(
        self,
        code: int = 14,
        when: When = Moment.CONFIG,
        *,
        message: str = "a fault",
        shape: Shape = "v1",
        stay: bool = False,
    ) -> None:
        super().__init__(when)
        _check_code(code)
        check_one_of("shape", shape, get_args(Shape))
        self.code = code
        self._message = message
        self._shape = shape
        self._stay = stay

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, code {self.code}, {self._shape})"

    async def strike(self, connection: ConnectionRecord) -> NoReturn:
        """Send the frame."""
        connection.status = self.code
        await connection.line.send(error_frame(self.code, self._message, self._shape))
        if self._stay:
            await connection.line.wait_until_lost()
        raise Drop


def _check_code(code: Any) -> None:
    check_whole("code", code, 1, _LARGEST_CODE)


def error_frame(code: int, message: str, shape: Shape) -> str:
    """Return the text of an error frame."""
    status = StatusError(code, message)
    if shape == "text":
        return message
    if shape == "result":
        return json.dumps({"result": {"error": {"code": code, "message": message}}})
    if shape == "gateway v1":
        return FrameStyle("v1").gateway_error(message, code)
    if shape == "gateway v2":
        return FrameStyle("v2").gateway_error(message, code)
    return FrameStyle(shape).error(status)


@_listed
class Mute(Fault):
    """The service reads, answers pings, and says nothing more."""

    async def strike(self, connection: ConnectionRecord) -> NoReturn:
        """Send nothing more but pongs."""
        await connection.line.wait_until_lost()


@_listed
class HalfOpen(Fault):
    """Nothing comes any more, not even the answer to a ping; TCP stays open."""

    async def strike(self, connection: ConnectionRecord) -> NoReturn:
        """Send nothing more, not even pongs."""
        connection.line.dead = True
        await connection.line.wait_until_lost()


@_listed
class StopReading(Fault):
    """The service takes no more bytes, so the client's sending blocks; what it took it answers.

    Args:
        when: The moment it strikes.
        seconds: For how long; a client that leaves meanwhile is noticed only then. For a script
            with times, the next connection goes on with the call of this one.
    """

    def __init__(self, when: When = Moment.CONFIG, *, seconds: float = 30.0) -> None:
        super().__init__(when)
        check_number("seconds", seconds)
        self._seconds = seconds

    async def strike(self, connection: ConnectionRecord) -> None:
        """Stop reading."""
        connection.line.stop_reading()
        asyncio.get_running_loop().call_later(self._seconds, connection.line.go_on_reading)


@_listed
class IgnoreEnd(Fault):
    """The end marker is taken for nothing: no last final, and the connection stays."""

    def __init__(self) -> None:
        super().__init__(Moment.END)

    async def strike(self, connection: ConnectionRecord) -> NoReturn:
        """Wait until the client is gone."""
        await connection.line.wait_until_lost()


# -- limits ----------------------------------------------------------------------------------------


@_listed
class SessionLimit(Hooks):
    """A connection lives no longer than so many seconds of wall clock.

    Args:
        seconds: How long it lives.
        code: The gRPC code of the error frame; with None there is no frame, it just ends.
    """

    def __init__(self, seconds: float, code: int | None = 11) -> None:
        check_number("seconds", seconds)
        if code is not None:
            _check_code(code)
        self._seconds = seconds
        self._code = code

    def __repr__(self) -> str:
        return f"SessionLimit({self._seconds:g} s, code {self._code})"

    async def beside(self, connection: ConnectionRecord) -> None:
        """End the connection in time."""
        await asyncio.sleep(self._seconds)
        raise _end(self._code, "the connection is too long")


@_listed
class IdleLimit(Hooks):
    """A connection ends when so many seconds of wall clock bring no audio.

    Args:
        seconds: How long it waits for audio.
        code: The gRPC code of the error frame; with None there is no frame, it just ends.
    """

    def __init__(self, seconds: float, code: int | None = 11) -> None:
        check_above("seconds", seconds, 0)
        if code is not None:
            _check_code(code)
        self._seconds = seconds
        self._code = code

    def __repr__(self) -> str:
        return f"IdleLimit({self._seconds:g} s, code {self._code})"

    async def beside(self, connection: ConnectionRecord) -> None:
        """End the connection once no audio comes."""
        messages = -1
        while connection.messages != messages:
            messages = connection.messages
            await asyncio.sleep(self._seconds)
        raise _end(self._code, "no audio came")


def _end(code: int | None, message: str) -> Exception:
    return Drop() if code is None else StatusError(code, message)


# -- what becomes of frames ------------------------------------------------------------------------


@_listed
class Delay(Hooks):
    """Frames are late, each by the same time: delays do not add up, and the order stays.

    Args:
        seconds: How long after the message that brings it about a frame is sent.
        finals: Finals alone are late, and an interim after one waits for it; else all frames are.
    """

    def __init__(self, seconds: float, *, finals: bool = True) -> None:
        check_number("seconds", seconds)
        self._seconds = seconds
        self._only = _FINAL if finals else ""

    def __repr__(self) -> str:
        return f"Delay({self._seconds:g} s)"

    async def frame(self, connection: ConnectionRecord, text: str) -> str | None:
        """Hold a frame back until `seconds` after the message that it answers arrived."""
        if self._only in text:
            connection.is_delayed = True
            due = connection.arrived_at + self._seconds
            await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
        return text


@_listed
class LongLine(Hooks):
    """Finals grow longer than a line of the gateway, which cuts them and drops the connection."""

    async def frame(self, connection: ConnectionRecord, text: str) -> str | None:
        """Make a final longer than a line of the gateway."""
        return text + " " * LONGEST_LINE if _FINAL in text else text


@_listed
class Garbage(Hooks):
    """Between the good frames come others.

    Args:
        frames: What is sent before each good frame, all of them.
    """

    def __init__(self, frames: Sequence[str | bytes] = GARBAGE) -> None:
        self._frames = frames

    async def frame(self, connection: ConnectionRecord, text: str) -> str | None:
        """Send the other frames before it."""
        for garbage in self._frames:
            await connection.line.send(garbage)
        return text


@_listed
class Drift(Hooks):
    """The service's clock goes wrong: the times of words are multiplied by 1 + `rate`.

    Args:
        rate: Seconds a second, above -1; 0.01 makes times 1 % too long, -0.01 too short.
    """

    def __init__(self, rate: float) -> None:
        check_above("rate", rate, -1)
        self._rate = rate

    def __repr__(self) -> str:
        return f"Drift({self._rate:g})"

    async def frame(self, connection: ConnectionRecord, text: str) -> str | None:
        """Scale the times of the words."""
        return _with_times(text, lambda seconds: seconds * (1 + self._rate))


def _with_times(text: str, change: Callable[[float], float]) -> str:
    document = json.loads(text)
    body: Any = document.get("result") or {}
    for result in body.get("results") or ():
        for alternative in result["alternatives"]:
            for word in alternative.get("words") or ():
                for name in ("startTime", "endTime"):
                    if name in word:
                        seconds = change(float(word[name].removesuffix("s")))
                        word[name] = f"{seconds:.3f}s"
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))
