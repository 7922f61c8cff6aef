"""Where transcripts go: whole lines as they come, whole documents at the end, nothing lost."""

from __future__ import annotations

import errno
import io
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from livekit.plugins.tiro.cli import exits as exits_module
from livekit.plugins.tiro.cli.exits import CliError, Exit
from livekit.plugins.tiro.cli.formats import Format, Segment, Transcript
from livekit.plugins.tiro.cli.output import (
    Document,
    FileTarget,
    Output,
    StdoutTarget,
    Style,
    Target,
    TerminalTarget,
)
from livekit.plugins.tiro.cli.subtitles import Layout

if TYPE_CHECKING:
    from collections.abc import Callable

JA = Segment("Já.", 1.0, 2.0)
NEI = Segment("Nei.", 3.0, 4.0)


class Note(list[str]):
    """A target that remembers."""

    def __init__(self) -> None:
        super().__init__()
        self.complete: bool | None = None

    def write(self, text: str) -> None:
        self.append(text)

    def close(self, *, complete: bool) -> None:
        self.complete = complete


def output(target: Target, form: Format, *, files: int = 1, style: Style | None = None) -> Output:
    return Output([Document(target, form, style or Style(), many=files > 1)], files)


def hear(found: Output, name: str, *segments: Segment, done: bool = True) -> None:
    transcript = Transcript(name, "is-IS", 5.0, complete=done)
    found.begin(transcript)
    for segment in segments:
        transcript.segments.append(segment)
        found.final(segment)
    if done:
        found.done()


# -- documents -----------------------------------------------------------------------------------


def test_text_is_written_as_it_comes() -> None:
    note = Note()
    with output(note, Format.TEXT) as found:
        hear(found, "a.wav", JA, done=False)
        assert note == ["Já.\n"]
    assert note.complete is False


def test_text_of_several_files_has_headers() -> None:
    note = Note()
    with output(note, Format.TEXT, files=2) as found:
        hear(found, "a\tb.wav", JA)
        hear(found, "c.wav")
    assert "".join(note) == "==> a b.wav <==\nJá.\n\n==> c.wav <==\n"
    assert note.complete is True


def test_the_other_formats_are_written_at_the_end() -> None:
    style = Style(layout=Layout(each_word=True))
    expected = {
        Format.SRT: "1\n00:00:01,000 --> 00:00:02,000\nJá.\n",
        Format.VTT: "WEBVTT\n\n00:00:01.000 --> 00:00:02.000\nJá.\n",
        Format.TSV: "start\tend\ttext\n1000\t2000\tJá.\n",
    }
    for form, document in expected.items():
        note = Note()
        with output(note, form, style=style) as found:
            hear(found, "a.wav", JA)
            assert note == []
        assert note == [document]


def test_json_is_an_array_if_there_are_several_files() -> None:
    one, two = Note(), Note()
    with output(one, Format.JSON) as found:
        hear(found, "a.wav", JA)
    with output(two, Format.JSON, files=2) as found:
        hear(found, "a.wav", JA, done=False)
        hear(found, "b.wav", done=False)
    assert json.loads(one[0])["file"] == "a.wav"
    assert [record["file"] for record in json.loads(two[0])] == ["a.wav"]


def test_lines_may_have_times() -> None:
    note = Note()
    with output(note, Format.TEXT, style=Style(timestamps=True)) as found:
        hear(found, "a.wav", JA)
    assert note[0] == "[00:00:01.000 --> 00:00:02.000] Já.\n"


def test_silence_that_was_heard_to_its_end_is_a_document() -> None:
    note = Note()
    with output(note, Format.VTT) as found:
        transcript = Transcript("a.wav", "is-IS", complete=False)
        found.begin(transcript)
        found.done()
    assert note == ["WEBVTT\n"]
    assert note.complete is True


def test_nothing_heard_before_a_failure_writes_nothing() -> None:
    note = Note()
    with pytest.raises(ZeroDivisionError), output(note, Format.JSON) as found:
        hear(found, "a.wav", done=False)
        raise ZeroDivisionError
    assert note == []
    assert note.complete is False


def test_all_documents_get_what_was_heard_and_one_that_fails_keeps_none_from_it() -> None:
    class Full(Note):
        def write(self, text: str) -> None:
            raise CliError(Exit.OUTPUT, "full")

    notes = [Note(), Full(), Note()]
    forms = [Format.TEXT, Format.SRT, Format.TSV]
    documents = [
        Document(note, form, Style(), many=False) for note, form in zip(notes, forms, strict=True)
    ]
    with pytest.raises(CliError, match="full"), Output(documents, 1) as found:
        hear(found, "a.wav", JA, NEI)
    assert "".join(notes[0]) == "Já.\nNei.\n"
    assert notes[2] == ["start\tend\ttext\n1000\t2000\tJá.\n3000\t4000\tNei.\n"]
    assert [note.complete for note in notes] == [True, True, True]


# -- files ---------------------------------------------------------------------------------------


def test_a_file_keeps_what_it_held_until_the_first_write(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("x" * 10_000)
    target = FileTarget(path)
    assert len(path.read_text()) == 10_000
    target.write("þetta\n")
    target.write("\udcff\n")
    target.close(complete=True)
    assert path.read_bytes() == "þetta\n?\n".encode()


def test_a_file_that_is_not_written_is_as_it_was(tmp_path: Path) -> None:
    old, new = tmp_path / "old.txt", tmp_path / "new.txt"
    old.write_text("kept")
    for path in (old, new):
        FileTarget(path).close(complete=False)
    assert old.read_text() == "kept"
    assert not new.exists()


@pytest.mark.parametrize("complete", [True, False])
def test_a_file_may_have_another_name_until_it_is_complete(tmp_path: Path, complete: bool) -> None:
    path, partial = tmp_path / "a.txt", tmp_path / "a.txt.partial"
    target = FileTarget(path, partial)
    target.write("já\n")
    assert partial.read_text() == "já\n"
    target.close(complete=complete)
    assert path.exists() is complete
    assert partial.exists() is not complete


def test_a_file_whose_other_name_was_taken_away(tmp_path: Path) -> None:
    target = FileTarget(tmp_path / "a.txt", tmp_path / "a.txt.partial")
    target.write("já\n")
    (tmp_path / "a.txt.partial").unlink()
    with pytest.raises(CliError, match=r"a.txt.partial: No such file or directory$") as caught:
        target.close(complete=True)
    assert caught.value.code is Exit.OUTPUT


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(CliError, match=r"a.txt: No such file.* \(make .*gone first\)"):
        FileTarget(tmp_path / "gone" / "a.txt")
    if os.path.exists("/dev/full"):
        target = FileTarget(Path("/dev/full"))
        with pytest.raises(CliError, match="No space left on device"):
            target.write("já\n")
        target.close(complete=False)


# -- standard output -----------------------------------------------------------------------------


class Failing(io.StringIO):
    """An output that takes text and then cannot write it."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def flush(self) -> None:
        if self.getvalue():
            raise OSError(self._number, os.strerror(self._number))


def test_the_standard_output_gets_whole_lines_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stdout = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stdout)
    target = StdoutTarget()
    target.write("já\n")
    target.close(complete=True)
    assert stdout.getvalue() == "já\n"


@pytest.mark.parametrize(
    "make",
    [StdoutTarget, lambda: TerminalTarget(Console(file=sys.stdout, force_terminal=True))],
)
def test_an_output_that_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, make: Callable[[], Target]
) -> None:
    abandoned: list[None] = []
    monkeypatch.setattr(exits_module, "abandon_stdout", lambda: abandoned.append(None))
    monkeypatch.setattr(sys, "stdout", Failing(errno.ENOSPC))
    with pytest.raises(CliError, match="cannot write: No space left on device") as caught:
        make().write("já\n")
    assert caught.value.code is Exit.OUTPUT
    assert abandoned == [None]


def test_an_output_whose_reader_went_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Failing(errno.EPIPE))
    with pytest.raises(BrokenPipeError):
        StdoutTarget().write("já\n")


def test_an_output_that_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", None)
        with pytest.raises(CliError, match="the standard output is closed"):
            StdoutTarget()


def test_finals_are_not_wrapped_and_hold_no_markup() -> None:
    terminal = io.StringIO()
    target = TerminalTarget(Console(file=terminal, force_terminal=True, width=20))
    target.write("[bold]þetta er lengra en línan á skjánum[/bold] :smile:\n")
    target.close(complete=True)
    assert terminal.getvalue() == "[bold]þetta er lengra en línan á skjánum[/bold] :smile:\n"
