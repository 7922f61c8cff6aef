"""Reads damaged recordings: 40 formats, each damaged in 50 ways. `python -m tests.fuzz_media`.

Whatever the damage, reading ends in a moment, by itself or with a `FileError`, and every block of
audio that it gives is one that can be pushed. Each format is read in a process of its own, since
what libav does wrong can be the end of a process.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from zlib import crc32

import numpy as np

from livekit.plugins.tiro.cli.audio import open_audio
from livekit.plugins.tiro.cli.exits import FileError
from livekit.plugins.tiro.cli.source import Source

from .support.recordings import Sound, beeps, tone, write

SECONDS = 2.0
"""How long each recording is, before anything happens to it."""

DAMAGES = 50
# Seconds for one file; libav needs a few hundredths.
PATIENCE = 60.0
# Seconds of audio that a file of two can give: gaps that damage made are filled up to 5 s each.
MOST_AUDIO = 900.0


@dataclass(frozen=True)
class Kind:
    """A format of recording."""

    ending: str
    codec: str
    rate: int
    channels: int = 1
    picture: bool = False

    @property
    def name(self) -> str:
        """What it is called on the command line."""
        return f"{self.ending}-{self.codec}-{self.channels}"

    def make(self, directory: Path) -> bytes:
        """Write a recording of this kind, and return its bytes."""
        sound = tone(SECONDS, self.rate) * 0.2 + beeps([0.5, 1.5], SECONDS, self.rate)
        layout = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}[self.channels]
        track = Sound(np.repeat(sound, self.channels, axis=0), self.codec, self.rate, layout)
        path = directory / f"{self.name}.{self.ending}"
        return write(path, track, picture=SECONDS if self.picture else 0.0).read_bytes()


KINDS = [
    Kind("wav", "pcm_s16le", 16000),
    Kind("wav", "pcm_s24le", 44100, 2),
    Kind("wav", "pcm_f32le", 48000),
    Kind("wav", "pcm_mulaw", 8000),
    Kind("wav", "adpcm_ima_wav", 22050),
    Kind("wav", "adpcm_ms", 22050, 2),
    Kind("wav", "pcm_s16le", 48000, 6),
    Kind("w64", "pcm_s16le", 16000),
    Kind("aiff", "pcm_s16be", 44100, 2),
    Kind("au", "pcm_mulaw", 8000),
    Kind("caf", "alac", 44100, 2),
    Kind("mp3", "libmp3lame", 44100, 2),
    Kind("mp2", "mp2", 48000, 2),
    Kind("aac", "aac", 44100),
    Kind("aac", "aac", 48000, 6),
    Kind("ac3", "ac3", 48000, 2),
    Kind("eac3", "eac3", 48000, 2),
    Kind("flac", "flac", 44100, 2),
    Kind("wv", "wavpack", 44100, 2),
    Kind("tta", "tta", 44100),
    Kind("ogg", "libopus", 48000),
    Kind("oga", "flac", 44100),
    Kind("webm", "libopus", 48000),
    Kind("webm", "libopus", 48000, 8),
    Kind("mkv", "aac", 48000, 2, picture=True),
    Kind("mkv", "flac", 16000),
    Kind("mkv", "pcm_s16le", 16000),
    Kind("mka", "ac3", 48000, 2),
    Kind("m4a", "aac", 44100),
    Kind("m4a", "alac", 44100, 2),
    Kind("mp4", "libmp3lame", 44100, 2, picture=True),
    Kind("mov", "pcm_s16le", 16000),
    Kind("3gp", "libopencore_amrnb", 8000),
    Kind("amr", "libopencore_amrnb", 8000),
    Kind("ts", "aac", 48000, 2, picture=True),
    Kind("ts", "libopus", 48000),
    Kind("mpg", "mp2", 44100, 2, picture=True),
    Kind("flv", "aac", 44100),
    Kind("avi", "pcm_s16le", 16000, picture=True),
    Kind("nut", "flac", 44100),
]


# -- damage --------------------------------------------------------------------------------------

Damage = Callable[[bytearray, random.Random], bytes | bytearray]


def _place(data: bytearray, draw: random.Random) -> int:
    return draw.randrange(len(data))


def _stretch(data: bytearray, draw: random.Random) -> slice:
    start = _place(data, draw)
    return slice(start, start + draw.choice([1, 16, 200, 3000, 20_000]))


def flip(data: bytearray, draw: random.Random) -> bytes | bytearray:
    """Single bits are wrong."""
    for _ in range(draw.choice([1, 10, 300])):
        data[_place(data, draw)] ^= 1 << draw.randrange(8)
    return data


def overwrite(data: bytearray, draw: random.Random) -> bytes | bytearray:
    """A stretch holds something else."""
    part = _stretch(data, draw)
    length = len(data[part])
    data[part] = draw.choice([bytes(length), b"\xff" * length, draw.randbytes(length)])
    return data


def cut(data: bytearray, draw: random.Random) -> bytes | bytearray:
    """The end is missing, or nearly all of it is."""
    return data[: draw.choice([_place(data, draw), draw.randrange(600)])]


def behead(data: bytearray, draw: random.Random) -> bytes | bytearray:
    """The beginning is missing."""
    return data[_place(data, draw) :]


def drop(data: bytearray, draw: random.Random) -> bytes | bytearray:
    """Stretches are missing."""
    for _ in range(draw.choice([1, 5])):
        del data[_stretch(data, draw)]
        if not data:
            break
    return data


def insert(data: bytearray, draw: random.Random) -> bytes | bytearray:
    """There is something between."""
    place = _place(data, draw)
    data[place:place] = draw.randbytes(draw.choice([1, 100, 5000]))
    return data


def repeat(data: bytearray, draw: random.Random) -> bytes | bytearray:
    """A stretch comes twice, or all does."""
    part = draw.choice([slice(None), _stretch(data, draw)])
    place = draw.choice([len(data), _place(data, draw)])
    data[place:place] = data[part]
    return data


def swap(data: bytearray, draw: random.Random) -> bytes | bytearray:
    """Two halves have changed places."""
    place = _place(data, draw)
    return data[place:] + data[:place]


def exaggerate(data: bytearray, draw: random.Random) -> bytes | bytearray:
    """Numbers in the header are extreme."""
    for _ in range(draw.choice([1, 4])):
        place = draw.randrange(min(len(data), 400))
        size = draw.choice([1, 2, 4, 8])
        number = draw.choice([0, 1, 2 ** (8 * size - 1) - 1, 2 ** (8 * size) - 1])
        data[place : place + size] = number.to_bytes(size, draw.choice(["big", "little"]))
    return data


def scramble_header(data: bytearray, draw: random.Random) -> bytes | bytearray:
    """Bytes of the header are wrong."""
    for _ in range(draw.choice([1, 3, 12])):
        data[draw.randrange(min(len(data), 400))] = draw.randrange(256)
    return data


WAYS: list[Damage] = [
    flip,
    overwrite,
    cut,
    behead,
    drop,
    insert,
    repeat,
    swap,
    exaggerate,
    scramble_header,
]


def damaged(kind: Kind, recording: bytes, number: int, seed: int) -> bytes:
    """Return the recording, damaged in the way of this number."""
    draw = random.Random(crc32(f"{kind.name} {number} {seed}".encode()))
    return bytes(WAYS[number % len(WAYS)](bytearray(recording), draw))


# -- reading -------------------------------------------------------------------------------------


class PipeSource(Source):
    """A source whose bytes come through a pipe."""

    def __init__(self, content: bytes) -> None:
        reading, self._writing = os.pipe()
        super().__init__(f"/dev/fd/{reading}")
        self._reading = reading
        self._writer = threading.Thread(target=self._write, args=(content,))
        self._writer.start()

    def _write(self, content: bytes) -> None:
        with suppress(OSError), os.fdopen(self._writing, "wb", buffering=0) as pipe:
            pipe.write(content)

    def close(self) -> None:
        """Let go of it, on both sides."""
        super().close()
        os.close(self._reading)
        self._writer.join()


def read(source: Source) -> float:
    """Read all of a source. Return the seconds of audio that it gave.

    Raises:
        AssertionError: Something that it gave cannot be pushed, or there is too much.
    """
    seconds = 0.0
    with suppress(FileError), open_audio(source) as audio:
        assert 8000 <= audio.sample_rate <= 48000
        assert audio.length is None or math.isfinite(audio.length)
        for block in audio.blocks():
            assert block.pcm and len(block.pcm) % 2 == 0
            assert math.isfinite(block.time)
            seconds += len(block.pcm) / 2 / audio.sample_rate
            assert seconds < MOST_AUDIO, "there is too much of it"
        assert isinstance(audio.damaged, int)
    return seconds


def try_kind(
    kind: Kind, numbers: Iterable[int], seed: int, directory: Path
) -> Iterator[tuple[int, float]]:
    """Read a kind of recording, damaged in some ways; yield the seconds of audio of each."""
    recording = kind.make(directory)
    path = directory / "damaged"
    for number in numbers:
        content = damaged(kind, recording, number, seed)
        path.write_bytes(content)
        # One in five comes through a pipe.
        source = PipeSource(content) if number % 5 == 4 and content else Source(str(path))
        yield number, read(source)


def _work(kind: Kind, numbers: range, seed: int, results: Connection) -> None:
    with tempfile.TemporaryDirectory() as name:
        for result in try_kind(kind, numbers, seed, Path(name)):
            results.send(result)
    results.send(None)


Work = Callable[[Kind, range, int, Connection], None]


def run_kind(kind: Kind, numbers: range, seed: int, work: Work = _work) -> str:
    """Read a kind in a process of its own. Return how it went, beginning with "ok" if it did.

    Args:
        kind: The format.
        numbers: The damages.
        seed: Of the damages.
        work: What the process does.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["livekit.plugins.tiro.cli.audio"])
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(kind, numbers, seed, theirs))
    process.start()
    theirs.close()
    last, audible, began = numbers.start - 1, 0, time.monotonic()
    try:
        while ours.poll(PATIENCE):
            result = ours.recv()
            if result is None:
                return f"ok, {audible} still audible, {time.monotonic() - began:.1f} s"
            last = result[0]
            audible += result[1] > 0
        return f"FAILED: damage {last + 1} takes more than {PATIENCE:.0f} s"
    except EOFError:
        process.join()
        return f"FAILED: damage {last + 1} ended the process ({process.exitcode})"
    finally:
        process.kill()
        process.join()
        ours.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.fuzz_media")
    parser.add_argument("--damages", type=int, default=DAMAGES, help="how many to each format")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other damages")
    parser.add_argument("--kind", help=f"one format only: {', '.join(k.name for k in KINDS)}")
    parser.add_argument("--only", type=int, help="the damage of this number only")
    given = parser.parse_args(arguments)
    kinds = [kind for kind in KINDS if given.kind in (None, kind.name)]
    numbers = range(given.damages) if given.only is None else range(given.only, given.only + 1)
    failed = False
    for kind in kinds:
        outcome = run_kind(kind, numbers, given.seed)
        failed = failed or not outcome.startswith("ok")
        print(f"{kind.name:24} {outcome}", flush=True)
    return int(failed or not kinds)


if __name__ == "__main__":
    sys.exit(main())
