"""What a transcript looks like on paper: plain text, JSON, SRT, WebVTT and HTML."""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from .page import Recording

# Subtitle habits of broadcasters: two lines of 42 characters, at most 7 s, at least 1 s to read.
LINE_LENGTH = 42
MAX_CUE_MS = 7000
_MIN_CUE_MS = 1000
# Seconds; a cue does not stay on the screen through a pause as long as this.
_LONG_PAUSE = 1.5
# Seconds; a pause that can be heard is a good place to go to the next cue.
_PAUSE = 0.3
_SENTENCE_MARKS = (".", "!", "?", "…", ":")
_CLAUSE_MARKS = (",", ";")
# Characters by which a line may be longer so that it ends at a mark.
_WORTH_OF_MARK = 12


class Format(str, Enum):
    """How a transcript is written."""

    TEXT = "text"
    JSON = "json"
    SRT = "srt"
    VTT = "vtt"
    HTML = "html"

    @property
    def suffix(self) -> str:
        """The ending of a file in this format."""
        return ".txt" if self is Format.TEXT else f".{self.value}"


@dataclass(frozen=True)
class Word:
    """A word and its place in the file, in seconds; None if the service gave no times."""

    text: str
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True)
class Segment:
    """One final: what was said between two pauses. Times are seconds of the file."""

    text: str
    start: float
    end: float
    confidence: float | None = None
    """0 to 1; None if the service gave none."""
    words: tuple[Word, ...] = ()


@dataclass(frozen=True)
class LineEvent:
    """Something that happened on the line to the service while a file was heard."""

    kind: Literal["connection", "given_up"]
    """A new connection took the place of one that ended; audio was given up unheard."""
    at: float
    """Where in the file, in seconds."""
    seconds: float = 0.0
    """Length of the audio that was given up."""


@dataclass
class Transcript:
    """All that was heard in one file."""

    file: str
    language: str
    duration: float = 0.0
    """Where its audio ends, in seconds of the file."""
    segments: list[Segment] = field(default_factory=list)
    complete: bool = False
    """Whether all of the file was heard; False if the run was cut short."""
    recording: Recording | None = None
    """The file's sound, kept for a page."""
    events: list[LineEvent] = field(default_factory=list)


@dataclass(frozen=True)
class Cue:
    """One subtitle: when it is shown, in milliseconds of the file, and its one or two lines."""

    start: int
    end: int
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Timed:
    """A word and its place in the file, in seconds: the service's, or else a guess."""

    text: str
    start: float
    end: float


def printable(text: str) -> str:
    """Return `text` on one line, NFC, and free of what a terminal or a subtitle would act on.

    Runs of white space become one blank; control characters and halves of surrogate pairs go.
    File names that the locale could not decode are taken for UTF-8.
    """
    with suppress(UnicodeEncodeError):
        text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    text = text.encode("utf-8", "replace").decode()
    text = unicodedata.normalize("NFC", text)
    kept = (" " if unicodedata.category(char) == "Cc" else char for char in text)
    return " ".join("".join(kept).split())


def clock(seconds: float) -> str:
    """Return a time as people write it: `0:07`, `12:30`, `1:02:03`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def render(form: Format, transcripts: Sequence[Transcript], *, many: bool) -> str:
    """Return a whole document; text has none, its lines are written as they come.

    Args:
        form: JSON, SRT, WebVTT or HTML, which needs the recording of the file.
        transcripts: What was heard, in the order of the files; exactly one but for JSON.
        many: Whether more than one file was asked for: JSON is an array then.
    """
    if form is Format.JSON:
        records = [_record(transcript) for transcript in transcripts]
        content: Any = records if many else records[0]
        return json.dumps(content, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    if form is Format.HTML:
        return _page(transcripts[0])
    found = cues(transcripts[0])
    return _vtt(found) if form is Format.VTT else _srt(found)


def _page(transcript: Transcript) -> str:
    # It brings the encoder of the sound with it, which the other formats do without.
    from .page import render_page

    assert transcript.recording is not None
    return render_page(transcript, transcript.recording.finish(), transcript.events)


def _record(transcript: Transcript) -> dict[str, Any]:
    return {
        "file": transcript.file,
        "language": transcript.language,
        "duration": _seconds(transcript.duration),
        "complete": transcript.complete,
        "text": " ".join(segment.text for segment in transcript.segments),
        "segments": [
            {
                "start": _seconds(segment.start),
                "end": _seconds(segment.end),
                "text": segment.text,
                "confidence": segment.confidence,
                "words": [
                    {"word": word.text, "start": _seconds(word.start), "end": _seconds(word.end)}
                    for word in segment.words
                ],
            }
            for segment in transcript.segments
        ],
    }


def _seconds(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def cues(transcript: Transcript) -> list[Cue]:
    """Return a transcript as subtitles.

    Each cue has one or two lines of at most `LINE_LENGTH` characters (a longer word has a line to
    itself) and is shown for at most `MAX_CUE_MS`. Starts rise, and no cue overlaps the next.
    """
    groups = [group for segment in transcript.segments for group in _groups(timed(segment))]
    if not groups:
        return []
    starts: list[int] = []
    for group in groups:
        earliest = starts[-1] + 1 if starts else 0
        starts.append(max(earliest, round(group[0].start * 1000)))
    file_end = round(max(transcript.duration, groups[-1][-1].end) * 1000)
    limits = [*starts[1:], max(file_end, starts[-1] + 1)]
    return [
        Cue(start, _cue_end(start, group[-1].end, limit), _lines([word.text for word in group]))
        for group, start, limit in zip(groups, starts, limits, strict=True)
    ]


def _cue_end(start: int, spoken_until: float, limit: int) -> int:
    """Return when a cue goes: long enough to be read, but not later than `limit`."""
    end = max(round(spoken_until * 1000), start + _MIN_CUE_MS)
    return min(end, start + MAX_CUE_MS, limit)


def timed(segment: Segment) -> list[Timed]:
    """Return a segment's words, each with a start and an end, whatever the service gave."""
    tokens = segment.text.split()
    words = segment.words
    if words and len(tokens) != len(words):
        # The text is written otherwise than the words are spoken ("5." and "fimmti"): the words
        # are the ones that have times.
        tokens = [word.text for word in words]
    timed: list[Timed] = []
    for index, guess in enumerate(_spread(tokens, segment.start, segment.end)):
        word = words[index] if words else Word(guess.text)
        start = guess.start if word.start is None else word.start
        end = guess.end if word.end is None else word.end
        timed.append(Timed(guess.text, start, max(start, end)))
    return timed


def _spread(tokens: Sequence[str], start: float, end: float) -> list[Timed]:
    """Share out a segment's time over its words by their length."""
    total = sum(len(token) for token in tokens) or 1
    spread: list[Timed] = []
    done = 0
    for token in tokens:
        begins = start + (end - start) * done / total
        done += len(token)
        spread.append(Timed(token, begins, start + (end - start) * done / total))
    return spread


def _groups(words: Sequence[Timed]) -> list[Sequence[Timed]]:
    """Split a segment's words into cues: as few as can be, with breaks where a reader likes them.

    The cheapest way to show the first n words is found for each n in turn.
    """
    cheapest = [0.0]
    previous = [0]
    for end in range(1, len(words) + 1):
        best, came_from = math.inf, end - 1
        for start in range(end - 1, -1, -1):
            if end - start > 1 and not _fits(words[start:end]):
                break
            cost = cheapest[start] + _cost(words, start, end)
            if cost < best:
                best, came_from = cost, start
        cheapest.append(best)
        previous.append(came_from)
    groups: list[Sequence[Timed]] = []
    end = len(words)
    while end:
        groups.append(words[previous[end] : end])
        end = previous[end]
    return groups[::-1]


def _fits(group: Sequence[Timed]) -> bool:
    if (group[-1].end - group[0].start) * 1000 > MAX_CUE_MS:
        return False
    if any(after.start - before.end >= _LONG_PAUSE for before, after in pairwise(group)):
        return False
    return all(len(line) <= LINE_LENGTH for line in _lines([word.text for word in group]))


def _cost(words: Sequence[Timed], start: int, end: int) -> float:
    """Return how unwelcome a cue of `words[start:end]` is."""
    length = sum(len(word.text) + 1 for word in words[start:end])
    # One cue more is worse than any unevenness; of equal numbers the even ones win.
    cost = 10.0 + (1 - length / (2 * LINE_LENGTH)) ** 2
    if end == len(words):
        return cost
    last = words[end - 1]
    if last.text.endswith(_SENTENCE_MARKS):
        cost -= 2.0
    elif last.text.endswith(_CLAUSE_MARKS) or words[end].start - last.end >= _PAUSE:
        cost -= 1.0
    return cost


def _lines(words: Sequence[str]) -> tuple[str, ...]:
    """Set words on one line if they fit, else on two: even ones, the first up to a comma if any."""
    whole = " ".join(words)
    if len(whole) <= LINE_LENGTH or len(words) < 2:
        return (whole,)
    pairs = [(" ".join(words[:cut]), " ".join(words[cut:])) for cut in range(1, len(words))]
    return min(pairs, key=_unevenness)


def _unevenness(pair: tuple[str, str]) -> tuple[bool, int]:
    longest = max(len(line) for line in pair)
    mark = pair[0].endswith((*_SENTENCE_MARKS, *_CLAUSE_MARKS))
    return longest > LINE_LENGTH, longest - _WORTH_OF_MARK * mark


def _srt(found: Sequence[Cue]) -> str:
    # SRT knows no escapes; an arrow in the text would read as the start of another cue.
    blocks = (
        f"{number}\n{_timing(cue, ',')}\n" + _body(cue).replace("-->", "->")
        for number, cue in enumerate(found, 1)
    )
    return "\n".join(blocks)


def _vtt(found: Sequence[Cue]) -> str:
    escapes = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
    blocks = (f"{_timing(cue, '.')}\n" + _body(cue).translate(escapes) for cue in found)
    return "\n".join(["WEBVTT\n", *blocks])


def _body(cue: Cue) -> str:
    return "".join(f"{line}\n" for line in cue.lines)


def _timing(cue: Cue, point: str) -> str:
    return f"{_stamp(cue.start, point)} --> {_stamp(cue.end, point)}"


def _stamp(milliseconds: int, point: str) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{point}{rest:03}"
