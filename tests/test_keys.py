"""A key that a function returns, for each connection anew; and the headers of the handshake."""

from __future__ import annotations

import asyncio
import itertools
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from livekit.agents import APIConnectionError, APIConnectOptions, APIStatusError
from livekit.plugins import tiro
from livekit.plugins.tiro.keys import with_key
from livekit.plugins.tiro.options import Options
from livekit.plugins.tiro.testing import ConnectionRecord, Hooks, StatusError, TiroServer, faults

from .support import virtual
from .support.harness import collect, frames, until, words
from .support.numbered import NumberedRecognizer, talk
from .support.session_fakes import in_virtual_time

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

KEY = "lykill-0123456789"
SAID = talk(3, 2)
ONCE = APIConnectOptions(max_retry=0, timeout=4.0)


def local(**options: Any) -> TiroServer:
    return TiroServer(
        **{"api_key": None, "recognizers": {"is": NumberedRecognizer(SAID)}, **options}
    )


def numbered_keys(*, plain: bool) -> Callable[[], Any]:
    """Return a function that returns another key each time."""
    count = itertools.count()

    async def later() -> str:
        await asyncio.sleep(0.01)
        return f"{KEY}-{next(count)}"

    return (lambda: f"{KEY}-{next(count)}") if plain else later


@pytest.mark.parametrize("plain", [True, False])
@in_virtual_time
async def test_each_connection_has_a_key_of_its_own(plain: bool) -> None:
    hooks = faults.PerConnection(faults.Disconnect(1.0), faults.Refuse(503))
    async with local(hooks=hooks) as server:
        keys = numbered_keys(plain=plain)
        async with tiro.STT(base_url=server.base_url, api_key=keys) as stt:
            events = await collect(stt.stream(), frames(SAID.pcm()), pace=0.05)
        assert [each.token for each in server.connections] == [f"{KEY}-{n}" for n in range(3)]
    assert words(events) == [word.text for word in SAID.words]


def fails(fault: BaseException) -> Callable[[], str]:
    def ask() -> str:
        raise fault

    return ask


async def waits_for_a_cancelled() -> str:
    waiting = asyncio.create_task(asyncio.sleep(60))
    waiting.cancel()
    await waiting
    return KEY


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (fails(ValueError(KEY)), "raised ValueError"),
        (fails(APIStatusError(KEY, status_code=401)), "raised APIStatusError"),
        (lambda: "", "returned nothing"),
        (lambda: f"{KEY}\n{KEY}", "returned more than one line"),
        (waits_for_a_cancelled, "was cancelled"),
    ],
)
def test_a_function_that_gives_no_key_is_an_error_that_tells_nothing(
    source: Callable[[], Any], told: str
) -> None:
    async def ask() -> None:
        await with_key(Options(api_key=source), 1.0)

    with pytest.raises(APIConnectionError, match=f"as api_key {told}") as raised:
        virtual.run(ask())
    assert raised.value.retryable
    assert KEY not in "".join(traceback.format_exception(raised.value))
    assert raised.value.__cause__ is None and raised.value.__context__ is None


async def later(value: Any) -> Any:
    await asyncio.sleep(0.01)
    return value


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, "returned None, which is not a key"),
        (7, "returned a value of type int, which is not a key"),
        (KEY.encode(), "returned a value of type bytes, which is not a key"),
        ([KEY], "returned a value of type list, which is not a key"),
        (f"'{KEY}'", "returned it in quotation marks"),
    ],
)
@pytest.mark.parametrize("plain", [True, False])
@in_virtual_time
async def test_a_function_that_returns_no_text_is_asked_once(
    plain: bool, value: Any, told: str
) -> None:
    """Asked again it would do so again: three retries would only delay the error."""
    asked: list[None] = []

    def ask() -> Any:
        asked.append(None)
        return value if plain else later(value)

    async with local() as server, tiro.STT(base_url=server.base_url, api_key=ask) as stt:
        with pytest.raises(APIConnectionError, match=f"as api_key {told}. It must return") as error:
            await collect(stt.stream(), frames(SAID.pcm()))
        assert len(asked) == 1 and not server.connections
    assert KEY not in "".join(traceback.format_exception(error.value))


async def assert_given_up(hangs: Callable[[], Awaitable[str]], *, within: float) -> None:
    """The key may take half of the timeout, as a handshake may."""
    async with local() as server, tiro.STT(base_url=server.base_url, api_key=hangs) as stt:
        began = asyncio.get_running_loop().time()
        with pytest.raises(APIConnectionError, match="took more than 2 s"):
            await collect(stt.stream(conn_options=ONCE), frames(SAID.pcm()))
        assert asyncio.get_running_loop().time() - began == pytest.approx(2.0, abs=within)
        assert not server.connections


@in_virtual_time
async def test_a_function_that_takes_too_long_is_given_up() -> None:
    over = asyncio.Event()

    async def hangs() -> str:
        try:
            await asyncio.sleep(3600)
        finally:
            over.set()
        return KEY

    await assert_given_up(hangs, within=0.1)
    assert over.is_set()


@in_virtual_time
async def test_a_function_that_will_not_be_cancelled_is_given_up_too() -> None:
    over = asyncio.Event()

    async def hangs() -> str:
        while not over.is_set():
            with suppress(asyncio.CancelledError):
                await over.wait()
        return KEY

    await assert_given_up(hangs, within=0.2)
    over.set()
    await asyncio.sleep(0)


@in_virtual_time
async def test_closing_does_not_wait_for_the_key() -> None:
    asked = asyncio.Event()

    async def hangs() -> str:
        asked.set()
        await asyncio.sleep(3600)
        return KEY

    async with tiro.STT(base_url="ws://127.0.0.1:9", api_key=hangs) as stt:
        stream = stt.stream()
        await asked.wait()
        began = asyncio.get_running_loop().time()
        await stream.aclose()
        assert asyncio.get_running_loop().time() - began < 0.5


@in_virtual_time
async def test_a_key_service_that_is_down_for_a_moment_costs_nothing() -> None:
    """In a call that is under way it is asked again, as a refused handshake is tried again."""
    answers = iter([KEY, "", "", KEY])
    hooks = faults.PerConnection(faults.Disconnect(1.0))
    async with local(hooks=hooks) as server:
        async with tiro.STT(base_url=server.base_url, api_key=lambda: next(answers)) as stt:
            events = await collect(stt.stream(), frames(SAID.pcm()), pace=0.05)
        assert len(server.connections) == 2
    assert words(events) == [word.text for word in SAID.words]


class Expires(Hooks):
    """The first key is good for so many seconds of audio, and refused from then on."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._refused: str | None = None

    async def audio(self, connection: ConnectionRecord, pcm: bytes) -> None:
        if self._refused is None and connection.seconds >= self._seconds:
            self._refused = connection.token
        if connection.token == self._refused:
            raise StatusError(16, "the token is out of date")


@pytest.mark.parametrize("seconds", [1.3, 2.6])
@in_virtual_time
async def test_a_key_that_is_out_of_date_in_a_call_is_asked_for_anew(seconds: float) -> None:
    async with local(hooks=Expires(seconds)) as server:
        failures: list[object] = []
        async with tiro.STT(base_url=server.base_url, api_key=numbered_keys(plain=True)) as stt:
            stt.on("error", failures.append)
            events = await collect(stt.stream(), frames(SAID.pcm()), pace=0.05)
        assert [each.token for each in server.connections] == [f"{KEY}-0", f"{KEY}-1"]
    assert words(events) == [word.text for word in SAID.words]
    assert not failures


class OnlyTheSecond(Hooks):
    """Refuses the first key, when the config comes: nothing is answered before that."""

    async def first_message(self, connection: ConnectionRecord) -> None:
        if connection.token != f"{KEY}-1":
            raise StatusError(16, "expired")


@pytest.mark.parametrize(("muted", "heard"), [(60, True), (1, False)])
@in_virtual_time
async def test_a_key_can_run_out_before_anybody_speaks(muted: float, heard: bool) -> None:
    """A connection is opened before there is audio; if it is refused at once, the key is bad."""
    async with local(hooks=OnlyTheSecond()) as server:
        async with tiro.STT(base_url=server.base_url, api_key=numbered_keys(plain=True)) as stt:
            stream = stt.stream()
            await asyncio.sleep(muted)
            if heard:
                events = await collect(stream, frames(SAID.pcm()), pace=0.05)
                assert words(events) == SAID.texts
            else:
                with pytest.raises(APIStatusError, match="Check the key"):
                    await collect(stream, frames(SAID.pcm()), pace=0.05)


@in_virtual_time
async def test_a_key_that_is_out_of_date_and_stays_so_ends_the_stream() -> None:
    async with local(hooks=Expires(1.3)) as server:
        async with tiro.STT(base_url=server.base_url, api_key=KEY) as stt:
            with pytest.raises(APIStatusError, match="Check the key") as caught:
                await collect(stt.stream(), frames(SAID.pcm()), pace=0.05)
        assert (caught.value.status_code, len(server.connections)) == (401, 2)


@pytest.mark.parametrize("of", ["stt", "stream"])
@in_virtual_time
async def test_a_new_key_is_used_from_the_next_connection_on(of: str) -> None:
    hooks = faults.PerConnection(faults.Disconnect(2.0))
    async with local(hooks=hooks) as server:
        async with tiro.STT(base_url=server.base_url, api_key="first") as stt:
            stream = stt.stream()
            hearing = asyncio.create_task(collect(stream, frames(SAID.pcm()), pace=0.05))
            await until(lambda: bool(server.connections) and server.connections[0].seconds > 0.5)
            target: Any = stt if of == "stt" else stream
            target.update_options(api_key=lambda: "second", extra_headers={"X-Tenant": "b"})
            events = await hearing
            assert [(each.token, each.headers.get("x-tenant")) for each in server.connections] == [
                ("first", None),
                ("second", "b"),
            ], "and nothing is broken off for it"
            with pytest.raises(ValueError, match="api_key must not be empty"):
                target.update_options(api_key="")
    assert words(events) == [word.text for word in SAID.words]


@in_virtual_time
async def test_headers_go_with_each_handshake() -> None:
    hooks = faults.PerConnection(faults.Disconnect(1.0))
    headers = {"X-Tenant": "talgreining", "Authorization": f"Bearer {KEY}"}
    async with local(hooks=hooks) as server:
        async with tiro.STT(base_url=server.base_url, api_key="test", extra_headers=headers) as stt:
            await collect(stt.stream(), frames(SAID.pcm()))
        assert len(server.connections) == 2
        for each in server.connections:
            assert each.headers["x-tenant"] == "talgreining"
            assert each.headers["authorization"] == f"Bearer {KEY}"
            assert KEY not in repr(each)


@pytest.mark.parametrize("tells", ["its own", "the one before", "a header", "a header's last word"])
@in_virtual_time
async def test_what_the_service_repeats_is_taken_out(tells: str) -> None:
    said = {
        "its own": f"bad {KEY}-1 here",
        "the one before": f"bad {KEY}-0 here",
        "a header": "bad Basic c2VjcmV0MTIz here",
        "a header's last word": "bad c2VjcmV0MTIz here",
    }[tells]
    refusal = faults.Fail(16, message=said)
    hooks = faults.PerConnection(faults.Disconnect(1.0), refusal)
    async with local(hooks=hooks) as server:
        async with tiro.STT(
            base_url=server.base_url,
            api_key=numbered_keys(plain=True),
            extra_headers={"X-Login": "Basic c2VjcmV0MTIz"},
        ) as stt:
            with pytest.raises(APIStatusError) as raised:
                await collect(stt.stream(conn_options=ONCE), frames(SAID.pcm()), pace=0.05)
    assert "UNAUTHENTICATED: bad [key] here" in raised.value.message
