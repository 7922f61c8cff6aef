"""What a transcript is, and what it looks like on paper, without any I/O.

Plain text, JSON and TSV are here; subtitles are in `subtitles`.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from .page import Recording

# Halves of surrogate pairs: Python has them for the bytes of a file name that are no UTF-8.
_SURROGATES = re.compile("[\ud800-\udfff]")


class Format(str, Enum):
    """How a transcript is written."""

    TEXT = "text"
    JSON = "json"
    SRT = "srt"
    VTT = "vtt"
    TSV = "tsv"
    HTML = "html"

    @property
    def suffix(self) -> str:
        """The ending of a file in this format."""
        return ".txt" if self is Format.TEXT else f".{self.value}"

    @property
    def takes_many(self) -> bool:
        """Whether one document can hold the transcripts of several files."""
        return self in (Format.TEXT, Format.JSON)


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
    speaker: str | None = None
    """The service's name for who said it; None if it gave none."""
    alternatives: tuple[str, ...] = ()
    """Other readings of the text, the likeliest first."""


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
    """The path as it was given."""
    language: str
    duration: float = 0.0
    """Where its audio ends, in seconds of the file."""
    segments: list[Segment] = field(default_factory=list)
    complete: bool = False
    """Whether all of the file was heard: the run was not cut short, nor the file itself."""
    recording: Recording | None = None
    """The file's sound, kept for a page."""
    events: list[LineEvent] = field(default_factory=list)


@dataclass(frozen=True)
class Timed:
    """A word of a segment's text, with a place in the file in seconds: known, or guessed."""

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


def stamp(milliseconds: int, point: str = ".") -> str:
    """Return a time as subtitles write it: `01:02:03.456`."""
    seconds, rest = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{point}{rest:03}"


# -- text, JSON, TSV -----------------------------------------------------------------------------


def text_line(segment: Segment, *, timestamps: bool = False) -> str:
    """Return a final as a line of plain text."""
    speaker = f"Speaker {segment.speaker}: " if segment.speaker else ""
    times = ""
    if timestamps:
        times = f"[{stamp(in_ms(segment.start))} --> {stamp(in_ms(segment.end))}] "
    return f"{times}{speaker}{segment.text}\n"


def json_document(transcripts: Sequence[Transcript], *, many: bool) -> str:
    """Return transcripts as JSON: an object, or an array of them if `many` files were given."""
    records = [_record(transcript) for transcript in transcripts]
    content: Any = records if many else records[0]
    document = json.dumps(content, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    # UTF-8 has no halves of surrogate pairs, but JSON can write them as escapes.
    return _SURROGATES.sub(lambda match: f"\\u{ord(match[0]):04x}", document)


def tsv_document(transcript: Transcript) -> str:
    """Return a transcript as a table: start and end in milliseconds, and the text."""
    rows = (
        f"{in_ms(segment.start)}\t{in_ms(segment.end)}\t{segment.text}\n"
        for segment in transcript.segments
    )
    return "".join(["start\tend\ttext\n", *rows])


def _record(transcript: Transcript) -> dict[str, Any]:
    return {
        "file": transcript.file,
        "language": transcript.language,
        "duration": _seconds(transcript.duration),
        "complete": transcript.complete,
        "text": " ".join(segment.text for segment in transcript.segments),
        "segments": [_segment_record(segment) for segment in transcript.segments],
    }


def _segment_record(segment: Segment) -> dict[str, Any]:
    record: dict[str, Any] = {
        "start": _seconds(segment.start),
        "end": _seconds(segment.end),
        "text": segment.text,
        "confidence": segment.confidence,
        "words": [
            {"word": word.text, "start": _seconds(word.start), "end": _seconds(word.end)}
            for word in segment.words
        ],
    }
    if segment.speaker is not None:
        record["speaker"] = segment.speaker
    if segment.alternatives:
        record["alternatives"] = list(segment.alternatives)
    return record


def _seconds(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def in_ms(seconds: float) -> int:
    """Round a time to milliseconds; none is before the start."""
    return max(0, round(seconds * 1000))


# -- when the words of a text were said ----------------------------------------------------------


def timed(segment: Segment) -> list[Timed]:
    """Return the words of a segment's text, each with a start and an end.

    The text is what is shown, with its digits, capitals and punctuation. It can differ from the
    words as they are spoken ("5." and "fimmti"): where the two read the same, a word of the text
    takes the time of the spoken one; where not, the words share the time of those in their place.
    """
    tokens = segment.text.split()
    spoken = _spoken(segment)
    if not spoken:
        return _spread(tokens, segment.start, segment.end)
    if len(spoken) == len(tokens):
        return [
            Timed(token, word.start, word.end) for token, word in zip(tokens, spoken, strict=True)
        ]
    found: list[Timed] = []
    for tokens_there, words_there in _alike(tokens, [word.text for word in spoken]):
        words = spoken[words_there]
        if words:
            start, end = words[0].start, max(words[0].start, words[-1].end)
        else:
            # No spoken words are in their place: they get the time between the words around.
            start = spoken[words_there.start - 1].end if words_there.start else segment.start
            after = spoken[words_there.stop :]
            end = max(start, after[0].start if after else segment.end)
        found += _spread(tokens[tokens_there], start, end)
    return found


def _spoken(segment: Segment) -> list[Timed]:
    """Return the service's words; those without a time share that of the segment."""
    guesses = _spread([word.text for word in segment.words], segment.start, segment.end)
    spoken = []
    for word, guess in zip(segment.words, guesses, strict=True):
        start = guess.start if word.start is None else word.start
        end = guess.end if word.end is None else word.end
        spoken.append(Timed(word.text, start, max(start, end)))
    return spoken


def _alike(tokens: Sequence[str], words: Sequence[str]) -> Iterator[tuple[slice, slice]]:
    """Yield which tokens belong to which words: one to one where they read the same."""
    matcher = SequenceMatcher(None, _letters(tokens), _letters(words), autojunk=False)
    for kind, first, last, first_word, last_word in matcher.get_opcodes():
        if kind == "equal":
            for ahead in range(last - first):
                token, word = first + ahead, first_word + ahead
                yield slice(token, token + 1), slice(word, word + 1)
        elif last > first:
            yield slice(first, last), slice(first_word, last_word)


def _letters(words: Sequence[str]) -> list[str]:
    return ["".join(filter(str.isalnum, word.casefold())) or word for word in words]


def _spread(tokens: Sequence[str], start: float, end: float) -> list[Timed]:
    """Share out a time over words by their length."""
    total = sum(len(token) for token in tokens) or 1
    spread: list[Timed] = []
    done = 0
    for token in tokens:
        begins = start + (end - start) * done / total
        done += len(token)
        spread.append(Timed(token, begins, start + (end - start) * done / total))
    return spread
