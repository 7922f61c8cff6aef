"""The command line from outside: what it prints, where, and with which exit code it ends."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from livekit import rtc
from livekit.agents import (
    APIConnectionError,
    APIConnectOptions,
    APIError,
    APIStatusError,
    APITimeoutError,
    LanguageCode,
    stt,
)
from livekit.agents.types import TimedString
from livekit.plugins.tiro.__main__ import main
from livekit.plugins.tiro.cli import app, audio, hearing, job, output, screen
from livekit.plugins.tiro.cli.exits import MEANINGS, Exit, FileError, exits, from_api
from livekit.plugins.tiro.cli.formats import Format, Segment, Transcript, Word
from livekit.plugins.tiro.cli.hearing import Hearing
from livekit.plugins.tiro.testing import Drop, HandshakeRefusal, Hooks, Session, TiroServer

from .media import write_media

DATA = Path(__file__).parent / "data"
FOX = str(DATA / "fox.wav")
TWO = str(DATA / "two.wav")
ICELANDIC = str(DATA / "is.wav")
SILENCE = str(DATA / "silence.wav")
SAYS_FOX = "the quick brown fox jumps over the lazy dog"
SAYS_TWO = "the weather is very nice today and the sun is shining"
SAYS_ICELANDIC = "Góðan daginn og velkomin í prófunina. Veðrið er milt"
KEY = "leyndarmal-1"


@pytest.fixture(autouse=True)
def _asyncio_debug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONASYNCIODEBUG", "1")


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


def transcribe(*arguments: str) -> Any:
    return run("transcribe", *arguments)


def assert_failed(result: Any, code: Exit, *parts: str) -> None:
    """One line on stderr that says all of `parts`, and never a key."""
    assert result.exit_code == code, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert all(part in line for part in parts), line
    assert KEY not in result.output


class ServerThread:
    """A local server on a loop of its own, as another process would run it."""

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> TiroServer:
        self._thread.start()
        self._server = TiroServer(api_key=KEY, **self._options)
        self._do(self._server.start)
        return self._server

    def __exit__(self, *_: object) -> None:
        self._do(self._server.aclose)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, action: Callable[[], Any]) -> None:
        asyncio.run_coroutine_threadsafe(action(), self._loop).result(10)


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
    late = write_media(tmp_path / "a.mkv", "pcm_s16le", parts=((2.0, 2.0),), video_seconds=5)
    record = json.loads(transcribe(str(late), "--format", "json").stdout)
    assert record["segments"][0]["start"] == pytest.approx(2.0, abs=0.1)
    assert record["segments"][0]["words"][0]["start"] == record["segments"][0]["start"]
    assert record["duration"] == 4.0


def test_silence_is_no_error_but_is_told(server: TiroServer) -> None:
    result = transcribe(SILENCE)
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == f"note: {SILENCE}: no speech was heard in it\n"


def test_damage_is_told(tmp_path: Path, server: TiroServer) -> None:
    path = write_media(tmp_path / "a.mkv", "flac", parts=((0.0, 4.0),))
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(200)
    path.write_bytes(content)
    result = transcribe(str(path))
    assert result.exit_code == 0
    assert "damaged piece(s) of it were skipped" in result.stderr


def test_realtime_sends_no_faster_than_speech(tmp_path: Path, server: TiroServer) -> None:
    path = write_media(tmp_path / "a.wav", "pcm_s16le", parts=((0.0, 0.8),))
    assert transcribe(str(path), "--realtime").exit_code == 0
    session = server.sessions[0]
    assert session.closed_at is not None
    assert session.closed_at - session.opened_at > 0.6


# -- formats and places --------------------------------------------------------------------------


def test_subtitles(server: TiroServer) -> None:
    result = transcribe(TWO, "--format", "srt")
    assert re.match(r"1\n00:00:0\d,\d{3} --> 00:00:0\d,\d{3}\nGóðan daginn", result.stdout)
    assert transcribe(TWO, "--format", "vtt").stdout.startswith("WEBVTT\n\n00:00:0")


def test_several_files_have_headers_and_keep_their_order(server: TiroServer) -> None:
    result = transcribe(ICELANDIC, SILENCE, ICELANDIC)
    says = f"==> {ICELANDIC} <==\n{SAYS_ICELANDIC}\n"
    assert result.stdout == f"{says}\n==> {SILENCE} <==\n\n{says}"


def test_json_of_several_files_is_an_array(server: TiroServer) -> None:
    records = json.loads(transcribe(ICELANDIC, SILENCE, "--format", "json").stdout)
    assert [record["file"] for record in records] == [ICELANDIC, SILENCE]
    assert [record["text"] for record in records] == [SAYS_ICELANDIC, ""]


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


def test_output_to_a_directory_is_a_file_for_each(tmp_path: Path, server: TiroServer) -> None:
    result = transcribe(ICELANDIC, SILENCE, "--format", "vtt", "--output", str(tmp_path))
    assert result.exit_code == 0
    assert (tmp_path / "is.vtt").read_text("utf-8").count("-->") == 1
    assert (tmp_path / "silence.vtt").read_text() == "WEBVTT\n"


@pytest.mark.parametrize("form", [Format.SRT, Format.VTT])
def test_subtitles_of_several_files_need_a_directory(form: Format) -> None:
    result = transcribe(FOX, TWO, "--format", form.value)
    assert_failed(result, Exit.USAGE, "--output must be a directory")


def test_two_files_for_one_place(tmp_path: Path) -> None:
    result = transcribe(FOX, "elsewhere/fox.mp3", "--output", str(tmp_path))
    assert_failed(result, Exit.USAGE, str(tmp_path / "fox.txt"))


def test_a_file_is_never_overwritten_by_its_own_transcript(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"sound")
    other = tmp_path / "b.wav"
    other.symlink_to(path)
    assert_failed(transcribe("missing", str(path), "--output", str(other)), Exit.USAGE, "b.wav")
    assert path.read_bytes() == b"sound"


# -- failures ------------------------------------------------------------------------------------


def test_no_key() -> None:
    assert_failed(transcribe(FOX), Exit.NO_KEY, "TIRO_API_KEY", "TIRO_SPEECH_KEY", "--local")


def test_no_such_file_is_told_even_without_a_key() -> None:
    assert_failed(transcribe("gone.wav"), Exit.NO_FILE, "gone.wav: no such file")


def test_no_audio(tmp_path: Path, server: TiroServer) -> None:
    path = write_media(tmp_path / "a.mp4", None, video_seconds=1)
    assert_failed(transcribe(str(path)), Exit.NO_AUDIO, f"{path}: there is no audio in it")


def test_the_other_files_are_transcribed_all_the_same(tmp_path: Path, server: TiroServer) -> None:
    text = tmp_path / "a.txt"
    text.write_text("no sound")
    result = transcribe(str(text), "gone.wav", ICELANDIC, "--format", "json")
    assert result.exit_code == Exit.NO_FILE
    assert [record["file"] for record in json.loads(result.stdout)] == [ICELANDIC]
    gone, silent = result.stderr.splitlines()
    assert "gone.wav" in gone
    assert str(text) in silent


def test_a_group_without_a_readable_file_makes_no_output(
    tmp_path: Path, server: TiroServer
) -> None:
    result = transcribe("gone.wav", ICELANDIC, "--output", str(tmp_path))
    assert result.exit_code == Exit.NO_FILE
    assert [path.name for path in tmp_path.iterdir()] == ["is.txt"]


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


def test_the_log_of_the_retries_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIRO_API_KEY", KEY)
    monkeypatch.setattr(hearing, "_CONNECT", APIConnectOptions(1, 0.0, 5.0))
    # As in a program that does not set up logging: warnings go to stderr then.
    monkeypatch.setattr(logging.root, "handlers", [])
    result = transcribe(ICELANDIC, "--base-url", "ws://127.0.0.1:9")
    assert_failed(result, Exit.UNREACHABLE)
    assert logging.root.handlers == []


def test_a_language_that_the_service_does_not_know() -> None:
    result = transcribe("--local", "--language", "de-DE", FOX)
    assert_failed(result, Exit.SERVICE, "language_code", "de-DE")


@pytest.mark.parametrize("more", [[], ["--local"]])
def test_a_language_that_is_none(monkeypatch: pytest.MonkeyPatch, more: list[str]) -> None:
    monkeypatch.setenv("TIRO_API_KEY", KEY)
    assert_failed(transcribe(FOX, "--language", "!", *more), Exit.USAGE, "BCP-47")


def test_local_and_base_url_exclude_each_other() -> None:
    assert_failed(transcribe(FOX, "--local", "--base-url", "ws://x"), Exit.USAGE, "--base-url")


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
    # In a page each word is an element.
    assert "Góðan daginn" in re.sub("<[^>]*>", "", path.read_text("utf-8"))
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


def wrapped(cause: APIError) -> APIError:
    """What the framework raises when its retries are used up."""
    error = APIConnectionError("failed to recognize speech after 2 attempts")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (APIStatusError("no", status_code=401), Exit.KEY_REFUSED),
        (APIStatusError("no", status_code=403), Exit.KEY_REFUSED),
        (APIStatusError("no", status_code=400), Exit.SERVICE),
        (wrapped(APIStatusError("no", status_code=503)), Exit.SERVICE),
        (wrapped(APITimeoutError("no")), Exit.UNREACHABLE),
        (APIConnectionError("no"), Exit.UNREACHABLE),
        (APIError("no"), Exit.SERVICE),
    ],
)
def test_what_a_failure_of_the_service_means(error: APIError, code: Exit) -> None:
    failure = from_api(error)
    assert failure.code is code
    assert str(failure) == "no"


def test_a_fault_of_this_program_is_one_line_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TIRO_API_KEY", KEY)
    with pytest.raises(typer.Exit) as caught, exits():
        raise RuntimeError(f"two\nlines and {KEY}")
    assert caught.value.exit_code == Exit.UNEXPECTED
    error = capsys.readouterr().err
    assert error == "error: unexpected RuntimeError: two lines and [key]. Please report this.\n"


def test_every_exit_code_is_in_the_help() -> None:
    for command in ([], ["transcribe"], ["serve"]):
        result = run(*command, "--help")
        assert result.exit_code == 0
        for code, meaning in MEANINGS.items():
            assert f"{code:d} {meaning}" in result.stdout
    assert set(MEANINGS) == {0, *Exit}


# -- the terminal --------------------------------------------------------------------------------


class Terminal(io.StringIO):
    """A file that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_is_found_on_stdout_then_on_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert job._terminal() is None
    for name in ("stderr", "stdout"):
        monkeypatch.setattr(sys, name, terminal)
        console = job._terminal()
        assert console is not None and console.file is terminal
        monkeypatch.setattr(sys, name, io.StringIO())


def test_finals_are_printed_above_the_screen_as_they_are(
    server: TiroServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    app(["transcribe", ICELANDIC], standalone_mode=False)
    assert f"{SAYS_ICELANDIC}\n" in terminal.getvalue()


def test_finals_go_to_the_pipe_and_progress_to_the_terminal(
    server: TiroServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe, terminal = io.StringIO(), Terminal()
    monkeypatch.setattr(sys, "stdout", pipe)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    app(["transcribe", ICELANDIC], standalone_mode=False)
    assert pipe.getvalue() == f"{SAYS_ICELANDIC}\n"
    assert SAYS_ICELANDIC not in terminal.getvalue()
    assert "\x1b[?25l" in terminal.getvalue()


def test_finals_are_not_wrapped_and_hold_no_markup() -> None:
    terminal = Terminal()
    console = Console(file=terminal, force_terminal=True, width=20)
    target = output.TerminalTarget(console)
    target.write("[bold]þetta er lengra en línan á skjánum[/bold] :smile:\n")
    target.close()
    assert terminal.getvalue() == "[bold]þetta er lengra en línan á skjánum[/bold] :smile:\n"


def shown(view: screen.Screen, width: int = 80) -> str:
    terminal = io.StringIO()
    Console(file=terminal, width=width, force_terminal=True, color_system=None).print(view)
    return terminal.getvalue()


def test_the_screen_shows_the_words_so_far_and_a_bar_for_a_long_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    view = screen.Screen(None, 3600.0)
    assert "0:00 / 1:00:00 0.0x" in shown(view)
    now = 110.0
    view.heard(125.0)
    view.show("góðan daginn")
    words, bar = shown(view).splitlines()
    assert words == "góðan daginn"
    assert "━" in bar
    assert "2:05 / 1:00:00 12.5x" in bar


def test_the_screen_shows_no_bar_for_a_short_file() -> None:
    view = screen.Screen(None, 5.0)
    assert shown(view).strip() == ""
    view.show("já")
    assert shown(view) == "já\n"


def test_the_screen_shows_how_much_is_done_of_a_file_of_unknown_length() -> None:
    view = screen.Screen(None, None)
    view.heard(61.0)
    assert re.search(r"1:01 +\d+\.\dx", shown(view))


def test_a_long_hypothesis_shows_its_newest_words_on_one_line() -> None:
    view = screen.Screen(None, 5.0)
    view.show("einn tveir þrír fjórir fimm")
    assert shown(view, width=14) == "… fjórir fimm\n"


def test_the_terminal_shows_interims_progress_and_then_the_final() -> None:
    terminal = Terminal()
    console = Console(file=terminal, force_terminal=True, width=80, color_system=None)
    place = output.Output(output.TerminalTarget(console), Format.TEXT, many=False)
    with screen.Screen(console, 60.0) as lines:
        view = job._View(lines, place)

        def after(action: Callable[[], None]) -> str:
            before = len(terminal.getvalue())
            action()
            return terminal.getvalue()[before:]

        assert "góðan d" in after(lambda: view.interim("góðan d"))
        assert "0:30 / 1:00" in after(lambda: view.heard(30.0))
        said = after(lambda: view.final(Segment("Góðan dag.", 0.0, 1.0)))
        assert "Góðan dag.\n" in said
        assert "góðan d" not in said


def test_the_screen_leaves_nothing_behind() -> None:
    terminal = Terminal()
    console = Console(file=terminal, force_terminal=True, width=40)
    with screen.Screen(console, 5.0) as view:
        view.show("já")
    _, after = terminal.getvalue().rsplit("já", 1)
    assert after.endswith("\x1b[2K")


# -- hearing -------------------------------------------------------------------------------------


class FakeStream:
    """A stream that takes audio for ever, and reports that it was sent when the test says so."""

    def __init__(self) -> None:
        self.pushed = 0.0
        self.most_ahead = 0.0
        self.acknowledged = 0.0
        self.ended = asyncio.Event()
        self.full = asyncio.Event()
        self.closed = False
        self.failure: Exception | None = None

    def push_frame(self, frame: rtc.AudioFrame) -> None:
        self.pushed += frame.duration
        self.most_ahead = max(self.most_ahead, self.pushed - self.acknowledged)
        if self.pushed - self.acknowledged > 40.0:
            self.full.set()

    def end_input(self) -> None:
        self.ended.set()

    async def aclose(self) -> None:
        self.closed = True

    async def __aiter__(self) -> AsyncIterator[stt.SpeechEvent]:
        if self.failure is not None:
            await asyncio.sleep(0)
            raise self.failure
        while not self.ended.is_set():
            waits = [asyncio.ensure_future(event.wait()) for event in (self.ended, self.full)]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
            for _ in range(400):
                # Time for whoever pushes to go too far.
                await asyncio.sleep(0)
            self.full.clear()
            seconds = self.pushed - self.acknowledged
            self.acknowledged = self.pushed
            yield stt.SpeechEvent(
                stt.SpeechEventType.RECOGNITION_USAGE,
                recognition_usage=stt.RecognitionUsage(audio_duration=seconds),
            )


class FakeEngine:
    def __init__(self, stream: FakeStream) -> None:
        self._stream = stream

    def stream(self, **_: object) -> FakeStream:
        return self._stream


class Notebook:
    """A listener that writes everything down."""

    def __init__(self) -> None:
        self.interims: list[str] = []
        self.finals: list[Segment] = []
        self.seconds: list[float] = []

    def interim(self, text: str) -> None:
        self.interims.append(text)

    def final(self, segment: Segment) -> None:
        self.finals.append(segment)

    def heard(self, seconds: float) -> None:
        self.seconds.append(seconds)


async def hear(path: Path, stream: FakeStream, notebook: Notebook) -> Transcript:
    transcript = Transcript(str(path), "is-IS")
    with audio.open_audio(path) as opened:
        engine: Any = FakeEngine(stream)
        await Hearing(opened, transcript, notebook, realtime=False).run(engine)
    return transcript


async def test_a_long_file_is_never_far_ahead_of_the_service(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.wav", "pcm_s16le", rate=8000, parts=((0.0, 300.0),))
    stream, notebook = FakeStream(), Notebook()
    transcript = await hear(path, stream, notebook)
    assert stream.pushed == pytest.approx(300.0)
    assert 40.0 < stream.most_ahead < 55.0
    assert stream.closed
    assert transcript.complete
    assert transcript.duration == pytest.approx(300.0)
    assert notebook.seconds == sorted(notebook.seconds)
    assert notebook.seconds[-1] == pytest.approx(300.0)


async def test_audio_goes_on_at_least_as_fast_as_speech_however_slow_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_media(tmp_path / "a.wav", "pcm_s16le", rate=8000, parts=((0.0, 100.0),))

    class Mute(FakeStream):
        """Says nothing; a minute passes each time that it has got 40 s of audio."""

        now = 0.0

        async def __aiter__(self) -> AsyncIterator[stt.SpeechEvent]:
            await self.full.wait()
            assert not self.ended.is_set()
            self.now += 60.0
            await self.ended.wait()
            for event in list[stt.SpeechEvent]():
                yield event

    stream = Mute()
    monkeypatch.setattr(hearing, "time", SimpleNamespace(monotonic=lambda: stream.now))
    await asyncio.wait_for(hear(path, stream, Notebook()), 10)
    assert stream.pushed == pytest.approx(100.0)


async def test_a_failure_of_the_service_ends_the_pushing(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.wav", "pcm_s16le", rate=8000, parts=((0.0, 100.0),))
    stream = FakeStream()
    stream.failure = APIConnectionError("gone")
    tasks = asyncio.all_tasks()
    with pytest.raises(APIConnectionError):
        await asyncio.wait_for(hear(path, stream, Notebook()), 10)
    assert stream.closed
    assert stream.pushed < 5.0, "the failure had no chance to be seen"
    assert asyncio.all_tasks() == tasks


async def test_a_file_that_breaks_off_is_heard_up_to_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks_off(self: audio.AudioFile, seconds: float) -> Iterator[bytes]:
        yield bytes(16000)
        raise FileError(Exit.NO_FILE, "cannot be read")

    monkeypatch.setattr(audio.AudioFile, "chunks", breaks_off)
    stream = FakeStream()
    with pytest.raises(FileError):
        await hear(DATA / "fox.wav", stream, Notebook())
    assert stream.ended.is_set()
    assert stream.pushed == 0.5
    assert stream.closed


def test_words_without_times_are_kept_and_all_text_is_composed() -> None:
    notebook, transcript = Notebook(), Transcript("a.wav", "is-IS")
    decomposed = "ma\u0301"
    data = stt.SpeechData(
        language=LanguageCode("is"),
        text=f" {decomposed} ",
        start_time=0.5,
        end_time=1.0,
        words=[TimedString(decomposed), TimedString(" ", start_time=0.5, end_time=1.0)],
    )
    with audio.open_audio(DATA / "fox.wav") as opened:
        taker = Hearing(opened, transcript, notebook, realtime=False)
        for kind in (stt.SpeechEventType.INTERIM_TRANSCRIPT, stt.SpeechEventType.FINAL_TRANSCRIPT):
            taker._take(stt.SpeechEvent(kind, alternatives=[data]))
    assert notebook.interims == ["má"]
    assert notebook.finals == [Segment("má", 0.5, 1.0, None, (Word("má"),))]
    assert transcript.segments == notebook.finals


def test_an_empty_final_is_no_segment() -> None:
    notebook, transcript = Notebook(), Transcript("a.wav", "is-IS")
    data = stt.SpeechData(language=LanguageCode("is"), text="")
    with audio.open_audio(DATA / "fox.wav") as opened:
        taker = Hearing(opened, transcript, notebook, realtime=False)
        taker._take(stt.SpeechEvent(stt.SpeechEventType.FINAL_TRANSCRIPT, alternatives=[data]))
    assert transcript.segments == notebook.finals == []


# -- stdout --------------------------------------------------------------------------------------


class FailingStdout(io.StringIO):
    """A stdout that takes text and then cannot write it."""

    def __init__(self, number: int, fileno: int) -> None:
        super().__init__()
        self._number = number
        self._fileno = fileno

    def fileno(self) -> int:
        return self._fileno

    def flush(self) -> None:
        if self.getvalue():
            raise OSError(self._number, os.strerror(self._number))


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (errno.ENOSPC, Exit.OUTPUT, "error: cannot write: No space left on device\n"),
        (errno.EPIPE, Exit.BROKEN_PIPE, ""),
    ],
)
def test_stdout_that_cannot_be_written(
    tmp_path: Path,
    server: TiroServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
    code: Exit,
    said: str,
) -> None:
    with (tmp_path / "stdout").open("wb", buffering=0) as file:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", FailingStdout(number, file.fileno()))
            assert app(["transcribe", ICELANDIC], standalone_mode=False) == code
        file.write(b"what the interpreter flushes at its exit")
    assert capsys.readouterr().err == said
    assert (tmp_path / "stdout").read_bytes() == b""


def test_an_interrupt_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as caught, exits():
        raise KeyboardInterrupt
    assert caught.value.exit_code == Exit.INTERRUPTED
    assert capsys.readouterr().err == ""


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


# -- serve ---------------------------------------------------------------------------------------


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
    assert_failed(result, Exit.ADDRESS, f"127.0.0.1:{port}")


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


def process(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "livekit.plugins.tiro", *arguments]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen(command, **pipes)


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


def test_serve_runs_until_it_is_terminated(monkeypatch: pytest.MonkeyPatch) -> None:
    with process("serve", "--port", "0") as started:
        assert started.stdout is not None and started.stderr is not None
        for _ in range(2):
            name, value = started.stdout.readline().decode().removeprefix("export ").split("=")
            monkeypatch.setenv(name, value.strip())
        assert transcribe(ICELANDIC).stdout == f"{SAYS_ICELANDIC}\n"
        started.terminate()
        assert started.wait(10) == 0
        assert started.stdout.read() == b""
        assert started.stderr.read() == b"note: listening; Ctrl-C stops\n"


def test_the_plugin_does_not_load_the_command_line() -> None:
    code = "import livekit.plugins.tiro, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    modules = loaded.stdout.decode().split()
    assert "livekit.plugins.tiro.stt" in modules
    unwanted = ("typer", "rich", "livekit.plugins.tiro.cli", "livekit.plugins.tiro.testing")
    assert [name for name in modules if name.startswith(unwanted)] == []
