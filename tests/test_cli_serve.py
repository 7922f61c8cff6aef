"""The `serve` command: the local server in the foreground, until it is told to stop."""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from livekit.plugins.tiro.cli.exits import Exit
from livekit.plugins.tiro.cli.serve import _reachable
from livekit.plugins.tiro.testing import TiroServer

from .support.command import (
    ICELANDIC,
    SAYS_ICELANDIC,
    Forked,
    assert_failed,
    run,
    transcribe,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def _heeds_signals() -> Iterator[None]:
    """A shell that puts the tests into the background has them ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> list[TiroServer]:
    """Has every server send this process a Ctrl-C as soon as it listens; holds those servers."""
    servers: list[TiroServer] = []
    start = TiroServer.start

    async def start_and_interrupt(self: TiroServer) -> None:
        await start(self)
        servers.append(self)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(TiroServer, "start", start_and_interrupt)
    return servers


def test_serve_prints_the_settings_and_ends_well_on_an_interrupt(
    interrupted: list[TiroServer],
) -> None:
    result = run("serve", "--port", "0", "--api-key", "it's")
    (server,) = interrupted
    assert result.exit_code == 0
    assert result.stdout == (
        f"export TIRO_BASE_URL={server.base_url}\nexport TIRO_API_KEY='it'\"'\"'s'\n"
    )
    assert result.stderr == "note: listening; Ctrl-C stops\n"


def test_serve_says_the_script_it_is_given(
    tmp_path: Path, interrupted: list[TiroServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "script.txt"
    script.write_text("Þetta er fyrsta.\n\n  Og önnur.  \n", encoding="utf-8")
    scripts: list[Any] = []
    init = TiroServer.__init__

    def note_script(self: TiroServer, **options: Any) -> None:
        scripts.append(options["script"])
        init(self, **options)

    monkeypatch.setattr(TiroServer, "__init__", note_script)
    assert run("serve", "--port", "0", "--script", str(script)).exit_code == 0
    assert scripts == [["Þetta er fyrsta.", "Og önnur."]]


@pytest.mark.parametrize(
    ("content", "code", "reason"),
    [
        (None, Exit.NO_FILE, "No such file"),
        (b"\n \n", Exit.USAGE, "no sentence"),
        (b"\xff\xfe", Exit.USAGE, "UTF-8"),
    ],
)
def test_serve_with_a_script_that_is_none(
    tmp_path: Path, content: bytes | None, code: Exit, reason: str
) -> None:
    script = tmp_path / "script.txt"
    if content is not None:
        script.write_bytes(content)
    assert_failed(run("serve", "--script", str(script)), code, str(script), reason)


def test_serve_at_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = run("serve", "--port", port)
    assert_failed(result, Exit.ADDRESS, f"127.0.0.1:{port}", "choose another --port (0 takes any")


def test_an_address_that_is_not_there() -> None:
    result = run("serve", "--host", "::ffff", "--port", "1")
    assert_failed(result, Exit.ADDRESS, "[::ffff]:1", "choose another --host")


@pytest.mark.parametrize(
    ("error", "option"),
    [
        (PermissionError(errno.EACCES, "permission denied"), "--port"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "--host"),
    ],
)
def test_an_address_that_is_not_to_be_had(
    monkeypatch: pytest.MonkeyPatch, error: OSError, option: str
) -> None:
    async def start(self: TiroServer) -> None:
        raise error

    monkeypatch.setattr(TiroServer, "start", start)
    result = run("serve", "--host", "here", "--port", "80")
    assert_failed(result, Exit.ADDRESS, f"here:80: {error.strerror}; choose another {option}")


@pytest.mark.parametrize("host", ["", "  "])
def test_an_address_that_is_empty(host: str) -> None:
    """It would let everybody in, and be printed as none."""
    result = run("serve", "--host", host)
    assert_failed(result, Exit.USAGE, "--host must not be empty: give an address, as 127.0.0.1")


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("", "--api-key must not be empty: give any, or leave --api-key out"),
        ("'a'", "--api-key must not be in quotation marks"),
        ("  ", "--api-key must not be empty"),
        ("a\tb", "--api-key must be one line without control characters"),
    ],
)
def test_a_key_that_no_client_can_give(key: str, said: str) -> None:
    """A client that is told to give it would fall back to another, or refuse."""
    assert_failed(run("serve", "--api-key", key), Exit.USAGE, said)


def test_its_key_is_the_same_each_time(interrupted: list[TiroServer]) -> None:
    """Scripts have it written down."""
    assert "export TIRO_API_KEY=local\n" in run("serve", "--port", "0").stdout


def test_a_key_is_taken_as_clients_give_it(interrupted: list[TiroServer]) -> None:
    assert "export TIRO_API_KEY=mine\n" in run("serve", "--port", "0", "--api-key", " mine ").stdout


@pytest.mark.parametrize(
    ("given", "printed"),
    [
        ("ws://127.0.0.1:80/a", "ws://127.0.0.1:80/a"),
        ("ws://0.0.0.0:80/a", "ws://127.0.0.1:80/a"),
        ("ws://[::]:80/a", "ws://[::1]:80/a"),
        ("ws://[fe80::1%eth0]:80/a", "ws://[fe80::1%25eth0]:80/a"),
    ],
)
def test_an_address_that_is_printed_can_be_connected_to(given: str, printed: str) -> None:
    assert _reachable(given) == printed


@pytest.mark.parametrize(
    ("listens", "here"), [("ws://0.0.0.0:80/a", "127.0.0.1"), ("ws://[::]:80/a", "[::1]")]
)
def test_it_says_what_other_machines_have_to_put(
    interrupted: list[TiroServer], monkeypatch: pytest.MonkeyPatch, listens: str, here: str
) -> None:
    monkeypatch.setattr(TiroServer, "base_url", property(lambda _: listens))
    result = run("serve", "--port", "0")
    assert f"//{here}:80/a" in result.stdout
    told, _ = result.stderr.splitlines()
    assert told == f"note: on other machines put this one's name or address in place of {here}"


needs_ipv6 = pytest.mark.skipif(
    not os.path.exists("/proc/net/if_inet6"), reason="there may be no IPv6 here"
)


@needs_ipv6
def test_an_ipv6_address_is_printed_as_an_address(interrupted: list[TiroServer]) -> None:
    result = run("serve", "--host", "::1", "--port", "0")
    (server,) = interrupted
    assert server.base_url.startswith("ws://[::1]:")
    assert f"'{server.base_url}'" in result.stdout


@needs_ipv6
async def test_an_ipv6_address_works_as_it_is_printed() -> None:
    async with TiroServer(host="::1") as server, aiohttp.ClientSession() as session:
        async with session.get(server.base_url.replace("ws:", "http:", 1)) as answer:
            assert answer.status == 404


def test_the_faults_are_listed() -> None:
    result = run("serve", "--fault", "help")
    assert result.exit_code == 0
    assert "disconnect" in result.stdout


def test_the_help_says_which_connections_have_a_fault() -> None:
    shown = " ".join(re.sub("[│\n]", " ", run("serve", "--help").output).split())
    assert "'disconnect:2.5@1'" in shown
    assert "without @1 every connection has it" in shown


def test_the_help_says_how_it_ends_when_it_is_stopped() -> None:
    """As `test_serve_runs_until_it_is_told_to_stop` and the one on an interrupt have it."""
    shown = " ".join(re.sub("[│\n]", " ", run("serve", "--help").output).split())
    codes = shown.partition("Exit codes:")[2]
    assert re.search("0 all went well.* stopped by Ctrl-C, SIGTERM or SIGHUP;", codes)
    assert "130 interrupted (Ctrl-C) before it listened;" in codes


def test_a_fault_that_is_none() -> None:
    assert_failed(run("serve", "--fault", "earthquake"), Exit.USAGE, "earthquake")


def test_a_system_without_such_signals(
    interrupted: list[TiroServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(signal, "SIGHUP", raising=False)
    assert run("serve", "--port", "0").exit_code == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_serve_runs_until_it_is_told_to_stop(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    with Forked("serve", "--port", "0") as started:
        for _ in range(2):
            name, value = started.output.readline().decode().removeprefix("export ").split("=")
            monkeypatch.setenv(name, value.strip())
        assert transcribe(ICELANDIC).stdout == f"{SAYS_ICELANDIC}\n"
        started.signal(number)
        assert started.wait() == 0
        assert started.output.read() == b""
        assert started.errors.read() == b"note: listening; Ctrl-C stops\n"


def test_serve_does_not_stop_for_a_signal_that_it_was_started_to_ignore() -> None:
    """As by nohup."""
    with Forked("serve", "--port", "0", ignored=[signal.SIGHUP]) as started:
        address = urlsplit(started.output.readline().decode().strip().split("=")[1])
        started.signal(signal.SIGHUP)
        for _ in range(3):
            socket.create_connection((address.hostname, address.port or 0), 10).close()
        started.signal(signal.SIGTERM)
        assert started.wait() == 0
