"""How `transcribe` reads files: every kind, the right sound of it, at the right times."""

from __future__ import annotations

import os
import random
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pytest

from livekit.plugins.tiro.cli import audio as audio_module
from livekit.plugins.tiro.cli.audio import AudioFile, Selection, open_audio
from livekit.plugins.tiro.cli.exits import Exit, FileError
from livekit.plugins.tiro.cli.source import STDIN, Source

from .support.recordings import (
    Channels,
    Sound,
    beeps,
    onsets,
    silence,
    tone,
    write,
    write_wav,
)

if TYPE_CHECKING:
    import io
    from collections.abc import Iterator, Sequence

    from livekit.plugins.tiro.cli.blocks import Block

DATA = Path(__file__).parent / "data"
TONE = 440.0
# What word times may be off by.
TRUE = 0.06


def read(path: Path | str, **selection: object) -> tuple[AudioFile, list[Block]]:
    """All of a file, and its blocks."""
    with open_audio(Source(str(path)), Selection(**selection)) as audio:  # type: ignore[arg-type]
        return audio, list(audio.blocks())


def samples(blocks: Sequence[Block]) -> npt.NDArray[np.int16]:
    return np.frombuffer(b"".join(block.pcm for block in blocks), np.int16)


def pitch(pcm: npt.NDArray[np.int16], rate: int) -> float:
    spectrum = np.abs(np.fft.rfft(pcm.astype(np.float64)))
    return float(np.argmax(spectrum)) * rate / len(pcm)


def end_of(audio: AudioFile, blocks: Sequence[Block]) -> float:
    return blocks[-1].time + len(blocks[-1].pcm) / 2 / audio.sample_rate


@pytest.mark.parametrize(
    ("name", "codec", "rate", "layout", "expected_rate"),
    [
        ("a.wav", "pcm_s16le", 16000, "mono", 16000),
        ("a.wav", "pcm_f32le", 8000, "stereo", 8000),
        ("a.mp3", "libmp3lame", 44100, "stereo", 44100),
        ("a.ogg", "libopus", 48000, "mono", 48000),
        ("a.webm", "libopus", 48000, "7.1", 48000),
        ("a.m4a", "aac", 22050, "mono", 22050),
        ("a.flac", "flac", 96000, "5.1", 48000),
        ("a.wav", "pcm_s16le", 6000, "mono", 16000),
    ],
)
def test_every_kind_of_audio_becomes_mono_at_a_rate_the_service_takes(
    tmp_path: Path, name: str, codec: str, rate: int, layout: str, expected_rate: int
) -> None:
    channels = {"mono": 1, "stereo": 2, "5.1": 6, "7.1": 8}[layout]
    sound = np.repeat(tone(1.0, rate, hertz=TONE), channels, axis=0)
    audio, blocks = read(write(tmp_path / name, Sound(sound, codec, rate, layout)))
    pcm = samples(blocks)
    assert audio.sample_rate == expected_rate
    assert len(pcm) / expected_rate == pytest.approx(1.0, abs=0.05)
    assert pitch(pcm, expected_rate) == pytest.approx(TONE, abs=3)
    assert np.abs(pcm).max() == pytest.approx(16384, rel=0.1)
    assert audio.length == pytest.approx(1.0, abs=0.05)
    assert audio.start == pytest.approx(0.0, abs=0.05)
    assert (audio.damaged, audio.notes, audio.shortfall) == (0, [], None)


def test_the_samples_of_a_plain_file_are_not_touched() -> None:
    _, blocks = read(DATA / "fox.wav")
    pcm = samples(blocks).tobytes()
    assert pcm == (DATA / "fox.wav").read_bytes()[-len(pcm) :]


def test_the_sound_of_a_film_keeps_its_place_beside_the_picture(tmp_path: Path) -> None:
    late = Sound(tone(1.0, 16000), stamp=lambda at: at + 1.5)
    audio, blocks = read(write(tmp_path / "a.mkv", late, picture=4.0))
    assert audio.start == blocks[0].time == 1.5
    assert len(samples(blocks)) == 16000
    assert audio.length == pytest.approx(2.5, abs=0.2)


def test_a_stream_that_changes_its_format_midway_is_read_to_the_end(tmp_path: Path) -> None:
    first = write(tmp_path / "a.aac", Sound(tone(1.0, 16000), "aac"))
    stereo = np.repeat(tone(1.0, 48000), 2, axis=0)
    second = write(tmp_path / "b.aac", Sound(stereo, "aac", 48000, "stereo"))
    both = tmp_path / "both.aac"
    both.write_bytes(first.read_bytes() + second.read_bytes())
    _, blocks = read(both)
    pcm = samples(blocks)
    assert len(pcm) / 16000 == pytest.approx(2.0, abs=0.2)
    assert pitch(pcm[20000:], 16000) == pytest.approx(TONE, abs=3)


def test_a_name_may_hold_anything(tmp_path: Path) -> None:
    path = tmp_path / "þáttur: 1\n[æ].wav"
    path.write_bytes((DATA / "fox.wav").read_bytes())
    assert read(path)[0].length == pytest.approx(3.0, abs=0.1)


def test_what_a_file_says_of_itself_may_be_in_any_letters(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    content = (DATA / "fox.wav").read_bytes()
    title = b"LIST\x10\x00\x00\x00INFOINAM\x04\x00\x00\x00\xfe\xe6\xf0\x00"
    path.write_bytes(content[:36] + title + content[36:])
    assert read(path)[0].sample_rate == 16000


# -- times ---------------------------------------------------------------------------------------

BEEPS = [1.0, 7.3, 14.1, 21.9, 29.0]


@pytest.mark.many
@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [("a.webm", "libopus", 48000), ("a.mkv", "pcm_s16le", 16000), ("a.mov", "aac", 44100)],
)
def test_times_are_true_where_packets_were_lost(
    tmp_path: Path, name: str, codec: str, rate: int
) -> None:
    """A tenth of them, each gap short, seconds in all; the packets of the beeps are there."""
    draw = random.Random(3)
    lost = {number for number in range(4000) if draw.random() < 0.1}
    size = {"libopus": 960, "pcm_s16le": 1024, "aac": 1024}[codec]
    near = {round(at * rate) // size + ahead for at in BEEPS for ahead in range(-2, 5)}
    sound = Sound(beeps(BEEPS, 30.0, rate), codec, rate, keep=lambda n: n not in lost or n in near)
    audio, blocks = read(write(tmp_path / name, sound))
    assert onsets(blocks, audio.sample_rate) == pytest.approx(BEEPS, abs=TRUE)
    assert end_of(audio, blocks) == pytest.approx(30.0, abs=TRUE)
    # What is missing is silence.
    assert len(samples(blocks)) / rate == pytest.approx(30.0, abs=0.1)
    assert audio.damaged == 0


@pytest.mark.parametrize("pace", [0.98, 1.02])
@pytest.mark.parametrize(("name", "codec"), [("a.mkv", "pcm_s16le"), ("a.mka", "aac")])
def test_times_are_true_where_the_clock_was_not(
    tmp_path: Path, name: str, codec: str, pace: float
) -> None:
    sound = Sound(beeps(BEEPS, 30.0, 16000), codec, stamp=lambda at: at * pace)
    audio, blocks = read(write(tmp_path / name, sound))
    expected = [at * pace for at in BEEPS]
    assert onsets(blocks, audio.sample_rate) == pytest.approx(expected, abs=TRUE)
    assert end_of(audio, blocks) == pytest.approx(30.0 * pace, abs=TRUE)
    # No sound is lost for it, and none is made up.
    assert len(samples(blocks)) / 16000 == pytest.approx(30.0, abs=0.1)


@pytest.mark.parametrize("step", [0.1, 2.0, 600.0, -0.5])
def test_times_are_true_after_a_step_of_the_timestamps(tmp_path: Path, step: float) -> None:
    def stamp(at: float) -> float:
        return at if at < 10.0 else at + step

    path = write(tmp_path / "a.mkv", Sound(beeps(BEEPS, 30.0, 16000), stamp=stamp))
    audio, blocks = read(path)
    expected = [stamp(at) for at in BEEPS]
    assert onsets(blocks, audio.sample_rate) == pytest.approx(expected, abs=TRUE)


# -- damage --------------------------------------------------------------------------------------


def test_damaged_packets_are_passed_over_and_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", Sound(beeps(BEEPS, 30.0, 16000), "flac"))
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(200)
    path.write_bytes(content)
    audio, blocks = read(path)
    assert audio.damaged >= 1
    assert end_of(audio, blocks) == pytest.approx(30.0, abs=TRUE)
    # It is noted once in a part too, and not in one that is behind it.
    assert read(path, start=6.0)[0].damaged == audio.damaged
    assert read(path, start=25.0)[0].damaged == 0


def test_a_picture_that_appears_late_is_no_end(tmp_path: Path) -> None:
    """In a container that may get new tracks at any time."""
    film = write(tmp_path / "film.ts", Sound(tone(3.0, 48000), "mp2", 48000), picture=3.0)
    before = write(tmp_path / "a.ts", Sound(tone(6.0, 48000), "mp2", 48000))
    path = tmp_path / "both.ts"
    path.write_bytes(before.read_bytes() + film.read_bytes())
    _, blocks = read(path)
    assert len(samples(blocks)) / 48000 > 5.9


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.wav", "pcm_s16le"),
        ("a.flac", "flac"),
        ("a.mp4", "aac"),
        ("a.mp3", "libmp3lame"),
        ("a.mkv", "pcm_s16le"),
        ("a.flv", "aac"),
        ("a.aiff", "pcm_s16be"),
    ],
)
def test_a_file_that_was_cut_off_says_so_and_a_whole_one_does_not(
    tmp_path: Path, name: str, codec: str
) -> None:
    # The index of an MP4 file then comes first, as it has to for streaming.
    options = {"movflags": "faststart"} if name == "a.mp4" else None
    path = write(tmp_path / name, Sound(tone(6.0, 44100), codec, 44100), options=options)
    assert read(path)[0].shortfall is None
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    audio, blocks = read(path)
    end = end_of(audio, blocks)
    assert 2.5 < end < 3.5
    assert audio.shortfall == f"it ends at {end:.1f} of 6.0 s"


def test_a_pipe_that_was_cut_off_says_so(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", tone(1.0, 16000), promised=32000)
    with piped(path.read_bytes()) as stdin, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", stdin)
        assert read(STDIN)[0].shortfall == "it ends at 1.0 of 3.0 s"


# -- channels and tracks -------------------------------------------------------------------------


@pytest.mark.parametrize("speaking", [0, 3, 5])
def test_speech_on_any_channel_is_heard(tmp_path: Path, speaking: int) -> None:
    channels = silence(1.0, 16000, 6)
    channels[speaking] = tone(1.0, 16000)
    for path in (
        write_wav(tmp_path / "plain.wav", channels),
        write(tmp_path / "surround.wav", Sound(channels, layout="5.1")),
    ):
        audio, blocks = read(path)
        assert np.abs(samples(blocks)).max() > 16000
        assert audio.notes == []


@pytest.mark.parametrize("count", [25, 32])
def test_a_recorder_of_many_channels_is_heard(tmp_path: Path, count: int) -> None:
    channels = silence(1.0, 16000, count)
    channels[-1] = tone(1.0, 16000)
    audio, blocks = read(write_wav(tmp_path / "a.wav", channels))
    assert np.abs(samples(blocks)).max() > 16000
    assert audio.damaged == 0


def test_left_and_right_that_cancel_are_heard_and_told_of(tmp_path: Path) -> None:
    sound = np.concatenate([tone(1.0, 16000), -tone(1.0, 16000)])
    audio, blocks = read(write_wav(tmp_path / "a.wav", sound))
    assert np.abs(samples(blocks)).max() > 16000
    assert "--channel chooses another" in audio.notes[0]


def test_a_channel_can_be_chosen(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", np.concatenate([tone(1.0, 16000), silence(1.0, 16000)]))
    assert not samples(read(path, channel=2)[1]).any()
    with pytest.raises(FileError, match="there is no --channel 3"):
        read(path, channel=3)


def two_tracks(tmp_path: Path, first: Channels, second: Channels) -> Path:
    return write(tmp_path / "a.mkv", Sound(first, default=True), Sound(second))


def test_the_track_that_is_not_silent_is_heard_and_told_of(tmp_path: Path) -> None:
    path = two_tracks(tmp_path, silence(2.0, 16000), tone(2.0, 16000))
    audio, blocks = read(path)
    assert np.abs(samples(blocks)).max() > 16000
    assert audio.notes == [
        "audio track 2 of 2 is heard, because track 1 is silent; --track chooses another"
    ]
    audio, blocks = read(path, track=1)
    assert not samples(blocks).any()
    assert audio.notes == []


# -- a part of a file ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.wav", "pcm_s16le"), ("a.mkv", "aac"), ("a.mp3", "libmp3lame"), ("a.mov", "aac")],
)
def test_a_part_of_a_file_has_the_times_of_the_file(tmp_path: Path, name: str, codec: str) -> None:
    path = write(tmp_path / name, Sound(beeps(BEEPS, 30.0, 16000), codec))
    audio, blocks = read(path, start=12.5, end=22.5)
    assert audio.start == 12.5
    assert audio.length == pytest.approx(10.0)
    assert blocks[0].time == pytest.approx(12.5, abs=0.001)
    assert end_of(audio, blocks) == pytest.approx(22.5, abs=0.001)
    assert onsets(blocks, audio.sample_rate) == pytest.approx([14.1, 21.9], abs=TRUE)
    assert (audio.damaged, audio.shortfall) == (0, None)


def test_a_part_may_begin_or_end_in_a_gap(tmp_path: Path) -> None:
    gap = Sound(tone(2.0, 16000), stamp=lambda at: at if at < 1.0 else at + 3.0)
    path = write(tmp_path / "a.mkv", gap)
    audio, blocks = read(path, start=2.0)
    assert blocks[0].time == 2.0
    assert len(samples(blocks)) / 16000 == pytest.approx(3.0, abs=0.07)
    audio, blocks = read(path, end=2.0)
    assert end_of(audio, blocks) == pytest.approx(2.0)


def test_a_part_that_is_not_there(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", tone(2.0, 16000))
    with pytest.raises(FileError, match="it ends at 2.0 s, and --start is 5 s") as caught:
        read(path, start=5.0)
    assert caught.value.code is Exit.NO_AUDIO


@pytest.mark.parametrize(("end", "least"), [(b"", 8000), (b"\x01", 8000 - 512)])
def test_samples_without_a_header(end: bytes, least: int, tmp_path: Path) -> None:
    """Some versions of FFmpeg refuse a packet with half a sample, the last one."""
    path = tmp_path / "a.pcm"
    path.write_bytes((tone(1.0, 8000)[0] * 2**15).astype("<i2").tobytes() + end)
    audio, blocks = read(path, raw=8000)
    assert audio.sample_rate == 8000
    assert least <= len(samples(blocks)) <= 8000
    assert pitch(samples(blocks), 8000) == pytest.approx(TONE, abs=3)


@pytest.mark.parametrize(
    ("name", "codec", "kind"),
    [
        ("a.mp3", "libmp3lame", "an MP3"),
        ("a.wav", "pcm_s16le", "a WAVE"),
        ("a.flac", "flac", "a FLAC"),
        ("a.ogg", "libopus", "an Ogg"),
        ("a.mkv", "pcm_s16le", "a Matroska or WebM"),
        ("a.m4a", "aac", "an MP4"),
        ("a.aiff", "pcm_s16be", "an AIFF"),
        ("a.au", "pcm_s16be", "an AU"),
    ],
)
def test_a_file_with_a_header_is_told_of_when_it_is_taken_for_samples(
    tmp_path: Path, name: str, codec: str, kind: str
) -> None:
    path = write(tmp_path / name, Sound(tone(1.0, 16000), codec))
    told = f"it begins like {kind} file, and all of it was taken for PCM; leave out --raw to have"
    (note,) = read(path, raw=16000)[0].notes
    assert note.startswith(told)
    assert read(path)[0].notes == []


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\xff\xfb\x90\x64", "an MP3"),
        (b"\xff\xf3\x40\xc4", "an MP3"),
        (b"\xff\xfb\xf0\x00", None),
        (b"\xff\xfb\x9c\x00", None),
        (b"\xff\xff\xfe\xff", None),
        (b"\x00\x00\x01\x00", None),
        (b"\xff\xfb", None),
        (b"", None),
    ],
)
def test_samples_are_not_taken_for_a_header(head: bytes, kind: str | None) -> None:
    assert audio_module._kind(head) == kind


# -- pipes ---------------------------------------------------------------------------------------


def piped(content: bytes) -> io.TextIOWrapper:
    """The reading end of a pipe that somebody writes to."""
    reading, writing = os.pipe()

    def fill() -> None:
        with suppress(OSError), os.fdopen(writing, "wb") as pipe:
            pipe.write(content)

    threading.Thread(target=fill, daemon=True).start()
    return os.fdopen(reading)


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.wav", "pcm_s16le"),
        ("a.mp3", "libmp3lame"),
        ("a.ogg", "libopus"),
        ("a.mkv", "aac"),
        ("a.flv", "aac"),
        ("a.ts", "aac"),
        ("a.flac", "flac"),
    ],
)
def test_a_pipe_is_read_like_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, codec: str
) -> None:
    rate = 48000 if codec == "libopus" else 44100
    path = write(tmp_path / name, Sound(tone(2.0, rate), codec, rate))
    with piped(path.read_bytes()) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        audio, blocks = read(STDIN)
    assert len(samples(blocks)) / rate == pytest.approx(2.0, abs=0.1)
    assert audio.shortfall is None


def test_the_track_of_a_pipe_is_chosen_like_that_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = two_tracks(tmp_path, silence(2.0, 16000), tone(2.0, 16000))
    with piped(path.read_bytes()) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        audio, blocks = read(STDIN)
    assert len(samples(blocks)) / 16000 == pytest.approx(2.0, abs=0.1)
    assert np.abs(samples(blocks)).max() > 16000
    assert "track 2 of 2" in audio.notes[0]


# -- what cannot be read -------------------------------------------------------------------------


def assert_fails(path: Path, code: Exit, reason: str) -> None:
    with pytest.raises(FileError, match=reason) as caught:
        read(path)
    assert caught.value.code is code


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty, and not an audio or video file"),
        (b"\x00\x01 nothing of the kind " * 100, "can be read; .*without a header .*--raw RATE"),
        (b"OggS" + bytes(100), "it is cut off, or its recording was not ended"),
        (b"\x00\x00\x00\x10ftypisom\x00\x00\x00\x00", "it is cut off, or its recording was not"),
    ],
)
def test_a_file_that_is_no_media(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    assert_fails(path, Exit.NO_AUDIO, reason)


def test_a_sound_file_without_a_single_sample(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", silence(0.0, 16000))
    assert_fails(path, Exit.NO_AUDIO, "it holds no audio, not a single sample")


class BreaksOff(Source):
    """A disk that fails after `limit` bytes."""

    limit = 0

    def read(self, size: int) -> bytes:
        if self.tell() >= self.limit:
            raise OSError(5, "Input/output error")
        return super().read(size)


@pytest.mark.parametrize("limit", [0, 200_000])
def test_a_file_that_cannot_be_read_to_its_end(limit: int) -> None:
    source = BreaksOff(str(DATA / "two.wav"))
    source.limit = limit
    with (
        pytest.raises(FileError, match="cannot be read: Input/output error") as caught,
        open_audio(source) as audio,
    ):
        list(audio.blocks())
    assert caught.value.code is Exit.NO_FILE


def test_files_are_read_as_they_are_needed(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", silence(60.0, 16000))
    source = Source(str(path))
    with open_audio(source) as audio:
        positions = [source.tell() for _ in audio.blocks()]
    assert positions == sorted(positions)
    assert positions[100] < path.stat().st_size / 2


@pytest.fixture
def callers() -> Iterator[tuple[int, list[socket.socket]]]:
    """A port of this machine, and who has called it; callers are hung up on."""
    found: list[socket.socket] = []

    def answer() -> None:
        with suppress(OSError):
            while True:
                caller, _ = server.accept()
                found.append(caller)
                caller.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer)
        thread.start()
        yield server.getsockname()[1], found
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_a_playlist_is_not_followed_into_the_network(
    tmp_path: Path, callers: tuple[int, list[socket.socket]]
) -> None:
    port, found = callers
    path = tmp_path / "a.m3u8"
    path.write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n"
        f"http://127.0.0.1:{port}/a.ts\n#EXT-X-ENDLIST\n"
    )
    assert_fails(path, Exit.NO_AUDIO, "not an audio or video file")
    assert found == []
