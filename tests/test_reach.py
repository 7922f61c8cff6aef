"""The way to the service: which proxy leads there, and why it was not reached."""

from __future__ import annotations

import asyncio
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import cast

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey

from livekit.agents import APIConnectionError
from livekit.plugins.tiro import reach
from livekit.plugins.tiro.options import Options
from livekit.plugins.tiro.reach import (
    OwnSessions,
    is_of_proxy,
    new_http_session,
    not_reached,
    proxy_for,
    reason_of,
)

KEY = ConnectionKey("host", 443, True, True, None, None, None)
OPTIONS = Options(api_key="test", base_url="wss://localhost")


def set_proxies(monkeypatch: pytest.MonkeyPatch, names: dict[str, str]) -> None:
    """Set these variables and no others for proxies."""
    for name in ("WSS", "WS", "HTTPS", "HTTP", "ALL", "NO"):
        for form in (f"{name}_PROXY", f"{name}_PROXY".lower()):
            monkeypatch.delenv(form, raising=False)
    for name, value in names.items():
        monkeypatch.setenv(name, value)


WSS, WS = "wss://host/path", "ws://host/path"


@pytest.mark.parametrize(
    ("url", "names", "proxy"),
    [
        (WSS, {}, None),
        (WSS, {"HTTPS_PROXY": "http://p1"}, "http://p1"),
        (WSS, {"https_proxy": "http://p1"}, "http://p1"),
        (WSS, {"ALL_PROXY": "http://p2"}, "http://p2"),
        (WSS, {"ALL_PROXY": "http://p2", "HTTPS_PROXY": "http://p1"}, "http://p1"),
        (WSS, {"WSS_PROXY": "http://p3", "HTTPS_PROXY": "http://p1"}, "http://p3"),
        (WSS, {"HTTP_PROXY": "http://p4"}, None),
        (WS, {"HTTP_PROXY": "http://p4"}, "http://p4"),
        (WS, {"ALL_PROXY": "http://p2"}, "http://p2"),
        (WS, {"HTTPS_PROXY": "http://p1"}, None),
        (WSS, {"HTTPS_PROXY": "http://p1", "NO_PROXY": "host"}, None),
        (WSS, {"HTTPS_PROXY": "http://p1", "NO_PROXY": "other"}, "http://p1"),
        ("ws://localhost:80", {"ALL_PROXY": "http://p2"}, None),
        ("ws://127.0.0.1:80", {"ALL_PROXY": "http://p2"}, None),
        ("ws://[::1]:80", {"ALL_PROXY": "http://p2"}, None),
    ],
)
async def test_the_proxy_of_the_environment(
    url: str, names: dict[str, str], proxy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_proxies(monkeypatch, names)
    assert proxy_for(url) == proxy
    async with new_http_session(url) as session:
        assert session._default_proxy == proxy
        assert session.connector is not None
        assert session.connector.limit == 0, "any number of calls at once"


@pytest.mark.parametrize(
    ("address", "host", "by_proxy"),
    [
        ("wss://localhost", "localhost", False),
        ("wss://localhost", "proxy.lan", True),
        ("wss://örn.lan:81/x", "xn--rn-eka.lan", False),
        ("wss://örn.lan:81/x", "proxy.lan", True),
    ],
)
def test_a_name_that_is_not_known_can_be_the_proxys(
    address: str, host: str, by_proxy: bool
) -> None:
    key = ConnectionKey(host, 3128, False, True, None, None, None)
    fault = aiohttp.ClientConnectorDNSError(key, OSError(-2, "SECRET"))
    assert reason_of(fault) == f"the name {host} is not known"
    assert is_of_proxy(fault, address) is by_proxy


REACHED = Options(api_key="test", base_url="wss://tiro.invalid")


@pytest.mark.parametrize(
    ("names", "host", "port", "told"),
    [
        ({"HTTPS_PROXY": "http://p.lan:81"}, "p.lan", 81, "HTTPS_PROXY names p.lan:81"),
        ({"https_proxy": "http://p.lan"}, "p.lan", 80, "https_proxy names p.lan"),
        ({"ALL_PROXY": "https://me:S3CRET@p.lan/"}, "p.lan", 443, "ALL_PROXY names p.lan"),
        ({"WSS_PROXY": "http://S3CRET@[::1]:8"}, "::1", 8, "WSS_PROXY names [::1]:8"),
        (
            dict.fromkeys(["HTTPS_OTHER", "HTTP_PROXY", "ALL_PROXY", "HTTPS_PROXY"], "http://p:1"),
            "p",
            1,
            "HTTPS_PROXY names p:1",
        ),
    ],
)
def test_the_variable_that_names_a_proxy_that_is_not_reached_is_told(
    names: dict[str, str], host: str, port: int, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_proxies(monkeypatch, names)
    key = ConnectionKey(host, port, False, True, None, None, None)
    for fault in (
        aiohttp.ClientProxyConnectionError(key, OSError(111, "SECRET")),
        aiohttp.ClientConnectorDNSError(key, OSError(-2, "SECRET")),
    ):
        message = not_reached(fault, REACHED).message
        assert message.endswith(
            f". Check the proxy: {told}. Hosts in NO_PROXY are reached without one."
        )
        assert "S3CRET" not in message


@pytest.mark.parametrize(
    "names",
    [
        {},
        {"HTTP_PROXY": "http://p:1"},
        {"HTTPS_PROXY": "http://p:2"},
        {"HTTPS_PROXY": "http://p:99999"},
        {"HTTPS_PROXY": "http://[p"},
        {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "tiro.invalid"},
    ],
)
def test_a_proxy_of_the_callers_session_is_not_taken_for_the_environments(
    names: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_proxies(monkeypatch, names)
    key = ConnectionKey("p", 1, False, True, None, None, None)
    fault = aiohttp.ClientProxyConnectionError(key, OSError(111, "SECRET"))
    message = not_reached(fault, REACHED).message
    assert " names " not in message
    assert "HTTPS_PROXY or ALL_PROXY" in message and "the http_session" in message


def test_why_a_certificate_is_not_valid_is_told() -> None:
    why = SimpleNamespace(verify_message="certificate has expired")
    fault = aiohttp.ClientConnectorCertificateError(KEY, cast("Exception", why))
    assert "certificate has expired" in reason_of(fault)


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (aiohttp.ClientConnectorError(KEY, ConnectionRefusedError(111, "SECRET")), "refused"),
        (aiohttp.ClientProxyConnectionError(KEY, OSError(111, "SECRET")), "the proxy on the way"),
        (aiohttp.InvalidURL("SECRET"), "address of the proxy on the way is not a URL"),
        (aiohttp.ClientConnectorSSLError(KEY, ssl.SSLError(1, "SECRET")), "no reason given"),
        (asyncio.TimeoutError(), "longer than the timeout of the HTTP session"),
        (OSError("SECRET"), "OSError"),
    ],
)
def test_the_error_names_the_kind_of_fault_and_no_more(fault: Exception, told: str) -> None:
    error = not_reached(fault, OPTIONS)
    assert type(error) is APIConnectionError
    assert told in error.message
    assert "SECRET" not in error.message


# -- HTTP sessions ---------------------------------------------------------------------------------

ADDRESS = "ws://localhost"


def test_each_event_loop_has_a_session_of_its_own() -> None:
    """As in programs that run one in each of their threads."""
    own, together = OwnSessions(), threading.Barrier(3)

    async def session() -> aiohttp.ClientSession:
        used = own.get(ADDRESS)
        await asyncio.to_thread(together.wait, 10)
        assert used is own.get(ADDRESS) and not used.closed
        return used

    with ThreadPoolExecutor(3) as pool:
        used = list(pool.map(lambda _: asyncio.run(session()), range(3)))
    assert len(set(used)) == 3
    asyncio.run(own.close())
    assert all(each.closed for each in used)


def test_those_of_loops_that_are_over_are_closed_by_and_by() -> None:
    own = OwnSessions()

    async def session() -> aiohttp.ClientSession:
        return own.get(ADDRESS)

    first, second = asyncio.run(session()), asyncio.run(session())
    assert first is not second and first.closed
    asyncio.run(own.close())
    assert second.closed


def test_the_session_of_a_loop_that_runs_elsewhere_is_closed_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own, opened, closed = OwnSessions(), threading.Event(), threading.Event()
    abandon, threads = reach._abandon, list[int]()

    def noted(session: aiohttp.ClientSession) -> None:
        threads.append(threading.get_ident())
        abandon(session)

    monkeypatch.setattr(reach, "_abandon", noted)

    async def elsewhere() -> bool:
        used = own.get(ADDRESS)
        opened.set()
        await asyncio.to_thread(closed.wait, 10)
        assert threads == [threading.get_ident()]
        return used.closed

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(lambda: asyncio.run(elsewhere()))
        assert opened.wait(10)
        asyncio.run(own.close())
        closed.set()
        assert running.result(10)


@pytest.mark.parametrize("ended", [True, False])
def test_the_session_of_a_loop_that_does_not_run_is_closed(ended: bool) -> None:
    own, loop = OwnSessions(), asyncio.new_event_loop()

    async def session() -> aiohttp.ClientSession:
        return own.get(ADDRESS)

    used = loop.run_until_complete(session())
    if ended:
        loop.close()
    asyncio.run(own.close())
    assert used.closed
    loop.close()


async def test_once_they_are_closed_no_more_are_opened() -> None:
    """A stream in the loop of another thread is closed a moment later than its `STT`."""
    own = OwnSessions()
    used = own.get(ADDRESS)
    await own.close()
    await own.close()
    assert used.closed
    with pytest.raises(APIConnectionError, match="this tiro.STT is closed; make a new one"):
        own.get(ADDRESS)


async def test_one_that_was_closed_is_replaced() -> None:
    own = OwnSessions()
    first = own.get(ADDRESS)
    await first.close()
    second = own.get(ADDRESS)
    assert second is not first and not second.closed
    await own.close()
    assert second.closed
