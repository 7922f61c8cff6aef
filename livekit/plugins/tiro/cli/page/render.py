"""Makes the page of a transcript: its HTML, its waveform, its policy."""

from __future__ import annotations

import re
from base64 import b64encode, encodebytes
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from html import escape
from importlib.resources import files

import numpy as np

from ..formats import LineEvent, Segment, Timed, Transcript, clock, in_ms, timed
from .recording import PEAKS_PER_SECOND, Sound
from .texts import texts_for

# The shortest time without words, in seconds, that a reader is told of: 1 s is common between two
# sentences.
_GAP = 2.0
# The waveform of the whole file, in units of its own: it is stretched to the window's width.
_WIDTH, _HEIGHT = 1000, 100
# A page contains all that it loads and runs: it asks nothing of a network, and a script that got in
# by way of a transcript would not run.
_POLICY = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; media-src blob:; "
    "script-src {script}; style-src {style}"
)


def render_page(transcript: Transcript, sound: Sound, events: Sequence[LineEvent] = ()) -> str:
    """Return an HTML document that needs nothing else: no file, no network.

    Args:
        transcript: What was heard.
        sound: The same file's sound, from second 0 of the file on.
        events: What happened on the line meanwhile, in any order.
    """
    return _Page(transcript, sound, events).render()


@dataclass(frozen=True)
class _Paragraph:
    """One paragraph of the page: a final, a stretch without words, or an event."""

    at: float
    """Seconds of the file."""
    rank: int
    """The order of those that begin at the same time."""
    attributes: str
    content: str
    beside: str = ""
    """What stands in the margin under the time."""


class _Page:
    """The parts of one page, as HTML."""

    def __init__(self, transcript: Transcript, sound: Sound, events: Sequence[LineEvent]) -> None:
        self._transcript = transcript
        self._segments = transcript.segments
        self._sound = sound
        self._events = sorted(events, key=lambda event: event.at)
        self._texts = texts_for(transcript.language)
        ends = [segment.end for segment in self._segments]
        # Seconds; never 0, since all places are shares of it.
        self._length = max([0.001, transcript.duration, *ends])
        # The page is in the transcript's language, but its own texts may be in another.
        own = self._texts["ui"]
        same = transcript.language.partition("-")[0].lower() == own
        self._lang = "" if same else f' lang="{own}"'

    def render(self) -> str:
        style, script = _piece("page.css"), _piece("page.js")
        values = {
            **{name: escape(text) for name, text in self._texts.items()},
            "tag": escape(self._transcript.language),
            "file": escape(self._transcript.file),
            "policy": _POLICY.format(script=_source(script), style=_source(style)),
            "style": style,
            "script": script,
            "about": escape(self._about()),
            "remarks": "\n".join(f"<p>{escape(remark)}</p>" for remark in self._remarks()),
            "length": str(in_ms(self._length)),
            "total": clock(self._length),
            "overview": self._overview(),
            "paragraphs": "\n".join(self._paragraphs()),
            "media_type": escape(self._sound.media_type),
            "sound": encodebytes(self._sound.data).decode(),
            "peaks": encodebytes(self._sound.peaks).decode(),
        }
        # In one pass, so that nothing in a transcript is taken for a place to be filled in.
        return re.sub(r"\{\{(\w+)\}\}", lambda place: values[place[1]], _piece("page.html"))

    # -- what it says of the whole file ----------------------------------------------------------

    def _about(self) -> str:
        count = sum(len(timed(segment)) for segment in self._segments)
        words = self._texts["word"] if count == 1 else self._texts["words"].format(count)
        return " · ".join([clock(self._transcript.duration), self._transcript.language, words])

    def _remarks(self) -> Iterator[str]:
        if not self._transcript.complete:
            yield self._texts["cut_short"]
        if not self._segments:
            yield self._texts["silent"]
        if any(_doubt(segment) for segment in self._segments):
            yield self._texts["shade"]

    # -- paragraphs ------------------------------------------------------------------------------

    def _paragraphs(self) -> Iterator[str]:
        found = [*self._gaps(), *self._stray_events(), *map(self._final, self._segments)]
        found.sort(key=lambda paragraph: (paragraph.at, paragraph.rank))
        for number, paragraph in enumerate(found, 1):
            time = (
                f'<a class="time" href="#p{number}" data-at="{in_ms(paragraph.at)}">'
                f"{clock(paragraph.at)}</a>"
            )
            yield (
                f'<p id="p{number}" {paragraph.attributes}>'
                f'<span class="margin">{time}{paragraph.beside}</span> '
                f"<span>{paragraph.content}</span></p>"
            )

    def _final(self, segment: Segment) -> _Paragraph:
        words = timed(segment)
        pieces = [_word(word) for word in words]
        # From the last event to the first, so that the places of the others stay what they are.
        for event in reversed([event for event in self._events if _within(segment, event)]):
            place = sum(word.start <= event.at for word in words)
            pieces.insert(place, self._mark(event))
        doubt, beside = _doubt(segment), ""
        if segment.confidence is not None:
            name = f'<span class="unseen">{escape(self._texts["confidence"])}</span>'
            beside = f" <small{self._lang}>{name} {segment.confidence:.0%}</small>"
        attributes = f'class="said" data-doubt="{doubt}"' if doubt else 'class="said"'
        if segment.speaker is not None:
            name = escape(self._texts["speaker"].format(segment.speaker))
            pieces.insert(0, f'<b class="speaker"{self._lang}>{name}:</b>')
        return _Paragraph(segment.start, 2, attributes, " ".join(pieces), beside)

    def _gaps(self) -> Iterator[_Paragraph]:
        until = 0.0
        spans = [(segment.start, segment.end) for segment in self._segments]
        for start, end in [*sorted(spans), (self._length, self._length)]:
            if start - until >= _GAP:
                text = escape(self._count("gap", start - until))
                yield _Paragraph(until, 0, f'class="gap"{self._lang}', text)
            until = max(until, end)

    def _stray_events(self) -> Iterator[_Paragraph]:
        """Yield the events that happened while nothing was said; the others stand at their word."""
        for event in self._events:
            if not any(_within(segment, event) for segment in self._segments):
                yield _Paragraph(event.at, 1, f'class="event"{self._lang}', self._mark(event))

    def _mark(self, event: LineEvent) -> str:
        return (
            f'<span class="mark {event.kind}"{self._lang} '
            f'data-event="{event.kind} {in_ms(event.at)} {in_ms(event.seconds)}">'
            f"{escape(self._count(event.kind, event.seconds))}</span>"
        )

    def _count(self, name: str, seconds: float) -> str:
        return self._texts[name].format(f"{seconds:.1f}".replace(".", self._texts["point"]))

    # -- the waveform of the whole file ----------------------------------------------------------

    def _overview(self) -> str:
        said = "".join(
            f"M{self._x(segment.start)} {_HEIGHT - 2}H{self._x(segment.end)}"
            for segment in self._segments
        )
        events = "".join(map(self._event_shape, self._events))
        return "\n".join(
            [
                _svg("", f'<path id="wave" class="wave" d="{self._wave()}"/>'),
                _svg("played", '<use href="#wave"/>'),
                _svg("", f'<path class="line finals" d="{said}"/>{events}'),
            ]
        )

    def _wave(self) -> str:
        """Return the outline of the sound as an SVG path, the loudest sample at full height."""
        peaks = np.frombuffer(self._sound.peaks, np.uint8).astype(float)
        if not len(peaks):
            return ""
        edges = np.unique(np.linspace(0, len(peaks), _WIDTH, endpoint=False).astype(int))
        # A peak is the square root of what it stands for.
        heights = (np.maximum.reduceat(peaks, edges) / max(peaks.max(), 1.0)) ** 2
        middle = _HEIGHT / 2
        xs = [self._x(edge / PEAKS_PER_SECOND) for edge in edges]
        upper = [f"{x} {y:.0f}" for x, y in zip(xs, middle - middle * heights, strict=True)]
        lower = [f"{x} {y:.0f}" for x, y in zip(xs, middle + middle * heights, strict=True)]
        return f"M{'L'.join(upper + lower[::-1])}Z"

    def _event_shape(self, event: LineEvent) -> str:
        x = self._x(event.at)
        if event.seconds <= 0:
            return f'<path class="line {event.kind}" d="M{x} 0V{_HEIGHT}"/>'
        width = self._x(event.seconds)
        return f'<rect class="{event.kind}" x="{x}" y="0" width="{width}" height="{_HEIGHT}"/>'

    def _x(self, seconds: float) -> str:
        return f"{_WIDTH * seconds / self._length:.1f}"


def _word(word: Timed) -> str:
    return f'<span data-t="{in_ms(word.start)} {in_ms(word.end)}">{escape(word.text)}</span>'


def _within(segment: Segment, event: LineEvent) -> bool:
    return segment.start < event.at < segment.end


def _doubt(segment: Segment) -> int:
    """Return how uncertain a final is, in tenths; 0 also if the service did not say."""
    return 0 if segment.confidence is None else round(10 * (1 - segment.confidence))


def _svg(name: str, content: str) -> str:
    return (
        f'<svg class="{name}" viewBox="0 0 {_WIDTH} {_HEIGHT}" preserveAspectRatio="none" '
        f'aria-hidden="true">{content}</svg>'
    )


def _piece(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _source(text: str) -> str:
    """Return what a content security policy calls an inline script or style."""
    # The template begins the element with a line of its own.
    digest = sha256(f"\n{text}".encode()).digest()
    return f"'sha256-{b64encode(digest).decode()}'"
