"""How the service takes and how it refuses calls: handshake, keys, paths, languages, errors."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import aiohttp

from livekit.agents import APIStatusError

from ... import errors
from ...options import Options, changed_options
from ...protocol import ServiceError
from ..call import Call, WatchedConnection, faint_noise
from .lab import HANDSHAKE, Lab, Probe, Refused, Unanswerable, name_of
from .report import Row, judged, not_seen
from .sample import RATE

# A key that Tiro never gave to anybody.
_WRONG_KEY = "probe-with-a-key-that-is-none"
# A tag that is set aside for private use: no service has a model for it.
_NO_LANGUAGE = "qaa"
# s from which on a handshake counts as slow.
_SLOW = 1.0
# s without a refusal after which the service is taken to work.
_REFUSAL = 0.5
# s to wait for a refusal after the config; then audio is sent.
_PATIENCE = 2.0
# s of audio to send, and to wait for an answer to it.
_AUDIO = 1.0
_UNAUTHENTICATED = (16, 7)
_INVALID = (3,)
_NOT_FOUND = (5,)


async def check_in(lab: Lab) -> None:
    """Make sure that there is a service to measure.

    Raises:
        APIError: The service cannot be reached, refuses the key or the language, or hangs up.
    """
    async with lab.call() as call:
        await call.until(lambda: bool(call.answers), _REFUSAL)
        if call.error is not None:
            raise errors.from_service(call.error, errors.Redactor(lab.options.api_key))
        if call.is_over:
            raise errors.never_answered()


async def handshake(lab: Lab) -> AsyncIterator[Row]:
    """Open a connection, and close it again."""
    async with lab.call() as call:
        seconds = call.connection.opened_in
        yield judged(
            "handshake",
            seconds < _SLOW,
            f"open after {seconds:.2f} s",
            "each new connection takes this long; nothing is lost meanwhile",
            seconds=seconds,
        )


async def plain_request(lab: Lab) -> AsyncIterator[Row]:
    """Ask for the address without a websocket, as health checks do."""
    timeout = aiohttp.ClientTimeout(total=HANDSHAKE)
    try:
        async with lab.http.get(lab.options.url, timeout=timeout, allow_redirects=False) as got:
            status = got.status
    except aiohttp.ClientError:
        status = None
    yield judged(
        "what is in front",
        status in (405, 501),
        f"a plain request is answered with {status or 'nothing: it hangs up'}",
        "something else than the gateway answers first, and may end connections in its own way",
        status=status,
    )


_OTHERWISE = {
    "silence": "no answer, and the connection stays",
    "end": "hung up at the end of the audio, without a word",
    "none": "let in",
}


class Refusal(NamedTuple):
    """How the service turned a call away."""

    how: str
    """`handshake`, `frame`, `drop`, `end` (a drop after the end marker, which proves nothing),
    `silence` (the connection stays open), or `none`: the call was not turned away."""
    seconds: float
    """From the start of the handshake."""
    status: int | None = None
    """The HTTP status of the handshake."""
    error: ServiceError | None = None
    """The error in the frame."""
    shape: str = ""
    """How the frame is written, see `error_shape`."""
    close_code: int | None = None

    def __str__(self) -> str:
        after = f"after {self.seconds:.2f} s"
        if self.how == "handshake":
            return f"at the handshake: HTTP {self.status}, {after}"
        if self.how == "frame" and self.error is not None:
            return f"by a frame: {name_of(self.error)}, {after}"
        if self.how == "drop":
            close = "" if self.close_code is None else f" (close frame {self.close_code})"
            return f"hung up without a word{close}, {after}"
        return _OTHERWISE[self.how]

    def row(self, question: str, codes: tuple[int, ...], accepted: str) -> Row:
        """Return the row that reports this.

        Args:
            question: What was asked.
            codes: The gRPC codes that the plugin assumes, in a frame.
            accepted: What it means if the call was let in.
        """
        values: dict[str, Any] = {"how": self.how, "seconds": self.seconds}
        for name in ("status", "close_code"):
            values[name] = getattr(self, name)
        values["code"] = self.error.code if self.error else None
        values["shape"] = self.shape
        if self.how in ("silence", "end"):
            return not_seen(question, str(self), "the plugin notices it by its timeouts", **values)
        expected = self.error is not None and _has_code(self.error, codes)
        return judged(question, expected, str(self), self._meaning(accepted), **values)

    def _meaning(self, accepted: str) -> str:
        if self.how == "none":
            return accepted
        if self.how == "drop":
            return "the plugin takes it for a fault: it retries, and then says what to check"
        if self.how == "handshake":
            return "nothing: the plugin reports it by its HTTP status"
        retried = self.error is not None and not Refused(self.error).is_answer
        return (
            "the plugin takes it for a fault that passes, and retries"
            if retried
            else "nothing: the plugin reports it at once, under another name"
        )


def _has_code(error: ServiceError, codes: tuple[int, ...]) -> bool:
    """Tell whether an error has one of the codes or, without a code, the HTTP status of one."""
    http = {16: 401, 7: 403, 3: 400, 5: 404}
    if error.code is None:
        return error.http_status in [http[code] for code in codes]
    return error.code in codes


async def refusal_of(lab: Lab, options: Options, *, with_key: bool = True) -> Refusal:
    """Open a call and send audio. Return how it was turned away, if it was."""
    started = time.monotonic()
    try:
        async with _dialled(lab, options, with_key=with_key) as call:
            return await _refusal_on(call, started)
    except APIStatusError as refused:
        return Refusal("handshake", time.monotonic() - started, status=refused.status_code)


async def _refusal_on(call: Call, started: float) -> Refusal:
    await call.until(lambda: bool(call.answers), _PATIENCE)
    if not call.answers and not call.is_over:
        await call.send(faint_noise(_AUDIO, RATE), until=lambda: bool(call.answers))
        await call.until(lambda: bool(call.answers), _AUDIO)
    if not call.answers and not call.is_over:
        # A call that was let in is answered when it ends, if only that nothing was heard in it.
        await call.connection.end()
        await call.until(lambda: bool(call.answers), _PATIENCE)
    if call.error is not None:
        first = next(each for each in call.answers if each.response.error)
        shape = error_shape(first.text)
        return Refusal("frame", first.at - started, error=call.error, shape=shape)
    if call.answers:
        return Refusal("none", call.answers[0].at - started)
    if call.over_at is None:
        return Refusal("silence", time.monotonic() - started)
    how = "end" if call.connection.end_sent else "drop"
    return Refusal(how, call.over_at - started, close_code=call.connection.close_code)


@asynccontextmanager
async def _dialled(lab: Lab, options: Options, *, with_key: bool) -> AsyncIterator[Call]:
    """Open a call: with a key or, as the plugin would never do, without one."""
    if with_key:
        async with lab.call(options=options) as call:
            yield call
        return
    lab.connections += 1
    try:
        opening = lab.http.ws_connect(options.url, autoping=False, decode_text=False)
        ws = await asyncio.wait_for(opening, HANDSHAKE)
    except aiohttp.WSServerHandshakeError as refused:
        raise APIStatusError("refused", status_code=refused.status) from None
    except (aiohttp.ClientError, OSError, asyncio.TimeoutError):
        raise Unanswerable("it could not be reached, or hung up") from None
    async with Call(WatchedConnection(ws, 0.0), RATE, lab.spend) as call:
        await call.connection.configure(options, RATE)
        yield call


async def wrong_key(lab: Lab) -> AsyncIterator[Row]:
    """Open a call with a key that is not valid."""
    refusal = await refusal_of(lab, changed_options(lab.options, {"api_key": _WRONG_KEY}))
    yield refusal.row("wrong key", _UNAUTHENTICATED, "a wrong key is not noticed here")


async def no_key(lab: Lab) -> AsyncIterator[Row]:
    """Open a call without a key."""
    refusal = await refusal_of(lab, lab.options, with_key=False)
    yield refusal.row("missing key", _UNAUTHENTICATED, "no key is needed here")


async def wrong_path(lab: Lab) -> AsyncIterator[Row]:
    """Open a call at a path next to the right one."""
    parts = urlsplit(lab.options.url)
    path = parts.path.rpartition("/")[0] + "/no-such-path"
    options = changed_options(
        lab.options, {"base_url": urlunsplit(parts._replace(path=path)), "api_key": _WRONG_KEY}
    )
    refusal = await refusal_of(lab, options)
    yield refusal.row("wrong path", _NOT_FOUND, "a wrong base_url is not noticed here")


async def unknown_language(lab: Lab) -> AsyncIterator[Row]:
    """Ask for a language that does not exist, and see how errors are written."""
    refusal = await refusal_of(lab, changed_options(lab.options, {"language": _NO_LANGUAGE}))
    taken = "the language tag is not looked at: a wrong one is not noticed"
    yield refusal.row("unknown language", _INVALID, taken)
    if refusal.how != "frame":
        yield not_seen("shape of errors", "no error frame came")
        return
    yield judged(
        "shape of errors",
        refusal.shape == "v1",
        f"{refusal.shape}",
        "nothing: the plugin reads each of these shapes",
        shape=refusal.shape,
    )


def error_shape(text: str) -> str:
    """Return how an error frame is written.

    `v1`, `v2`: by the service, through that major version of grpc-gateway; `gateway v1`,
    `gateway v2`: by the gateway itself; `result`: inside a response; `text`: bare words.
    """
    document: Any = None
    with suppress(ValueError, RecursionError):
        document = json.loads(text)
    if not isinstance(document, dict):
        return "text"
    if "result" in document:
        return "result"
    error = document.get("error")
    if isinstance(error, dict):
        old = ("grpcCode", "grpc_code", "httpCode", "http_code")
        return "v1" if any(name in error for name in old) else "v2"
    return "gateway v1" if error else "gateway v2"


PROBES = (
    Probe(("handshake",), handshake),
    Probe(("what is in front",), plain_request),
    Probe(("wrong key",), wrong_key, lambda sample: _AUDIO),
    Probe(("missing key",), no_key, lambda sample: _AUDIO),
    Probe(("wrong path",), wrong_path, lambda sample: _AUDIO),
    Probe(("unknown language", "shape of errors"), unknown_language, lambda sample: _AUDIO),
)
