"""`STT.prewarm()`: what the first HTTP session of a process costs is paid ahead of the call."""

from __future__ import annotations

import logging
import ssl
from typing import TYPE_CHECKING, Any

import aiohttp
import psutil
import pytest

from livekit.agents import utils
from livekit.plugins import tiro

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def contexts(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[ssl.SSLContext]]:
    """The TLS settings that are made, in a process that has made none yet."""
    made: list[ssl.SSLContext] = []
    create = ssl.create_default_context

    def note(*args: Any, **options: Any) -> ssl.SSLContext:
        made.append(create(*args, **options))
        return made[-1]

    monkeypatch.setattr(ssl, "create_default_context", note)
    utils.http_context._ssl_context_for.cache_clear()
    yield made
    utils.http_context._ssl_context_for.cache_clear()


def new_stt(**options: Any) -> tiro.STT:
    return tiro.STT(base_url="wss://127.0.0.1:9", api_key="test", **options)


def test_without_it_the_first_session_of_a_process_reads_the_certificates(
    contexts: list[ssl.SSLContext],
) -> None:
    """What this file is about: were it not so any more, `prewarm` could go."""
    utils.http_context._create_ssl_context()
    assert len(contexts) == 1


async def test_the_first_session_of_a_job_finds_all_there(contexts: list[ssl.SSLContext]) -> None:
    new_stt().prewarm()
    (built,) = contexts
    async with utils.http_context.open() as job, new_stt() as stt:
        assert stt._http_session() is job
        assert isinstance(job.connector, aiohttp.TCPConnector)
        assert job.connector._ssl is built
    assert contexts == [built]


def test_it_needs_no_loop_opens_nothing_and_may_be_called_again(
    contexts: list[ssl.SSLContext],
) -> None:
    process = psutil.Process()
    stt = new_stt()
    before = process.num_fds(), process.num_threads()
    stt.prewarm()
    stt.prewarm()
    new_stt().prewarm()
    assert (process.num_fds(), process.num_threads()) == before
    assert len(contexts) == 1
    assert not stt._own_sessions._by_loop


async def test_a_session_of_the_callers_own_needs_none(contexts: list[ssl.SSLContext]) -> None:
    async with aiohttp.ClientSession() as session:
        new_stt(http_session=session).prewarm()
    assert not contexts


def test_certificates_that_can_not_be_read_are_left_for_the_call_to_report(
    contexts: list[ssl.SSLContext],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An agent server does not start processes whose set-up raises."""
    bad = tmp_path / "bad.pem"
    for content in (None, "no certificate"):
        if content:
            bad.write_text(content)
        monkeypatch.setenv("SSL_CERT_FILE", str(bad))
        new_stt().prewarm()
    assert not contexts
    records = [r for r in caplog.records if r.name == "livekit.plugins.tiro"]
    assert [record.levelno for record in records] == [logging.DEBUG] * 2


def test_a_framework_that_builds_them_otherwise_is_left_alone(
    contexts: list[ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(utils.http_context, "_create_ssl_context")
    new_stt().prewarm()
    assert not contexts
