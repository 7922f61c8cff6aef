"""How `transcribe` reads files: every kind, at the right times, and nothing but files."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from livekit.plugins.tiro.cli import audio as audio_module
from livekit.plugins.tiro.cli.audio import AudioFile, check_readable, open_audio
from livekit.plugins.tiro.cli.exits import Exit, FileError

from .support.media import TONE, write_media

DATA = Path(__file__).parent / "data"


def samples(audio: AudioFile) -> npt.NDArray[np.int16]:
    return np.frombuffer(b"".join(audio.chunks(0.1)), np.int16)


def pitch(pcm: npt.NDArray[np.int16], rate: int) -> float:
    spectrum = np.abs(np.fft.rfft(pcm.astype(np.float64)))
    return float(np.argmax(spectrum)) * rate / len(pcm)


def loud(pcm: npt.NDArray[np.int16], rate: int, start: float, end: float) -> bool:
    return bool(np.abs(pcm[round(start * rate) : round(end * rate)]).max() > 5000)


@pytest.mark.parametrize(
    ("name", "codec", "rate", "layout", "expected_rate"),
    [
        ("a.wav", "pcm_s16le", 16000, "mono", 16000),
        ("a.wav", "pcm_f32le", 8000, "stereo", 8000),
        ("a.mp3", "libmp3lame", 44100, "stereo", 44100),
        ("a.ogg", "libopus", 48000, "mono", 48000),
        ("a.webm", "libopus", 48000, "stereo", 48000),
        ("a.m4a", "aac", 22050, "mono", 22050),
        ("a.flac", "flac", 96000, "5.1", 48000),
        ("a.wav", "pcm_s16le", 6000, "mono", 16000),
    ],
)
def test_every_kind_of_audio_becomes_mono_at_a_rate_the_service_takes(
    tmp_path: Path, name: str, codec: str, rate: int, layout: str, expected_rate: int
) -> None:
    path = write_media(tmp_path / name, codec, rate=rate, layout=layout)
    with open_audio(path) as audio:
        pcm = samples(audio)
    assert audio.sample_rate == expected_rate
    assert len(pcm) / expected_rate == pytest.approx(1.0, abs=0.05)
    assert pitch(pcm, expected_rate) == pytest.approx(TONE, abs=3)
    assert audio.length == pytest.approx(1.0, abs=0.05)
    assert audio.start == pytest.approx(0.0, abs=0.05)
    assert audio.damaged == 0


def test_the_samples_of_a_plain_file_are_not_touched() -> None:
    with open_audio(DATA / "fox.wav") as audio:
        pcm = b"".join(audio.chunks(0.1))
    assert pcm == (DATA / "fox.wav").read_bytes()[-len(pcm) :]


def test_no_sample_is_lost_in_the_conversion(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.flac", "flac", rate=96000)
    with open_audio(path) as audio:
        assert len(samples(audio)) == 48000


def test_chunks_have_the_length_asked_for_and_the_last_one_the_rest(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.wav", "pcm_s16le", parts=((0.0, 1.05),))
    with open_audio(path) as audio:
        sizes = [len(chunk) for chunk in audio.chunks(0.1)]
    assert sizes == [3200] * 10 + [1600]


def test_the_sound_of_a_film_keeps_its_place_beside_the_picture(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mkv", "pcm_s16le", parts=((1.5, 1.0),), video_seconds=4)
    with open_audio(path) as audio:
        pcm = samples(audio)
    assert audio.start == 1.5
    assert len(pcm) == 16000
    assert audio.length == pytest.approx(2.5, abs=0.2)


def test_a_gap_in_a_recording_becomes_silence_of_the_same_length(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mkv", "pcm_s16le", parts=((0.0, 1.0), (4.5, 1.0)))
    with open_audio(path) as audio:
        pcm = samples(audio)
    assert len(pcm) == 5.5 * 16000
    assert loud(pcm, 16000, 0.0, 1.0)
    assert not loud(pcm, 16000, 1.0, 4.5)
    assert loud(pcm, 16000, 4.5, 5.5)


@pytest.mark.parametrize("gap", [0.2, 4000.0])
def test_jitter_and_broken_timestamps_are_not_filled(tmp_path: Path, gap: float) -> None:
    path = write_media(tmp_path / "a.mkv", "pcm_s16le", parts=((0.0, 1.0), (1.0 + gap, 1.0)))
    with open_audio(path) as audio:
        assert len(samples(audio)) == 32000


def test_a_stream_that_changes_its_format_midway_is_read_to_the_end(tmp_path: Path) -> None:
    first = write_media(tmp_path / "a.aac", "aac", rate=16000, layout="mono")
    second = write_media(tmp_path / "b.aac", "aac", rate=48000, layout="stereo")
    both = tmp_path / "both.aac"
    both.write_bytes(first.read_bytes() + second.read_bytes())
    with open_audio(both) as audio:
        pcm = samples(audio)
    assert len(pcm) / 16000 == pytest.approx(2.0, abs=0.2)
    assert pitch(pcm[20000:], 16000) == pytest.approx(TONE, abs=3)


def test_damaged_packets_are_skipped_and_counted(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mkv", "flac", parts=((0.0, 4.0),))
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(200)
    path.write_bytes(content)
    with open_audio(path) as audio:
        pcm = samples(audio)
    assert audio.damaged >= 1
    assert len(pcm) / 16000 == pytest.approx(4.0, abs=0.5)


def test_a_name_may_hold_anything(tmp_path: Path) -> None:
    path = tmp_path / "þáttur: 1\n[æ].wav"
    path.write_bytes((DATA / "fox.wav").read_bytes())
    check_readable(path)
    with open_audio(path) as audio:
        assert audio.length == pytest.approx(3.0, abs=0.1)


def assert_fails(path: Path, code: Exit, reason: str) -> None:
    with pytest.raises(FileError, match=reason) as caught, open_audio(path) as audio:
        samples(audio)
    assert caught.value.code is code


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert_fails(tmp_path / "a.wav", Exit.NO_FILE, "no such file")


def test_a_directory(tmp_path: Path) -> None:
    assert_fails(tmp_path, Exit.NO_FILE, "directory")


def test_a_name_that_no_file_can_have(tmp_path: Path) -> None:
    assert_fails(tmp_path / ("a" * 300), Exit.NO_FILE, "cannot be read: File name too long")


@pytest.mark.parametrize("content", [b"", b"\x00\x01 nothing of the kind " * 100])
def test_a_file_that_is_no_media(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    assert_fails(path, Exit.NO_AUDIO, "not an audio or video file")


def test_a_film_without_sound(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mp4", None, video_seconds=1)
    assert_fails(path, Exit.NO_AUDIO, "no audio in it")


def test_a_sound_file_without_a_single_sample(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes((DATA / "fox.wav").read_bytes()[:40] + bytes(4))
    assert_fails(path, Exit.NO_AUDIO, "cannot be decoded")


class BreaksOff(BytesIO):
    """A disk that fails after `limit` bytes."""

    def __init__(self, content: bytes, limit: int) -> None:
        super().__init__(content)
        self._limit = limit

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() >= self._limit:
            raise OSError(5, "Input/output error")
        return super().read(size)


@pytest.mark.parametrize("limit", [0, 200_000])
def test_a_file_that_cannot_be_read_to_its_end(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    content = (DATA / "two.wav").read_bytes()
    monkeypatch.setattr(audio_module, "_open_file", lambda path: BreaksOff(content, limit))
    assert_fails(Path("two.wav"), Exit.NO_FILE, "cannot be read: Input/output error")


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


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_a_pipe_is_read_like_a_file_and_opened_only_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    content = (DATA / "fox.wav").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(audio_module, "_open_file", None)
        check_readable(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(content,), daemon=True)
    writer.start()
    with open_audio(pipe) as audio:
        pcm = samples(audio)
    writer.join()
    assert len(pcm) / 16000 == pytest.approx(3.0, abs=0.1)


def test_files_are_read_as_they_are_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_media(tmp_path / "a.wav", "pcm_s16le", parts=((0.0, 60.0),))
    file = BytesIO(path.read_bytes())
    monkeypatch.setattr(audio_module, "_open_file", lambda path: file)
    with open_audio(path) as audio:
        positions = [file.tell() for _ in audio.chunks(10.0)]
    assert positions == sorted(set(positions))
    assert positions[0] < path.stat().st_size / 2
