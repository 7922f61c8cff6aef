"""Which service `transcribe` uses, and what it says when there is none."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from livekit.plugins.tiro import STT
from livekit.plugins.tiro.cli.exits import CliError, Exit
from livekit.plugins.tiro.cli.service import Service


async def opened(service: Service) -> dict[str, Any]:
    """The settings of the STT that a service gives."""
    async with service.open() as engine:
        return vars(engine._options) if isinstance(engine, STT) else {}


async def fails(service: Service, code: Exit, reason: str) -> None:
    with pytest.raises(CliError, match=reason) as caught:
        await opened(service)
    assert caught.value.code is code
    assert "tiro.STT" not in str(caught.value)


async def test_the_key_and_the_address_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TIRO_API_KEY", "secret")
    monkeypatch.setenv("TIRO_BASE_URL", "ws://127.0.0.1:9/a")
    found = await opened(Service("icelandic"))
    assert (found["api_key"], found["base_url"]) == ("secret", "ws://127.0.0.1:9/a")
    assert found["language"] == "is-IS"


async def test_an_address_that_is_given_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIRO_API_KEY", "secret")
    monkeypatch.setenv("TIRO_BASE_URL", "ws://127.0.0.1:9/a")
    found = await opened(Service("is-IS", "ws://127.0.0.1:9/b"))
    assert found["base_url"] == "ws://127.0.0.1:9/b"


async def test_settings_are_those_of_the_stt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIRO_API_KEY", "secret")
    settings = {"max_alternatives": 3, "diarization": True, "punctuate": False}
    found = await opened(Service("is-IS", settings=settings))
    assert {name: found[name] for name in settings} == settings


async def test_without_a_key_there_is_a_way_to_try_it() -> None:
    await fails(Service("is-IS"), Exit.NO_KEY, "TIRO_API_KEY .* --local")


async def test_settings_that_are_not_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIRO_API_KEY", "secret")
    await fails(Service("!"), Exit.USAGE, "--language must")
    await fails(Service("is-IS", "nowhere"), Exit.USAGE, "--base-url must")
    await fails(Service("!", local=True), Exit.USAGE, "--language must")


async def test_what_is_not_valid_in_the_environment_is_named_by_its_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TIRO_SPEECH_KEY", " ")
    await fails(Service("is-IS"), Exit.USAGE, "^TIRO_SPEECH_KEY must not be empty")
    monkeypatch.setenv("TIRO_API_KEY", "secret")
    monkeypatch.setenv("TIRO_BASE_URL", "wss://host?token=secret")
    await fails(Service("is-IS"), Exit.USAGE, "^TIRO_BASE_URL must .*; pass the key as TIRO_API")


async def test_a_server_is_started_and_stopped(capsys: pytest.CaptureFixture[str]) -> None:
    found = await opened(Service("is-IS", local=True))
    assert found["base_url"].startswith("ws://127.0.0.1:")
    assert capsys.readouterr().err.startswith("note: the local server does not know Icelandic")


async def test_english_needs_no_remark(capsys: pytest.CaptureFixture[str]) -> None:
    assert (await opened(Service("en-US", local=True)))["language"] == "en-US"
    assert capsys.readouterr().err == ""


async def test_a_language_that_the_local_server_does_not_know() -> None:
    said = "^the local server does not know the language sv-SE: it recognises en-US, and for is-IS"
    await fails(Service("sv_se", local=True), Exit.SERVICE, said)


@pytest.mark.parametrize("tag", ["en", "en-GB", "is", "is-IS-x-exp"])
async def test_a_language_that_the_local_server_knows(tag: str) -> None:
    assert await opened(Service(tag, local=True))


async def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    how = "pip install pocketsphinx"
    await fails(Service("en-US", local=True), Exit.MISSING_EXTRA, how)
