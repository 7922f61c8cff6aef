"""A canary for a key and canaries for words, through every fault: neither is seen anywhere.

These are searched: log records of every logger at DEBUG, with asyncio's of every single step;
exceptions with those that they are chained to, and tracebacks with the locals of every frame but
the tests' own; reprs of what the caller holds and of every task; all events but transcripts; and
the output.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import ssl
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
import trustme

from livekit import rtc
from livekit.agents import APIConnectOptions, APIError
from livekit.plugins import tiro
from livekit.plugins.tiro.testing import Hooks, TiroServer, faults
from livekit.plugins.tiro.testing.faults import (
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
    Shape,
    StalledHandshake,
    StopReading,
    When,
)

from .support import virtual
from .support.garbage import set_aside
from .support.harness import frames, until
from .support.numbered import NumberedRecognizer, Talk, talk

if TYPE_CHECKING:
    from livekit.plugins.tiro.stream import SpeechStream

# The canaries are ASCII, so that no quoting of the text around them changes them.
CANARY_KEY, CANARY_WORD = "kanarilykill", "kanariord"
KEY = f"ð/{CANARY_KEY}+47 11?&="
_PLAIN = talk(2, 2)
SAID = Talk(
    tuple(replace(word, text=f"{CANARY_WORD}{n}") for n, word in enumerate(_PLAIN.words)),
    _PLAIN.blocks,
)
HEADER = f"Basic {CANARY_KEY}+haus=="
# The text of an error frame is part of the exception, except the key and the headers.
ECHO = f"bad token={KEY} of {KEY}, {HEADER} or {HEADER[6:]}"
BOTH = f"{ECHO} said {CANARY_WORD}"
# A close frame has room for no more.
REASON = f"bad token={KEY}, {HEADER} said {CANARY_WORD}"
# Files of the tests and of the local server, which know both.
KNOWING = str(Path(__file__).parent), str(Path(faults.__file__).parent)
RETRIES = APIConnectOptions(max_retry=1, retry_interval=0.1, timeout=2.0)

Make = Callable[[When], Fault]

STRIKES: dict[str, Make] = {
    "FIN": Disconnect,
    "RST": partial(Disconnect, reset=True),
    "close": partial(Close, code=4001, reason=REASON),
    "close, stays": partial(Close, code=1000, reason=REASON, stay=True),
    "code 14, stays": partial(Fail, 14, message=ECHO, stay=True),
    **{f"code {code}": partial(Fail, code, message=ECHO) for code in (3, 11, 14, 16, 99)},
    "mute": Mute,
    "dead": HalfOpen,
    "stops reading": StopReading,
}
SHAPES: tuple[Shape, ...] = ("v2", "gateway v1", "gateway v2", "result")
MOMENTS = (Moment.OPENED, Moment.CONFIG, Moment.INTERIM, Moment.FINAL, Moment.END)
OTHERS: list[Hooks] = [
    *(Refuse(status, BOTH) for status in (200, 302, 401, 403, 404, 429, 500, 501, 503)),
    StalledHandshake(),
    ResetHandshake(),
    IgnoreEnd(),
    SessionLimit(0.4),
    SessionLimit(0.4, code=None),
    IdleLimit(1.0),
    Delay(1.0),
    LongLine(),
    Garbage([BOTH, f'{{"{CANARY_WORD}": "{KEY}"}}', BOTH.encode(), b"\xff" + BOTH.encode()]),
    Drift(0.01),
    *(Fail(16, message=ECHO, shape=shape) for shape in SHAPES),
    *(Fail(14, Moment.INTERIM, message=ECHO, shape=shape) for shape in SHAPES),
    Fail(3, message="Not Found", shape="text"),
]


class Records(logging.Handler):
    """Keeps records as they are; asyncio's are thousands, and to write out each takes a while."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


class Spy:
    """Gathers what anybody could see of a run."""

    def __init__(self, log: Records, output: pytest.CaptureFixture[str]) -> None:
        self.log, self._output = log, output
        self.seen: dict[str, str] = {}
        """Texts, and where each was seen first."""
        self.errors = 0

    def see(self, where: str, *things: object) -> None:
        for thing in things:
            if thing is None or isinstance(thing, int | float):
                continue
            self.seen.setdefault(str(thing), where)
            if not isinstance(thing, str):
                self.seen.setdefault(repr(thing), where)
            if isinstance(thing, BaseException):
                self._see_error(where, thing)

    def _see_error(self, where: str, error: BaseException) -> None:
        self.errors += 1
        self.see(f"args of {where}", *error.args)
        self.see(where, "".join(traceback.format_exception(error)))
        self._see_locals(traceback.TracebackException.from_exception(error, capture_locals=True))
        for cause in (error.__cause__, error.__context__):
            if cause is not None:
                self.see(f"what caused {where}", cause)

    def _see_locals(self, error: traceback.TracebackException) -> None:
        for frame in error.stack:
            if not frame.filename.startswith(KNOWING):
                self.see(f"locals of {frame.name}", frame.locals)

    def see_tasks(self) -> None:
        self.see("tasks", *asyncio.all_tasks())

    def look(self) -> None:
        """Raise AssertionError if a canary is anywhere."""
        known: set[tuple[str, str]] = set()
        for record in self.log.records:
            self.see(f"{record.name}: {record.msg}", record.getMessage())
            for name, value in vars(record).items():
                # Numbers hold no canary, and most texts are those of thousands of records.
                if value is None or isinstance(value, int | float):
                    continue
                if isinstance(value, str):
                    if (name, value) in known:
                        continue
                    known.add((name, value))
                if "pii" not in name.split("."):
                    self.see(f"{name} of {record.name}: {record.msg}", value)
                # There may be words, but no key.
                assert CANARY_KEY not in repr(value).lower(), f"{name} of {record.msg} leaks"
            if record.exc_info and record.exc_info[1]:
                self.see(f"exception of {record.name}: {record.msg}", record.exc_info[1])
        output = self._output.readouterr()
        self.see("output", output.out, output.err)
        canaries = (CANARY_KEY, CANARY_WORD)
        found = [
            (where, text)
            for text, where in self.seen.items()
            if any(canary in text.lower() for canary in canaries)
        ]
        assert not found, f"{len(found)} leaks: {found[:3]}"


@pytest.fixture(scope="module", autouse=True)
def _little_garbage() -> None:
    set_aside()


@pytest.fixture
def spy(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> Iterator[Spy]:
    kept = Records()
    with caplog.at_level(logging.DEBUG), mock.patch.object(logging.root, "handlers", [kept]):
        for name in ("asyncio", "aiohttp", "livekit.agents", "livekit.plugins.tiro"):
            caplog.set_level(logging.DEBUG, name)
        yield Spy(kept, capsys)


@asynccontextmanager
async def speaking(
    spy: Spy, hooks: Hooks, *, base_url: str = "", api_key: Any = KEY
) -> AsyncIterator[tuple[tiro.STT, SpeechStream, TiroServer]]:
    """A stream that hears the canaries."""
    loop = asyncio.get_running_loop()
    # Each step of each task is logged, with the task.
    loop.slow_callback_duration = 0.0
    server = TiroServer(
        api_key=KEY,
        recognizers={"is": NumberedRecognizer(SAID)},
        hooks=hooks,
        interim_interval=0.0,
    )
    settings = {"api_key": api_key, "extra_headers": {"X-Login": HEADER}}
    async with server:
        async with tiro.STT(base_url=base_url or server.base_url, **settings) as stt:
            stt.on("error", lambda event: spy.see("error event", event, event.error))
            stt.on("metrics_collected", partial(spy.see, "metrics"))
            stream = stt.stream(conn_options=RETRIES)
            yield stt, stream, server
            spy.see("what the caller holds", stt, stream, stream.options, stt.model, vars(stt))
            await stream.aclose()


async def listen(spy: Spy, stream: SpeechStream) -> list[str]:
    """Speak, and take what comes. Return what was heard."""
    heard = []
    for frame in frames(SAID.pcm()):
        stream.push_frame(frame)
    stream.flush()
    stream.end_input()
    try:
        async for event in stream:
            if event.alternatives:
                heard.append(event.alternatives[0].text)
            spy.see("event", replace(event, alternatives=[]))
            spy.see_tasks()
    except APIError as error:
        spy.see("exception", error)
    return heard


async def hear(spy: Spy, hooks: Hooks, api_key: Any = KEY) -> None:
    async with speaking(spy, hooks, api_key=api_key) as (_, stream, server):
        heard = await listen(spy, stream)
        tokens = {connection.token for connection in server.connections}
        assert all(each.headers["x-login"] == HEADER for each in server.connections)
    assert tokens == {KEY}, "it was sent"
    assert heard or spy.errors, "nothing was there to be seen"


def run(spy: Spy, trial: Coroutine[Any, Any, None], *, debug: bool = True) -> None:
    async def whole() -> None:
        await trial
        # The loop is told of an exception that nobody saw when its task is collected.
        gc.collect()

    # pytest has its own handlers again since the fixture was made: to format it all takes a while.
    with mock.patch.object(logging.root, "handlers", [spy.log]):
        virtual.run(whole(), debug=debug)
    spy.look()


# -- that the canaries would be found --------------------------------------------------------------


@pytest.mark.parametrize("canary", [KEY, f"{CANARY_WORD}1"])
@pytest.mark.parametrize("way", ["message", "args", "extra", "print", "exception", "local", "task"])
def test_a_canary_that_gets_out_is_found(spy: Spy, way: str, canary: str) -> None:
    log = logging.getLogger("livekit.plugins.tiro.somewhere")

    async def leak() -> None:
        if way == "message":
            log.debug(f"got {canary}")  # noqa: G004
        elif way == "args":
            log.debug("got %s", canary)
        elif way == "extra":
            log.debug("got it", extra={"lk.piii.data": canary})
        elif way == "print":
            print(canary)  # noqa: T201
        elif way == "exception":
            try:
                raise APIError("no") from ValueError(canary)
            except APIError as error:
                spy.see("exception", error)
        elif way == "local":
            inner: dict[str, Any] = {}
            exec("def fail(secret):\n    raise ValueError('no')", inner)
            try:
                inner["fail"](canary)
            except ValueError as error:
                spy.see("exception", error)
        else:
            task = asyncio.create_task(asyncio.sleep(60), name=canary)
            spy.see_tasks()
            task.cancel()

    virtual.run(leak())
    with pytest.raises(AssertionError, match="leaks"):
        spy.look()


def test_what_is_marked_may_be_there_but_for_the_key(spy: Spy) -> None:
    log = logging.getLogger("livekit.plugins.tiro")
    log.debug("got it", extra={"lk.pii.data": CANARY_WORD})
    spy.look()
    log.debug("got it", extra={"lk.pii.data": KEY})
    with pytest.raises(AssertionError, match="leaks"):
        spy.look()


def test_every_fault_is_tried() -> None:
    tried = {type(fault) for fault in OTHERS}
    tried |= {type(make(Moment.CONFIG)) for make in STRIKES.values()}
    assert tried == set(faults.CATALOGUE.values())


# -- faults ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STRIKES)
def test_a_fault_at_any_moment(name: str, spy: Spy) -> None:
    async def trials() -> None:
        for when in MOMENTS:
            await hear(spy, STRIKES[name](when))

    run(spy, trials())


@pytest.mark.parametrize("hooks", OTHERS, ids=lambda hooks: repr(hooks))
def test_any_other_fault(hooks: Hooks, spy: Spy) -> None:
    run(spy, hear(spy, hooks))


async def ask_for_key(key: str = KEY) -> str:
    await asyncio.sleep(0.01)
    return key


@pytest.mark.parametrize("hooks", [Fail(14, Moment.INTERIM, message=ECHO), Refuse(401, BOTH)])
def test_a_key_that_is_asked_for(hooks: Hooks, spy: Spy) -> None:
    run(spy, hear(spy, hooks, partial(ask_for_key, KEY)))


async def fail_to_get(key: str) -> str:
    try:
        raise OSError(f"no key service for {key}")
    except OSError as error:
        raise RuntimeError(f"can not get {key}") from error


@pytest.mark.parametrize("source", [fail_to_get, lambda key: f"{key}\n{key}"])
def test_a_key_that_nobody_gives(source: Any, spy: Spy) -> None:
    async def trial() -> None:
        async with speaking(spy, Hooks(), api_key=partial(source, KEY)) as (_, stream, server):
            await listen(spy, stream)
            assert not server.connections and spy.errors

    run(spy, trial())


def test_a_fault_that_passes(spy: Spy) -> None:
    hooks = PerConnection(Refuse(503, BOTH), Combined(Garbage([BOTH]), Disconnect(Moment.FINAL)))
    run(spy, hear(spy, hooks))


@pytest.mark.parametrize("name", STRIKES)
def test_closing_in_the_middle_of_it(name: str, spy: Spy) -> None:
    async def trial() -> None:
        for when in (Moment.OPENED, Moment.CONFIG, Moment.INTERIM):
            fault = STRIKES[name](when)
            async with speaking(spy, fault) as (_, stream, _server):
                for frame in frames(SAID.pcm()):
                    stream.push_frame(frame)
                await until(lambda: bool(fault.struck), 60)  # noqa: B023
                spy.see_tasks()

    run(spy, trial())


def test_closing_while_connecting(spy: Spy) -> None:
    async def trial() -> None:
        async with speaking(spy, StalledHandshake()) as (_, _stream, server):
            await server.wait_for_connection()
            spy.see_tasks()

    run(spy, trial())


# -- what a caller can do wrong --------------------------------------------------------------------


def test_options_that_change_or_are_bad(spy: Spy) -> None:
    async def trial() -> None:
        async with speaking(spy, Fail(14, Moment.FINAL, message=ECHO)) as (stt, stream, _):
            for target in (stt, stream):
                target.update_options(extra_config={"speechContexts": [{"phrases": ["x"]}]})
                bad: dict[str, Any]
                for bad in ({"max_alternatives": 99}, {"language": "?"}, {"punctuate": "no"}):
                    try:
                        target.update_options(**bad)
                    except ValueError as error:
                        spy.see("exception", error)
            await listen(spy, stream)

    run(spy, trial())


@pytest.mark.parametrize("hooks", [Refuse(401, BOTH), Fail(16, message=ECHO), Hooks()], ids=repr)
def test_recognising_a_buffer(hooks: Hooks, spy: Spy) -> None:
    async def trial() -> None:
        async with speaking(spy, hooks) as (stt, _, _server):
            pcm = SAID.pcm()
            buffer = rtc.AudioFrame(pcm.tobytes(), 16000, 1, len(pcm))
            try:
                await stt.recognize(buffer, conn_options=RETRIES)
            except APIError as error:
                spy.see("exception", error)
            spy.see_tasks()

    run(spy, trial())


@pytest.mark.parametrize(
    "wrong",
    [
        {"base_url": f"wss://example.invalid/?token={KEY}"},
        {"base_url": f"wss://{CANARY_KEY}@example.invalid/"},
        {"base_url": f"{KEY}://example.invalid/"},
        {"api_key": f"{KEY}\n{KEY}"},
        {"language": "?"},
        {"max_alternatives": 0},
        {"extra_config": {"a": object()}},
        {"extra_headers": {f"X: {KEY}": KEY}},
        {"extra_headers": {"X": f"{KEY}\n"}},
    ],
    ids=["query", "user", "scheme", "key", "language", "alternatives", "extra", "name", "value"],
)
def test_settings_that_are_not_valid(wrong: dict[str, Any], spy: Spy) -> None:
    """The locals are not looked at: they are what the caller himself passed in."""
    with pytest.raises(ValueError) as caught:
        tiro.STT(**{"api_key": KEY, "base_url": "ws://127.0.0.1:9", **wrong})
    error: BaseException | None = caught.value
    while error is not None:
        spy.see("exception", str(error), repr(error))
        error = error.__cause__ or error.__context__
    spy.look()


# -- other services ------------------------------------------------------------------------------


@asynccontextmanager
async def stranger(
    answer: Callable[[str], str], tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Something else that listens: answers each request, given its target. Yield its port."""
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        try:
            request = await reader.readuntil(b"\r\n\r\n")
            writer.write(answer(request.split()[1].decode()).encode())
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()


def http(status: str, *headers: str) -> str:
    return "\r\n".join([f"HTTP/1.1 {status}", "Content-Length: 0", *headers, "", ""])


ANSWERS: dict[str, Callable[[str], str]] = {
    "redirected for ever": lambda target: http("302 Found", f"Location: {target}"),
    "redirected to nowhere": lambda target: http("307 Moved", f"Location: x://{target}"),
    "redirected to a bad address": lambda target: http("301 Moved", f"Location: http://[{target}"),
    "redirected to a port without a service": lambda target: http(
        "302 Found", f"Location: http://127.0.0.1:9{target}"
    ),
    "not HTTP": lambda target: f"220 {target}\r\n\r\n",
    "bad headers": lambda target: http("101 Switching", f"{target} {target}"),
    "half an upgrade": lambda target: http("101 Switching", "Upgrade: websocket"),
    "nothing": lambda target: "",
}


@pytest.mark.parametrize("name", ANSWERS)
def test_a_service_that_is_another_one(name: str, spy: Spy) -> None:
    async def trial() -> None:
        async with stranger(ANSWERS[name]) as port:
            url = f"ws://127.0.0.1:{port}"
            async with speaking(spy, Hooks(), base_url=url) as (_, stream, _server):
                await listen(spy, stream)

    run(spy, trial())
    assert spy.errors


@pytest.mark.parametrize("kind", ["no TLS", "unknown authority", "another host"])
def test_tls_that_fails(kind: str, spy: Spy, monkeypatch: pytest.MonkeyPatch) -> None:
    tls = None
    if kind != "no TLS":
        authority = trustme.CA()
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("example.invalid").configure_cert(tls)
        if kind == "another host":
            default = ssl.create_default_context
            known = default()
            authority.configure_trust(known)
            monkeypatch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", known)

    async def trial() -> None:
        async with stranger(http, tls) as port:
            url = f"wss://127.0.0.1:{port}"
            async with speaking(spy, Hooks(), base_url=url) as (_, stream, _server):
                await listen(spy, stream)

    # In debug mode asyncio takes a handshake that fails for a fault of the server's.
    run(spy, trial(), debug=False)
    assert spy.errors


def test_nobody_listens(spy: Spy) -> None:
    async def trial() -> None:
        async with speaking(spy, Hooks(), base_url="ws://127.0.0.1:9") as (_, stream, _server):
            await listen(spy, stream)

    run(spy, trial())
    assert spy.errors
