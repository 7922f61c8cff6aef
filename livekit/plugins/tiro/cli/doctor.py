"""The `doctor` command: checks what an agent needs, and says in plain words what it found."""

from __future__ import annotations

import asyncio
import platform
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from email.utils import mktime_tz, parsedate_tz
from importlib.metadata import version
from typing import TypeVar
from urllib.parse import urlsplit

import aiohttp
import typer

from livekit.agents import DEFAULT_API_CONNECT_OPTIONS, APIError

from .. import errors
from ..dial import ATTEMPT_SHARE
from ..environment import (
    EITHER_KEY,
    URL_VARIABLE,
    key_of_environment,
    url_of_environment,
)
from ..options import DEFAULT_BASE_URL, Options
from ..reach import new_http_session, not_reached, proxy_for, reason_of
from ..watch import DRAIN_TIMEOUT
from .call import Call, WatchedConnection, faint_noise
from .exits import CliError, Exit, exits, redact, writing
from .formats import printable
from .transcribe import BaseUrl, Language
from .wording import OF_TRANSCRIBE, in_options

T = TypeVar("T")

_PACKAGES = ("livekit-plugins-tiro", "livekit-agents", "livekit", "aiohttp", "numpy")
# s for each step on the network.
_TIMEOUT = 10.0
# s that an agent allows for a connection, by the framework's default.
_AGENT_TIMEOUT = DEFAULT_API_CONNECT_OPTIONS.timeout * ATTEMPT_SHARE
# s to wait for a refusal: sending audio while the service closes the connection would destroy it.
_REFUSAL_PATIENCE = 0.5
# s that this machine's clock may be off; access tokens of LiveKit allow for about as much.
_CLOCK_TOLERANCE = 60.0
_PROXY_WANTS_A_PASSWORD = 407
_SAMPLE_RATE = 16000
# s of silence to send.
_SILENCE = 1.0
_WELL = "all is well; `probe` measures how the service behaves"


def doctor(base_url: BaseUrl = None, language: Language = "is-IS") -> None:
    """Check all that an agent needs, and stream a second of silence to the service.

    Each line is a check: ok, failed (with what to do), or skipped.

    The key is read from TIRO_API_KEY, else TIRO_SPEECH_KEY.

    It is never shown: the lines can be pasted into an issue.
    """
    with exits():
        _check_options(base_url, language)
        failed = asyncio.run(_report(base_url, language))
        if failed:
            raise typer.Exit(1)


def _check_options(base_url: str | None, language: str) -> None:
    """Raise CliError if the command line cannot be right; the environment is left to the checks."""
    url = DEFAULT_BASE_URL if base_url is None else base_url
    try:
        Options(api_key="none", base_url=url, language=language)
    except ValueError as error:
        raise CliError(Exit.USAGE, in_options(str(error))) from None


async def _report(base_url: str | None, language: str) -> int:
    """Print each finding as it comes, and return how many checks failed."""
    failed = 0
    async for finding in examine(base_url, language):
        text = printable(redact(in_options(finding.text, without=OF_TRANSCRIBE)))
        with writing():
            print(f"{finding.verdict:<8} {finding.check:<9} {text}")
        failed += finding.verdict == "failed"
    with writing():
        print(f"{failed} failed" if failed else _WELL)
    return failed


@dataclass(frozen=True)
class Finding:
    """What one check came to."""

    verdict: str
    """`ok`, `failed` or `skipped`."""
    check: str
    text: str


async def examine(base_url: str | None, language: str) -> AsyncIterator[Finding]:
    """Yield what each check found; a later one builds on what the earlier ones found out.

    Args:
        base_url: Where the service is; None leaves it to the environment.
        language: The language to ask for.
    """
    async with _Examination(base_url, language) as examination:
        for check in examination.checks:
            name = check.__name__
            try:
                yield Finding("ok", name, await check())
            except _Failed as failure:
                yield Finding("failed", name, str(failure))
            except _Skipped as reason:
                yield Finding("skipped", name, str(reason))


class _Failed(Exception):
    """What is wrong, and what to do."""


class _Skipped(Exception):
    """Why a check cannot be made."""


class _Examination:
    """The checks, and what is known so far. A check returns what it found, fit to be shown."""

    def __init__(self, base_url: str | None, language: str) -> None:
        self.checks = (
            self.versions,
            self.python,
            self.key,
            self.address,
            self.dns,
            self.connect,
            self.tls,
            self.clock,
            self.stream,
            self.audio,
        )
        self._http: aiohttp.ClientSession | None = None
        self._base_url = base_url
        self._language = language
        self._key: str | None = None
        self._valid: Options | None = None
        self._named: Options | None = None
        self._reached: Options | None = None
        self._connected: Options | None = None
        self._tls_fault: str | None = None
        self._date: str | None = None
        self._connection: WatchedConnection | None = None

    async def __aenter__(self) -> _Examination:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._connection is not None:
            await self._connection.close()
        if self._http is not None:
            await self._http.close()

    async def versions(self) -> str:
        return ", ".join(f"{name} {version(name)}" for name in _PACKAGES)

    async def python(self) -> str:
        return f"{platform.python_version()} on {platform.system()} {platform.machine()}"

    async def key(self) -> str:
        try:
            found = key_of_environment()
        except ValueError as error:
            raise _Failed(str(error)) from None
        if found is None:
            raise _Failed(f"there is none: set {EITHER_KEY} to the one that Tiro gave you")
        source, self._key = found
        return f"from {source}"

    async def address(self) -> str:
        try:
            url = url_of_environment() if self._base_url is None else self._base_url
            # The key is put in later: the checks before `stream` do not need it.
            self._valid = Options(
                api_key="none",
                base_url=DEFAULT_BASE_URL if url is None else url,
                language=self._language,
            )
        except ValueError as error:
            raise _Failed(str(error)) from None
        self._http = new_http_session(self._valid.url)
        source = URL_VARIABLE if self._base_url is None else "--base-url"
        origin = f"from {source}" if url else "Tiro's own"
        return f"{self._valid.base_url} ({origin}), language {self._valid.language}"

    async def dns(self) -> str:
        options = _needed(self._valid, "an address")
        url = urlsplit(options.url)
        host = url.hostname or ""
        if proxy_for(options.url) is not None:
            self._named = options
            raise _Skipped("a proxy is set, and looks the name up")
        try:
            lookup = asyncio.get_running_loop().getaddrinfo(host, None)
            await asyncio.wait_for(lookup, _TIMEOUT)
        except (OSError, UnicodeError, asyncio.TimeoutError):
            raise _Failed(_unreachable(options, f"the name {host} is not known")) from None
        self._named = options
        return f"{host} is known"

    async def connect(self) -> str:
        options = _needed(self._named, "a host that is known")
        http = _needed(self._http, "an address")
        if (socks := errors.socks(proxy_for(options.url), options.host)) is not None:
            raise _Failed(socks.message)
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT)
        try:
            # Sent without the key: any answer shows that the host is there, unless a proxy gave it.
            async with http.get(options.url, timeout=timeout, allow_redirects=False) as got:
                if got.status == _PROXY_WANTS_A_PASSWORD:
                    raise _Failed(errors.from_proxy(got.status).message)
                self._date = got.headers.get("Date")
        except asyncio.TimeoutError:
            raise _Failed(errors.connect_timeout(options.host, _TIMEOUT).message) from None
        except aiohttp.ClientSSLError as fault:
            self._tls_fault = reason_of(fault)
        except aiohttp.ClientHttpProxyError as refusal:
            raise _Failed(errors.from_proxy(refusal.status).message) from None
        except (aiohttp.ClientConnectorError, ValueError) as fault:
            raise _Failed(not_reached(fault, options).message) from None
        except aiohttp.ClientError:
            # The service hung up on a request that is not for a websocket, as it may.
            pass
        self._connected = options
        return f"{options.host} was reached"

    async def tls(self) -> str:
        options = _needed(self._connected, "a connection")
        if self._tls_fault is not None:
            raise _Failed(_unreachable(options, self._tls_fault))
        self._reached = options
        if options.url.startswith("wss:"):
            return "the certificate is valid"
        return "none, as the address is ws://: the key travels in the clear"

    async def clock(self) -> str:
        date = parsedate_tz(_needed(self._date, "a service that tells the time"))
        if date is None:
            raise _Skipped("the service tells the time in a way of its own")
        ahead = time.time() - mktime_tz(date)
        if abs(ahead) > _CLOCK_TOLERANCE:
            raise _Failed(
                f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the service's: "
                "set it, for certificates and LiveKit's access tokens are checked against it"
            )
        return f"within {max(1, round(abs(ahead)))} s of the service's"

    async def stream(self) -> str:
        options = _needed(self._reached, "a service that answers")
        options = replace(options, api_key=_needed(self._key, "a key"))
        http = _needed(self._http, "an address")
        try:
            self._connection = await WatchedConnection.open(http, options, _AGENT_TIMEOUT)
        except APIError as error:
            raise _Failed(error.message) from None
        await self._connection.configure(options, _SAMPLE_RATE)
        return f"opened in {self._connection.opened_in:.2f} s"

    async def audio(self) -> str:
        connection = _needed(self._connection, "a stream")
        async with Call(connection, _SAMPLE_RATE) as call:
            await _stream_silence(call)
        if call.error is not None:
            redact = errors.Redactor(self._key or "")
            raise _Failed(errors.from_service(call.error, redact).message)
        if connection.answered:
            return "a second of silence was heard and answered"
        if not connection.end_sent:
            raise _Failed(errors.dropped("in the middle of the audio").message)
        if not call.is_over:
            raise _Failed(errors.drain_timeout(DRAIN_TIMEOUT).message)
        return "a second of silence was taken without a word, which for silence is no fault"


async def _stream_silence(call: Call) -> None:
    """Send a second of silence at the pace of speech, and end the audio."""
    await call.until_over(_REFUSAL_PATIENCE)
    await call.send(faint_noise(_SILENCE, _SAMPLE_RATE))
    if not call.is_over:
        await call.connection.end()
        # As long as a stream waits for its last final.
        await call.until_over(DRAIN_TIMEOUT)


def _needed(value: T | None, what: str) -> T:
    """Return what an earlier check found out, or skip this one."""
    if value is None:
        raise _Skipped(f"it needs {what}")
    return value


def _unreachable(options: Options, reason: str) -> str:
    return errors.unreachable(options.host, reason).message
