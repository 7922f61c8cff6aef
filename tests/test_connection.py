"""One websocket: opened, written to in every state that it can have, read, and closed for good.

Ids are of the contract with the framework (L: life, S: secrets).
"""

from __future__ import annotations

import asyncio
import itertools
import ssl
import time
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import aiohttp.web
import pytest
from aiohttp.client_reqrep import ConnectionKey, RequestInfo
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from livekit.agents import APIConnectionError, APIError, APIStatusError, APITimeoutError
from livekit.plugins.tiro import errors
from livekit.plugins.tiro.connection import (
    Connection,
    _OneAddress,
)
from livekit.plugins.tiro.options import Options
from livekit.plugins.tiro.protocol import END_OF_AUDIO, encode_audio
from livekit.plugins.tiro.recovery import Ending, Reason

from .support.fake_socket import RATE, FakeMessage, FakeSocket
from .support.session_fakes import in_virtual_time
from .support.wire import Wire

OPTIONS = Options(api_key="test", base_url="ws://localhost")
STEPS = 12
"""Rounds of the event loop; more than it takes to open or to close."""


class SlowSocket(FakeSocket):
    """Opens and closes in some rounds of the event loop."""

    async def _ws_connect(self, *_: object, **__: object) -> FakeSocket:
        await rounds(3)
        return self._itself

    async def close(self) -> bool:
        await rounds(3)
        self._release()
        return True


class Stubborn(SlowSocket):
    """Opens in spite of being told to stop."""

    async def _ws_connect(self, *_: object, **__: object) -> FakeSocket:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return self._itself
        raise AssertionError


async def rounds(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def opening(socket: FakeSocket, timeout: float = 5.0) -> asyncio.Task[Connection]:
    http_session = cast("aiohttp.ClientSession", socket)
    return asyncio.create_task(Connection.open(http_session, OPTIONS, timeout))


@pytest.mark.parametrize("step", range(STEPS))
async def test_opening_that_is_cancelled_leaves_nothing_open(step: int) -> None:
    socket = SlowSocket()
    task = opening(socket)
    await rounds(step)
    task.cancel()
    try:
        await (await task).close()
    except asyncio.CancelledError:
        # What it opened in the same moment is closed in the next one.
        await rounds(2)
        assert socket.is_released or step < 5, "it could have been open"
    else:
        assert step > 5


@pytest.mark.parametrize("step", range(STEPS))
async def test_closing_that_is_cancelled_closes_all_the_same(step: int) -> None:
    socket = SlowSocket()
    connection = await opening(socket)
    task = asyncio.create_task(connection.close())
    await rounds(step + 1)
    task.cancel()
    await asyncio.wait({task})
    assert socket.is_released


async def test_what_opens_too_late_is_closed() -> None:
    socket = Stubborn()
    with pytest.raises(APITimeoutError):
        await opening(socket, timeout=0.01)
    await rounds(2)
    assert socket.is_released


# -- opening -------------------------------------------------------------------------------------


class Refusing(FakeSocket):
    """An HTTP session that does not connect."""

    fault: BaseException

    async def _ws_connect(self, *_: object, **__: object) -> FakeSocket:
        raise self.fault


REQUEST = RequestInfo(
    URL("wss://host/x?token=SECRET"), "GET", CIMultiDictProxy(CIMultiDict()), URL("wss://host")
)
KEY = ConnectionKey("host", 443, True, True, None, None, None)


async def refused(fault: BaseException) -> APIError:
    socket = Refusing()
    socket.fault = fault
    with pytest.raises(APIError) as raised:
        await opening(socket)
    error = raised.value
    # S2: the framework prints the root of the chain, and tracebacks show it.
    assert error.__cause__ is None and error.__context__ is None
    assert "SECRET" not in f"{error} {error!r} {error.args}"
    return error


@pytest.mark.parametrize("status", [301, 401, 404, 429, 503])
async def test_a_refused_handshake_is_told_by_its_status(status: int) -> None:
    error = await refused(aiohttp.WSServerHandshakeError(REQUEST, (), status=status))
    assert isinstance(error, APIStatusError)
    assert error.status_code == status


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("", " Its path is /, where Tiro's own address has /v2beta1."),
        ("/SECRET", " Its path is /[key], where Tiro's own address has /v2beta1."),
        ("/v2beta1", ""),
    ],
)
async def test_a_path_at_which_nothing_is_is_compared_with_tiros_own(path: str, told: str) -> None:
    options = Options(api_key="SECRET", base_url=f"ws://localhost{path}")
    refusing, answering = Refusing(), FakeSocket()
    refusing.fault = aiohttp.WSServerHandshakeError(REQUEST, (), status=404)
    with pytest.raises(APIStatusError) as raised:
        await Connection.open(cast("aiohttp.ClientSession", refusing), options, 5.0)
    connection = await Connection.open(cast("aiohttp.ClientSession", answering), options, 5.0)
    answering.inbox.put_nowait(FakeMessage(b"Not Found"))
    response = await connection.receive()
    assert response is not None and response.error is not None
    by_frame = errors.from_service(response.error, errors.Redactor(options.key))
    for error in (raised.value, by_frame):
        assert error.message.endswith(f"Check base_url or TIRO_BASE_URL.{told}")
    await connection.close()


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("WRONG_VERSION_NUMBER", "(WRONG_VERSION_NUMBER). If the server has no TLS, use ws://. "),
        ("NO_PROTOCOLS_AVAILABLE", "(NO_PROTOCOLS_AVAILABLE). Check the network"),
    ],
)
async def test_a_handshake_of_tls_that_fails_is_told_with_its_reason(
    reason: str, told: str
) -> None:
    fault = ssl.SSLError(1, "SECRET")
    fault.reason = reason
    error = await refused(aiohttp.ClientConnectorSSLError(KEY, fault))
    assert f": the TLS handshake failed {told}" in error.message


async def test_a_proxy_that_refuses_is_named() -> None:
    error = await refused(aiohttp.ClientHttpProxyError(REQUEST, (), status=407))
    assert isinstance(error, APIStatusError)
    assert error.status_code == 407
    assert "proxy" in error.message


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (aiohttp.ClientConnectorError(KEY, ConnectionRefusedError(111, "SECRET")), "refused"),
        (aiohttp.ClientProxyConnectionError(KEY, OSError(111, "SECRET")), "the proxy on the way"),
        (aiohttp.ClientConnectorCertificateError(KEY, ValueError("SECRET")), "certificate"),
        (aiohttp.ServerDisconnectedError("SECRET"), "ServerDisconnectedError"),
        (
            aiohttp.InvalidURL("SECRET"),
            "address of the proxy on the way is not a URL",
        ),
        (OSError("SECRET"), "OSError"),
        (ValueError("SECRET"), "ValueError"),
        (RuntimeError("SECRET"), "RuntimeError"),
    ],
)
async def test_a_service_that_is_not_reached_is_told_by_the_kind_of_fault(
    fault: Exception, told: str
) -> None:
    error = await refused(fault)
    assert type(error) is APIConnectionError
    assert error.retryable
    assert "localhost" in error.message
    assert told in error.message
    assert error.message.endswith(
        "Hosts in NO_PROXY are reached without one."
        if "the proxy" in told
        else "Check the network, and base_url or TIRO_BASE_URL."
    )


async def test_a_proxy_of_another_kind_is_refused() -> None:
    options = Options(api_key="SECRET", base_url="wss://localhost")
    async with aiohttp.ClientSession(proxy="socks5://user:S3CRET@localhost:9") as session:
        with pytest.raises(APIConnectionError, match="speaks SOCKS") as caught:
            await Connection.open(session, options, 5.0)
    assert "S3CRET" not in str(caught.value)


async def test_a_session_that_can_not_be_used_is_told_as_such() -> None:
    closed = FakeSocket()
    closed.closed = True

    class Foreign(FakeSocket):
        _loop = cast("asyncio.AbstractEventLoop", None)

    for session, why in ((closed, "it is closed"), (Foreign(), "another event loop")):
        with pytest.raises(APIConnectionError, match=why) as raised:
            await opening(session)
        assert not raised.value.retryable


@pytest.mark.parametrize(
    ("total", "per_host", "told"), [(0, 0, ""), (100, 50, "is 50:"), (100, 0, "is 100:")]
)
async def test_a_session_with_a_limit_of_connections_is_told_as_such(
    total: int, per_host: int, told: str
) -> None:
    """aiohttp does not say whether it waited for another connection to end."""
    full = Stubborn()
    full.connector = SimpleNamespace(limit=total, limit_per_host=per_host)
    with pytest.raises(APITimeoutError) as raised:
        await opening(full, timeout=0.01)
    assert ("http_session" in str(raised.value)) is bool(told)
    assert told in str(raised.value)
    await rounds(2)


async def test_a_redirect_is_not_followed_whatever_the_session_does() -> None:
    asked: dict[str, Any] = {}

    class Session:
        closed = False

        async def request(self, method: str, url: str, **options: Any) -> str:
            asked.update(options, method=method, url=url)
            return "answer"

    session = _OneAddress(cast("aiohttp.ClientSession", Session()))
    assert session.closed is False, "in all else it is the session"
    assert await session.request("GET", "wss://host", headers={}) == cast("Any", "answer")
    assert asked == {
        "method": "GET",
        "url": "wss://host",
        "headers": {},
        "allow_redirects": False,
        "raise_for_status": False,
    }


# -- writing -------------------------------------------------------------------------------------


def on(wire: Wire) -> Connection:
    return Connection(cast("Any", wire), 0.1)


async def test_messages_go_out_in_order() -> None:
    connection = on(wire := Wire())
    assert connection.sent_options is None
    assert await connection.configure(OPTIONS, 16000)
    assert connection.sent_options is OPTIONS
    assert await connection.send(b"11")
    assert connection.send_now(b"22")
    assert await connection.drain(), "there is room"
    assert await connection.end()
    assert connection.end_sent
    assert b"16000" in wire.texts[0]
    assert wire.texts[1:] == [encode_audio(b"11"), encode_audio(b"22"), END_OF_AUDIO]


@pytest.mark.parametrize(
    "fault", [aiohttp.ClientConnectionResetError("x"), BrokenPipeError(), RuntimeError("uvloop")]
)
async def test_nothing_that_a_line_does_is_raised(fault: Exception) -> None:
    class Broken(Wire):
        async def send_frame(self, message: bytes, kind: aiohttp.WSMsgType) -> None:
            raise fault

    connection = on(Broken())
    assert not await connection.configure(OPTIONS, 16000)
    assert not await connection.send(b"11")
    assert not connection.send_now(b"11")
    assert not await connection.drain()
    connection.ping(1)
    connection.keep_alive(1)
    assert not await connection.end()
    assert not connection.end_sent


async def test_a_chunk_that_finds_no_room_is_out_and_the_next_one_waits() -> None:
    connection = on(wire := Wire())
    wire.fill()
    assert not connection.send_now(b"11")
    assert wire.texts == [encode_audio(b"11")]
    draining = asyncio.create_task(connection.drain())
    await rounds(3)
    assert not draining.done()
    wire.empty()
    assert await draining
    assert connection.send_now(b"22")
    assert wire.texts == [encode_audio(b"11"), encode_audio(b"22")]


@pytest.mark.parametrize("fault", [None, ConnectionError("Connection lost")])
async def test_a_line_can_break_while_a_chunk_waits(fault: Exception | None) -> None:
    connection = on(wire := Wire())
    wire.fill()
    connection.send_now(b"11")
    draining = asyncio.create_task(connection.drain())
    await rounds(2)
    wire.die(fault)
    await draining
    assert not connection.send_now(b"22")
    assert not await connection.drain()
    assert wire.texts == [encode_audio(b"11")]


async def test_a_line_can_break_though_nobody_waits() -> None:
    """The exception is retrieved, so that asyncio does not report it later."""
    connection = on(wire := Wire())
    wire.fill()
    connection.send_now(b"11")
    wire.die(ConnectionError("Connection lost"))
    await rounds(2)
    assert not connection.send_now(b"22")


ACTS = ("write", "ping", "pong", "drain", "send", "fill", "empty", "die")


class Check:
    """A connection on a wire; whatever is done, in whatever order, has to be right."""

    def __init__(self) -> None:
        self.wire = Wire()
        self.connection = on(self.wire)
        self.receiving = asyncio.create_task(self.connection.receive())
        self.tasks: list[asyncio.Task[bool]] = []
        self.dead = False
        self.written: list[bytes] = []

    def next_chunk(self) -> bytes:
        return bytes([len(self.written), 0])

    async def act(self, what: str) -> None:
        if what == "write":
            chunk = self.next_chunk()
            had_room = self.connection.send_now(chunk)
            assert not (self.dead and had_room)
            if not self.dead:
                self.written.append(encode_audio(chunk))
        elif what == "ping":
            self.connection.ping(7)
        elif what == "pong":
            self.wire.inbox.put_nowait(FakeMessage(b"?", aiohttp.WSMsgType.PING))
        elif what == "drain":
            self.tasks.append(asyncio.create_task(self.connection.drain()))
        elif what == "send":
            chunk = self.next_chunk()
            self.tasks.append(asyncio.create_task(self.connection.send(chunk)))
            if not self.dead:
                self.written.append(encode_audio(chunk))
        elif what == "cancel":
            # As at the end of an exchange, after which nothing is written directly.
            for task in self.tasks:
                task.cancel()
        elif what == "fill":
            self.wire.fill()
        elif what == "empty":
            self.wire.empty()
        elif not self.dead:
            self.dead = True
            self.wire.die(ConnectionError("Connection lost"))
        await rounds(2)

    async def end(self) -> None:
        assert self.wire.texts == self.written, "each once, and in order"
        if not self.dead:
            self.wire.empty()
            await rounds(3)
            assert all(task.done() for task in self.tasks), "all that waited for room got it"
            assert await self.connection.drain()
            assert await self.connection.send(b"end")
        await self.connection.close()
        self.receiving.cancel()
        await asyncio.wait({self.receiving, *self.tasks}, timeout=1)
        assert all(task.done() for task in self.tasks)
        for task in (self.receiving, *self.tasks):
            assert task.cancelled() or task.exception() is None


@in_virtual_time
async def test_whatever_happens_on_a_line_no_message_is_lost_or_doubled() -> None:
    asyncio.get_running_loop().set_debug(False)
    for acts in itertools.product(ACTS, repeat=3):
        for first, last in (("fill", "cancel"), ("fill", "write"), ("write", "empty")):
            check = Check()
            for what in (first, *acts, last):
                await check.act(what)
            await check.end()


# -- receiving -----------------------------------------------------------------------------------


async def received(*messages: FakeMessage) -> tuple[Connection, Wire, Any]:
    connection = on(wire := Wire())
    for message in messages:
        wire.inbox.put_nowait(message)
    return connection, wire, await connection.receive()


CLOSED = FakeMessage(b"", aiohttp.WSMsgType.CLOSED)
NOISE = FakeMessage(b"hello")
EMPTY = FakeMessage(b'{"result":{"results":[]}}')
EVENT = FakeMessage(b'{"result":{"speechEventType":"END_OF_SPEECH"}}')
ERROR = FakeMessage(b'{"error":{"code":14,"message":"no"}}')
LAST_WORDS = FakeMessage(
    b'{"result":{"results":[{"alternatives":[{"transcript":"bless"}],"isFinal":true}]},'
    b'"error":{"code":11,"message":"too long"}}'
)


@pytest.mark.parametrize(
    ("message", "answered", "result"),
    [
        (EMPTY, True, True),
        (EVENT, True, False),
        (ERROR, False, False),
        (LAST_WORDS, True, True),
    ],
)
@pytest.mark.parametrize("kind", [aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY])
async def test_what_counts_as_an_answer(
    message: FakeMessage, answered: bool, result: bool, kind: aiohttp.WSMsgType
) -> None:
    connection, _, response = await received(NOISE, FakeMessage(message.data, kind))
    assert response is not None
    assert connection.answered is answered
    assert (connection.answered_at > 0) is result


@pytest.mark.parametrize(
    "kind", [aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.ERROR]
)
async def test_the_end_is_none(kind: aiohttp.WSMsgType) -> None:
    connection, _, response = await received(NOISE, FakeMessage(b"", kind))
    assert response is None
    assert not connection.answered


async def test_what_is_not_the_services_is_no_part_of_a_log_message(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """S1."""
    await received(FakeMessage(b"secret words"), CLOSED)
    (record,) = caplog.records
    assert "secret" not in repr(record.__dict__)
    assert record.__dict__["bytes"] == len(b"secret words")


async def test_a_ping_of_the_peer_is_answered() -> None:
    _, wire, _ = await received(FakeMessage(b"x", aiohttp.WSMsgType.PING), CLOSED)
    assert wire.of(aiohttp.WSMsgType.PONG) == [b"x"]


# -- whether the peer takes what it is sent ------------------------------------------------------


@in_virtual_time
async def test_a_pong_answers_its_ping_and_all_before_it() -> None:
    connection = on(wire := Wire())
    wire.reads = False
    for position in (100, 200, 300):
        connection.ping(position)
    assert (connection.pinged_to, connection.acknowledged_to) == (300, 0)
    pings = wire.of(aiohttp.WSMsgType.PING)
    for pong, acknowledged in ((b"other", 0), (pings[1], 200), (pings[0], 200), (pings[2], 300)):
        wire.inbox.put_nowait(FakeMessage(pong, aiohttp.WSMsgType.PONG))
        wire.inbox.put_nowait(EMPTY)
        await connection.receive()
        assert connection.acknowledged_to == acknowledged


@in_virtual_time
async def test_a_ping_that_went_out_just_now_shows_no_stall() -> None:
    connection = on(wire := Wire())
    wire.reads = False
    assert not connection.may_have_stalled
    connection.ping(100)
    assert not connection.may_have_stalled
    await asyncio.sleep(0.6)
    assert connection.may_have_stalled
    connection.ping(200)
    assert connection.may_have_stalled, "the first is not answered yet"
    wire.inbox.put_nowait(FakeMessage(wire.of(aiohttp.WSMsgType.PING)[0], aiohttp.WSMsgType.PONG))
    wire.inbox.put_nowait(EMPTY)
    await connection.receive()
    assert not connection.may_have_stalled


@in_virtual_time
async def test_a_peer_shows_that_it_takes_all_at_once() -> None:
    connection = on(wire := Wire())
    wire.reads = False
    wire.inbox.put_nowait(EMPTY)
    await connection.receive()
    assert not connection.is_taken_at_once, "not asked yet"
    for position, seconds in ((1, 0.1), (2, 1.0), (3, 0.4)):
        connection.ping(position)
        assert not connection.is_taken_at_once, "not answered yet"
        await asyncio.sleep(seconds)
        pong = wire.of(aiohttp.WSMsgType.PING)[-1]
        wire.inbox.put_nowait(FakeMessage(pong, aiohttp.WSMsgType.PONG))
        wire.inbox.put_nowait(EMPTY)
        await connection.receive()
        assert connection.is_taken_at_once == (seconds < 0.5)


@in_virtual_time
async def test_pings_go_out_when_there_is_no_sign_of_life() -> None:
    connection = on(wire := Wire())
    for second in range(10):
        connection.keep_alive(second)
        await asyncio.sleep(1)
    assert [int.from_bytes(ping, "big") for ping in wire.of(aiohttp.WSMsgType.PING)] == [2, 4, 6, 8]


async def live(connection: Connection, seconds: float) -> float | None:
    """Look after a connection once a second; return when it is dead, None if it is not."""
    for second in range(round(seconds)):
        connection.keep_alive(second)
        if connection.is_dead:
            return second
        await asyncio.sleep(1)
    return None


@in_virtual_time
async def test_a_peer_that_takes_nothing_is_dead_within_15_s() -> None:
    wire = Wire()
    wire.reads = False
    dead = await live(on(wire), 60)
    assert dead is not None and 13 <= dead <= 15


@in_virtual_time
async def test_a_peer_that_pings_and_does_not_read_is_dead() -> None:
    """Its pings do not prove that it reads."""
    connection = on(wire := Wire())
    wire.reads = False
    receiving = asyncio.create_task(connection.receive())
    for _ in range(60):
        wire.inbox.put_nowait(FakeMessage(b"", aiohttp.WSMsgType.PING))
    dead = await live(connection, 60)
    assert dead is not None and 13 <= dead <= 15
    receiving.cancel()


@in_virtual_time
async def test_a_peer_that_answers_is_not_dead() -> None:
    connection = on(Wire())
    receiving = asyncio.create_task(connection.receive())
    assert await live(connection, 60) is None
    receiving.cancel()


@in_virtual_time
async def test_something_new_shows_that_audio_was_taken() -> None:
    connection = on(wire := Wire())
    wire.reads = False
    for _ in range(6):
        assert await live(connection, 10) is None
        wire.inbox.put_nowait(EMPTY)
        await connection.receive()
        connection.note_news()


# -- its end -------------------------------------------------------------------------------------


@in_virtual_time
async def test_it_is_quiet_since_all_was_sent_or_since_the_last_news() -> None:
    connection = on(wire := Wire())
    await asyncio.sleep(3)
    await connection.end()
    ended = time.monotonic()
    assert connection.done_sending_at == connection.quiet_since == ended
    await asyncio.sleep(2)
    wire.inbox.put_nowait(EMPTY)
    await connection.receive()
    assert connection.quiet_since == ended, "nothing new"
    connection.note_news()
    assert connection.quiet_since == pytest.approx(ended + 2, abs=0.01)
    assert connection.done_sending_at == ended
    assert connection.age == pytest.approx(5, abs=0.01)


@in_virtual_time
async def test_a_write_that_failed_is_the_last_of_what_is_sent() -> None:
    connection = on(wire := Wire())
    await asyncio.sleep(3)
    wire.die()
    connection.send_now(b"11")
    failed = time.monotonic()
    await asyncio.sleep(3)
    connection.send_now(b"22")
    assert connection.done_sending_at == pytest.approx(failed, abs=0.01)


@in_virtual_time
async def test_what_is_known_at_the_end() -> None:
    connection = on(wire := Wire())
    ending = connection.ending(Reason.CLOSED, found_nothing=False, unanswered=1.5, less_quiet=2.5)
    assert ending == Ending(
        Reason.CLOSED, ending.age, configured=False, unanswered=1.5, less_quiet=2.5
    )
    await connection.configure(OPTIONS, 16000)
    wire.inbox.put_nowait(EMPTY)
    await connection.receive()
    await connection.end()
    await asyncio.sleep(1)
    ending = connection.ending(
        Reason.DRAIN_TIMEOUT, found_nothing=True, unanswered=0.0, less_quiet=0.0
    )
    assert ending == Ending(
        Reason.DRAIN_TIMEOUT, ending.age, end_sent=True, answered=True, found_nothing=True
    )
    assert ending.age == pytest.approx(1, abs=0.01)


@in_virtual_time
async def test_a_peer_that_does_not_read_holds_up_no_close() -> None:
    """L5."""

    class Stuck(Wire):
        async def close(self) -> bool:
            await asyncio.Event().wait()
            return True

    connection = on(wire := Stuck())
    started = time.monotonic()
    await connection.close()
    assert time.monotonic() - started < 1
    assert wire.is_released


async def test_nothing_is_left_of_a_socket_that_nobody_reads() -> None:
    """L5: unsent data would keep the socket open until TCP gives up, some 15 min later."""

    async def take_nothing(request: aiohttp.web.Request) -> aiohttp.web.WebSocketResponse:
        socket = aiohttp.web.WebSocketResponse()
        await socket.prepare(request)
        assert (line := request.transport) is not None
        line.pause_reading()
        await over.wait()
        # Otherwise it would wait for the client's close frame, which it does not read.
        line.abort()
        return socket

    over = asyncio.Event()
    app = aiohttp.web.Application()
    app.router.add_get("/{path:.*}", take_nothing)
    runner = aiohttp.web.AppRunner(app)
    await runner.setup()
    await aiohttp.web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    async with aiohttp.ClientSession() as session:
        options = Options(api_key="test", base_url=f"ws://127.0.0.1:{port}")
        connection = await Connection.open(session, options, 5.0)
        assert await connection.configure(options, RATE)
        line = connection._ws._response.connection
        assert line is not None and line.transport is not None
        socket = line.transport.get_extra_info("socket")
        while connection.send_now(bytes(RATE)):
            pass
        await connection.close()
        await rounds(3)
        assert socket.fileno() == -1
    over.set()
    await runner.cleanup()


@pytest.mark.parametrize("timeout", [asyncio.TimeoutError(), aiohttp.ServerTimeoutError()])
async def test_the_timeout_of_the_session_is_told_as_such(timeout: Exception) -> None:
    """In Python 3.10, `TimeoutError` and that of asyncio are two classes."""

    class Impatient(FakeSocket):
        async def _ws_connect(self, *_: object, **__: object) -> FakeSocket:
            raise timeout

    with pytest.raises(APIConnectionError, match="longer than the timeout of the HTTP session"):
        await opening(Impatient())
