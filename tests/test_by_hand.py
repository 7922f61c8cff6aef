"""Frames that nobody could record, written by hand after the published API: what they come to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from livekit.plugins.tiro.backlog import Backlog
from livekit.plugins.tiro.clock import Clock
from livekit.plugins.tiro.feed import Feed
from livekit.plugins.tiro.protocol import decode
from livekit.plugins.tiro.transcript import Transcript

from .support.harness import END, FINAL, INTERIM, START

if TYPE_CHECKING:
    from livekit.agents.stt import SpeechEvent

FOLDER = Path(__file__).parent / "data" / "wire_by_hand"
FILES = sorted(FOLDER.glob("*.jsonl"))
RATE = 16000


def heard(path: Path, *, flushed: bool = False) -> tuple[list[SpeechEvent], Backlog]:
    """Return the events that the frames of a file come to, and the audio that is left."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert "by hand" in lines[0]["about"]
    clock, backlog = Clock(), Backlog()
    clock.push(2.0, 2.0)
    backlog.push((b"\0" * 21120) + (b"\x10\x27\xf0\xd8" * 6720) + b"\0" * 16000, RATE)
    feed = Feed(backlog, clock, 0.0)
    transcript = Transcript(clock, backlog, feed)
    transcript.begin("tiro_1", feed)
    while feed.next_chunk(2.0):
        pass
    if flushed:
        assert transcript.flush() == []
    events = []
    for line in lines[1:]:
        response = decode(line["text"])
        assert response is not None
        events += transcript.on_response(response, 3.0)
    return events, backlog


def shown(events: list[SpeechEvent]) -> list[tuple[str, str]]:
    names = {START: "start", INTERIM: "interim", FINAL: "final", END: "end"}
    return [
        (names[event.type], event.alternatives[0].text if event.alternatives else "")
        for event in events
    ]


SAID = [("start", ""), ("interim", "góðan"), ("final", "góðan daginn"), ("end", "")]


def test_all_are_there() -> None:
    assert len(FILES) == 26


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("flushed", [False, True])
def test_what_is_no_result_is_no_answer(path: Path, flushed: bool) -> None:
    """E2, E6: an event is not an empty response, and no interim is shown after its final."""
    if "empty_transcript" in path.stem:
        pytest.skip("it is an empty response")
    events, _ = heard(path, flushed=flushed)
    assert shown(events) == SAID


@pytest.mark.parametrize("mode", ["full", "sparse"])
def test_an_empty_transcript_is_an_empty_response(mode: str) -> None:
    events, backlog = heard(FOLDER / f"final_with_empty_transcript.{mode}.jsonl")
    assert shown(events) == [("start", ""), ("interim", "góðan"), ("final", ""), ("end", "")]
    assert backlog.may_hold_words(), "it lets no audio go"
