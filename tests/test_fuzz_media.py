"""Damaged recordings: a few of those that `python -m tests.fuzz_media` reads, and that command."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import av
import pytest

from livekit.plugins.tiro.cli.source import Source

from . import fuzz_media
from .fuzz_media import DAMAGES, KINDS, WAYS, Kind, damaged, main, read, run_kind, try_kind
from .support.recordings import tone, write_wav

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from pathlib import Path


@pytest.mark.parametrize("number", range(len(KINDS)), ids=lambda number: KINDS[number].name)
def test_damage_never_does_more_than_cost_what_is_damaged(number: int, tmp_path: Path) -> None:
    """Each format, and each way of damage four times."""
    if KINDS[number].codec not in av.codecs_available:
        pytest.skip("this PyAV can not write it")
    found = list(try_kind(KINDS[number], [number], 0, tmp_path))
    assert [tried for tried, _ in found] == [number]


def test_what_is_not_damaged_is_heard(tmp_path: Path) -> None:
    for kind in (KINDS[0], KINDS[13], KINDS[25]):
        path = tmp_path / "whole"
        path.write_bytes(kind.make(tmp_path))
        assert read(Source(str(path))) == pytest.approx(2.0, abs=0.1)
        piped = fuzz_media.PipeSource(path.read_bytes())
        assert read(piped) == pytest.approx(2.0, abs=0.1)


def test_too_much_audio_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_wav(tmp_path / "a.wav", tone(2.0, 16000))
    monkeypatch.setattr(fuzz_media, "MOST_AUDIO", 1.0)
    with pytest.raises(AssertionError, match="too much"):
        read(Source(str(path)))


def test_the_same_number_is_the_same_damage() -> None:
    recording = bytes(range(256)) * 100
    made = [damaged(KINDS[0], recording, number, 0) for number in range(DAMAGES)]
    assert made == [damaged(KINDS[0], recording, number, 0) for number in range(DAMAGES)]
    assert len(set(made)) > DAMAGES * 0.9
    assert made[1] != damaged(KINDS[0], recording, 1, seed=1)
    assert len(KINDS) >= 40 and DAMAGES >= 50 > len(WAYS)


def dies(kind: Kind, numbers: range, seed: int, results: Connection) -> None:
    results.send((numbers.start, 1.0))
    os._exit(3)


def hangs(kind: Kind, numbers: range, seed: int, results: Connection) -> None:
    time.sleep(60)


def test_a_process_that_dies_or_hangs_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_kind(KINDS[0], range(5, 9), 0, dies) == "FAILED: damage 6 ended the process (3)"
    monkeypatch.setattr(fuzz_media, "PATIENCE", 0.2)
    assert run_kind(KINDS[0], range(5, 9), 0, hangs).startswith("FAILED: damage 5 takes more")


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--kind", KINDS[0].name, "--damages", "2"]) == 0
    assert main(["--kind", KINDS[0].name, "--only", "7"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{KINDS[0].name:24} ok, ")
    assert second.startswith(f"{KINDS[0].name:24} ok, ")
    assert main(["--kind", "none"]) == 1


def test_the_command_fails_if_one_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outcomes = iter(["ok", "FAILED", *["ok"] * len(KINDS)])
    monkeypatch.setattr(fuzz_media, "run_kind", lambda *_: next(outcomes))
    assert main([]) == 1
    assert len(capsys.readouterr().out.splitlines()) == len(KINDS)
