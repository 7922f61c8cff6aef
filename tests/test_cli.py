"""The command line from outside: what it prints, where, and with which exit code it ends."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from livekit.agents import APIConnectOptions
from livekit.plugins.tiro.__main__ import main
from livekit.plugins.tiro.cli import hearing
from livekit.plugins.tiro.cli.exits import Exit
from livekit.plugins.tiro.cli.formats import Format
from livekit.plugins.tiro.testing import Drop, HandshakeRefusal, Hooks, Session, TiroServer

from .support.command import (
    FOX,
    ICELANDIC,
    KEY,
    SAYS_FOX,
    SAYS_ICELANDIC,
    SAYS_TWO,
    SILENCE,
    TWO,
    ServerThread,
    assert_failed,
    process,
    transcribe,
)
from .support.recordings import Sound, tone, write, write_wav


@pytest.fixture(autouse=True)
def _asyncio_debug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONASYNCIODEBUG", "1")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[TiroServer]:
    """A server that the environment points at, with its key."""
    with ServerThread() as started:
        monkeypatch.setenv("TIRO_BASE_URL", started.base_url)
        monkeypatch.setenv("TIRO_API_KEY", KEY)
        yield started


# -- what is heard -------------------------------------------------------------------------------


def test_english_is_recognised_by_the_local_server() -> None:
    result = transcribe("--local", "--language", "en-US", FOX)
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{SAYS_FOX}\n", "")


def test_word_times_rise_and_lie_inside_the_file() -> None:
    result = transcribe("--local", "--language", "en-US", "--format", "json", TWO)
    record = json.loads(result.stdout)
    first, second = record["segments"]
    assert second["text"] == SAYS_TWO
    assert record["text"] == f"{first['text']} {SAYS_TWO}"
    assert record["language"] == "en-US"
    assert record["complete"] is True
    words = [*first["words"], *second["words"]]
    assert " ".join(word["word"] for word in words) == record["text"]
    assert all(word["start"] < word["end"] for word in words)
    assert all(before["end"] <= after["start"] for before, after in pairwise(words))
    assert 0 <= words[0]["start"] < words[-1]["end"] <= record["duration"] == 9.485


def test_icelandic_is_printed_and_said_to_be_a_script() -> None:
    result = transcribe("--local", ICELANDIC)
    assert result.stdout == f"{SAYS_ICELANDIC}\n"
    assert result.stderr.startswith("note: the local server does not know Icelandic")


def test_a_service_elsewhere_gets_the_audio_and_the_language(server: TiroServer) -> None:
    result = transcribe(ICELANDIC, "--language", "icelandic")
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{SAYS_ICELANDIC}\n", "")
    session = server.sessions[0]
    assert session.language == "is-IS"
    assert session.sample_rate == 16000
    assert session.ended


def test_the_base_url_option_comes_before_the_environment(
    server: TiroServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIRO_BASE_URL", "ws://127.0.0.1:9/v2beta1")
    assert transcribe(ICELANDIC, "--base-url", server.base_url).exit_code == 0


def test_times_are_those_of_the_film(tmp_path: Path, server: TiroServer) -> None:
    late = Sound(tone(2.0, 16000), stamp=lambda at: at + 2.0)
    path = write(tmp_path / "a.mkv", late, picture=5.0)
    record = json.loads(transcribe(str(path), "--format", "json").stdout)
    assert record["segments"][0]["start"] == pytest.approx(2.0, abs=0.1)
    assert record["segments"][0]["words"][0]["start"] == record["segments"][0]["start"]
    assert record["duration"] == 4.0


def test_realtime_sends_no_faster_than_speech(tmp_path: Path, server: TiroServer) -> None:
    path = write_wav(tmp_path / "a.wav", tone(0.8, 16000))
    assert transcribe(str(path), "--realtime").exit_code == 0
    session = server.sessions[0]
    assert session.closed_at is not None
    assert session.closed_at - session.opened_at > 0.6


# -- formats and places --------------------------------------------------------------------------


def test_subtitles(server: TiroServer) -> None:
    result = transcribe(TWO, "--format", "srt")
    assert re.match(r"1\n00:00:0\d,\d{3} --> 00:00:0\d,\d{3}\nGóðan daginn", result.stdout)
    assert transcribe(TWO, "--format", "vtt").stdout.startswith("WEBVTT\n\n00:00:0")


@pytest.mark.parametrize("form", list(Format))
def test_output_to_a_file(tmp_path: Path, server: TiroServer, form: Format) -> None:
    path = tmp_path / "out"
    path.write_text("x" * 10_000)
    result = transcribe(ICELANDIC, "--format", form.value, "--output", str(path))
    assert (result.exit_code, result.stdout) == (0, "")
    assert path.read_text("utf-8") == transcribe(ICELANDIC, "--format", form.value).stdout


def test_output_of_silence_replaces_what_was_there(tmp_path: Path, server: TiroServer) -> None:
    path = tmp_path / "out.txt"
    path.write_text("old")
    transcribe(SILENCE, "--output", str(path))
    assert path.read_text() == ""


# -- failures ------------------------------------------------------------------------------------


def test_no_key() -> None:
    assert_failed(transcribe(FOX), Exit.NO_KEY, "TIRO_API_KEY", "TIRO_SPEECH_KEY", "--local")


def test_no_such_file_is_told_even_without_a_key() -> None:
    assert_failed(transcribe("gone.wav"), Exit.NO_FILE, "gone.wav: no such file")


def test_key_refused(server: TiroServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIRO_API_KEY", f"{KEY}-wrong")
    assert_failed(transcribe(ICELANDIC), Exit.KEY_REFUSED, "TIRO_API_KEY")


def test_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIRO_SPEECH_KEY", KEY)
    monkeypatch.setattr(hearing, "_CONNECT", APIConnectOptions(1, 0.0, 5.0))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    result = transcribe(ICELANDIC, "--base-url", f"ws://127.0.0.1:{port}")
    assert_failed(result, Exit.UNREACHABLE, f"127.0.0.1:{port}", "TIRO_BASE_URL")


def test_a_language_that_the_service_does_not_know() -> None:
    result = transcribe("--local", "--language", "de-DE", FOX)
    assert_failed(result, Exit.SERVICE, "language_code", "de-DE")


@pytest.mark.parametrize("more", [[], ["--local"]])
def test_a_language_that_is_none(monkeypatch: pytest.MonkeyPatch, more: list[str]) -> None:
    monkeypatch.setenv("TIRO_API_KEY", KEY)
    assert_failed(transcribe(FOX, "--language", "!", *more), Exit.USAGE, "BCP-47")


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    result = transcribe("--local", "--language", "en-US", FOX)
    assert_failed(result, Exit.MISSING_EXTRA, "livekit-plugins-tiro[local]")


def test_output_not_writable(tmp_path: Path, server: TiroServer) -> None:
    path = tmp_path / "gone" / "out.txt"
    assert_failed(transcribe(ICELANDIC, "--output", str(path)), Exit.OUTPUT, str(path))
    assert server.sessions == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no full device here")
@pytest.mark.parametrize("form", ["text", "json"])
def test_output_to_a_full_disk(server: TiroServer, form: str) -> None:
    result = transcribe(ICELANDIC, "--format", form, "--output", "/dev/full")
    assert_failed(result, Exit.OUTPUT, "/dev/full", os.strerror(errno.ENOSPC))


class FailsAfterFirstFinal(Hooks):
    """The service breaks down for good once it has sent a final, and tells the key."""

    def __init__(self) -> None:
        self.failed = False

    async def handshake(self, session: Session) -> HandshakeRefusal | None:
        return HandshakeRefusal(400, f"bad {KEY}") if self.failed else None

    async def frame(self, session: Session, text: str) -> str | None:
        if self.failed:
            raise Drop
        self.failed = '"isFinal":true' in text
        return text


@pytest.mark.parametrize("form", list(Format))
def test_what_was_heard_before_a_failure_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: Format
) -> None:
    monkeypatch.setenv("TIRO_API_KEY", KEY)
    path = tmp_path / "out"
    with ServerThread(hooks=FailsAfterFirstFinal()) as server:
        result = transcribe(TWO, "--base-url", server.base_url, "-f", form.value, "-o", str(path))
    assert_failed(result, Exit.SERVICE, "400")
    assert "Góðan daginn" in path.read_text("utf-8")
    if form is Format.JSON:
        record = json.loads(path.read_text("utf-8"))
        assert record["complete"] is False
        assert len(record["segments"]) == 1


def test_a_failure_before_anything_was_heard_leaves_the_output_alone(
    tmp_path: Path, server: TiroServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIRO_API_KEY", "wrong")
    old, new = tmp_path / "old.txt", tmp_path / "new.txt"
    old.write_text("kept")
    assert transcribe(ICELANDIC, "--output", str(old)).exit_code == Exit.KEY_REFUSED
    assert transcribe(ICELANDIC, "--output", str(new)).exit_code == Exit.KEY_REFUSED
    assert old.read_text() == "kept"
    assert not new.exists()


# -- the module ------------------------------------------------------------------------------------


class NotLoadedYet(ModuleType):
    """The command line, interrupted while it loads."""

    def __getattr__(self, name: str) -> Any:
        raise KeyboardInterrupt


def test_an_interrupt_while_loading_is_quiet_too(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "livekit.plugins.tiro.cli"
    monkeypatch.setitem(sys.modules, name, NotLoadedYet(name))
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == Exit.INTERRUPTED


def test_the_module_is_the_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["__main__.py", "transcribe", "gone.wav"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == Exit.NO_FILE
    assert "gone.wav" in capsys.readouterr().err


# -- real processes ------------------------------------------------------------------------------


class StallsAfterFirstFinal(Hooks):
    """The service sends one final, and the next one when the test lets it.

    Meanwhile it gives signs of life, so that nobody has to be quick.
    """

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self._finals = 0

    async def frame(self, session: Session, text: str) -> str | None:
        self._finals += '"isFinal":true' in text
        while self._finals > 1 and not self.go_on.is_set():
            await session.line.send("{}")
            await asyncio.sleep(0.05)
        return text


@pytest.fixture
def stalling(monkeypatch: pytest.MonkeyPatch) -> Iterator[StallsAfterFirstFinal]:
    hooks = StallsAfterFirstFinal()
    with ServerThread(hooks=hooks) as server:
        monkeypatch.setenv("TIRO_BASE_URL", server.base_url)
        monkeypatch.setenv("TIRO_API_KEY", KEY)
        yield hooks


@pytest.fixture
def heeds_ctrl_c() -> Iterator[None]:
    """A shell that puts the tests into the background has them ignore it, and all they start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeds_ctrl_c")
def test_ctrl_c_in_a_terminal_ends_quickly_and_leaves_it_in_order(
    stalling: StallsAfterFirstFinal,
) -> None:
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    with process("transcribe", TWO, stdin=theirs, stdout=theirs, stderr=theirs) as started:
        os.close(theirs)
        said = b""
        while "prófunina.".encode() not in said:
            said += os.read(ours, 4096)
        before = time.monotonic()
        started.send_signal(signal.SIGINT)
        with suppress(OSError):
            while part := os.read(ours, 4096):
                said += part
        assert started.wait(10) == Exit.INTERRUPTED
    os.close(ours)
    assert time.monotonic() - before < 4.5
    assert b"Traceback" not in said
    assert said.rindex(b"\x1b[?25h") > said.rindex(b"\x1b[?25l")


def test_a_reader_that_goes_away_ends_it_quietly(stalling: StallsAfterFirstFinal) -> None:
    with process("transcribe", TWO) as started:
        assert started.stdout is not None and started.stderr is not None
        assert started.stdout.readline() != b""
        started.stdout.close()
        stalling.go_on.set()
        assert started.stderr.read() == b""
        assert started.wait(10) == Exit.BROKEN_PIPE


def test_output_is_utf8_whatever_the_locale_says(server: TiroServer) -> None:
    environment = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    with process("transcribe", ICELANDIC, "þögn.wav", env=environment) as started:
        out, err = started.communicate(timeout=30)
    assert out.decode() == f"==> {ICELANDIC} <==\n{SAYS_ICELANDIC}\n"
    assert err.decode() == "error: þögn.wav: no such file\n"
    assert started.returncode == Exit.NO_FILE


def test_the_plugin_does_not_load_the_command_line() -> None:
    code = "import livekit.plugins.tiro, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    modules = loaded.stdout.decode().split()
    assert "livekit.plugins.tiro.stt" in modules
    unwanted = ("typer", "rich", "livekit.plugins.tiro.cli", "livekit.plugins.tiro.testing")
    assert [name for name in modules if name.startswith(unwanted)] == []
