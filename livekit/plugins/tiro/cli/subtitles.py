"""Transcripts as subtitles, SRT and WebVTT, without any I/O."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from .formats import Timed, Transcript, stamp, timed

# Subtitle habits of broadcasters: two lines of 42 characters, at most 7 s, at least 1 s to read.
LINE_LENGTH = 42
LINE_COUNT = 2
MAX_CUE_MS = 7000
_MIN_CUE_MS = 1000
# Seconds of the shortest pause through which no cue stays on the screen.
_LONG_PAUSE = 1.5
# Seconds; a pause that can be heard is a good place to go to the next cue.
_PAUSE = 0.3
_SENTENCE_MARKS = (".", "!", "?", "…", ":")
_CLAUSE_MARKS = (",", ";")
# Characters by which a line may be longer so that it ends at a mark.
_WORTH_OF_MARK = 12


@dataclass(frozen=True)
class Layout:
    """The room that a cue has."""

    width: int = LINE_LENGTH
    """Characters in a line; a word that is longer has a line to itself."""
    lines: int = LINE_COUNT
    each_word: bool = False
    """Whether each word is a cue of its own, shown while it is said."""


PLAIN = Layout()
"""What broadcasters do."""


@dataclass(frozen=True)
class Cue:
    """One subtitle: when it is shown, in milliseconds of the file, and its lines."""

    start: int
    end: int
    lines: tuple[str, ...]
    speaker: str | None = None


@dataclass(frozen=True)
class _Group:
    """The words of one cue."""

    words: Sequence[Timed]
    speaker: str | None


def srt_document(transcript: Transcript, layout: Layout = PLAIN) -> str:
    """Return a transcript as an SRT file."""
    blocks = []
    speaker = None
    for number, cue in enumerate(cues(transcript, layout), 1):
        # A speaker is named where another one spoke before.
        name = f"Speaker {cue.speaker}: " if cue.speaker and cue.speaker != speaker else ""
        speaker = cue.speaker
        # SRT knows no escapes; an arrow in the text would read as the start of another cue.
        text = (name + _body(cue)).replace("-->", "->")
        blocks.append(f"{number}\n{_timing(cue, ',')}\n{text}")
    return "\n".join(blocks)


def vtt_document(transcript: Transcript, layout: Layout = PLAIN) -> str:
    """Return a transcript as a WebVTT file."""
    escapes = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
    blocks = (
        f"{_timing(cue, '.')}\n{_voice(cue.speaker, escapes)}{_body(cue).translate(escapes)}"
        for cue in cues(transcript, layout)
    )
    return "\n".join(["WEBVTT\n", *blocks])


def _voice(name: str | None, escapes: dict[int, str]) -> str:
    return f"<v Speaker {name.translate(escapes)}>" if name else ""


def _body(cue: Cue) -> str:
    return "".join(f"{line}\n" for line in cue.lines)


def _timing(cue: Cue, point: str) -> str:
    return f"{stamp(cue.start, point)} --> {stamp(cue.end, point)}"


# -- cues ----------------------------------------------------------------------------------------


def cues(transcript: Transcript, layout: Layout = PLAIN) -> list[Cue]:
    """Return a transcript as subtitles.

    Each cue has no more lines than the layout allows, and is shown for at most `MAX_CUE_MS`.
    Starts rise, and no cue overlaps the next.
    """
    groups = [
        _Group(words, segment.speaker)
        for segment in transcript.segments
        for words in _groups(timed(segment), layout)
    ]
    if not groups:
        return []
    starts: list[int] = []
    for group in groups:
        earliest = starts[-1] + 1 if starts else 0
        starts.append(max(earliest, round(group.words[0].start * 1000)))
    file_end = round(max(transcript.duration, groups[-1].words[-1].end) * 1000)
    limits = [*starts[1:], max(file_end, starts[-1] + 1)]
    return [
        Cue(
            start,
            _cue_end(start, group.words[-1].end, limit, layout),
            _lines([word.text for word in group.words], layout),
            group.speaker,
        )
        for group, start, limit in zip(groups, starts, limits, strict=True)
    ]


def _cue_end(start: int, spoken_until: float, limit: int, layout: Layout) -> int:
    """Return when a cue goes: long enough to be read, but not later than `limit`."""
    shortest = 1 if layout.each_word else _MIN_CUE_MS
    end = max(round(spoken_until * 1000), start + shortest)
    return min(end, start + MAX_CUE_MS, limit)


def _groups(words: Sequence[Timed], layout: Layout) -> list[Sequence[Timed]]:
    """Split a segment's words into cues: as few as possible, with breaks where a reader likes them.

    The cheapest way to show the first n words is found for each n in turn.
    """
    if layout.each_word:
        return [[word] for word in words]
    cheapest = [0.0]
    previous = [0]
    for end in range(1, len(words) + 1):
        best, came_from = math.inf, end - 1
        for start in range(end - 1, -1, -1):
            if end - start > 1 and not _fits(words[start:end], layout):
                break
            cost = cheapest[start] + _cost(words, start, end, layout)
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


def _fits(group: Sequence[Timed], layout: Layout) -> bool:
    if (group[-1].end - group[0].start) * 1000 > MAX_CUE_MS:
        return False
    if any(after.start - before.end >= _LONG_PAUSE for before, after in pairwise(group)):
        return False
    lines = _filled([word.text for word in group], layout.width)
    return len(lines) <= layout.lines and all(len(line) <= layout.width for line in lines)


def _cost(words: Sequence[Timed], start: int, end: int, layout: Layout) -> float:
    """Return how unwelcome a cue of `words[start:end]` is."""
    length = sum(len(word.text) + 1 for word in words[start:end])
    # One more cue costs more than any unevenness; among equal numbers of cues, even ones win.
    cost = 10.0 + (1 - length / (layout.lines * layout.width)) ** 2
    if end == len(words):
        return cost
    last = words[end - 1]
    if last.text.endswith(_SENTENCE_MARKS):
        cost -= 2.0
    elif last.text.endswith(_CLAUSE_MARKS) or words[end].start - last.end >= _PAUSE:
        cost -= 1.0
    return cost


# -- lines ---------------------------------------------------------------------------------------


def _lines(words: Sequence[str], layout: Layout) -> tuple[str, ...]:
    """Set the words of a cue on as few lines as possible, of even lengths."""
    filled = _filled(words, layout.width)
    if len(filled) != 2:
        return _even(words, filled, layout.width)
    # The first of two lines goes up to a mark, if there is one.
    pairs = [(" ".join(words[:cut]), " ".join(words[cut:])) for cut in range(1, len(words))]
    return min(pairs, key=lambda pair: _unevenness(pair, layout.width))


def _filled(words: Sequence[str], width: int) -> list[str]:
    """Fill one line after the other."""
    lines: list[str] = []
    for word in words:
        if lines and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _even(words: Sequence[str], filled: list[str], width: int) -> tuple[str, ...]:
    """Return the same number of lines, the longest of them as short as can be."""
    low, high = 1, width
    while low < high:
        middle = (low + high) // 2
        if len(_filled(words, middle)) <= len(filled):
            high = middle
        else:
            low = middle + 1
    return tuple(_filled(words, low))


def _unevenness(pair: tuple[str, str], width: int) -> tuple[bool, int]:
    longest = max(len(line) for line in pair)
    mark = pair[0].endswith((*_SENTENCE_MARKS, *_CLAUSE_MARKS))
    return longest > width, longest - _WORTH_OF_MARK * mark
