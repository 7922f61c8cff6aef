"""A local server that speaks Tiro's streaming protocol, for tests without key or network."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, get_args

from aiohttp import web

from .backend import Backend, Timing
from .checks import check_number, check_one_of, check_whole
from .conversation import STREAMING_PATH, UNARY_PATH, Conversation
from .hooks import Hooks, checked
from .line import Line
from .recognizer import (
    WORDS_PER_SECOND,
    RecognizerFactory,
    Script,
    ScriptedRecognizer,
    script_parts,
)
from .record import ConnectionRecord, Space
from .sphinx import SphinxRecognizer
from .timed import At, TimedRecognizer
from .wire import NOT_FOUND, UNIMPLEMENTED, ErrorStyle, FrameStyle, SpeechConfig

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

# What the service's own base URL ends in.
BASE_PATH = "/v2beta1"
# Bytes; far over what the service takes, so that its own limit is the one a client meets.
MAX_FRAME_BYTES = 64 * 1024 * 1024
# Seconds for handshakes that a hook holds back at the end; the connections are over by then.
SHUTDOWN_TIMEOUT = 0.1
# Bytes of the records; 2 hours of audio at 16 kHz.
RECORDED_BYTES = 256 * 1024 * 1024
# Connections at a time; each can cost 30 MB at worst, and a decoder if it speaks English.
MAX_CONNECTIONS = 1000
# Records that are kept; older ones of connections that are over are dropped.
MOST_RECORDS = 5000
# Threads for recognisers that block; more would only queue for the interpreter.
RECOGNIZER_THREADS = 2


class TiroServer:
    """Serves Tiro's websocket on loopback; use as `async with`, or `start` and `aclose`.

    Recognisers go by language tag: Icelandic says a script, English is recognised by PocketSphinx
    (extra `local`), any other tag is refused as the service would.

    Args:
        api_key: The key clients have to send; None takes any.
        script: What the Icelandic recogniser says. A text, or sentences: while it hears voiced
            audio, see `ScriptedRecognizer`; utterances with their times, `At`: at these times,
            whatever the audio is, see `TimedRecognizer`; None for a default.
        words_per_second: Its pace in words a second.
        endpoint_silence: Seconds of silence after speech that make a final. A script whose
            utterance ends in a comma takes 1.0 s at least, one that ends in "…" 2.0 s: the
            service waits longer for a sentence that does not look complete.
        interim_interval: Seconds of wall clock between interims, at least.
        voice_gate: Whether messages of digital silence in front of an utterance are thrown away, as
            the service does: of each message it looks at whole frames of 30 ms.
        emit_unpopulated: Whether frames carry fields with default values, as Tiro's do.
        error_style: `v1` or `v2`, the major version of grpc-gateway that writes errors.
        recognizers: Factories by prefix of the language tag, letter by letter, the longest one
            that fits wins; these come before the two of the default.
        hooks: Consulted at every step of a connection, see `Hooks`.
        recorded_bytes: How much audio and how many frames of all connections together are kept in
            their records. What comes later is not, and a warning says so once; 0 keeps none.
        max_connections: How many connections there can be at a time; a handshake too many is
            refused with HTTP status 503.
        host: The interface to listen on.
        port: 0 for a free one.

    Raises:
        ValueError: An argument is out of its range, the key is empty, which is one that no client
            can send, or `hooks` or `script` has the wrong type.
    """

    def __init__(
        self,
        *,
        api_key: str | None = "test",
        script: Script | Sequence[At] | None = None,
        words_per_second: float = WORDS_PER_SECOND,
        endpoint_silence: float = 0.5,
        interim_interval: float = 0.35,
        voice_gate: bool = True,
        emit_unpopulated: bool = True,
        error_style: ErrorStyle = "v1",
        recognizers: Mapping[str, RecognizerFactory] | None = None,
        hooks: Hooks | None = None,
        recorded_bytes: int = RECORDED_BYTES,
        max_connections: int = MAX_CONNECTIONS,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        _check_key(api_key)
        _check_address(host, port)
        check_one_of("error_style", error_style, get_args(ErrorStyle))
        check_number("endpoint_silence", endpoint_silence)
        check_number("interim_interval", interim_interval)
        check_whole("recorded_bytes", recorded_bytes)
        check_whole("max_connections", max_connections, 1)
        _check_recognizers(recognizers)
        self._api_key = api_key
        self._style = FrameStyle(error_style, emit_unpopulated)
        self._timing = Timing(endpoint_silence, interim_interval)
        self._voice_gate = voice_gate
        self._recognizers: dict[str, RecognizerFactory] = {
            "is": _scripted(script, words_per_second),
            "en": SphinxRecognizer(),
            **(recognizers or {}),
        }
        self._hooks = checked(hooks)
        self._host = host
        self._port = port
        self._runner: web.AppRunner | None = None
        self._executor = _threads()
        self._handlers: set[asyncio.Task[None]] = set()
        self._transports: list[asyncio.Transport] = []
        self._arrived = asyncio.Condition()
        self._space = Space(recorded_bytes)
        self._max_connections = max_connections
        self._open = 0
        self._count = 0
        self.connections: list[ConnectionRecord] = []
        """The records of the connections, in order; of the newest `MOST_RECORDS` at most."""

    async def __aenter__(self) -> TiroServer:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    @property
    def base_url(self) -> str:
        """What a client takes as base URL, such as `ws://127.0.0.1:40000/v2beta1`.

        Raises:
            RuntimeError: The server has not been started, and its port was to be a free one.
        """
        if self._port == 0:
            raise RuntimeError("the server has not been started")
        # An IPv6 address has colons of its own.
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"ws://{host}:{self._port}{BASE_PATH}"

    async def start(self) -> None:
        """Listen, once; return when clients can connect.

        Raises:
            OSError: The port is taken.
        """
        if self._runner is not None:
            return
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_TIMEOUT)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self._port).start()
        except BaseException:
            await runner.cleanup()
            raise
        self._port = runner.addresses[0][1]
        self._runner = runner

    async def aclose(self) -> None:
        """Drop every connection and stop listening; a second call does nothing."""
        runner, self._runner = self._runner, None
        if runner is None:
            return
        for site in list(runner.sites):
            await site.stop()
        handlers = list(self._handlers)
        for handler in handlers:
            handler.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)
        # A client that does not read would keep a closed connection up until it does.
        for transport in self._transports:
            transport.abort()
        self._transports.clear()
        await runner.cleanup()
        self._executor.shutdown()
        self._executor = _threads()

    @property
    def sessions(self) -> list[ConnectionRecord]:
        """The former name of `connections`."""
        return self.connections

    @property
    def connection_count(self) -> int:
        """How many connections there were, those included whose records are dropped."""
        return self._count

    async def wait_for_connection(self, number: int = 0) -> ConnectionRecord:
        """Return the record of the connection `number`, from 0, as soon as it is there.

        Raises:
            LookupError: There was such a connection, but its record is dropped.
        """
        async with self._arrived:
            await self._arrived.wait_for(lambda: self._count > number)
        for connection in self.connections:
            if connection.number == number:
                return connection
        raise LookupError(f"the record of connection {number} is dropped")

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if not web.WebSocketResponse().can_prepare(request):
            return self._plain(request)
        if self._open >= self._max_connections:
            return web.Response(status=503, text="too many connections")
        self._open += 1
        try:
            return await self._serve(request, await self._add_record(request))
        finally:
            self._open -= 1

    async def _add_record(self, request: web.Request) -> ConnectionRecord:
        """Open the record of a connection, and drop the oldest if there are too many."""
        async with self._arrived:
            connection = ConnectionRecord(
                number=self._count,
                path=request.path,
                token=_token(request),
                opened_at=asyncio.get_running_loop().time(),
                line=Line(request.transport),
                space=self._space,
                headers={name.lower(): value for name, value in request.headers.items()},
            )
            self._count += 1
            self.connections.append(connection)
            if len(self.connections) > MOST_RECORDS and self.connections[0].closed.is_set():
                self.connections.pop(0).forget()
            self._arrived.notify_all()
        return connection

    async def _serve(
        self, request: web.Request, connection: ConnectionRecord
    ) -> web.StreamResponse:
        try:
            return await self._upgrade(request, connection)
        finally:
            connection.closed_by = connection.closed_by or "server"
            connection.closed_at = asyncio.get_running_loop().time()
            connection.closed.set()

    async def _upgrade(
        self, request: web.Request, connection: ConnectionRecord
    ) -> web.StreamResponse:
        hooks = self._hooks.for_connection(connection)
        refusal = await hooks.handshake(connection)
        if refusal is not None:
            return web.Response(status=refusal.status, text=refusal.body)
        websocket = web.WebSocketResponse(
            protocols=("Bearer",), compress=False, max_msg_size=MAX_FRAME_BYTES, autoping=False
        )
        try:
            await websocket.prepare(request)
        except ConnectionError:
            # The client left while it waited; aiohttp would log that as an error.
            return web.Response(status=503)
        connection.line.opened(websocket)
        handler = asyncio.create_task(
            self._converse(request, websocket, connection, hooks),
            name=f"tiro-server-{connection.number}",
        )
        self._handlers.add(handler)
        handler.add_done_callback(self._handlers.discard)
        await asyncio.wait([handler])
        return websocket

    async def _converse(
        self,
        request: web.Request,
        websocket: web.WebSocketResponse,
        connection: ConnectionRecord,
        hooks: Hooks,
    ) -> None:
        conversation = Conversation(
            websocket,
            connection,
            style=self._style,
            hooks=hooks,
            key=self._api_key,
            known=lambda language: self._recognizer(language) is not None,
            backend=lambda config: self._open_backend(config, connection),
        )
        try:
            await conversation.run()
        finally:
            # Never a close frame: what is written goes out, then the connection is gone.
            if request.transport is not None:
                self._transports = [each for each in self._transports if _is_up(each)]
                self._transports.append(request.transport)
                request.transport.close()

    def _open_backend(self, config: SpeechConfig, connection: ConnectionRecord) -> Backend:
        factory = self._recognizer(config.language)
        assert factory is not None
        time = asyncio.get_running_loop().time

        def clock() -> float:
            # Frames that are late by the same time are as many as if they were in time.
            return connection.arrived_at if connection.is_delayed else time()

        return Backend(
            config,
            factory(config),
            style=self._style,
            timing=self._timing,
            clock=clock,
            connection=connection,
            executor=self._executor,
            voice_gate=self._voice_gate,
        )

    def _recognizer(self, language: str) -> RecognizerFactory | None:
        prefixes = [prefix for prefix in self._recognizers if language.startswith(prefix)]
        return self._recognizers[max(prefixes, key=len)] if prefixes else None

    def _plain(self, request: web.Request) -> web.Response:
        """Return the response to a request that does not ask for an upgrade."""
        known = request.path in (STREAMING_PATH, UNARY_PATH)
        text = "Method Not Allowed" if known else "Not Found"
        if self._style.errors == "v1":
            return web.Response(status=405 if known else 404, text=f"{text}\n")
        body = self._style.gateway_error(text, UNIMPLEMENTED if known else NOT_FOUND)
        return web.Response(
            status=501 if known else 404, text=body, content_type="application/json"
        )


def _check_key(api_key: Any) -> None:
    if api_key is None:
        return
    if not isinstance(api_key, str):
        kind = type(api_key).__name__
        raise ValueError(f"api_key must be a text, or None to take any, not of type {kind}")
    if not api_key.strip():
        raise ValueError("api_key must not be empty: give a key, or None to take any")
    if api_key.strip()[0] in "\"'":
        raise ValueError("api_key must not be in quotation marks: no client sends such a key")


def _check_recognizers(recognizers: Any) -> None:
    if not isinstance(recognizers or {}, Mapping):
        kind = type(recognizers).__name__
        raise ValueError(f"recognizers must be a mapping of languages to factories, not a {kind}")
    for language, factory in (recognizers or {}).items():
        if not callable(factory):
            raise ValueError(
                f"recognizers must have factories, such as SphinxRecognizer(): for {language!r} "
                f"there is {factory!r}"
            )


def _check_address(host: Any, port: Any) -> None:
    if not isinstance(host, str) or not host.strip():
        # An empty one would be all interfaces, and no address for a client.
        raise ValueError(f"host must be an address or a name, such as 127.0.0.1, not {host!r}")
    check_whole("port", port, 0, 65535)


def _scripted(script: Script | Sequence[At] | None, words_per_second: float) -> RecognizerFactory:
    """Return the recogniser for a script: a timed one if the script has times."""
    if script is None:
        return ScriptedRecognizer(words_per_second=words_per_second)
    parts = script_parts(script)
    timed = [part for part in parts if isinstance(part, At)]
    plain = [part for part in parts if not isinstance(part, At)]
    if timed and plain:
        raise ValueError("either all parts of a script have a time, or none has")
    if timed:
        return TimedRecognizer(timed, words_per_second=words_per_second)
    return ScriptedRecognizer(plain, words_per_second=words_per_second)


def _is_up(transport: asyncio.Transport) -> bool:
    """Tell whether a transport has its socket; a closed one keeps it until all is written."""
    handle = transport.get_extra_info("socket")
    return handle is not None and handle.fileno() >= 0


def _threads() -> ThreadPoolExecutor:
    """Return the pool for recognisers that block; threads start only when they are needed."""
    return ThreadPoolExecutor(RECOGNIZER_THREADS, "tiro-server-recognizer")


def _token(request: web.Request) -> str | None:
    """Return the key of a handshake; like the gateway, ignore the Authorization header."""
    if "token" in request.query:
        return request.query["token"]
    offered = request.headers.get("Sec-WebSocket-Protocol", "").split(",")
    scheme, *keys = (part.strip() for part in offered)
    if scheme == "Bearer" and keys:
        return keys[0]
    return request.cookies.get("token")
