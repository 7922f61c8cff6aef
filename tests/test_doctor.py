"""The `doctor` command: what it finds, what it says about it, and what it never says."""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
import trustme
from typer.testing import CliRunner

from livekit.agents import APIConnectOptions
from livekit.plugins.tiro.cli import app, hearing
from livekit.plugins.tiro.cli.exits import Exit
from livekit.plugins.tiro.testing import ConnectionRecord, Drop, HandshakeRefusal, Hooks, TiroServer
from livekit.plugins.tiro.testing.faults import StalledHandshake
from livekit.plugins.tiro.testing.wire import INTERNAL, StatusError

from .support.command import FOX

if TYPE_CHECKING:
    from pathlib import Path

KEY = "kanarí/lykill+1%"
# The package has a function of the same name.
DOCTOR = importlib.import_module("livekit.plugins.tiro.cli.doctor")
CHECKS = [
    "versions",
    "python",
    "key",
    "address",
    "dns",
    "connect",
    "tls",
    "clock",
    "stream",
    "audio",
]

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIRO_API_KEY", KEY)


async def examine(*arguments: str) -> dict[str, tuple[str, str]]:
    """Run the command, and return the verdict and the text of each check."""
    result = await asyncio.to_thread(CliRunner().invoke, app, ["doctor", *arguments])
    return findings(result.output, result.exit_code)


def findings(output: str, exit_code: int) -> dict[str, tuple[str, str]]:
    """Read the output, and check what must hold whatever was found."""
    for secret in (KEY, quote(KEY), quote(KEY, safe="")):
        assert secret not in output
    *lines, summary = output.splitlines()
    found = {}
    for line in lines:
        verdict, check, text = line.split(maxsplit=2)
        found[check] = verdict, text
    assert list(found) == CHECKS
    failed = sum(verdict == "failed" for verdict, _ in found.values())
    well = "all is well; `probe` measures how the service behaves"
    assert summary == (f"{failed} failed" if failed else well)
    assert exit_code == (1 if failed else 0)
    return found


def failures(found: dict[str, tuple[str, str]]) -> dict[str, str]:
    return {check: text for check, (verdict, text) in found.items() if verdict == "failed"}


@asynccontextmanager
async def listener(handle: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Yield host and port of a TCP server."""
    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield f"localhost:{server.sockets[0].getsockname()[1]}"


def answering(*headers: str) -> Handler:
    """Return a handler that answers any request with these headers."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        lines = ["HTTP/1.1 405 Method Not Allowed", "Content-Length: 0", *headers, "", ""]
        writer.write("\r\n".join(lines).encode())
        writer.close()

    return handle


# -- a service that works ------------------------------------------------------------------------


async def test_all_is_well() -> None:
    async with TiroServer(api_key=KEY) as server:
        found = await examine("--base-url", server.base_url)
    assert failures(found) == {}
    versions = dict(part.split() for part in found["versions"][1].split(", "))
    assert versions == {name: importlib.metadata.version(name) for name in versions}
    assert "livekit-plugins-tiro" in versions and "livekit-agents" in versions
    assert found["key"][1] == "from TIRO_API_KEY"
    assert found["address"][1] == f"{server.base_url} (from --base-url), language is-IS"
    assert found["audio"][1] == "a second of silence was heard and answered"
    (connection,) = server.connections
    assert connection.seconds == 1.0 and connection.ended


async def test_settings_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIRO_SPEECH_KEY", KEY)
    monkeypatch.delenv("TIRO_API_KEY")
    async with TiroServer(api_key=KEY) as server:
        monkeypatch.setenv("TIRO_BASE_URL", server.base_url)
        found = await examine("--language", "icelandic")
    assert failures(found) == {}
    assert found["key"][1] == "from TIRO_SPEECH_KEY"
    assert found["address"][1] == f"{server.base_url} (from TIRO_BASE_URL), language is-IS"


async def test_silence_need_not_be_answered() -> None:
    class Mute(Hooks):
        async def frame(self, connection: ConnectionRecord, text: str) -> str | None:
            return None

    async with TiroServer(api_key=KEY, hooks=Mute()) as server:
        found = await examine("--base-url", server.base_url)
    assert failures(found) == {}
    assert "without a word" in found["audio"][1]


# -- the key and the address ---------------------------------------------------------------------


async def test_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TIRO_API_KEY")
    async with TiroServer() as server:
        found = await examine("--base-url", server.base_url)
    assert found["key"][0] == "failed"
    assert "TIRO_API_KEY or TIRO_SPEECH_KEY" in found["key"][1]
    assert found["clock"][0] == "ok", "what needs no key is checked all the same"
    assert found["stream"] == ("skipped", "it needs a key")
    assert server.connections == []


async def test_key_that_cannot_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIRO_API_KEY", " \n")
    async with TiroServer() as server:
        found = await examine("--base-url", server.base_url)
    assert list(failures(found)) == ["key"]
    assert found["key"][1].startswith("TIRO_API_KEY must not be empty")


async def test_refused_key() -> None:
    async with TiroServer(api_key="another") as server:
        found = await examine("--base-url", server.base_url)
    assert list(failures(found)) == ["audio"]
    assert "UNAUTHENTICATED" in found["audio"][1] and "Check the key" in found["audio"][1]


class Absent(Hooks):
    """As a service that is somewhere else."""

    async def handshake(self, connection: ConnectionRecord) -> HandshakeRefusal | None:
        return HandshakeRefusal(404)


async def test_key_refused_at_the_handshake() -> None:
    class Guarded(Hooks):
        async def handshake(self, connection: ConnectionRecord) -> HandshakeRefusal | None:
            return HandshakeRefusal(401)

    async with TiroServer(hooks=Guarded()) as server:
        found = await examine("--base-url", server.base_url)
    assert list(failures(found)) == ["stream"]
    assert "HTTP 401" in found["stream"][1] and "Check the key" in found["stream"][1]
    assert found["audio"] == ("skipped", "it needs a stream")


async def test_service_that_repeats_the_key() -> None:
    class Talkative(Hooks):
        async def first_message(self, connection: ConnectionRecord) -> None:
            raise StatusError(INTERNAL, f"cannot look up {connection.token}")

    async with TiroServer(hooks=Talkative()) as server:
        found = await examine("--base-url", server.base_url)
    assert "cannot look up [key]" in failures(found)["audio"]


async def test_address_that_is_none_is_named_by_where_it_is_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TIRO_BASE_URL", "nonsense")
    assert failures(await examine())["address"].startswith("TIRO_BASE_URL must be ")


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--base-url", "nonsense", "--base-url must be "),
        ("--language", "?", "--language must be a BCP-47 tag"),
        ("--language", "english", "--language must be a BCP-47 tag"),
    ],
)
def test_an_option_that_cannot_be_right_is_no_finding(option: str, value: str, told: str) -> None:
    result = CliRunner().invoke(app, ["doctor", option, value])
    assert (result.exit_code, result.stdout) == (Exit.USAGE, "")
    assert result.stderr.startswith(f"error: {told}")
    transcribed = CliRunner().invoke(app, ["transcribe", FOX, option, value])
    assert (transcribed.exit_code, transcribed.stderr) == (Exit.USAGE, result.stderr)


async def test_an_empty_address_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIRO_BASE_URL", "ws://127.0.0.1:1")
    found = {each.check: each async for each in DOCTOR.examine("", "is-IS")}
    assert found["address"].verdict == "failed"
    assert found["address"].text.startswith("base_url must not be empty")


async def test_key_in_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIRO_BASE_URL", f"wss://example.invalid/v2beta1?token={KEY}")
    found = await examine()
    assert "must hold no query" in failures(found)["address"]
    assert found["dns"] == ("skipped", "it needs an address")
    found = await examine("--base-url", f"ws://127.0.0.1:1/{KEY}")
    assert "ws://127.0.0.1:1/[key] (from --base-url)" in found["address"][1]


@pytest.mark.parametrize(
    ("path", "named"), [("", "/"), ("/", "/"), ("/v2", "/v2"), ("/v2beta1/v2", "/v2beta1/v2")]
)
async def test_wrong_path(path: str, named: str) -> None:
    async with TiroServer(api_key=KEY) as server:
        found = await examine("--base-url", server.base_url.replace("/v2beta1", path))
    assert list(failures(found)) == ["audio"]
    assert "404" in found["audio"][1] and "Check --base-url or TIRO_BASE" in found["audio"][1]
    told = f" Its path is {named}, where Tiro's own address has /v2beta1."
    assert found["audio"][1].endswith(told)


async def test_wrong_path_for_the_handshake() -> None:
    async with TiroServer(api_key=KEY, hooks=Absent()) as server:
        found = await examine("--base-url", server.base_url.replace("/v2beta1", ""))
    assert list(failures(found)) == ["stream"]
    assert "Its path is /, where" in found["stream"][1]


@pytest.mark.parametrize("end", ["", "/", "/speech:streamingrecognize"])
async def test_right_path_is_not_blamed(end: str) -> None:
    async with TiroServer(api_key=KEY, hooks=Absent()) as server:
        found = await examine("--base-url", f"{server.base_url}{end}")
    assert "HTTP 404" in failures(found)["stream"]
    assert "path" not in found["stream"][1]


async def test_language_that_the_service_does_not_know() -> None:
    async with TiroServer(api_key=KEY) as server:
        found = await examine("--base-url", server.base_url, "--language", "de-DE")
    said = failures(found)["audio"]
    assert "de-DE" in said and "(--language)" in said


# -- the way there -------------------------------------------------------------------------------


async def test_name_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nobody(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", nobody)
    found = await examine("--base-url", "wss://tiro.invalid/v2beta1")
    assert list(failures(found)) == ["dns"]
    assert "tiro.invalid: the name tiro.invalid is not known" in found["dns"][1]
    assert found["connect"] == ("skipped", "it needs a host that is known")
    assert found["tls"] == ("skipped", "it needs a connection")


@pytest.mark.parametrize("scheme", ["ws", "wss"])
async def test_nobody_listens(scheme: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{unused.getsockname()[1]}"
        found = await examine("--base-url", f"{scheme}://{host}/v2beta1")
    assert list(failures(found)) == ["connect"]
    assert f"could not connect to Tiro at {host}: Connection refused" in found["connect"][1]
    skipped = ("tls", "clock", "stream", "audio")
    assert [found[check][0] for check in skipped] == ["skipped"] * 4


async def test_host_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    monkeypatch.setattr(DOCTOR, "_TIMEOUT", 0.2)
    async with listener(wait) as host:
        found = await examine("--base-url", f"ws://{host}")
    assert "within 0.2 s" in failures(found)["connect"]


async def test_a_handshake_that_takes_longer_than_an_agent_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert DOCTOR._AGENT_TIMEOUT == 5.0
    monkeypatch.setattr(DOCTOR, "_AGENT_TIMEOUT", 0.2)
    async with TiroServer(api_key=KEY, hooks=StalledHandshake(1.0)) as server:
        found = await examine("--base-url", server.base_url)
    assert "within 0.2 s" in failures(found)["stream"]


async def test_host_that_hangs_up_on_plain_requests() -> None:
    """It can be a service all the same, so a stream is tried."""

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async with listener(hang_up) as host:
        found = await examine("--base-url", f"ws://{host}")
    assert list(failures(found)) == ["stream"]
    assert found["clock"] == ("skipped", "it needs a service that tells the time")


async def test_proxy_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSS_PROXY", f"http://me:{quote(KEY, safe='')}@127.0.0.1:1")
    found = await examine("--base-url", "wss://tiro.invalid/v2beta1")
    assert found["dns"] == ("skipped", "a proxy is set, and looks the name up")
    assert list(failures(found)) == ["connect"]
    assert "Check the proxy: WSS_PROXY names 127.0.0.1:1." in found["connect"][1]


@pytest.mark.parametrize("proxy", ["socks5://{}", "SOCKS5H://me:{}@{}"])
async def test_proxy_that_speaks_socks(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether or not anybody listens there: no connection to it is tried."""
    asked = False

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked = True
        writer.close()

    async with listener(listen) as host:
        where = (quote(KEY, safe=""), host) if "@" in proxy else (host,)
        monkeypatch.setenv("ALL_PROXY", proxy.format(*where))
        found = await examine("--base-url", "wss://tiro.invalid/v2beta1")
    assert list(failures(found)) == ["connect"] and not asked
    assert "the proxy on the way speaks SOCKS, and aiohttp only HTTP" in found["connect"][1]


async def test_doctor_says_of_a_socks_proxy_what_transcribe_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    monkeypatch.setattr(hearing, "_CONNECT", APIConnectOptions(0, 0.0, 5.0))
    address = ("--base-url", "wss://tiro.invalid/v2beta1")
    found = await examine(*address)
    heard = await asyncio.to_thread(CliRunner().invoke, app, ["transcribe", FOX, *address])
    assert heard.stderr == f"error: {FOX}: {found['connect'][1]}\n"


# Without TLS, any other answer than 407 can be one of the service.
@pytest.mark.parametrize(("scheme", "status"), [("ws", 407), ("wss", 407), ("wss", 403)])
async def test_proxy_that_refuses(
    scheme: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n".encode())
        writer.close()

    async with listener(refuse) as host:
        monkeypatch.setenv("ALL_PROXY", f"http://{host}")
        found = await examine("--base-url", f"{scheme}://tiro.invalid/v2beta1")
    assert list(failures(found)) == ["connect"]
    told = f"the proxy on the way to Tiro answered HTTP {status}. Check address, user and password"
    assert found["connect"][1].startswith(told)


def tls_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context


async def test_certificate_that_is_not_trusted() -> None:
    async with listener(answering(), tls_context(trustme.CA())) as host:
        found = await examine("--base-url", f"wss://{host}")
    assert list(failures(found)) == ["tls"]
    assert found["connect"] == ("ok", f"{host} was reached")
    assert "its certificate is not valid: " in found["tls"][1]


async def test_host_that_speaks_no_tls() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with listener(answer) as host:
        found = await examine("--base-url", f"wss://{host}")
    assert list(failures(found)) == ["tls"]
    told = found["tls"][1]
    assert f"could not connect to Tiro at {host}: the TLS handshake failed (" in told
    advice = "(WRONG_VERSION_NUMBER). If the server has no TLS, use ws://. Check the network"
    assert told.count(advice) == told.count("WRONG_VERSION_NUMBER")


async def test_certificate_that_is_trusted(tmp_path: Path) -> None:
    """In a process of its own, where the authority is one of the machine's."""
    authority, trusted = trustme.CA(), tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(trusted))

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = int(server.base_url.rpartition(":")[2].partition("/")[0])
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pipe(reader, there_writer), pipe(there_reader, writer))

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async with TiroServer(api_key=KEY) as server:
        async with listener(relay, tls_context(authority)) as host:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "livekit.plugins.tiro", "doctor"),
                *("--base-url", f"wss://{host}/v2beta1"),
                stdout=subprocess.PIPE,
                env={**os.environ, "SSL_CERT_FILE": str(trusted)},
            )
            output, _ = await asyncio.wait_for(process.communicate(), 30)
    found = findings(output.decode(), process.returncode or 0)
    assert failures(found) == {}
    assert found["tls"][1] == "the certificate is valid"


# -- the clock -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("date", "verdict", "text"),
    [
        ("Thu, 01 Jan 2015 00:00:00 GMT", "failed", "s ahead of the service's: set it"),
        ("Thu, 01 Jan 2099 00:00:00 GMT", "failed", "s behind the service's: set it"),
        ("half past nine", "skipped", "in a way of its own"),
    ],
)
async def test_clock(date: str, verdict: str, text: str) -> None:
    async with listener(answering(f"Date: {date}")) as host:
        found = await examine("--base-url", f"ws://{host}")
    assert found["clock"][0] == verdict and text in found["clock"][1]


# -- the stream ----------------------------------------------------------------------------------


async def test_stream_that_drops() -> None:
    class Dropping(Hooks):
        async def audio(self, connection: ConnectionRecord, pcm: bytes) -> None:
            if connection.seconds >= 0.5:
                raise Drop

    async with TiroServer(api_key=KEY, hooks=Dropping()) as server:
        found = await examine("--base-url", server.base_url)
    assert "in the middle of the audio" in failures(found)["audio"]


async def test_stream_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stuck(Hooks):
        async def end(self, connection: ConnectionRecord) -> None:
            await asyncio.sleep(60)

    monkeypatch.setattr(DOCTOR, "DRAIN_TIMEOUT", 0.2)
    async with TiroServer(api_key=KEY, hooks=Stuck()) as server:
        found = await examine("--base-url", server.base_url)
    assert "did not answer within 0.2 s" in failures(found)["audio"]
