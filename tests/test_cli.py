"""The command line from outside: what it prints, where, and with which exit code it ends."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from importlib.metadata import entry_points
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from livekit.agents import APIConnectOptions
from livekit.plugins.tiro.__main__ import main
from livekit.plugins.tiro.cli import hearing
from livekit.plugins.tiro.cli.exits import Exit
from livekit.plugins.tiro.cli.formats import Format
from livekit.plugins.tiro.testing import ConnectionRecord, Drop, HandshakeRefusal, Hooks, TiroServer

from .support.command import (
    FOX,
    ICELANDIC,
    KEY,
    SAYS_ICELANDIC,
    SILENCE,
    TWO,
    Forked,
    ServerThread,
    assert_failed,
    process,
    transcribe,
    wait_until,
)
from .support.recordings import Sound, silence, tone, write, write_late_camera, write_wav

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
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


def test_word_times_rise_and_lie_inside_the_file(server: TiroServer) -> None:
    record = json.loads(transcribe(TWO, "--language", "is", "--format", "json").stdout)
    first, second = record["segments"]
    assert record["text"] == f"{first['text']} {second['text']}"
    assert record["language"] == "is-IS"
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
    connection = server.connections[0]
    assert connection.language == "is-IS"
    assert connection.sample_rate == 16000
    assert connection.ended


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


@pytest.mark.usefixtures("_asyncio_debug")
def test_realtime_sends_no_faster_than_speech(tmp_path: Path, server: TiroServer) -> None:
    path = write_wav(tmp_path / "a.wav", tone(0.8, 16000))
    began = time.monotonic()
    assert transcribe(str(path), "--realtime").exit_code == 0
    connection = server.connections[0]
    # The server may be the last to notice the end.
    wait_until(lambda: connection.closed_at is not None)
    assert connection.closed_at is not None and connection.closed_at - began > 0.7


# -- formats and places --------------------------------------------------------------------------


def test_subtitles(server: TiroServer) -> None:
    result = transcribe(TWO, "--format", "srt")
    assert re.match(r"1\n00:00:0\d,\d{3} --> 00:00:0\d,\d{3}\nGóðan daginn", result.stdout)
    assert transcribe(TWO, "--format", "vtt").stdout.startswith("WEBVTT\n\n00:00:0")


@pytest.mark.parametrize("form", [Format.TEXT, Format.HTML])
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


@pytest.mark.parametrize("path", ["", "/v2"])
def test_a_wrong_path_is_compared_with_tiros_own(server: TiroServer, path: str) -> None:
    result = transcribe(ICELANDIC, "--base-url", server.base_url.replace("/v2beta1", path))
    told = f"Its path is {path or '/'}, where Tiro's own address has /v2beta1."
    assert_failed(result, Exit.SERVICE, f"Check --base-url or TIRO_BASE_URL. {told}")


def test_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIRO_SPEECH_KEY", KEY)
    monkeypatch.setattr(hearing, "_CONNECT", APIConnectOptions(1, 0.0, 5.0))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    result = transcribe(ICELANDIC, "--base-url", f"ws://127.0.0.1:{port}")
    assert_failed(result, Exit.UNREACHABLE, f"127.0.0.1:{port}", "TIRO_BASE_URL")


class HangsUp(Hooks):
    """Says something on each connection, and drops it."""

    async def sent(self, connection: ConnectionRecord, text: str) -> None:
        raise Drop


def test_a_service_that_hangs_up_in_mid_file_was_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIRO_API_KEY", KEY)
    monkeypatch.setattr(hearing, "_CONNECT", APIConnectOptions(0, 0.0, 5.0))
    with ServerThread(hooks=HangsUp(), interim_interval=0.0) as server:
        result = transcribe(ICELANDIC, "--base-url", server.base_url)
    assert_failed(result, Exit.SERVICE, "Tiro ended the connection")
    assert server.connections[0].frames


def test_a_language_that_the_service_does_not_know(server: TiroServer) -> None:
    result = transcribe("--language", "de-DE", FOX)
    assert_failed(result, Exit.SERVICE, "language_code", "de-DE")


@pytest.mark.parametrize("more", [[], ["--local"]])
def test_a_language_that_is_none(monkeypatch: pytest.MonkeyPatch, more: list[str]) -> None:
    monkeypatch.setenv("TIRO_API_KEY", KEY)
    assert_failed(transcribe(FOX, "--language", "!", *more), Exit.USAGE, "BCP-47")


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    result = transcribe("--local", "--language", "en-US", FOX)
    assert_failed(result, Exit.MISSING_EXTRA, "pip install pocketsphinx")


def test_output_not_writable(tmp_path: Path, server: TiroServer) -> None:
    path = tmp_path / "gone" / "out.txt"
    assert_failed(transcribe(ICELANDIC, "--output", str(path)), Exit.OUTPUT, str(path))
    assert server.connections == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no full device here")
@pytest.mark.parametrize("form", ["text", "json"])
def test_output_to_a_full_disk(server: TiroServer, form: str) -> None:
    result = transcribe(ICELANDIC, "--format", form, "--output", "/dev/full")
    assert_failed(result, Exit.OUTPUT, "/dev/full", os.strerror(errno.ENOSPC))


class FailsAfterFirstFinal(Hooks):
    """The service breaks down for good once it has sent a final, and tells the key."""

    def __init__(self) -> None:
        self.failed = False

    async def handshake(self, connection: ConnectionRecord) -> HandshakeRefusal | None:
        return HandshakeRefusal(400, f"bad {KEY}") if self.failed else None

    async def frame(self, connection: ConnectionRecord, text: str) -> str | None:
        if self.failed:
            raise Drop
        self.failed = '"isFinal":true' in text
        return text


@pytest.mark.usefixtures("_asyncio_debug")
def test_what_was_heard_before_a_failure_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIRO_API_KEY", KEY)
    place = tmp_path / "out"
    with ServerThread(hooks=FailsAfterFirstFinal()) as server:
        result = transcribe(TWO, "--base-url", server.base_url, "-f", "all", "-o", f"{place}/")
    assert_failed(result, Exit.SERVICE, "400")
    for form in Format:
        document = (place / f"two{form.suffix}").read_text("utf-8")
        # In a page each word is an element.
        assert "Góðan daginn" in re.sub("<[^>]*>", "", document), form
    record = json.loads((place / "two.json").read_text("utf-8"))
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


# -- files as people have them -------------------------------------------------------------------


def recordings(tmp_path: Path) -> dict[str, Path]:
    """Recordings that people report trouble with."""
    speech, nothing = tone(2.0, 16000), silence(2.0, 16000)
    many, surround = silence(2.0, 16000, 32), silence(2.0, 16000, 6)
    many[-1] = surround[3] = speech
    lossy = Sound(tone(6.0, 16000), keep=lambda number: number % 10 != 9)
    return {
        "lossy": write(tmp_path / "lossy.mkv", lossy),
        "late camera": write_late_camera(tmp_path / "late camera.flv", 9.0, 7.0),
        "surround": write(tmp_path / "surround.wav", Sound(surround, layout="5.1")),
        "many": write_wav(tmp_path / "many.wav", many),
        "phase": write_wav(tmp_path / "phase.wav", np.concatenate([speech, -speech])),
        "two tracks": write(
            tmp_path / "two tracks.mkv", Sound(nothing, default=True), Sound(speech)
        ),
        "cut": write_wav(tmp_path / "cut.wav", speech, promised=48000),
    }


def test_every_recording_that_can_be_heard_is(server: TiroServer, tmp_path: Path) -> None:
    files = recordings(tmp_path)
    result = transcribe(*map(str, files.values()), "--format", "json")
    assert result.exit_code == 0, result.stderr
    records = dict(zip(files, json.loads(result.stdout), strict=True))
    for name, record in records.items():
        assert record["file"] == str(files[name])
        assert record["text"].startswith("Góðan daginn"), name
        assert record["complete"] is (name != "cut"), name
    assert records["lossy"]["duration"] == pytest.approx(6.0, abs=0.06)
    assert records["late camera"]["duration"] == pytest.approx(9.0, abs=0.1)
    notes = result.stderr.splitlines()
    assert len(notes) == 3
    assert f"{files['two tracks']}: audio track 2 of 2 is heard" in notes[1]
    assert f"{files['cut']}: it ends at 2.0 of 5.0 s" in notes[2]


@pytest.mark.usefixtures("_asyncio_debug")
def test_a_batch_with_all_that_goes_wrong_does_what_can_be_done(
    server: TiroServer, tmp_path: Path
) -> None:
    files = {name: path for name, path in recordings(tmp_path).items() if name in ("cut", "lossy")}
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"\x00\x00\x00\x18ftypisom" + bytes(1000))
    gone = tmp_path / "gone.wav"
    place = tmp_path / "transcripts"
    given = [str(path) for path in (broken, *files.values(), gone)]
    result = transcribe(*given, "--format", "all", "--output", f"{place}/")
    # Of the files that are not there is told first.
    assert result.exit_code == Exit.NO_FILE
    made = {path.name for path in place.iterdir()}
    assert made == {f"{path.stem}{form.suffix}" for path in files.values() for form in Format}
    for path in files.values():
        assert (place / f"{path.stem}.txt").read_text("utf-8").startswith("Góðan daginn")
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2


# -- the module ----------------------------------------------------------------------------------


class NotLoadedYet(ModuleType):
    """The commands, interrupted while they load."""

    def __getattr__(self, name: str) -> Any:
        raise KeyboardInterrupt


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The codes that the process ended with, if it had."""
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    return codes


def test_an_interrupt_while_the_commands_load_is_quiet_too(
    monkeypatch: pytest.MonkeyPatch, ends: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    name = "livekit.plugins.tiro.cli"
    monkeypatch.setitem(sys.modules, name, NotLoadedYet(name))
    main()
    assert ends == [Exit.INTERRUPTED]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("called", ["__main__.py", "tiro"])
def test_the_module_is_the_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], called: str
) -> None:
    monkeypatch.setattr(sys, "argv", [f"/bin/{called}", "transcribe", "gone.wav"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == Exit.NO_FILE
    assert "gone.wav" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("called", "named"), [("__main__.py", "python -m livekit.plugins.tiro"), ("tiro", "tiro")]
)
def test_the_help_names_the_command_as_it_was_called(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], called: str, named: str
) -> None:
    monkeypatch.setattr(sys, "argv", [f"/bin/{called}", "transcribe", "--help"])
    with pytest.raises(SystemExit):
        main()
    assert f"Usage: {named} transcribe" in capsys.readouterr().out


def test_a_command_that_a_signal_ended_leaves_at_once(
    monkeypatch: pytest.MonkeyPatch, ends: list[int]
) -> None:
    def signalled(**_: object) -> None:
        raise SystemExit(143)

    monkeypatch.setattr("livekit.plugins.tiro.cli.app", signalled)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", None)
        main()
    assert ends == [143]


def test_it_is_installed_as_a_command_too() -> None:
    (script,) = entry_points(group="console_scripts", name="tiro")
    assert script.load() is main


# -- real processes ------------------------------------------------------------------------------


class StallsAfterFirstFinal(Hooks):
    """The service sends one final, and the next one when the test lets it.

    Meanwhile it gives signs of life, so that nobody has to be quick.
    """

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self._finals = 0

    async def frame(self, connection: ConnectionRecord, text: str) -> str | None:
        self._finals += '"isFinal":true' in text
        while self._finals > 1 and not self.go_on.is_set():
            await connection.line.send("{}")
            await asyncio.sleep(0.05)
        return text


@pytest.fixture
def stalling(monkeypatch: pytest.MonkeyPatch) -> Iterator[StallsAfterFirstFinal]:
    hooks = StallsAfterFirstFinal()
    with ServerThread(hooks=hooks) as server:
        monkeypatch.setenv("TIRO_BASE_URL", server.base_url)
        monkeypatch.setenv("TIRO_API_KEY", KEY)
        yield hooks


# Seconds; what is promised, and some more on a busy machine.
SOON = 1.0 + 2.0

SPEECH = Path(TWO).read_bytes()
FIRST_SENTENCE = 32_000 * 5


@pytest.mark.usefixtures("_asyncio_debug")
def test_ctrl_c_in_a_terminal_ends_quickly_and_leaves_it_in_order(
    stalling: StallsAfterFirstFinal,
) -> None:
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    with Forked("transcribe", TWO, stdin=theirs, stdout=os.dup(theirs)) as started:
        said = b""
        while "prófunina.".encode() not in said:
            said += os.read(ours, 4096)
        before = started.signal(signal.SIGINT)
        with suppress(OSError):
            while part := os.read(ours, 4096):
                said += part
        assert started.wait() == Exit.INTERRUPTED
        assert time.monotonic() - before < SOON
        assert re.fullmatch(rb"note: .*: interrupted at \d\.\d s\n", started.errors.read())
    os.close(ours)
    assert b"Traceback" not in said
    assert said.rindex(b"\x1b[?25h") > said.rindex(b"\x1b[?25l")


@pytest.mark.usefixtures("_asyncio_debug")
@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGINT, Exit.INTERRUPTED),
        (signal.SIGTERM, Exit.TERMINATED),
        (signal.SIGHUP, Exit.HUNG_UP),
    ],
)
def test_a_signal_ends_a_pipe_that_says_nothing_and_writes_what_was_heard(
    server: TiroServer, tmp_path: Path, number: int, code: Exit
) -> None:
    reading, writing = os.pipe()
    place = f"{tmp_path}/out/"
    with (
        os.fdopen(writing, "wb", buffering=0) as pipe,
        Forked("transcribe", "-", "-f", "all", "-o", place, stdin=reading) as started,
    ):
        pipe.write(SPEECH[:FIRST_SENTENCE])
        text = tmp_path / "out" / "stdin.txt"
        wait_until(lambda: text.exists() and text.stat().st_size > 0)
        before = started.signal(number)
        assert started.wait() == code
        assert time.monotonic() - before < SOON
        assert started.output.read() == b""
        assert re.fullmatch(rb"note: -: interrupted at \d\.\d s\n", started.errors.read())
    for form in Format:
        document = (tmp_path / "out" / f"stdin{form.suffix}").read_text("utf-8")
        assert "Góðan" in document, form
    record = json.loads((tmp_path / "out" / "stdin.json").read_text("utf-8"))
    assert record["complete"] is False


def test_a_signal_ends_the_wait_for_a_pipe_that_nobody_writes_to(
    server: TiroServer, tmp_path: Path
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with Forked("transcribe", str(pipe), "-o", str(tmp_path / "a.txt")) as started:
        # Made when all that comes before the pipe is done.
        wait_until((tmp_path / "a.txt").exists)
        before = started.signal(signal.SIGTERM)
        assert started.wait() == Exit.TERMINATED
        assert time.monotonic() - before < SOON
        assert started.errors.read() == b""
    assert not (tmp_path / "a.txt").exists()


@pytest.mark.usefixtures("_asyncio_debug")
def test_words_of_a_pipe_come_as_they_are_said(server: TiroServer) -> None:
    reading, writing = os.pipe()
    with (
        os.fdopen(writing, "wb", buffering=0) as pipe,
        Forked("transcribe", "-", stdin=reading) as started,
    ):
        pipe.write(SPEECH[:FIRST_SENTENCE])
        assert started.output.readline().startswith("Góðan daginn".encode())
        pipe.write(SPEECH[FIRST_SENTENCE:])
        pipe.close()
        assert started.output.read() != b""
        assert started.wait() == 0
        assert started.errors.read() == b""


def test_a_reader_that_goes_away_ends_it_quietly(stalling: StallsAfterFirstFinal) -> None:
    with Forked("transcribe", TWO) as started:
        assert started.output.readline() != b""
        started.output.close()
        stalling.go_on.set()
        assert started.errors.read() == b""
        assert started.wait() == Exit.BROKEN_PIPE


@pytest.mark.parametrize("closed", [(0, 1), (1, 2)])
def test_standard_streams_that_are_closed_are_not_needed(
    server: TiroServer, tmp_path: Path, closed: tuple[int, ...]
) -> None:
    path = tmp_path / "a.txt"
    with Forked("transcribe", ICELANDIC, "-o", str(path), closed=closed) as started:
        assert started.wait() == 0
        assert started.errors.read() == b""
    assert path.read_text("utf-8") == f"{SAYS_ICELANDIC}\n"


@pytest.mark.parametrize("form", ["text", "html"])
def test_a_standard_output_that_is_closed_is_told_of_before_the_work(
    server: TiroServer, form: str
) -> None:
    with Forked("transcribe", ICELANDIC, "-f", form, closed=(1,)) as started:
        assert started.wait() == Exit.OUTPUT
        assert b"the standard output is closed" in started.errors.read()
    assert server.connections == []


def test_output_is_utf8_whatever_the_locale_says(server: TiroServer) -> None:
    environment = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    with process("transcribe", ICELANDIC, "þögn.wav", env=environment) as started:
        out, err = started.communicate(timeout=60)
    assert out.decode() == f"==> {ICELANDIC} <==\n{SAYS_ICELANDIC}\n"
    assert err.decode() == "error: þögn.wav: no such file\n"
    assert started.returncode == Exit.NO_FILE
