"""A local server that speaks Tiro's streaming protocol, for tests without key or network."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

from aiohttp import web

from .backend import Backend, Timing
from .conversation import STREAMING_PATH, UNARY_PATH, Conversation
from .hooks import Hooks
from .line import Line
from .recognizer import WORDS_PER_SECOND, RecognizerFactory, Script, ScriptedRecognizer
from .session import Session
from .sphinx import SphinxRecognizer
from .timed import At, TimedRecognizer
from .wire import NOT_FOUND, UNIMPLEMENTED, ErrorStyle, FrameStyle, SpeechConfig

# What the service's own base URL ends in.
BASE_PATH = "/v2beta1"
# Bytes; far over what the service takes, so that its own limit is the one a client meets.
MAX_FRAME_BYTES = 64 * 1024 * 1024
# Seconds for handshakes that a hook holds back at the end; the sessions are over by then.
SHUTDOWN_TIMEOUT = 0.1
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
        endpoint_silence: Seconds of silence behind speech that make a final.
        interim_interval: Seconds of wall clock between interims, at least.
        emit_unpopulated: Whether frames carry fields with default values, as Tiro's do.
        error_style: `v1` or `v2`, the major version of grpc-gateway that writes errors.
        recognizers: Factories by prefix of the language tag, letter by letter, the longest one
            that fits wins; these come before the two of the default.
        hooks: Consulted at every step of a session, see `Hooks`.
        host: The interface to listen on.
        port: 0 for a free one.
    """

    def __init__(
        self,
        *,
        api_key: str | None = "test",
        script: Script | Sequence[At] | None = None,
        words_per_second: float = WORDS_PER_SECOND,
        endpoint_silence: float = 0.5,
        interim_interval: float = 0.35,
        emit_unpopulated: bool = True,
        error_style: ErrorStyle = "v1",
        recognizers: Mapping[str, RecognizerFactory] | None = None,
        hooks: Hooks | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self._api_key = api_key
        self._style = FrameStyle(error_style, emit_unpopulated)
        self._timing = Timing(endpoint_silence, interim_interval)
        self._recognizers: dict[str, RecognizerFactory] = {
            "is": _scripted(script, words_per_second),
            "en": SphinxRecognizer(),
            **(recognizers or {}),
        }
        self._hooks = hooks or Hooks()
        self._host = host
        self._port = port
        self._runner: web.AppRunner | None = None
        self._executor = _threads()
        self._handlers: set[asyncio.Task[None]] = set()
        self._transports: list[asyncio.Transport] = []
        self._arrived = asyncio.Condition()
        self.sessions: list[Session] = []

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
        """Listens, once; returns when clients can connect.

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
        """Drops every session and stops listening; a second call does nothing."""
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

    async def wait_for_session(self, number: int = 0) -> Session:
        """Returns the record of the connection `number`, from 0, as soon as it is there."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: len(self.sessions) > number)
        return self.sessions[number]

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if not web.WebSocketResponse().can_prepare(request):
            return self._plain(request)
        async with self._arrived:
            session = Session(
                number=len(self.sessions),
                path=request.path,
                token=_token(request),
                opened_at=asyncio.get_running_loop().time(),
                line=Line(request.transport),
            )
            self.sessions.append(session)
            self._arrived.notify_all()
        try:
            return await self._serve(request, session)
        finally:
            session.closed_by = session.closed_by or "server"
            session.closed_at = asyncio.get_running_loop().time()
            session.closed.set()

    async def _serve(self, request: web.Request, session: Session) -> web.StreamResponse:
        refusal = await self._hooks.handshake(session)
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
        session.line.opened(websocket)
        handler = asyncio.create_task(
            self._converse(request, websocket, session), name=f"tiro-server-{session.number}"
        )
        self._handlers.add(handler)
        handler.add_done_callback(self._handlers.discard)
        await asyncio.wait([handler])
        return websocket

    async def _converse(
        self, request: web.Request, websocket: web.WebSocketResponse, session: Session
    ) -> None:
        conversation = Conversation(
            websocket,
            session,
            style=self._style,
            hooks=self._hooks,
            key=self._api_key,
            known=lambda language: self._recognizer(language) is not None,
            backend=self._open_backend,
        )
        try:
            await conversation.run()
        finally:
            # Never a close frame: what is written goes out, then the connection is gone.
            if request.transport is not None:
                self._transports.append(request.transport)
                request.transport.close()

    def _open_backend(self, config: SpeechConfig) -> Backend:
        factory = self._recognizer(config.language)
        assert factory is not None
        return Backend(
            config,
            factory(config),
            style=self._style,
            timing=self._timing,
            clock=asyncio.get_running_loop().time,
            executor=self._executor,
        )

    def _recognizer(self, language: str) -> RecognizerFactory | None:
        prefixes = [prefix for prefix in self._recognizers if language.startswith(prefix)]
        return self._recognizers[max(prefixes, key=len)] if prefixes else None

    def _plain(self, request: web.Request) -> web.Response:
        """What a request that asks for no upgrade gets."""
        known = request.path in (STREAMING_PATH, UNARY_PATH)
        text = "Method Not Allowed" if known else "Not Found"
        if self._style.errors == "v1":
            return web.Response(status=405 if known else 404, text=f"{text}\n")
        body = self._style.gateway_error(text, UNIMPLEMENTED if known else NOT_FOUND)
        return web.Response(
            status=501 if known else 404, text=body, content_type="application/json"
        )


def _scripted(script: Script | Sequence[At] | None, words_per_second: float) -> RecognizerFactory:
    """The recogniser of a script: by the clock if it has times."""
    if script is None or isinstance(script, str):
        return ScriptedRecognizer(script, words_per_second=words_per_second)
    timed = [part for part in script if isinstance(part, At)]
    plain = [part for part in script if not isinstance(part, At)]
    if timed and plain:
        raise ValueError("either all parts of a script have a time, or none has")
    if timed:
        return TimedRecognizer(timed, words_per_second=words_per_second)
    return ScriptedRecognizer(plain, words_per_second=words_per_second)


def _threads() -> ThreadPoolExecutor:
    """For recognisers that block; no thread starts before there is one."""
    return ThreadPoolExecutor(RECOGNIZER_THREADS, "tiro-server-recognizer")


def _token(request: web.Request) -> str | None:
    """The key of a handshake; the Authorization header is not looked at, as by the gateway."""
    if "token" in request.query:
        return request.query["token"]
    offered = request.headers.get("Sec-WebSocket-Protocol", "").split(",")
    scheme, *keys = (part.strip() for part in offered)
    if scheme == "Bearer" and keys:
        return keys[0]
    return request.cookies.get("token")
