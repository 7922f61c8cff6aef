"""What the service says, as segments of a transcript, with the times of the file; no I/O."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from itertools import groupby

from livekit.agents.stt import SpeechData
from livekit.agents.types import NotGivenOr, TimedString
from livekit.agents.utils import is_given

from .formats import Segment, Word, printable

# Seconds by which audio may be out of place before its place is noted.
_OUT_OF_PLACE = 0.003


class Places:
    """Maps the seconds of the audio that was pushed to a stream to seconds of the file."""

    def __init__(self) -> None:
        self._pushed: list[float] = []
        self._times: list[float] = []

    def note(self, pushed: float, time: float) -> None:
        """Note that the stream, from second `pushed` on, holds the file from second `time` on."""
        if not self._pushed or abs(self._at(-1, pushed) - time) > _OUT_OF_PLACE:
            self._pushed.append(pushed)
            self._times.append(time)

    def start(self, seconds: float) -> float:
        """Return the start, in the file, of audio that starts at second `seconds` of the stream."""
        return self._at(max(0, bisect_right(self._pushed, seconds) - 1), seconds)

    def end(self, seconds: float) -> float:
        """Return the end, in the file, of audio that ends at second `seconds` of the stream."""
        return self._at(max(0, bisect_left(self._pushed, seconds) - 1), seconds)

    def _at(self, index: int, seconds: float) -> float:
        if not self._pushed:
            return seconds
        return max(0.0, self._times[index] + seconds - self._pushed[index])


def segments_of(alternatives: Sequence[SpeechData], places: Places) -> list[Segment]:
    """Return a final as segments: one for each speaker in turn, and none if it has no words.

    Args:
        alternatives: The final's readings, the likeliest first.
        places: Where the stream's audio is in the file.
    """
    data, *others = alternatives
    text = printable(data.text)
    if not text:
        return []
    words = [word for word in data.words or () if printable(word)]
    speakers = {word.speaker_id for word in words}
    tokens = text.split()
    if len(speakers) < 2 or len(tokens) != len(words):
        readings = tuple(printable(other.text) for other in others)
        return [_segment(data, text, words, data.speaker_id, places, readings)]
    segments = []
    for speaker, turn in groupby(zip(tokens, words, strict=True), lambda pair: pair[1].speaker_id):
        said = list(turn)
        shown = " ".join(token for token, _ in said)
        segments.append(_segment(data, shown, [word for _, word in said], speaker, places))
    return segments


def _segment(
    data: SpeechData,
    text: str,
    words: Sequence[TimedString],
    speaker: str | None,
    places: Places,
    alternatives: tuple[str, ...] = (),
) -> Segment:
    timed = tuple(_word(word, places) for word in words)
    starts = [word.start for word in timed if word.start is not None]
    ends = [word.end for word in timed if word.end is not None]
    whole = len(words) == len(data.words or ())
    start = places.start(data.start_time) if whole or not starts else starts[0]
    end = places.end(data.end_time) if whole or not ends else ends[-1]
    confidence = data.confidence or None
    return Segment(text, start, max(start, end), confidence, timed, speaker, alternatives)


def _placed(seconds: NotGivenOr[float], place: Callable[[float], float]) -> float | None:
    return place(seconds) if is_given(seconds) else None


def _word(word: TimedString, places: Places) -> Word:
    start = _placed(word.start_time, places.start)
    end = _placed(word.end_time, places.end)
    if start is not None and end is not None:
        end = max(start, end)
    return Word(printable(word), start, end)
