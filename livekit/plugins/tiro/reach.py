"""The way to the service: the proxy that leads there, and why it was not reached."""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

import aiohttp

from . import errors

if TYPE_CHECKING:
    from livekit.agents import APIError

    from .options import Options

# Which proxies of the environment are for which scheme, the first that is set.
_KINDS = {"wss": ("wss", "https", "all"), "ws": ("ws", "http", "all")}
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def new_http_session(url: str) -> aiohttp.ClientSession:
    """Return an HTTP session for use outside a LiveKit job; whoever made it closes it.

    Args:
        url: The websocket's address. It is reached through the proxy of the environment, if there
            is one: `WSS_PROXY`, `HTTPS_PROXY` or `ALL_PROXY` for `wss:`, `WS_PROXY`, `HTTP_PROXY`
            or `ALL_PROXY` for `ws:`, except for the hosts of `NO_PROXY` and this machine itself.
    """
    # The default limit is 100 connections: the next call would wait for one of them to end.
    connector = aiohttp.TCPConnector(limit=0)
    return aiohttp.ClientSession(connector=connector, proxy=proxy_for(url))


class OwnSessions:
    """The HTTP sessions of an `STT` that has none from elsewhere: one for each event loop."""

    def __init__(self) -> None:
        """Open none yet."""
        self._by_loop: dict[asyncio.AbstractEventLoop, aiohttp.ClientSession] = {}
        self._is_closed = False
        # Loops run in different threads.
        self._lock = threading.Lock()

    def get(self, url: str) -> aiohttp.ClientSession:
        """Return the session of the running loop, for an address as in `new_http_session`.

        Raises:
            APIConnectionError: They were closed.
        """
        with self._lock:
            if self._is_closed:
                raise errors.closed()
            for loop in list(self._by_loop):
                # As after each of several `asyncio.run`.
                if loop.is_closed():
                    _abandon(self._by_loop.pop(loop))
            here = asyncio.get_running_loop()
            own = self._by_loop.get(here)
            if own is None or own.closed:
                own = self._by_loop[here] = new_http_session(url)
            return own

    async def close(self) -> None:
        """Close them all, and open no more; one whose loop runs elsewhere is closed there, soon."""
        with self._lock:
            self._is_closed, owned, self._by_loop = True, self._by_loop, {}
        for loop, own in owned.items():
            if loop is asyncio.get_running_loop():
                await own.close()
            elif not _close_in(loop, own):
                _abandon(own)


def _close_in(loop: asyncio.AbstractEventLoop, http_session: aiohttp.ClientSession) -> bool:
    """Have an HTTP session closed in its loop, by another thread. Return False if that is over."""
    try:
        loop.call_soon_threadsafe(_abandon, http_session)
    except RuntimeError:
        # It ended.
        return False
    return loop.is_running()


def _abandon(http_session: aiohttp.ClientSession) -> None:
    """Close an HTTP session without waiting for its sockets."""
    connector = http_session.connector
    http_session.detach()
    if connector is not None:
        connector._close()


def proxy_for(url: str) -> str | None:
    """Return the proxy that the environment names for an address, or None."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    proxies = getproxies_environment()
    if host in _LOOPBACK or proxy_bypass_environment(host, proxies):
        return None
    return next((proxies[kind] for kind in _KINDS[parts.scheme] if kind in proxies), None)


def not_reached(fault: Exception, options: Options) -> APIError:
    """Return the exception for a connection that could not be made, by what aiohttp raised."""
    by_proxy = is_of_proxy(fault, options.url)
    named = _named(fault, options.url) if by_proxy else ""
    return errors.unreachable(options.host, reason_of(fault), by_proxy=by_proxy, named=named)


def _named(fault: Exception, url: str) -> str:
    """Say which variable names the proxy of a fault, without its password; empty if none does."""
    proxy, names = proxy_for(url), [f"{kind}_proxy" for kind in _KINDS[urlsplit(url).scheme]]
    with suppress(ValueError):
        at = urlsplit(proxy or "")
        place = at.hostname, at.port or (443 if at.scheme == "https" else 80)
        if place == (getattr(fault, "host", None), getattr(fault, "port", None)):
            same = {each.lower(): each for each in os.environ if os.environ[each] == proxy}
            variable = next(same[name] for name in names if name in same)
            return f"{variable} names {at.netloc.rpartition('@')[2]}"
    return ""


def is_of_proxy(fault: Exception, url: str) -> bool:
    """Tell whether a connection to an address failed because of the proxy on the way."""
    if isinstance(fault, aiohttp.ClientConnectorDNSError):
        # It names an international host as DNS does.
        host = urlsplit(url).hostname or ""
        return fault.host not in (host, host.encode("idna").decode())
    # The address itself is known to be a URL.
    return isinstance(fault, aiohttp.ClientProxyConnectionError | aiohttp.InvalidURL)


def reason_of(fault: Exception) -> str:
    """Name a failure to connect without the text of the exception, which can hold the URL."""
    if isinstance(fault, aiohttp.ClientConnectorCertificateError):
        why = getattr(fault.certificate_error, "verify_message", "it is not for this host")
        return f"its certificate is not valid: {why}"
    if isinstance(fault, aiohttp.ClientConnectorSSLError):
        # Its errno is one of OpenSSL's, which means something else to the system.
        reason = getattr(fault.os_error, "reason", None) or "no reason given"
        # A server that does not answer in TLS at all speaks without it.
        plain = reason == "WRONG_VERSION_NUMBER"
        advice = ". If the server has no TLS, use ws://" if plain else ""
        return f"the TLS handshake failed ({reason}){advice}"
    if isinstance(fault, aiohttp.ClientProxyConnectionError):
        return "the proxy on the way could not be reached"
    if isinstance(fault, aiohttp.InvalidURL):
        return "the address of the proxy on the way is not a URL"
    if isinstance(fault, aiohttp.ClientConnectorDNSError):
        return f"the name {fault.host} is not known"
    if isinstance(fault, asyncio.TimeoutError) and not getattr(fault, "errno", None):
        return "it took longer than the timeout of the HTTP session"
    number = fault.errno if isinstance(fault, OSError) else None
    return os.strerror(number) if number else type(fault).__name__
