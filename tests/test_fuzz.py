"""No frame does harm: nothing raises, and a good frame after it is heard."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import example, given, strategies as st

from livekit.agents import APIStatusError
from livekit.plugins.tiro.protocol import decode
from livekit.plugins.tiro.testing import ConnectionRecord, Hooks
from livekit.plugins.tiro.testing.faults import Garbage

from . import fuzz
from .support import virtual
from .support.examples import examples
from .support.numbered import talk
from .support.receiver import Receiver
from .support.texts import any_texts
from .support.trial import Outcome, hear

SAID = talk(3, 2, word=0.3, gap=1.0, lead=0.5)

NAMES = st.sampled_from(fuzz.NAMES) | any_texts(max_size=4)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | any_texts(max_size=8)
    | st.sampled_from(["1s", "0.05s", "-1s", "nans", "1e9s", "\ud800", "Not Found", 16, 10**30])
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=30,
)
WORD = st.fixed_dictionaries(
    {"word": any_texts(max_size=5), "startTime": SCALARS, "endTime": SCALARS},
    optional={"confidence": SCALARS, "speakerTag": SCALARS},
)
ALTERNATIVE = st.fixed_dictionaries(
    {"transcript": any_texts(max_size=9), "words": st.lists(WORD | JSON, max_size=4)},
    optional={"confidence": SCALARS},
)
RESULT = st.fixed_dictionaries(
    {"alternatives": st.lists(ALTERNATIVE | JSON, max_size=3), "isFinal": st.booleans() | JSON}
)
RESPONSE = st.fixed_dictionaries(
    {"results": st.lists(RESULT | JSON, max_size=3)}, optional={"error": JSON}
)
DOCUMENT = JSON | RESPONSE | st.fixed_dictionaries({"result": RESPONSE | JSON})


def as_frame(document: Any, *, ascii_only: bool) -> bytes:
    return json.dumps(document, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")


@st.composite
def mutants(draw: st.DrawFn) -> bytes:
    """Frames of the recordings, changed a little, or a little more."""
    data = draw(st.sampled_from(fuzz.corpus()))
    chance = Random(draw(st.integers(0, 2**32)))
    for _ in range(draw(st.integers(1, 5))):
        data = fuzz.mutated(data, chance)
    return chance.choice(fuzz.frames_of(data))


FRAME = (
    st.builds(as_frame, DOCUMENT, ascii_only=st.booleans())
    | mutants()
    | any_texts().map(lambda text: text.encode("utf-8", "surrogatepass"))
    | st.binary()
)


@examples(200)
@given(st.lists(FRAME, min_size=1, max_size=5))
@example([b'{"code":0}', b'{"result":{"results":[]}}'])
@example([b"Not Found", b"\xff", b"", b"null"])
@example([b"[" * 100_000, b"9" * 10_000])
def test_nothing_raises_and_no_good_final_is_lost(frames: list[bytes]) -> None:
    Receiver().check(frames)


def test_the_recordings_themselves_do_no_harm() -> None:
    assert len(fuzz.corpus()) > 500
    for frame in fuzz.corpus():
        Receiver().check([frame, frame])


def test_what_is_drawn_is_often_understood() -> None:
    """Inputs that are all noise would reach nothing."""
    campaign = fuzz.Campaign(300, 1, "drawn")
    fuzz.draw(campaign, 1)
    assert 0.2 < campaign.understood / campaign.frames < 0.9
    assert str(campaign).startswith("drawn, seed 1: 300 inputs of ")


def test_what_is_drawn_comes_from_its_seed() -> None:
    frames = [fuzz.mutated(fuzz.corpus()[7], Random(seed)) for seed in (1, 1, 2)]
    assert frames[0] == frames[1] != frames[2]


@pytest.mark.parametrize("lost", ["raises", "forgets"])
def test_what_is_broken_is_found(lost: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a receiver that raises for noise, or takes the frame after it for noise too."""

    def broken(frame: bytes) -> Any:
        response = decode(frame)
        if response is None and lost == "raises":
            raise KeyError("results")
        return None if b"good" in frame and lost == "forgets" else response

    monkeypatch.setattr("livekit.plugins.tiro.protocol.decode", broken)
    with pytest.raises(KeyError if lost == "raises" else AssertionError):
        fuzz.draw(fuzz.Campaign(1000, 1, "drawn"), 1)


@pytest.mark.filterwarnings("ignore:.* found in sys.modules:RuntimeWarning")
def test_the_command_says_what_it_did(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["fuzz", "--inputs", "60", "--draw"])
    runpy.run_module("tests.fuzz", run_name="__main__")
    told = capsys.readouterr().out
    assert "60 inputs" in told and "no exception" in told


@pytest.mark.slow
def test_the_command_says_what_it_bred() -> None:
    """In a process of its own: what it reaches is counted from the import on."""
    pytest.importorskip("atheris")
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--inputs", "600"],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "600 inputs" in done.stdout and "no exception" in done.stdout


# -- the stream ----------------------------------------------------------------------------------


class Foul(Hooks):
    """Sends frames of any content before each good one."""

    def __init__(self, frames: list[bytes]) -> None:
        self._frames = frames

    async def frame(self, connection: ConnectionRecord, text: str) -> str | None:
        if connection.number == 0:
            for frame in self._frames:
                await connection.line.send(frame.decode("utf-8", "replace"))
        return text


def listen(hooks: Hooks) -> Outcome:
    return virtual.run(hear(SAID, hooks))


@examples(15)
@given(st.lists(FRAME.filter(lambda frame: decode(frame) is None), min_size=1, max_size=5))
def test_noise_costs_a_stream_nothing(frames: list[bytes]) -> None:
    outcome = listen(Garbage(frames))
    assert outcome.is_exact and not outcome.broken(), outcome


@examples(25)
@given(st.lists(mutants(), min_size=1, max_size=3))
def test_no_frame_stops_a_stream(frames: list[bytes]) -> None:
    """What is said of it may be false then, but it goes on to its end."""
    outcome = listen(Foul(frames))
    assert not outcome.deaf
    assert outcome.error is None or type(outcome.error) is APIStatusError, outcome
