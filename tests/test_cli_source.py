"""The bytes of an input: read as they come, and no longer than until somebody says stop."""

from __future__ import annotations

import io
import os
import select
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from livekit.plugins.tiro.cli import source as source_module
from livekit.plugins.tiro.cli.exits import Exit, FileError
from livekit.plugins.tiro.cli.source import STDIN, Source, check_readable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

needs_fifo = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The standard input is a pipe; what writes to it."""
    reading, writing = os.pipe()
    with os.fdopen(reading) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        yield writing
    try:
        os.close(writing)
    except OSError:
        pass


@pytest.fixture
def opened(pipe: int) -> Iterator[Source]:
    found = Source(STDIN)
    found.open()
    yield found
    found.close()


def test_a_file_is_read_from_any_place(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"0123456789")
    source = Source(str(path))
    source.open()
    assert source.is_file and source.readable() and source.seekable()
    assert source.read(4) == b"0123"
    assert source.read_at(8, 5) == b"89"
    assert source.tell() == 4
    assert source.seek(-2, os.SEEK_END) == 8
    assert source.read(9) == b"89"
    assert source.read(9) == b""
    assert source.seek(-1) == source.seek(2**70) == -1
    source.rewind()
    assert source.read(1) == b"0"
    source.forget()
    assert source.kept == 0
    source.close()
    source.close()


def test_a_pipe_gives_what_is_there(pipe: int, opened: Source) -> None:
    assert opened.readable()
    assert not opened.seekable() and not opened.is_file
    os.write(pipe, b"01234")
    assert opened.read(3) == b"012"
    assert opened.read(100) == b"34"
    os.close(pipe)
    assert opened.read(100) == b""


def test_a_pipe_can_be_read_again_until_it_is_forgotten(pipe: int, opened: Source) -> None:
    os.write(pipe, b"01234")
    assert opened.read(5) == b"01234"
    assert opened.kept == 5
    assert opened.read_at(1, 2) == b"12"
    opened.rewind()
    assert opened.read(3) == b"012"
    opened.forget()
    assert opened.kept == 0
    assert opened.read(100) == b"34"
    os.write(pipe, b"5")
    assert opened.read(100) == b"5"
    assert opened.read_at(0, 100) == b"01234"


def test_stop_ends_a_read_that_waits(pipe: int, opened: Source) -> None:
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(opened.read(100)))
    reader.start()
    opened.stop()
    reader.join(5)
    assert found == [b""]
    assert opened.read(100) == b""


def test_stop_comes_before_what_is_there(pipe: int, opened: Source) -> None:
    os.write(pipe, b"0")
    opened.stop()
    assert opened.read(100) == b""


def test_stop_after_the_end_touches_nothing(opened: Source) -> None:
    """The number of the pipe that it wakes a reader by may be another file's by then."""
    opened.close()
    there, here = os.pipe()
    number = os.dup2(here, opened._wake_write)
    try:
        opened.stop()
        assert select.select([there], [], [], 0)[0] == []
    finally:
        for each in {there, here, number}:
            os.close(each)


def test_what_somebody_else_took_is_waited_for(pipe: int, opened: Source) -> None:
    os.set_blocking(sys.stdin.fileno(), False)
    waits: list[None] = []
    wait = opened._wait

    def too_early(fd: int) -> None:
        waits.append(None)
        if len(waits) > 1:
            os.write(pipe, b"0")
            wait(fd)

    opened._wait = too_early  # type: ignore[method-assign]
    assert opened.read(100) == b"0"
    assert len(waits) == 2


def test_a_system_that_cannot_wait_for_pipes_just_reads(
    monkeypatch: pytest.MonkeyPatch, pipe: int, opened: Source
) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.delattr(select, "poll", raising=False)
    os.write(pipe, b"0")
    assert opened.read(100) == b"0"


@needs_fifo
def test_stop_ends_the_wait_for_somebody_who_writes(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    source = Source(str(path))
    opening = threading.Thread(target=source.open, daemon=True)
    opening.start()
    # It may not have come to its wait yet.
    while opening.is_alive():
        source.stop()
        opening.join(0.01)
    assert source.read(100) == b""
    source.close()


@needs_fifo
def test_a_named_pipe_is_opened_only_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with monkeypatch.context() as patch:
        patch.setattr(source_module, "open_file", None)
        check_readable(str(path))
    writer = threading.Thread(target=path.write_bytes, args=(b"0123",), daemon=True)
    writer.start()
    source = Source(str(path))
    source.open()
    assert source.read(100) == b"0123"
    source.close()
    writer.join()


def assert_unreadable(name: str, code: Exit, reason: str) -> None:
    with pytest.raises(FileError, match=reason) as caught:
        check_readable(name)
    assert caught.value.code is code
    source = Source(name)
    with pytest.raises(FileError, match=reason):
        source.open()
    source.close()


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    check_readable(__file__)
    assert_unreadable(str(tmp_path / "gone"), Exit.NO_FILE, "no such file")
    assert_unreadable(str(tmp_path), Exit.NO_FILE, "that is a directory, not a file")
    assert_unreadable("a" * 300, Exit.NO_FILE, "cannot be read: File name too long")
    assert_unreadable("a\0b", Exit.NO_FILE, "cannot be read: .*embedded null")


def test_a_standard_input_that_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    for stdin in (None, io.StringIO()):
        monkeypatch.setattr(sys, "stdin", stdin)
        assert_unreadable(STDIN, Exit.NO_FILE, "the standard input is closed")


def test_a_terminal_is_no_audio(monkeypatch: pytest.MonkeyPatch) -> None:
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb"), os.fdopen(theirs) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        assert_unreadable(STDIN, Exit.USAGE, "a terminal; pipe audio into it")
