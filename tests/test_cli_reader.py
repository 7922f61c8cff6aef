"""A thread reads ahead; the loop never waits for it, and it ends when it is told to."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from livekit.plugins.tiro.cli import reader as reader_module
from livekit.plugins.tiro.cli.audio import AudioFile, Selection
from livekit.plugins.tiro.cli.blocks import Block
from livekit.plugins.tiro.cli.exits import FileError
from livekit.plugins.tiro.cli.reader import Reader
from livekit.plugins.tiro.cli.source import STDIN

from .support.recordings import tone, write_wav

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The standard input is a pipe; what writes to it."""
    reading, writing = os.pipe()
    with os.fdopen(reading) as stdin, os.fdopen(writing, "wb", buffering=0):
        monkeypatch.setattr(sys, "stdin", stdin)
        yield writing


@pytest.fixture(autouse=True)
async def no_threads_left() -> AsyncIterator[None]:
    yield
    deadline = time.monotonic() + 5
    while any(thread.name == "tiro.cli.reader" for thread in threading.enumerate()):
        assert time.monotonic() < deadline, "a reader is left behind"
        await asyncio.sleep(0.01)


async def test_a_file_is_read_to_its_end(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", tone(30.0, 16000))
    async with Reader(str(path)) as reader:
        audio = await reader.audio()
        assert audio.sample_rate == 16000
        blocks = []
        while (block := await reader.next()) is not None:
            blocks.append(block)
        assert await reader.next() is None
    assert sum(len(block.pcm) for block in blocks) == 30 * 32000
    assert blocks[-1].time == pytest.approx(29.95, abs=0.1)


async def test_it_reads_no_further_ahead_than_it_may(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", tone(60.0, 8000), 8000)
    async with Reader(str(path)) as reader:
        while len(reader._blocks) < reader_module._AHEAD:
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.02)
        assert len(reader._blocks) == reader_module._AHEAD


async def test_of_a_file_some_seconds_are_there_before_anybody_has_to_keep_up(
    tmp_path: Path,
) -> None:
    for seconds, ahead in ((2.0, 2.0), (60.0, 10.0)):
        path = write_wav(tmp_path / "a.wav", tone(seconds, 16000))
        async with Reader(str(path)) as reader:
            # Before that nobody knows that it is a file.
            await reader.audio()
            await reader.get_ahead()
            assert reader.is_file
            decoded = sum(len(block.pcm) for block in reader._blocks) / 2 / 16000
            assert ahead <= decoded < ahead + 5


async def test_a_pipe_is_not_waited_for(pipe: int) -> None:
    async with Reader("-") as reader:
        await reader.get_ahead()
        assert not reader.is_file


async def test_a_block_that_comes_with_the_end_of_the_patience_is_taken(
    pipe: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the loop had no turn, both are due at once."""
    block = Block(bytes(320), 0.0)

    async def both(*_: object) -> None:
        reader._on_block(block)
        raise asyncio.TimeoutError

    async with Reader("-") as reader:
        monkeypatch.setattr(reader, "_wait", both)
        assert await reader.next(0.05) is block
        monkeypatch.undo()


async def test_a_selection_is_read(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", tone(3.0, 16000))
    async with Reader(str(path), Selection(start=1.0, end=1.1)) as reader:
        block = await reader.next()
        assert block is not None and block.time == pytest.approx(1.0)


async def test_what_cannot_be_opened_is_told_to_whoever_asks(tmp_path: Path) -> None:
    async with Reader(str(tmp_path / "gone.wav")) as reader:
        with pytest.raises(FileError, match="no such file"):
            await reader.audio()
        with pytest.raises(FileError, match="no such file"):
            await reader.next()


async def test_a_fault_of_the_thread_is_told_after_what_came_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_wav(tmp_path / "a.wav", tone(1.0, 16000))

    def breaks(self: object) -> Iterator[Block]:
        yield Block(bytes(2), 0.0)
        raise ZeroDivisionError

    monkeypatch.setattr(AudioFile, "blocks", breaks)
    async with Reader(str(path)) as reader:
        await reader.audio()
        assert await reader.next() is not None
        with pytest.raises(ZeroDivisionError):
            await reader.next()


async def until_silent(reader: Reader) -> None:
    """Take blocks for as long as some come."""
    with pytest.raises(asyncio.TimeoutError):
        while True:
            assert await reader.next(0.1) is not None


async def test_the_loop_goes_on_while_a_pipe_says_nothing(pipe: int, tmp_path: Path) -> None:
    content = write_wav(tmp_path / "a.wav", tone(4.0, 16000)).read_bytes()
    async with Reader(STDIN) as reader:
        await asyncio.to_thread(os.write, pipe, content[:100_000])
        assert (await reader.audio()).sample_rate == 16000
        await until_silent(reader)
        await asyncio.to_thread(os.write, pipe, content[100_000:])
        assert await reader.next() is not None


@pytest.mark.parametrize("said", [0, 100_000])
async def test_a_pipe_that_says_nothing_is_left_at_once(
    pipe: int, tmp_path: Path, said: int
) -> None:
    content = write_wav(tmp_path / "a.wav", tone(4.0, 16000)).read_bytes()
    async with Reader(STDIN) as reader:
        await asyncio.to_thread(os.write, pipe, content[:said])
        await until_silent(reader)
        before = time.monotonic()
    assert time.monotonic() - before < 1


async def test_a_thread_that_does_not_end_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that does not answer."""
    path = write_wav(tmp_path / "a.wav", tone(1.0, 16000))
    answer = threading.Event()

    def hangs(self: object) -> Iterator[Block]:
        answer.wait(10)
        yield from ()

    monkeypatch.setattr(AudioFile, "blocks", hangs)
    monkeypatch.setattr(reader_module, "_PATIENCE", 0.05)
    before = time.monotonic()
    async with Reader(str(path)) as reader:
        await reader.audio()
    assert time.monotonic() - before < 5
    answer.set()


def test_a_thread_that_outlives_the_loop_ends_quietly(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", tone(1.0, 16000))
    readers: list[Reader] = []

    async def begin() -> None:
        readers.append(Reader(str(path)))

    asyncio.run(begin())
    (reader,) = readers
    reader._thread.start()
    reader._thread.join(10)
    assert not reader._thread.is_alive()
