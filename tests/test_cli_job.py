"""One run of `transcribe`: every file that can be done is done, and the others are told of."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from livekit.agents import APIConnectionError, APIConnectOptions, APIStatusError
from livekit.plugins.tiro.cli import hearing, job as job_module
from livekit.plugins.tiro.cli.audio import AudioFile, Selection
from livekit.plugins.tiro.cli.exits import CliError, Exit
from livekit.plugins.tiro.cli.formats import Format, Segment
from livekit.plugins.tiro.cli.hearing import Hearing
from livekit.plugins.tiro.cli.job import Job, Task
from livekit.plugins.tiro.cli.output import Document, Output, Style, TerminalTarget
from livekit.plugins.tiro.cli.plan import plan
from livekit.plugins.tiro.cli.screen import Screen
from livekit.plugins.tiro.cli.service import Service
from livekit.plugins.tiro.cli.signals import Interruption
from livekit.plugins.tiro.testing import TiroServer, faults

from .support.command import FOX, ICELANDIC, KEY, SAYS_ICELANDIC, SILENCE
from .support.recordings import Sound, silence, tone, write, write_wav

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from livekit.plugins.tiro import STT
    from livekit.plugins.tiro.cli.blocks import Block


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[TiroServer]:
    """A server that the environment points at, with its key."""
    async with TiroServer(api_key=KEY) as started:
        monkeypatch.setenv("TIRO_BASE_URL", started.base_url)
        monkeypatch.setenv("TIRO_API_KEY", KEY)
        yield started


async def run(
    *files: str | Path,
    forms: tuple[Format, ...] = (),
    output: str | Path | None = None,
    interruption: Interruption | None = None,
    **task: Any,
) -> Exit | None:
    """Transcribe some files; what the first failure was."""
    job = Job(Task(Service("is-IS"), **task), interruption or Interruption())
    planned = plan([str(file) for file in files], forms, None if output is None else str(output))
    await asyncio.wait_for(job.run(planned), 30)
    return job.failure


# -- a batch -------------------------------------------------------------------------------------


async def test_files_are_heard_in_order(
    server: TiroServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await run(ICELANDIC, SILENCE, ICELANDIC) is None
    out, err = capsys.readouterr()
    says = f"==> {ICELANDIC} <==\n{SAYS_ICELANDIC}\n"
    assert out == f"{says}\n==> {SILENCE} <==\n\n{says}"
    assert err == f"note: {SILENCE}: no speech was heard in it\n"


async def test_what_cannot_be_done_does_not_keep_the_others_from_being(
    server: TiroServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "a.txt"
    text.write_text("no sound")
    assert await run(text, "gone.wav", ICELANDIC, forms=(Format.JSON,)) is Exit.NO_FILE
    out, err = capsys.readouterr()
    assert [record["file"] for record in json.loads(out)] == [ICELANDIC]
    gone, odd = err.splitlines()
    assert gone == "error: gone.wav: no such file"
    assert odd.startswith(f"error: {text}: not an audio")


async def test_nothing_that_can_be_read_needs_no_service() -> None:
    assert await run("gone.wav") is Exit.NO_FILE


@pytest.mark.parametrize("fault", [ZeroDivisionError("odd"), OSError(5, "odd")])
async def test_no_fault_of_this_program_ends_a_batch(
    server: TiroServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fault: Exception,
) -> None:
    blocks = AudioFile.blocks
    first: list[AudioFile] = []

    def breaks(self: AudioFile) -> Iterator[Block]:
        first.append(self)
        if len(first) == 1:
            raise fault
        return blocks(self)

    monkeypatch.setattr(AudioFile, "blocks", breaks)
    assert await run(FOX, ICELANDIC) is Exit.UNEXPECTED
    out, err = capsys.readouterr()
    assert SAYS_ICELANDIC in out
    assert err.startswith(f"error: {FOX}: unexpected {type(fault).__name__}")


async def test_the_output_that_fails_ends_it(
    server: TiroServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: Output, segment: Segment) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(Output, "final", fails)
    with pytest.raises(BrokenPipeError):
        await run(ICELANDIC, ICELANDIC)
    assert len(server.connections) == 1


# -- the service ---------------------------------------------------------------------------------


async def test_an_answer_that_was_waited_for_in_vain_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(hearing, "_CONNECT", APIConnectOptions(max_retry=2, timeout=0.2))
    stalls = faults.PerConnection(faults.StalledHandshake())
    async with TiroServer(api_key=KEY, hooks=stalls) as server:
        monkeypatch.setenv("TIRO_BASE_URL", server.base_url)
        monkeypatch.setenv("TIRO_API_KEY", KEY)
        assert await run(ICELANDIC) is None
    out, err = capsys.readouterr()
    assert out.split() == SAYS_ICELANDIC.split()
    assert err.startswith(f"note: {ICELANDIC}: no connection to Tiro at 127.0.0.1:")
    assert err.endswith(" s; trying again\n") and err.count("\n") == 1


def failing(monkeypatch: pytest.MonkeyPatch, *outcomes: Exception | None) -> list[str]:
    """Have hearings fail, one after the other, and remember what they heard."""
    left = list(outcomes)
    heard: list[str] = []

    async def hear(self: Hearing, engine: STT) -> bool:
        heard.append(self._transcript.file)
        outcome = left.pop(0)
        if outcome is not None:
            raise outcome
        return True

    monkeypatch.setattr(Hearing, "run", hear)
    return heard


LOST = APIConnectionError("gone")


async def test_a_service_that_fails_for_one_file_may_do_the_next(
    server: TiroServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    heard = failing(monkeypatch, LOST, LOST, None, LOST, LOST, None)
    assert await run(*[FOX] * 6) is Exit.SERVICE
    assert len(heard) == 6
    assert capsys.readouterr().err.count(f"error: {FOX}: gone\n") == 4


async def test_a_service_that_fails_time_after_time_is_left_alone(
    server: TiroServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    heard = failing(monkeypatch, LOST, LOST, LOST)
    assert await run(*[FOX] * 9) is Exit.SERVICE
    assert len(heard) == 3
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "note: 6 more FILEs were not tried, because the service fails"


async def test_a_key_that_is_refused_is_refused_for_every_file(
    server: TiroServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    heard = failing(monkeypatch, APIStatusError("refused", status_code=401))
    assert await run(FOX, ICELANDIC, output=tmp_path) is Exit.KEY_REFUSED
    assert len(heard) == 1
    assert capsys.readouterr().err == (
        "error: refused\nnote: 1 more FILEs were not tried, because the service fails\n"
    )
    assert list(tmp_path.iterdir()) == []


async def test_a_service_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TIRO_API_KEY", KEY)
    monkeypatch.setenv("TIRO_BASE_URL", "ws://127.0.0.1:9")
    monkeypatch.setattr(hearing, "_CONNECT", APIConnectOptions(1, 0.0, 5.0))
    assert await run(ICELANDIC) is Exit.UNREACHABLE
    err = capsys.readouterr().err
    assert "127.0.0.1:9" in err and "--base-url" in err


# -- documents -----------------------------------------------------------------------------------


async def test_a_directory_is_made_and_gets_every_format(
    server: TiroServer, tmp_path: Path
) -> None:
    place = tmp_path / "new" / "deep"
    assert await run(ICELANDIC, SILENCE, forms=tuple(Format), output=f"{place}/") is None
    made = sorted(path.name for path in place.iterdir())
    assert made == sorted(
        f"{name}.{ending}"
        for name in ("is", "silence")
        for ending in ("txt", "json", "srt", "vtt", "tsv", "html")
    )
    assert (place / "is.txt").read_text("utf-8") == f"{SAYS_ICELANDIC}\n"
    assert (place / "silence.vtt").read_text() == "WEBVTT\n"
    assert json.loads((place / "is.json").read_text("utf-8"))["text"] == SAYS_ICELANDIC


async def test_a_directory_that_cannot_be_made(server: TiroServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CliError, match="cannot make .*: ") as caught:
        await run(ICELANDIC, output=f"{tmp_path}/file/deep/")
    assert caught.value.code is Exit.OUTPUT
    assert server.connections == []


async def test_a_name_that_cannot_be_written_costs_that_file(
    server: TiroServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "fox.json").mkdir()
    forms = (Format.TEXT, Format.JSON)
    assert await run(FOX, ICELANDIC, forms=forms, output=tmp_path) is Exit.OUTPUT
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fox.json", "is.json", "is.txt"]
    assert "fox.json: Is a directory" in capsys.readouterr().err


async def test_a_group_without_a_readable_file_makes_no_output(
    server: TiroServer, tmp_path: Path
) -> None:
    assert await run("gone.wav", ICELANDIC, output=tmp_path) is Exit.NO_FILE
    assert [path.name for path in tmp_path.iterdir()] == ["is.txt"]


async def test_what_is_done_already_is_left_out(
    server: TiroServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "is.txt").write_text("done")
    assert await run(ICELANDIC, SILENCE, output=tmp_path, skip_existing=True) is None
    assert (tmp_path / "is.txt").read_text() == "done"
    assert (tmp_path / "silence.txt").read_text() == ""
    assert "note: skipped what is done already: 1 FILE(s)\n" in capsys.readouterr().err
    assert await run(ICELANDIC, SILENCE, output=tmp_path, skip_existing=True) is None
    assert len(server.connections) == 1
    # One more format is not done yet.
    both = (Format.TEXT, Format.SRT)
    assert await run(ICELANDIC, forms=both, output=tmp_path, skip_existing=True) is None
    assert (tmp_path / "is.txt").read_text("utf-8") == f"{SAYS_ICELANDIC}\n"


async def test_what_is_not_complete_is_not_taken_for_done(
    server: TiroServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def half(self: Hearing, engine: STT) -> bool:
        segment = Segment("half", 0.0, 1.0)
        self._transcript.segments.append(segment)
        self._listener.final(segment)
        raise LOST

    with monkeypatch.context() as patch:
        patch.setattr(Hearing, "run", half)
        await run(ICELANDIC, output=tmp_path, skip_existing=True)
    assert [path.name for path in tmp_path.iterdir()] == ["is.txt.partial"]
    await run(ICELANDIC, output=tmp_path, skip_existing=True)
    assert [path.name for path in tmp_path.iterdir()] == ["is.txt"]
    assert (tmp_path / "is.txt").read_text("utf-8") == f"{SAYS_ICELANDIC}\n"


async def test_json_has_the_path_as_it_was_given(
    server: TiroServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"{tmp_path}/./a  \u0061\u0301.wav"
    os.link(ICELANDIC, name)
    await run(name, forms=(Format.JSON,))
    assert json.loads(capsys.readouterr().out)["file"] == name


# -- what is told of a file ----------------------------------------------------------------------


async def test_what_is_wrong_with_a_file_is_told(
    server: TiroServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracks = [Sound(silence(0.5, 16000)), Sound(tone(0.5, 16000))]
    two = write(tmp_path / "two.mkv", *tracks)
    cut = write_wav(tmp_path / "cut.wav", tone(1.0, 16000), promised=32000)
    damaged = write(tmp_path / "a.mkv", Sound(tone(4.0, 16000), "flac"))
    content = bytearray(damaged.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(200)
    damaged.write_bytes(content)
    assert await run(two, damaged, cut, forms=(Format.JSON,)) is None
    out, err = capsys.readouterr()
    assert f"{two}: audio track 2 of 2 is heard, because track 1 is silent" in err
    assert f"note: {damaged}: 1 damaged piece(s) of it were skipped\n" in err
    assert f"note: {cut}: it ends at 1.0 of 3.0 s\n" in err
    assert [record["complete"] for record in json.loads(out)] == [True, True, False]


async def test_a_selection_has_the_times_of_the_file(
    server: TiroServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_wav(tmp_path / "a.wav", tone(6.0, 16000))
    selection = Selection(start=2.0, end=5.0)
    assert await run(path, forms=(Format.JSON,), selection=selection) is None
    record = json.loads(capsys.readouterr().out)
    assert record["duration"] == 5.0
    assert record["segments"][0]["start"] == pytest.approx(2.0, abs=0.1)
    # With the silence that brings the last words.
    assert 3.0 <= server.connections[0].seconds < 6.0


# -- signals -------------------------------------------------------------------------------------


async def test_a_signal_ends_the_batch_after_the_file_of_the_moment(
    server: TiroServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    interruption = Interruption()

    async def heard(self: Hearing, engine: STT) -> bool:
        segment = Segment("half", 0.0, 1.0)
        self._transcript.segments.append(segment)
        self._listener.final(segment)
        interruption.came.set()
        return False

    monkeypatch.setattr(Hearing, "run", heard)
    everything = tuple(Format)
    assert (
        await run(FOX, ICELANDIC, forms=everything, output=tmp_path, interruption=interruption)
        is None
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"fox.{ending}" for ending in ("html", "json", "srt", "tsv", "txt", "vtt")
    ]
    assert json.loads((tmp_path / "fox.json").read_text())["complete"] is False
    first, second = capsys.readouterr().err.splitlines()
    assert "interrupted at 0.0 s" in first
    assert "1 more FILEs were not tried, because of the interruption" in second


# -- the terminal --------------------------------------------------------------------------------


class FakeTerminal(io.StringIO):
    """A file that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_is_found_on_stdout_then_on_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = FakeTerminal()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", None)
        patch.setattr(sys, "stderr", io.StringIO())
        assert job_module._terminal() is None
        for name in ("stderr", "stdout"):
            patch.setattr(sys, name, terminal)
            console = job_module._terminal()
            assert console is not None and console.file is terminal
            patch.setattr(sys, name, io.StringIO())


async def test_finals_are_printed_above_the_screen_as_they_are(
    server: TiroServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = FakeTerminal()
    monkeypatch.setenv("TERM", "xterm")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", terminal)
        await run(ICELANDIC)
    assert f"{SAYS_ICELANDIC}\n" in terminal.getvalue()


async def test_finals_go_to_the_pipe_and_progress_to_the_terminal(
    server: TiroServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe, terminal = io.StringIO(), FakeTerminal()
    monkeypatch.setenv("TERM", "xterm")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", pipe)
        patch.setattr(sys, "stderr", terminal)
        await run(ICELANDIC)
    assert pipe.getvalue() == f"{SAYS_ICELANDIC}\n"
    assert SAYS_ICELANDIC not in terminal.getvalue()
    assert "\x1b[?25l" in terminal.getvalue()


def test_the_terminal_shows_interims_progress_and_then_the_final() -> None:
    terminal = FakeTerminal()
    console = Console(file=terminal, force_terminal=True, width=80, color_system=None)
    document = Document(TerminalTarget(console), Format.TEXT, Style(), many=False)
    with Screen(console, 60.0) as lines:
        view = job_module._View(lines, Output([document], 1), 10.0)
        view.interim("góðan d")
        assert "góðan d" in terminal.getvalue()
        view.heard(40.0)
        assert "0:30 / 1:00" in terminal.getvalue()
        before = len(terminal.getvalue())
        view.final(Segment("Góðan dag.", 0.0, 1.0))
        said = terminal.getvalue()[before:]
        assert "Góðan dag.\n" in said
        assert "góðan d" not in said
