"""Each fault by itself, as a client without the plugin meets it."""

from __future__ import annotations

import asyncio
import json
import math
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from livekit.plugins.tiro.testing import (
    ConnectionRecord,
    HandshakeRefusal,
    Hooks,
    TiroServer,
)
from livekit.plugins.tiro.testing.conversation import LONGEST_LINE
from livekit.plugins.tiro.testing.faults import (
    CATALOGUE,
    GARBAGE,
    Close,
    Combined,
    Delay,
    Disconnect,
    Drift,
    Fail,
    Fault,
    Garbage,
    HalfOpen,
    IdleLimit,
    IgnoreEnd,
    LongLine,
    Moment,
    Mute,
    PerConnection,
    Refuse,
    ResetHandshake,
    SessionLimit,
    StalledHandshake,
    StopReading,
    When,
    error_frame,
)

from .support.server_client import TEST, Client, connect, send_all
from .support.server_recordings import CONFIG, IS, audio_message, is_interim, transcript, words
from .support.session_fakes import in_virtual_time

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

SILENCE = bytes(32000)
END = audio_message(b"")


@asynccontextmanager
async def serving(hooks: Hooks, **options: Any) -> AsyncIterator[TiroServer]:
    """A server with a fault that shows a hypothesis with every message."""
    defaults = {"words_per_second": 5, "interim_interval": 0.0}
    async with TiroServer(hooks=hooks, **{**defaults, **options}) as server:
        yield server


async def speak(client: Client, audio: bytes = IS + SILENCE) -> int | None:
    """Say all there is to say, and wait for the end; the close code."""
    await client.send(CONFIG)
    await send_all(client, audio)
    await client.send(END)
    return await client.end()


async def hear(hooks: Hooks, audio: bytes = IS + SILENCE) -> tuple[Client, ConnectionRecord]:
    """What became of one connection."""
    async with serving(hooks) as server:
        async with connect(server, TEST) as client:
            await speak(client, audio)
        return client, server.connections[0]


def finals(client: Client) -> list[str]:
    return [transcript(frame) for frame in client.settled if transcript(frame)]


# -- moments ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("when", "seconds", "interims", "settled"),
    [
        (Moment.OPENED, 0.0, 0, 0),
        (Moment.CONFIG, 0.0, 0, 0),
        (1.0, 1.0, ..., 0),
        (Moment.INTERIM, ..., 1, 0),
        (Moment.FINAL, ..., ..., 1),
        # The recording starts with zeros.
        (Moment.FLUSH, 0.0, 0, 0),
        (Moment.END, len(IS + SILENCE) / 32000, ..., ...),
        (Moment.DONE, len(IS + SILENCE) / 32000, ..., ...),
    ],
)
@in_virtual_time
async def test_a_fault_strikes_at_its_moment(
    when: When, seconds: Any, interims: Any, settled: Any
) -> None:
    fault = Disconnect(when)
    client, connection = await hear(fault)
    assert list(fault.struck) == [0]
    if seconds is not ...:
        assert connection.seconds == pytest.approx(seconds, abs=0.07)
    if interims is not ...:
        assert len([frame for frame in connection.frames if is_interim(frame)]) == interims
    if settled is not ...:
        assert len([frame for frame in connection.frames if not is_interim(frame)]) == settled
    assert connection.closed_by == "server"
    assert connection.ended == (when in (Moment.END, Moment.DONE))
    assert bool(finals(client)) >= (when is Moment.DONE)


@in_virtual_time
async def test_a_fault_strikes_once_on_each_connection() -> None:
    fault = Disconnect(0.2)
    async with serving(fault) as server:
        for _ in range(2):
            async with connect(server, TEST) as client:
                await speak(client)
    assert sorted(fault.struck) == [0, 1]


@pytest.mark.parametrize("when", [0.2, *Moment])
@in_virtual_time
async def test_a_fault_strikes_on_each_server_it_is_given_to(when: When) -> None:
    """A fault at the top of a module, or in a parameter of tests, is given to several servers."""
    fault = Fail(8, when)
    assert [(await hear(fault))[1].status for _ in range(3)] == [8, 8, 8]
    assert list(fault.struck) == [0]


@in_virtual_time
async def test_a_fault_says_nothing_of_what_it_does() -> None:
    class Unsaid(Fault):
        pass

    with pytest.raises(NotImplementedError):
        await Unsaid().strike(ConnectionRecord(0, "/", None, 0.0))


def test_faults_say_what_they_are() -> None:
    assert repr(Disconnect(Moment.FINAL)) == "Disconnect(FINAL)"
    assert repr(Mute(2.5)) == "Mute(2.5 s)"
    assert repr(Fail(8, 1.0, shape="v2")) == "Fail(1 s, code 8, v2)"
    assert repr(Refuse(429)) == "Refuse(429)"
    assert repr(SessionLimit(3, None)) == "SessionLimit(3 s, code None)"
    assert repr(IdleLimit(3)) == "IdleLimit(3 s, code 11)"
    assert repr(Delay(0.5)) == "Delay(0.5 s)"
    assert repr(Drift(0.01)) == "Drift(0.01)"
    assert repr(PerConnection(None, Garbage(), then=LongLine())) == (
        "PerConnection(Hooks(), Garbage(), then=LongLine())"
    )
    assert repr(Combined(Mute(1.0), LongLine())) == "Combined(Mute(1 s), LongLine())"
    assert CATALOGUE["half-open"] is HalfOpen and CATALOGUE["mute"] is Mute


# -- several together ------------------------------------------------------------------------------


@in_virtual_time
async def test_each_connection_has_its_own() -> None:
    hooks = PerConnection(Fail(8), None, PerConnection(then=Fail(7)), then=Fail(14))
    codes = []
    async with serving(hooks) as server:
        for _ in range(5):
            async with connect(server, TEST) as client:
                await speak(client)
            codes.append(server.connections[-1].status)
    assert codes == [8, 0, 7, 14, 14]


class Noted(Hooks):
    """Notes each step, and marks each frame."""

    def __init__(self, name: str, seen: list[str]) -> None:
        self._name, self._seen = name, seen

    def _note(self, step: str) -> None:
        self._seen.append(f"{step} {self._name}")

    async def handshake(self, connection: ConnectionRecord) -> HandshakeRefusal | None:
        self._note("handshake")
        return None

    async def opened(self, connection: ConnectionRecord) -> None:
        self._note("opened")

    async def beside(self, connection: ConnectionRecord) -> None:
        self._note("beside")
        await asyncio.Event().wait()

    async def first_message(self, connection: ConnectionRecord) -> None:
        self._note("first_message")

    async def audio(self, connection: ConnectionRecord, pcm: bytes) -> None:
        self._note("audio")

    async def end(self, connection: ConnectionRecord) -> None:
        self._note("end")

    async def frame(self, connection: ConnectionRecord, text: str) -> str | None:
        self._note("frame")
        return text + self._name

    async def sent(self, connection: ConnectionRecord, text: str) -> None:
        self._note("sent")

    async def done(self, connection: ConnectionRecord) -> None:
        self._note("done")


@in_virtual_time
async def test_hooks_together_are_asked_one_after_the_other() -> None:
    seen: list[str] = []
    hooks = Combined(PerConnection(Noted("a", seen)), Noted("b", seen))
    async with serving(hooks, interim_interval=100) as server, connect(server, TEST) as client:
        await client.send(CONFIG)
        await client.send(audio_message(IS[10000:100000]))
        await client.send(END)
        await client.end()
    steps = "handshake beside opened first_message audio end frame sent done".split()
    assert sorted(seen) == sorted(f"{step} {name}" for step in steps for name in "ab")
    for step in steps:
        assert seen.index(f"{step} a") < seen.index(f"{step} b")
    assert [frame[-2:] for frame in client.frames] == ["ab"]


@in_virtual_time
async def test_a_frame_that_one_of_several_holds_back_is_gone_for_all() -> None:
    class Silent(Hooks):
        async def frame(self, connection: ConnectionRecord, text: str) -> str | None:
            return None

    seen: list[str] = []
    client, _ = await hear(Combined(Silent(), Noted("b", seen)))
    assert client.frames == [] and "frame b" not in seen


@in_virtual_time
async def test_the_first_refusal_of_several_counts() -> None:
    hooks = Combined(Hooks(), Refuse(429), Refuse(503))
    assert await refused(hooks) == 429


@in_virtual_time
async def test_the_first_of_several_that_raises_ends_the_connection() -> None:
    client, connection = await hear(Combined(SessionLimit(0.0, 4), SessionLimit(9.0, 8)))
    assert connection.status == 4 and len(client.frames) == 1


# -- the handshake ---------------------------------------------------------------------------------


async def refused(hooks: Hooks) -> int:
    """The HTTP status of a handshake."""
    async with serving(hooks) as server, aiohttp.ClientSession() as http:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await http.ws_connect(server.base_url + TEST)
        return caught.value.status


@in_virtual_time
async def test_a_refusal_can_be_late() -> None:
    started = time.monotonic()
    assert await refused(Refuse(503, delay=2.0)) == 503
    assert time.monotonic() - started == pytest.approx(2.0, abs=0.1)


@in_virtual_time
async def test_a_stalled_handshake_is_granted_in_the_end() -> None:
    started = time.monotonic()
    client, _ = await hear(StalledHandshake(3.0))
    assert finals(client) and time.monotonic() - started > 3.0


@in_virtual_time
async def test_a_stalled_handshake_waits_no_longer_than_its_client() -> None:
    async with serving(StalledHandshake(60.0)) as server, aiohttp.ClientSession() as http:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(http.ws_connect(server.base_url + TEST), 1.0)
        connection = server.connections[0]
        await asyncio.wait_for(connection.closed.wait(), 1.0)


@in_virtual_time
async def test_a_handshake_can_be_reset() -> None:
    async with serving(ResetHandshake()) as server, aiohttp.ClientSession() as http:
        with pytest.raises(aiohttp.ClientOSError):
            await http.ws_connect(server.base_url + TEST)


# -- the connection --------------------------------------------------------------------------------


@pytest.mark.parametrize("reset", [False, True])
@in_virtual_time
async def test_a_disconnect_sends_no_frame(reset: bool) -> None:
    client, connection = await hear(Disconnect(Moment.CONFIG, reset=reset))
    assert client.frames == [] and client.websocket.close_code == 1006
    assert reset or connection.closed_by == "server"


@pytest.mark.parametrize("code", [1000, 1001, 4000, 65535])
@in_virtual_time
async def test_a_close_frame_has_any_code(code: int) -> None:
    client, _ = await hear(Close(Moment.CONFIG, code, "bless"))
    assert client.websocket.close_code == code


@in_virtual_time
async def test_a_close_frame_can_leave_it_to_the_client() -> None:
    async with serving(Close(Moment.CONFIG, 1001, stay=True)) as server:
        async with connect(server, TEST) as client:
            await client.send(CONFIG)
            await client.end()
        await asyncio.wait_for(server.connections[0].closed.wait(), 1.0)
        assert server.connections[0].closed_by == "client"


SHAPES: dict[Any, str] = {
    "v1": '{"error":{"grpcCode":8,"httpCode":429,"message":"no","httpStatus":"Too Many Requests",'
    '"details":[]}}',
    "v2": '{"error":{"code":8,"message":"no","details":[]}}',
    "gateway v1": '{"error":"no","message":"no","code":8,"details":[]}',
    "gateway v2": '{"code":8,"message":"no","details":[]}',
    "result": '{"result": {"error": {"code": 8, "message": "no"}}}',
    "text": "no",
}


@pytest.mark.parametrize("shape", SHAPES)
@in_virtual_time
async def test_an_error_has_any_shape(shape: Any) -> None:
    client, connection = await hear(Fail(8, message="no", shape=shape))
    assert client.frames == [SHAPES[shape]] == [error_frame(8, "no", shape)]
    assert connection.status == 8


def test_a_code_that_grpc_does_not_have_is_written_like_one_that_is_not_known() -> None:
    """As grpc-gateway does."""
    error = json.loads(error_frame(99, "no", "v1"))["error"]
    assert (error["grpcCode"], error["httpCode"]) == (99, 500)


@pytest.mark.parametrize(
    "fault",
    [Fail(14, stay=True), Mute(0.5), IgnoreEnd(), HalfOpen(Moment.CONFIG)],
    ids=lambda fault: type(fault).__name__,
)
@in_virtual_time
async def test_a_connection_stays_and_says_nothing_more(fault: Hooks) -> None:
    async with serving(fault) as server:
        async with connect(server, TEST) as client:
            await client.send(CONFIG)
            await send_all(client, IS)
            await client.send(END)
            await asyncio.sleep(60)
            said = len(client.frames)
            assert not client.gone
            await asyncio.sleep(60)
            assert len(client.frames) == said and not client.gone
            assert server.connections[0].line.dead == isinstance(fault, HalfOpen)
        await asyncio.wait_for(server.connections[0].closed.wait(), 1.0)


@in_virtual_time
async def test_a_service_that_stops_reading_goes_on_later() -> None:
    async with serving(StopReading(Moment.CONFIG, seconds=5.0)) as server:
        async with connect(server, TEST) as client:
            started = time.monotonic()
            await speak(client)
            assert time.monotonic() - started > 5.0
    assert finals(client) and server.connections[0].received == len(IS + SILENCE)


# -- limits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [11, None])
@in_virtual_time
async def test_a_connection_lives_so_long(code: int | None) -> None:
    async with serving(SessionLimit(2.0, code)) as server, connect(server, TEST) as client:
        await client.send(CONFIG)
        while not client.gone:
            await client.send(audio_message(IS[:3200]))
            await asyncio.sleep(0.1)
        connection = server.connections[0]
        await asyncio.wait_for(connection.closed.wait(), 1.0)
    assert connection.closed_at is not None
    assert connection.closed_at - connection.opened_at == pytest.approx(2.0, abs=0.2)
    assert connection.status == (code or 0)


@pytest.mark.parametrize("code", [11, None])
@in_virtual_time
async def test_a_connection_without_audio_ends(code: int | None) -> None:
    async with serving(IdleLimit(2.0, code)) as server, connect(server, TEST) as client:
        await client.send(CONFIG)
        for _ in range(5):
            await client.send(audio_message(IS[:3200]))
            await asyncio.sleep(1.5)
        assert not client.gone
        await client.end()
    assert server.connections[0].status == (code or 0)


# -- frames ----------------------------------------------------------------------------------------


class SendTimes(Hooks):
    """Notes when each frame goes out, in seconds of its connection."""

    def __init__(self) -> None:
        self.sent_at: dict[str, float] = {}

    async def sent(self, connection: ConnectionRecord, text: str) -> None:
        self.sent_at[text] = asyncio.get_running_loop().time() - connection.opened_at


async def live(hooks: Hooks) -> dict[str, float]:
    """When each frame goes out to a client that sends its audio as it is said."""
    times = SendTimes()
    async with serving(Combined(hooks, times), interim_interval=0.35) as server:
        async with connect(server, TEST) as client:
            await client.send(CONFIG)
            audio = (IS + SILENCE) * 3
            for start in range(0, len(audio), 1600):
                await asyncio.sleep(0.05)
                await client.send(audio_message(audio[start : start + 1600]))
            await client.send(END)
            await client.end()
    return times.sent_at


@pytest.mark.many
@pytest.mark.parametrize("finals_only", [True, False])
@in_virtual_time
async def test_frames_are_late(finals_only: bool) -> None:
    """Each by as much, and in order; frames that follow a late one wait for it."""
    in_time, late = await live(Hooks()), await live(Delay(3.0, finals=finals_only))
    assert list(late) == list(in_time)
    final = [text for text in in_time if not is_interim(text)]
    assert len(final) > 2
    for text in final if finals_only else in_time:
        assert late[text] - in_time[text] == pytest.approx(3.0, abs=0.01)
    assert all(-0.01 <= late[text] - in_time[text] <= 3.01 for text in in_time)


@in_virtual_time
async def test_a_line_too_long_ends_the_connection_in_place_of_a_final() -> None:
    client, _ = await hear(LongLine())
    assert client.interims and not client.settled
    assert all(len(frame) < LONGEST_LINE for frame in client.frames)


@in_virtual_time
async def test_garbage_comes_between_the_good_frames() -> None:
    client, connection = await hear(Garbage())
    good = [frame for frame in client.frames if frame in connection.frames]
    assert good == connection.frames and '"isFinal":true' in good[-1]
    assert len(client.frames) == len(good) * (1 + len(GARBAGE))


@in_virtual_time
async def test_the_clock_of_the_service_can_go_wrong() -> None:
    right, _ = await hear(Hooks())
    wrong, _ = await hear(Drift(0.1))
    pairs = zip(words(right.settled[0]), words(wrong.settled[0]), strict=True)
    for (text, start, end), (same, later, latest) in pairs:
        assert text == same
        assert (later, latest) == pytest.approx((start * 1.1, end * 1.1), abs=0.002)
    event, _ = await hear(Combined(Drift(0.1), Fail(14, Moment.FINAL)))
    assert json.loads(event.frames[-1])["error"]["grpcCode"] == 14


def test_a_moment_that_is_none_is_refused_where_it_is_given() -> None:
    """Only the command line takes moments as text; later it would look like the service's fault."""
    with pytest.raises(ValueError, match=r"seconds of audio, .* Moment\.INTERIM, .* not 'interim'"):
        Disconnect("interim")  # type: ignore[arg-type]


NO_NUMBERS: list[Any] = ["1", None, True, math.nan, math.inf, 10**400]


@pytest.mark.parametrize(
    ("make", "wrong", "message"),
    [
        (Disconnect, [-1, *NO_NUMBERS], "when must be seconds of audio, 0 or more, or one of"),
        (Refuse, [199, 600, 503.0, *NO_NUMBERS], "status must be a whole number from 200 to 599"),
        (lambda it: Refuse(delay=it), [-1, *NO_NUMBERS], "delay must be a number of 0 or more"),
        (StalledHandshake, [-1, *NO_NUMBERS], "seconds must be a number of 0 or more"),
        (lambda it: StopReading(seconds=it), [-1, *NO_NUMBERS], "seconds must be a number of 0"),
        (SessionLimit, [-1, *NO_NUMBERS], "seconds must be a number of 0 or more"),
        (IdleLimit, [-1, 0, *NO_NUMBERS], "seconds must be a number above 0"),
        (Delay, [-1, *NO_NUMBERS], "seconds must be a number of 0 or more"),
        (Drift, [-1, *NO_NUMBERS], "rate must be a number above -1"),
        (Fail, [0, 100, 503, 14.0, *NO_NUMBERS], "code must be a whole number from 1 to 99"),
        (lambda it: SessionLimit(1, it), [0, 100, True], "code must be a whole number from 1 to"),
        (lambda it: IdleLimit(1, it), [0, 100, True], "code must be a whole number from 1 to 99"),
        (
            lambda it: Fail(shape=it),
            ["v3", None],
            "shape must be one of v1, v2, gateway v1, .* not",
        ),
        (
            lambda it: Close(code=it),
            [-1, 65536, *NO_NUMBERS],
            "code must be a whole number from 0 to 65535",
        ),
        (
            lambda it: Close(reason=it),
            ["x" * 124, "\u00e6" * 62, "\udc80", None],
            "reason must be text of 123 bytes at most in UTF-8",
        ),
    ],
)
def test_a_setting_that_is_nonsense_is_refused_where_it_is_given(
    make: Callable[[Any], object], wrong: list[Any], message: str
) -> None:
    """On a connection it would look like a fault of the service, or do nothing."""
    for value in wrong:
        with pytest.raises(ValueError, match=message):
            make(value)
