"""What the plugin assumes of the endpointer, held against that of the local server."""

from __future__ import annotations

from livekit.plugins.tiro.endpointer import (
    DECIDED_AFTER,
    EMPTY_SEGMENT,
    FLUSH_SILENCE,
    SHORTEST_PAUSE,
    STILL_TALKING,
)
from livekit.plugins.tiro.testing.backend import LOOKAHEAD_SAMPLES, SILENT_SEGMENT, Timing
from livekit.plugins.tiro.testing.recognizer import Ending

LOOKAHEAD = LOOKAHEAD_SAMPLES / 16000


def test_pauses_are_those_of_the_endpointers_rules() -> None:
    rules = [ending.value for ending in Ending]
    assert min(rules) == Timing().endpoint_silence == SHORTEST_PAUSE > STILL_TALKING
    # To spare: a word ends later than it sounds loud.
    assert max(rules) + LOOKAHEAD + 0.1 <= DECIDED_AFTER <= FLUSH_SILENCE


def test_a_segment_without_words_is_as_long_as_the_services() -> None:
    assert EMPTY_SEGMENT == SILENT_SEGMENT
