"""What headers say about the length of a recording, and what is only a guess."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import av
import pytest

from livekit.plugins.tiro.cli.promise import (
    Promise,
    ReadAt,
    mp3_seconds,
    promise,
    wav_seconds,
)

from .support.recordings import Sound, tone, write

if TYPE_CHECKING:
    from pathlib import Path

SECONDS = 3.0


def reader(data: bytes) -> ReadAt:
    return lambda offset, size: data[offset : offset + size]


def promised(path: Path) -> Promise | None:
    with av.open(str(path)) as container:
        return promise(container, container.streams.audio[0], reader(path.read_bytes()), 0.0)


@pytest.mark.parametrize(
    ("name", "codec", "of_track"),
    [
        ("a.wav", "pcm_s16le", True),
        ("a.mp3", "libmp3lame", True),
        ("a.flac", "flac", True),
        ("a.m4a", "aac", True),
        ("a.aiff", "pcm_s16be", True),
        ("a.au", "pcm_s16be", True),
        ("a.wav", "adpcm_ima_wav", True),
        ("a.wv", "wavpack", True),
        ("a.tta", "tta", True),
        ("a.mkv", "pcm_s16le", False),
        ("a.webm", "libopus", False),
        ("a.flv", "aac", False),
        ("a.avi", "pcm_s16le", False),
    ],
)
def test_headers_that_tell(tmp_path: Path, name: str, codec: str, of_track: bool) -> None:
    rate = 48000 if codec == "libopus" else 44100
    picture = SECONDS if name == "a.avi" else 0.0
    path = write(tmp_path / name, Sound(tone(SECONDS, rate), codec, rate), picture=picture)
    found = promised(path)
    assert found is not None
    assert found.end == pytest.approx(SECONDS, abs=0.15)
    assert found.of_track is of_track


@pytest.mark.parametrize(
    ("name", "codec"), [("a.ts", "aac"), ("a.aac", "aac"), ("a.ogg", "libopus"), ("a.nut", "flac")]
)
def test_what_libav_guesses_is_no_promise(tmp_path: Path, name: str, codec: str) -> None:
    path = write(tmp_path / name, Sound(tone(SECONDS, 48000), codec, 48000))
    assert promised(path) is None


@pytest.mark.parametrize(("name", "codec"), [("a.mkv", "pcm_s16le"), ("a.flv", "aac")])
def test_a_live_recording_that_was_never_finished_promises_nothing(
    tmp_path: Path, name: str, codec: str
) -> None:
    path = write(tmp_path / name, Sound(tone(SECONDS, 44100), codec, 44100))
    content = bytearray(path.read_bytes())
    at = content.find(b"\x44\x89\x88" if name == "a.mkv" else b"duration\x00")
    first = at + (3 if name == "a.mkv" else 9)
    content[first : first + 8] = bytes(8)
    path.write_bytes(content)
    assert promised(path) is None
    # And one that has no place for it.
    content[at : at + 3] = b"\xec\x81\x00" if name == "a.mkv" else b"DUR"
    path.write_bytes(content)
    assert promised(path) is None


def test_a_header_that_breaks_off_promises_nothing(tmp_path: Path) -> None:
    for name, codec in (("a.mkv", "pcm_s16le"), ("a.flv", "aac")):
        path = write(tmp_path / name, Sound(tone(1.0, 44100), codec, 44100))
        mark = b"\x44\x89\x88" if name == "a.mkv" else b"duration\x00"
        head = path.read_bytes()[: path.read_bytes().find(mark) + len(mark) + 2]
        with av.open(str(path)) as container:
            track = container.streams.audio[0]
            assert promise(container, track, reader(head), 0.0) is None


@pytest.mark.parametrize("head", [b"", b"avih\x38\x00\x00\x00", b"avih" + bytes(24)])
def test_a_film_without_a_number_of_pictures_promises_nothing(tmp_path: Path, head: bytes) -> None:
    path = write(tmp_path / "a.avi", Sound(tone(1.0, 16000)), picture=1.0)
    with av.open(str(path)) as container:
        assert promise(container, container.streams.audio[0], reader(head), 0.0) is None


def test_a_stream_without_a_length_promises_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "a.flac", Sound(tone(1.0, 16000), "flac"))
    content = bytearray(path.read_bytes())
    # The number of samples, of which the last 32 bits are there.
    content[22:26] = bytes(4)
    path.write_bytes(content)
    assert promised(path) is None


# -- WAVE ----------------------------------------------------------------------------------------


def chunk(name: bytes, content: bytes, size: int | None = None) -> bytes:
    length = len(content) if size is None else size
    return name + struct.pack("<I", length) + content + bytes(len(content) % 2)


def fmt(tag: int = 1, byte_rate: int = 32000) -> bytes:
    return chunk(b"fmt ", struct.pack("<HHIIHH", tag, 1, 16000, byte_rate, 2, 16))


def wav(*chunks: bytes, form: bytes = b"RIFF") -> ReadAt:
    return reader(form + bytes(4) + b"WAVE" + b"".join(chunks))


def test_a_wave_file_says_how_long_it_is() -> None:
    assert wav_seconds(wav(fmt(), chunk(b"data", b"", 64000))) == 2.0
    odd = chunk(b"LIST", b"abc")
    assert wav_seconds(wav(odd, fmt(0xFFFE), odd, chunk(b"data", b"", 64000))) == 2.0


@pytest.mark.parametrize(
    "chunks",
    [
        (fmt(), chunk(b"data", b"", 0)),
        (fmt(), chunk(b"data", b"", 0xFFFFFFFF)),
        (fmt(), chunk(b"data", b"", 0x7FFFF000)),
        (fmt(0x55), chunk(b"data", b"", 64000)),
        (chunk(b"data", b"", 64000),),
        (fmt(),),
        (b"fmt ",),
        (chunk(b"junk", b""),) * 200,
    ],
    ids=["0", "pipe", "sox", "mp3 inside", "no format", "no data", "cut", "endless"],
)
def test_a_wave_file_that_does_not_know(chunks: tuple[bytes, ...]) -> None:
    assert wav_seconds(wav(*chunks)) is None


def test_a_compressed_wave_file_says_how_many_samples_it_has() -> None:
    samples = chunk(b"fact", struct.pack("<I", 48000))
    assert wav_seconds(wav(fmt(0x11), samples, chunk(b"data", b"", 64000))) == 3.0


def test_a_wave_file_of_more_than_4_gib() -> None:
    sizes = chunk(b"ds64", struct.pack("<QQQ", 0, 32000 * 10**6, 0))
    data = chunk(b"data", b"", 0xFFFFFFFF)
    assert wav_seconds(wav(sizes, fmt(), data, form=b"RF64")) == 1e6


# -- MP3 -----------------------------------------------------------------------------------------


def mp3(second: int, third: int, fourth: int, rest: bytes, before: bytes = b"") -> ReadAt:
    return reader(before + bytes([0xFF, second, third, fourth]) + rest)


def info(side: int, frames: int, *, flags: int = 1, name: bytes = b"Xing") -> bytes:
    return bytes(side) + name + struct.pack(">II", flags, frames)


def test_an_mp3_file_says_how_many_frames_it_has() -> None:
    assert mp3_seconds(mp3(0xFB, 0, 0, info(32, 1000))) == pytest.approx(1152000 / 44100)
    assert mp3_seconds(mp3(0xFB, 4, 0xC0, info(17, 1000, name=b"Info"))) == 24.0
    assert mp3_seconds(mp3(0xF3, 8, 0, info(17, 1000))) == 36.0
    assert mp3_seconds(mp3(0xE3, 8, 0xC0, info(9, 1000))) == 72.0


def test_an_mp3_file_with_the_other_kind_of_tag() -> None:
    tag = bytes(32) + b"VBRI" + bytes(10) + struct.pack(">I", 1000)
    assert mp3_seconds(mp3(0xFB, 4, 0, tag)) == 24.0


def test_the_first_frame_is_found_after_an_id3_tag() -> None:
    picture = b"ID3" + bytes([4, 0, 0, 0, 0, 2, 3]) + bytes(259)
    assert mp3_seconds(mp3(0xFB, 4, 0, info(32, 1000), picture)) == 24.0


@pytest.mark.parametrize(
    "read_at",
    [
        reader(b""),
        reader(b"no frame at all"),
        mp3(0xFB, 4, 0, info(32, 1000, flags=2)),
        mp3(0xFB, 4, 0, info(32, 0)),
        mp3(0xFB, 4, 0, bytes(100)),
        mp3(0xEB, 4, 0, info(32, 1000)),
        mp3(0xFB, 12, 0, info(32, 1000)),
    ],
    ids=["empty", "text", "no count", "no frames", "no tag", "no version", "no rate"],
)
def test_an_mp3_file_that_does_not_know(read_at: ReadAt) -> None:
    assert mp3_seconds(read_at) is None
