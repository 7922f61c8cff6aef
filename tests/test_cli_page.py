"""The page that `--format html` writes: what stands in it, what it sounds like, what it does."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import av
import av.error
import numpy as np
import numpy.typing as npt
import pytest
import typer
from hypothesis import given, strategies as st

from livekit.agents.metrics import STTMetrics
from livekit.plugins.tiro import Stats
from livekit.plugins.tiro.cli.exits import Exit
from livekit.plugins.tiro.cli.formats import Format, LineEvent, Segment, Transcript, Word
from livekit.plugins.tiro.cli.job import Job, Task
from livekit.plugins.tiro.cli.page import LineWatch, Recording, Sound, recording, render_page
from livekit.plugins.tiro.cli.page.texts import _TEXTS, texts_for
from livekit.plugins.tiro.cli.plan import plan
from livekit.plugins.tiro.cli.service import Service
from livekit.plugins.tiro.cli.signals import Interruption
from livekit.plugins.tiro.cli.transcribe import Wanted, transcribe as write_down
from livekit.plugins.tiro.testing import TiroServer, parse_faults

from . import pictures
from .support.chromium import Chromium, Tab, chromium, find_chromium
from .support.command import ICELANDIC, KEY, SAYS_ICELANDIC, SILENCE, transcribe

if TYPE_CHECKING:
    from pathlib import Path

RATE = 16000
EVIL = (
    "</script></style>--><script>window.harm = 1</script>"
    "<img src=x onerror='window.harm = 1'>&amp;\"'{{tag}}"
)
WORDS = "góðan daginn og velkomin"


def said(text: str, start: float, confidence: float | None = None, pace: float = 0.4) -> Segment:
    """A final in which a word begins every `pace` seconds and lasts for three quarters of that."""
    times = [start + index * pace for index in range(len(text.split()))]
    words = [Word(word, at, at + 0.75 * pace) for word, at in zip(text.split(), times, strict=True)]
    return Segment(text, start, words[-1].end or start, confidence, tuple(words))


def transcript(*segments: Segment, duration: float = 10.0, language: str = "is-IS") -> Transcript:
    return Transcript("símtal.wav", language, duration, list(segments), complete=True)


def tones(seconds: float, *loud: tuple[float, float], rate: int = RATE) -> npt.NDArray[np.int16]:
    """Quiet, with a tone of half the full scale from each second to the other."""
    times = np.arange(round(seconds * rate)) / rate
    on = np.any([(times >= start) & (times < end) for start, end in loud], axis=0)
    samples: npt.NDArray[np.int16] = (16384 * np.sin(2 * np.pi * 440 * times) * on).astype(np.int16)
    return samples


def record(samples: npt.NDArray[np.int16], rate: int = RATE, start: float = 0.0) -> Sound:
    recorded = Recording(rate)
    for first in range(0, len(samples), rate // 10):
        recorded.write(samples[first : first + rate // 10].tobytes(), start + first / rate)
    return recorded.finish()


QUIET = record(tones(10.0))


def page(
    *segments: Segment, events: tuple[LineEvent, ...] = (), sound: Sound = QUIET, **other: Any
) -> str:
    return render_page(replace(transcript(*segments), **other), sound, events)


class Reader(HTMLParser):
    """Takes a page apart, and fails if its elements are not nested."""

    VOID = {"meta", "link", "input", "path", "use", "rect"}

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self._open: list[tuple[str, list[str]]] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        content: list[str] = []
        self.elements.append((tag, dict(attrs), content))
        if tag not in self.VOID:
            self._open.append((tag, content))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), []))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        for _, content in self._open:
            content.append(data)

    def all(self, tag: str, **having: str) -> list[tuple[dict[str, str | None], str]]:
        """Return the attributes and the text of all elements with a tag and some attributes."""
        return [
            (attributes, " ".join("".join(content).split()))
            for name, attributes, content in self.elements
            if name == tag and all(attributes.get(key) == having[key] for key in having)
        ]

    def paragraphs(self) -> list[tuple[str, str]]:
        """Return the class and the text of each paragraph of the transcript."""
        return [(a["class"] or "", text) for a, text in self.all("p") if "class" in a]


def sha256(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


# -- what stands in it ---------------------------------------------------------------------------


def test_words_stand_at_their_times() -> None:
    found = Reader(page(said(WORDS, 1.0)))
    spans = [(a["data-t"], text) for a, text in found.all("span") if "data-t" in a]
    assert spans == [
        ("1000 1300", "góðan"),
        ("1400 1700", "daginn"),
        ("1800 2100", "og"),
        ("2200 2500", "velkomin"),
    ]


def test_words_without_times_share_those_of_their_final() -> None:
    found = Reader(page(Segment("já nei", 1.0, 2.0)))
    assert [a["data-t"] for a, _ in found.all("span") if "data-t" in a] == [
        "1000 1400",
        "1400 2000",
    ]


def test_each_final_is_a_paragraph_with_its_time_and_pauses_are_told() -> None:
    found = Reader(page(said("já", 2.5), said("nei", 4.0), said("jú", 7.0), duration=3605.0))
    assert found.paragraphs() == [
        ("gap", "0:00 2,5 sek. án orða"),
        ("said", "0:02 já"),
        ("said", "0:04 nei"),
        ("gap", "0:04 2,7 sek. án orða"),
        ("said", "0:07 jú"),
        ("gap", "0:07 3597,7 sek. án orða"),
    ]
    assert ("1:00:05 · is-IS · 3 orð") in [text for _, text in found.all("p")]


def test_each_paragraph_has_an_address() -> None:
    found = Reader(page(said("já", 0.0), said("nei", 4.0)))
    links = [(a["href"], a["data-at"]) for a, _ in found.all("a")]
    assert links == [("#p1", "0"), ("#p2", "300"), ("#p3", "4000"), ("#p4", "4300")]
    assert [a["id"] for a, _ in found.all("p") if "class" in a] == ["p1", "p2", "p3", "p4"]


def test_an_event_stands_at_its_word_or_between_the_finals() -> None:
    events = (
        LineEvent("given_up", 5.0, 1.5),
        LineEvent("connection", 0.3),
        LineEvent("connection", 4.0),
    )
    found = Reader(page(said(WORDS, 0.0), said("nei", 4.0), events=events))
    assert found.paragraphs() == [
        ("said", "0:00 góðan ný tenging daginn og velkomin"),
        ("gap", "0:01 2,5 sek. án orða"),
        ("event", "0:04 ný tenging"),
        ("said", "0:04 nei"),
        ("gap", "0:04 5,7 sek. án orða"),
        ("event", "0:05 1,5 sek. af hljóði sleppt: þjónustan heyrði það ekki"),
    ]
    marks = [a["data-event"] for a, _ in found.all("span") if "data-event" in a]
    assert marks == ["connection 300 0", "connection 4000 0", "given_up 5000 1500"]
    assert [(a["x"], a["width"]) for a, _ in found.all("rect")] == [("500.0", "150.0")]
    assert [a["d"] for a, _ in found.all("path", **{"class": "line connection"})] == [
        "M30.0 0V100",
        "M400.0 0V100",
    ]


def test_events_in_a_final_keep_their_order_and_words_theirs_whatever_their_times() -> None:
    words = (Word("einn", 1.0, 1.2), Word("tveir", 0.5, 0.7), Word("þrír", 1.5, 1.7))
    events = (LineEvent("given_up", 1.1, 0.1), LineEvent("connection", 1.2))
    found = Reader(page(Segment("einn tveir þrír", 0.5, 1.7, None, words), events=events))
    assert found.paragraphs()[0][1] == (
        "0:00 einn tveir 0,1 sek. af hljóði sleppt: þjónustan heyrði það ekki ný tenging þrír"
    )


def test_confidence_is_a_shade_and_a_number_where_it_is_given() -> None:
    found = Reader(page(said("já", 0.0, 1.0), said("nei", 1.0, 0.62), said("jú", 2.0)))
    shades = [a.get("data-doubt") for a, _ in found.all("p", **{"class": "said"})]
    assert shades == [None, "4", None]
    assert [text for _, text in found.all("small")] == ["vissa 100%", "vissa 62%"]
    assert "Því sterkari sem liturinn er, því óvissari eru orðin." in page(said("a", 0.0, 0.5))
    assert "Því sterkari" not in page(said("já", 0.0), said("nei", 1.0, 0.99))


def test_who_speaks_stands_before_what_is_said() -> None:
    spoken = replace(said("já", 0.0), speaker="1"), replace(said("nei", 1.0), speaker="<2>")
    found = Reader(page(*spoken, said("jú", 2.0), duration=2.3))
    assert [text for _, text in found.paragraphs()] == [
        "0:00 Mælandi 1: já",
        "0:01 Mælandi <2>: nei",
        "0:02 jú",
    ]
    # A name is no word of the transcript.
    assert "3 orð" in found.all("header")[0][1]


def test_a_run_that_was_cut_short_and_silence_are_said() -> None:
    assert "ekki var hlustað á alla skrána" in page(complete=False)
    assert "Ekkert tal heyrðist" in page()
    whole = page(said("já", 0.0))
    assert "ekki var hlustað" not in whole and "Ekkert tal" not in whole
    assert "1 orð<" in whole


def test_the_page_is_in_the_language_of_the_tag() -> None:
    icelandic = Reader(page(said("já", 3.0), language="is-IS-x-exp"))
    assert icelandic.all("html")[0][0]["lang"] == "is-IS-x-exp"
    assert icelandic.all("header")[0][0]["lang"] == "is"
    assert "lang" not in icelandic.all("p", **{"class": "gap"})[0][0]
    english = Reader(page(said("yes", 3.0), language="en-US"))
    assert ("gap", "0:00 3.0 s without words") in english.paragraphs()
    german = Reader(page(said("ja", 3.0), language="de-DE"))
    assert german.all("html")[0][0]["lang"] == "de-DE"
    assert german.all("section")[0][0]["lang"] == "en"
    assert german.all("p", **{"class": "gap"})[0][0]["lang"] == "en"


def test_the_page_says_the_same_in_every_language() -> None:
    english = texts_for("xx")
    for texts in _TEXTS.values():
        assert texts.keys() == english.keys()
        assert all(texts[name].count("{}") == english[name].count("{}") for name in english)


def test_whatever_was_said_is_text() -> None:
    text = page(Segment(EVIL, 0.0, 1.0), file=EVIL, language='is" onload="harm = 1')
    found = Reader(text)
    assert found.all("title")[0][1] == " ".join(EVIL.split())
    assert found.paragraphs()[0] == ("said", f"0:00 {EVIL}")
    assert found.all("html")[0][0] == {"lang": 'is" onload="harm = 1'}
    assert len(found.all("script")) == 3
    assert not found.all("img")


def test_nothing_runs_or_loads_but_what_is_in_the_page() -> None:
    found = Reader(page(said(WORDS, 1.0)))
    (policy,) = (a["content"] for a, _ in found.all("meta") if "http-equiv" in a)
    text = page(said(WORDS, 1.0))
    script = text[text.rindex("<script>") + 8 : text.rindex("</script>")]
    style = text[text.index("<style>") + 7 : text.index("</style>")]
    rules = dict(rule.split(maxsplit=1) for rule in (policy or "").split("; "))
    assert rules == {
        "default-src": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "img-src": "data:",
        "media-src": "blob:",
        "script-src": sha256(script),
        "style-src": sha256(style),
    }
    assert "{{" not in text
    assert not any("style" in attributes for _, attributes, _ in found.elements)


def test_the_waveform_has_the_height_of_the_loudest_and_the_width_of_the_file() -> None:
    sound = record(tones(4.0, (1.0, 2.0)))
    text = page(said("já", 1.0), sound=sound, duration=4.0)
    (wave,) = (a["d"] or "" for a, _ in Reader(text).all("path", id="wave"))
    points = [tuple(map(float, p.split())) for p in re.findall(r"[\d.]+ [\d.]+", wave)]
    half = len(points) // 2
    assert [x for x, _ in points[:half]] == [x for x, _ in points[half:]][::-1]
    assert all(y == (0 if 250 <= x < 500 else 50) for x, y in points[:half])
    assert all(y == (100 if 250 <= x < 500 else 50) for x, y in points[half:])
    assert points[half - 1][0] == 995.0


def test_a_file_without_a_second_of_sound_has_a_page() -> None:
    nothing = Recording(RATE)
    nothing.write(b"", 0.0)
    found = Reader(page(sound=nothing.finish(), duration=0.0))
    assert found.all("path", id="wave")[0][0]["d"] == ""
    assert found.all("main")[0][1] == ""


# -- what it sounds like -------------------------------------------------------------------------


def play(sound: Sound) -> tuple[npt.NDArray[np.float64], int]:
    """Return the samples of a recording, full scale being 1, and their rate."""
    with av.open(io.BytesIO(sound.data), "r") as container:
        frames = [
            np.concatenate([np.zeros(0), frame.to_ndarray().astype(float).ravel()])
            for frame in container.decode(audio=0)
        ]
        stream = container.streams.audio[0]
        scale = 32768 if stream.format.name.startswith("s16") else 1
        return np.concatenate(frames) / scale, stream.rate


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 44100, 48000])
def test_a_second_of_the_recording_is_a_second_of_the_file(rate: int) -> None:
    sound = record(tones(3.0, (1.0, 2.0), rate=rate), rate)
    assert sound.media_type == "audio/webm"
    samples, played = play(sound)
    loud = np.flatnonzero(np.abs(samples) > 0.25) / played
    assert (loud[0], loud[-1]) == pytest.approx((1.0, 2.0), abs=0.02)
    assert len(samples) / played == pytest.approx(3.0, abs=0.1)


def test_sound_that_starts_later_than_the_file_has_silence_before_it() -> None:
    sound = record(tones(1.0, (0.0, 1.0)), start=2.5)
    samples, rate = play(sound)
    assert np.flatnonzero(np.abs(samples) > 0.25)[0] / rate == pytest.approx(2.5, abs=0.02)
    assert len(sound.peaks) == 175
    assert not any(sound.peaks[:125]) and min(sound.peaks[125:]) > 170


def test_where_the_file_has_no_sound_is_silence() -> None:
    loud, recorded = tones(1.0, (0.0, 1.0)), Recording(RATE)
    for at in (0.0, 1.0, 3.5, 4.49, 5.51):
        recorded.write(loud.tobytes(), at)
    peaks = recorded.finish().peaks
    # Jitter is no gap, and what overlaps is not cut.
    assert [peak > 170 for peak in peaks] == [True] * 100 + [False] * 75 + [True] * 150


def test_an_hour_fits_into_a_mail() -> None:
    """Noise is what compresses worst."""
    noise = np.random.default_rng(1).normal(0, 3000, 60 * RATE).astype(np.int16)
    assert len(record(noise).data) * 60 < 12e6


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100])
def test_a_peak_is_the_loudest_sample_of_its_fiftieth_of_a_second(rate: int) -> None:
    samples = np.zeros(rate, np.int16)
    for second in (0.11, 0.51):
        samples[round(second * rate)] = -32768
    samples[round(0.75 * rate)] = 8192
    peaks = record(samples, rate).peaks
    assert len(peaks) == 50
    assert {at: peak for at, peak in enumerate(peaks) if peak} == {5: 255, 25: 255, 37: 127}


@given(st.lists(st.integers(0, 700)), st.sampled_from([8000, 11025, 16000]))
def test_peaks_do_not_depend_on_how_the_sound_comes(sizes: list[int], rate: int) -> None:
    samples = np.random.default_rng(2).normal(0, 5000, sum(sizes)).astype(np.int16)
    measured = recording._Peaks(rate)
    position = 0
    for size in sizes:
        measured.push(samples[position : position + size])
        position += size
    edges = [-(-(index * rate) // 50) for index in range(len(samples) * 50 // rate + 2)]
    expected = [
        int(255 * np.sqrt(np.abs(samples[start:end].astype(int)).max() / 32768))
        for start, end in zip(edges, edges[1:], strict=False)
        if len(samples[start:end])
    ]
    assert list(measured.finish()) == expected


def test_without_an_opus_encoder_the_sound_is_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    known = av.Codec

    def without_opus(name: str, mode: Any) -> Any:
        if name == "libopus":
            raise av.codec.codec.UnknownCodecError(name)
        return known(name, mode)

    monkeypatch.setattr(av, "Codec", without_opus)
    sound = record(tones(1.0, (0.5, 1.0)))
    assert sound.media_type == "audio/wav"
    samples, rate = play(sound)
    assert (len(samples), rate) == (RATE, RATE)
    assert np.flatnonzero(np.abs(samples) > 0.25)[0] / rate == pytest.approx(0.5, abs=0.02)


# -- where it comes from -------------------------------------------------------------------------


class Reports:
    """An engine that tells its listeners of metrics."""

    def __init__(self) -> None:
        self.listeners: list[Callable[[STTMetrics], None]] = []

    def on(self, _: str, listener: Callable[[STTMetrics], None]) -> None:
        self.listeners.append(listener)

    def off(self, _: str, listener: Callable[[STTMetrics], None]) -> None:
        self.listeners.remove(listener)

    def report(self, acquire_time: float) -> None:
        metrics = STTMetrics(
            label="",
            request_id="",
            timestamp=0.0,
            duration=0.0,
            audio_duration=0.0,
            streamed=True,
            acquire_time=acquire_time,
        )
        for listener in self.listeners:
            listener(metrics)


def test_connections_that_take_over_are_an_event_after_the_last_final() -> None:
    heard = transcript()
    engine: Any = Reports()
    with LineWatch(engine, heard):
        engine.report(0.01)
        assert heard.events == []
        engine.report(0.02)
        heard.segments.append(said("já", 2.0))
        engine.report(0.0)
        engine.report(0.02)
        engine.report(0.02)
    assert heard.events == [LineEvent("connection", 0.0), LineEvent("connection", 2.3)]
    assert engine.listeners == []


def test_audio_that_is_given_up_is_an_event_with_a_length() -> None:
    heard = transcript()
    engine: Any = Reports()
    engine.stats = Stats(audio_given_up=7.0)
    with LineWatch(engine, heard):
        engine.report(0.01)
        heard.segments.append(said("já", 2.0))
        engine.stats = Stats(audio_given_up=9.5)
        engine.report(0.01)
        engine.report(0.01)
    assert heard.events[:2] == [LineEvent("connection", 2.3), LineEvent("given_up", 2.3, 2.5)]
    assert sum(event.seconds for event in heard.events) == 2.5, (
        "what was before is not of this file"
    )


async def test_a_connection_that_breaks_is_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIRO_API_KEY", KEY)
    output = tmp_path / "page.html"
    hooks = parse_faults(["disconnect:3@1"])
    async with TiroServer(api_key=KEY, hooks=hooks) as server:
        job = Job(Task(Service("is-IS", server.base_url)), Interruption())
        await job.run(plan([ICELANDIC], [Format.HTML], str(output)))
    assert job.failure is None
    found = Reader(output.read_text(encoding="utf-8"))
    broken, text = found.all("span", **{"class": "mark connection"})[0]
    assert (broken["data-event"], text) == ("connection 0 0", "ný tenging")


def test_the_command_writes_a_page_with_the_sound_of_the_file(tmp_path: Path) -> None:
    output = tmp_path / "page.html"
    result = transcribe("-f", "html", "--local", ICELANDIC, "-o", str(output))
    assert (result.exit_code, result.stdout) == (0, "")
    found = Reader(output.read_text(encoding="utf-8"))
    assert SAYS_ICELANDIC in " ".join(text for _, text in found.paragraphs())
    ((attributes, data),) = found.all("script", id="sound")
    assert attributes["data-type"] == "audio/webm"
    samples, rate = play(Sound(base64.b64decode(data), "audio/webm", b""))
    assert len(samples) / rate == pytest.approx(7.1, abs=0.1)
    assert found.all("section")[0][0]["data-length"] == "7123"


def test_each_file_has_a_page_of_its_own(tmp_path: Path) -> None:
    arguments = ("-f", "html", "--local", ICELANDIC, SILENCE)
    assert transcribe(*arguments).exit_code == Exit.USAGE
    assert transcribe(*arguments, "-o", str(tmp_path)).exit_code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"is.html", "silence.html"}


def test_a_page_is_not_written_to_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with pytest.raises(typer.Exit) as ended:
        write_down([ICELANDIC], formats=[Wanted.HTML], local=True)
    assert ended.value.exit_code == Exit.USAGE
    assert "--output" in capsys.readouterr().err


# -- what it does --------------------------------------------------------------------------------

FINALS = (said(WORDS, 1.0, 0.9), said("nú er gott veður", 5.0, 0.5), said("já", 9.0))
EVENTS = (LineEvent("connection", 5.7), LineEvent("given_up", 7.0, 1.0))
SPOKEN = record(tones(10.0, *((segment.start, segment.end) for segment in FINALS)))


def test_the_pictures_of_the_readme_need_a_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "find_chromium", lambda: None)
    with pytest.raises(SystemExit, match="Chromium is not installed"):
        pictures.main()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    program = find_chromium()
    if program is None:
        pytest.skip("Chromium is not installed")
    with chromium(program, tmp_path_factory.mktemp("chromium") / "profile") as running:
        yield running


Show = Callable[..., Tab]


@pytest.fixture
def show(browser: Chromium, tmp_path: Path) -> Iterator[Show]:
    """Return a function that opens a page; at the end no page may have complained."""
    tabs: list[Tab] = []

    def opened(text: str | None = None, address: str = "", **window: Any) -> Tab:
        path = tmp_path / f"{len(tabs)}.html"
        text = text or page(*FINALS, events=EVENTS, sound=SPOKEN)
        path.write_text(text, encoding="utf-8")
        tabs.append(browser.open(f"{path.as_uri()}{address}", **window))
        tabs[-1].value(WATCH)
        return tabs[-1]

    yield opened
    complaints = [complaint for tab in tabs for complaint in tab.complaints]
    for tab in tabs:
        tab.close()
    assert complaints == []


# JavaScript for what a person sees and hears: when it began to play, which words were marked.
WATCH = """
globalThis.begun = [];
globalThis.marks = [];
audio.addEventListener("play", () => begun.push(audio.currentTime));
new MutationObserver((changes) => {
  for (const { target } of changes) {
    if (target.matches("[data-t].playing")) marks.push(target.textContent);
  }
}).observe(transcript, { subtree: true, attributeFilter: ["class"] });
"""
AT = "audio.currentTime"
MARKED = "[...document.querySelectorAll('#transcript .playing')].map((e) => e.textContent).join()"
CHIP = "[...document.querySelectorAll('.word.playing')].map((e) => e.textContent).join()"
HIDDEN = "!document.querySelector('{}').checkVisibility()"


def word(number: int) -> str:
    """A selector of a word, counted from 0."""
    start = [word.start for segment in FINALS for word in segment.words][number] or 0.0
    return f'[data-t^="{round(1000 * start)} "]'


def test_nothing_is_asked_of_a_network(show: Show) -> None:
    tab = show()
    tab.wait("audio.readyState >= 3")
    assert [url.partition(":")[0] for url in tab.requests] == ["file", "blob"]
    assert tab.value("audio.duration") == pytest.approx(10.0, abs=0.1)


def test_what_was_said_does_not_run(show: Show) -> None:
    tab = show(page(Segment(EVIL, 0.0, 1.0), said(EVIL, 2.0), file=EVIL))
    tab.wait("audio.readyState >= 3")
    assert tab.value("document.querySelector('.said').textContent").endswith(EVIL)
    assert tab.value("document.title") == EVIL
    assert tab.value("[typeof harm, document.images.length]") == ["undefined", 0]
    tab.wait("document.querySelectorAll('.word').length > 1")
    assert tab.value("document.querySelector('.word').textContent") == EVIL.split()[0]


def test_a_click_on_a_word_plays_it_and_the_mark_goes_on_with_the_sound(show: Show) -> None:
    tab = show()
    tab.click(f"#transcript {word(1)}")
    tab.wait("!audio.paused && play.getAttribute('aria-label') == 'Gera hlé'")
    tab.wait("marks.length >= 3")
    assert tab.value("marks.slice(0, 3)") == ["daginn", "og", "velkomin"]
    assert tab.value("begun") == pytest.approx([1.4], abs=0.1)
    # In a pause nothing is marked.
    tab.wait(f"{AT} > 3.2 && ({MARKED} == '' || {AT} >= 5)")
    tab.click("#play")
    tab.wait("audio.paused && play.getAttribute('aria-label') == 'Spila'")
    assert tab.value(CHIP) == tab.value(MARKED)


def test_a_click_in_the_close_up_plays_from_there(show: Show) -> None:
    tab = show(width=1100)
    tab.click(f"#closeup {word(2)}")
    tab.wait("marks[0] == 'og'")
    tab.press(" ")
    tab.wait("audio.paused")
    # Seen from second 0, it shows 120 pixels for a second.
    tab.value("closeup.scrollLeft = 0")
    tab.click("#closeup", at=500 / tab.value("closeup.clientWidth"))
    tab.wait("begun.length == 2")
    assert tab.value("begun") == pytest.approx([1.8, 500 / 120], abs=0.1)


def test_words_stand_under_their_place_in_the_waveform(show: Show) -> None:
    tab = show(width=1100)
    tab.wait("document.querySelectorAll('.word').length == 9")
    lefts = tab.value(
        "[...document.querySelectorAll('.word')].map((chip) => "
        "chip.getBoundingClientRect().left - strip.getBoundingClientRect().left)"
    )
    starts = [word.start for segment in FINALS for word in segment.words]
    assert lefts == pytest.approx([120 * (start or 0) for start in starts], abs=1)
    overlaps = tab.value(
        "[...document.querySelectorAll('.word')].map((c) => c.getBoundingClientRect()).filter("
        "(a, i, all) => all.some((b, j) => j > i && a.top == b.top && b.left < a.right)).length"
    )
    assert overlaps == 0


def test_the_waveform_is_a_slider_for_the_mouse(show: Show) -> None:
    tab = show()
    tab.mouse("mousePressed", "#overview", at=0.5)
    assert tab.value(AT) == pytest.approx(5.0, abs=0.05)
    tab.mouse("mouseMoved", "#overview", at=0.54)
    assert tab.value(AT) == pytest.approx(5.4, abs=0.05)
    assert tab.value(MARKED) == "er"
    tab.mouse("mouseReleased", "#overview", at=0.54)
    tab.mouse("mouseMoved", "#overview", at=0.9)
    assert tab.value(AT) == pytest.approx(5.4, abs=0.05)
    assert tab.value("audio.paused")


def test_the_waveform_is_a_slider_for_the_keys(show: Show) -> None:
    tab = show()
    tab.value("overview.focus()")
    seen = []
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "End", "Home"):
        tab.press(key)
        seen.append(tab.value("overview.getAttribute('aria-valuetext')"))
    assert seen == ["0:05 af 0:10", "0:10 af 0:10", "0:05 af 0:10", "0:10 af 0:10", "0:00 af 0:10"]


def test_arrows_go_from_word_to_word_and_with_shift_from_final_to_final(show: Show) -> None:
    tab = show()
    seen = []
    steps = [("Right", False)] * 2 + [("Right", True)] * 2 + [("Left", True), ("Left", False)]
    for side, shift in steps:
        tab.press(f"Arrow{side}", shift=shift)
        seen.append(tab.value(MARKED))
    assert seen == ["góðan", "daginn", "nú", "já", "nú", "velkomin"]
    # There is nothing to go to before the first.
    tab.press("ArrowLeft", shift=True)
    tab.press("ArrowLeft", shift=True)
    assert tab.value(MARKED) == "góðan"


def test_space_plays_and_pauses_and_presses_the_button_that_has_the_focus(show: Show) -> None:
    tab = show()
    tab.press(" ")
    tab.wait("!audio.paused")
    tab.press(" ")
    tab.wait("audio.paused")
    tab.press("Tab")
    assert tab.value("document.activeElement.id") == "play"
    tab.press(" ")
    tab.wait("!audio.paused")


def test_the_time_of_a_final_plays_it(show: Show) -> None:
    tab = show()
    tab.click('.said .time[data-at="5000"]')
    # The mark is there before the sound begins.
    tab.wait("marks[0] == 'nú' && begun.length")
    assert tab.value("begun") == pytest.approx([5.0], abs=0.1)


def test_an_event_plays_what_was_heard_there(show: Show) -> None:
    tab = show()
    tab.click(".mark.given_up")
    tab.wait("begun.length")
    assert tab.value("begun") == pytest.approx([7.0], abs=0.1)


def test_an_address_leads_to_a_paragraph(show: Show) -> None:
    tab = show(address="#p3")
    tab.wait(f"{MARKED} == 'nú'")
    assert tab.value("audio.paused")
    tab.value("location.hash = 'p1'")
    tab.wait(f"{MARKED} == 'góðan'")


def test_text_can_be_selected_without_a_sound(show: Show) -> None:
    tab = show()
    tab.value("getSelection().selectAllChildren(document.querySelector('.said > span:last-child'))")
    # What a mouse does at the end of a selection.
    tab.value(f"document.querySelector('#transcript {word(1)}').click()")
    assert tab.value("[audio.paused, audio.currentTime]") == [True, 0]
    # Times, events and pauses are no part of it.
    tab.value("getSelection().selectAllChildren(transcript)")
    assert (
        tab.value("getSelection().toString()").split() == " ".join(s.text for s in FINALS).split()
    )


def test_the_speed_can_be_chosen(show: Show) -> None:
    tab = show()
    tab.value("get('speed').value = '2'; get('speed').dispatchEvent(new Event('change'))")
    assert tab.value("audio.playbackRate") == 2


def test_a_sound_that_cannot_be_played_is_said(show: Show) -> None:
    tab = show(page(*FINALS, sound=replace(SPOKEN, data=b"noise")))
    tab.wait("!get('trouble').hidden")
    assert tab.value("get('trouble').textContent") == "Hér er ekki hægt að spila hljóðið."


def test_the_page_can_be_used_by_ear(show: Show) -> None:
    tab = show()
    nodes = tab.call("Accessibility.getFullAXTree")["nodes"]
    named = {
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if not node["ignored"]
    }
    assert named >= {
        ("banner", ""),
        ("heading", "símtal.wav"),
        ("region", "Spilari"),
        ("slider", "Staða"),
        ("button", "Spila"),
        ("combobox", "Hraði"),
        ("checkbox", "Fylgja"),
        ("main", "Texti"),
        ("link", "0:05"),
        ("contentinfo", ""),
    }


def test_without_scripts_the_text_is_there_and_nothing_that_does_not_work(show: Show) -> None:
    tab = show()
    tab.call("Emulation.setScriptExecutionDisabled", value=True)
    tab.call("Page.reload")
    visible = ".said", "noscript", "#overview"
    tab.wait(f"document.readyState == 'complete' && {HIDDEN.format('#play')}")
    assert tab.value(
        f"{list(visible)}.map((s) => document.querySelector(s).checkVisibility())"
    ) == [True] * len(visible)
    assert tab.value(HIDDEN.format("#closeup")) and tab.value(HIDDEN.format("footer"))


# -- how it looks --------------------------------------------------------------------------------


def test_it_is_light_or_dark_as_the_reader_likes(show: Show) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    assert show(prefers_color_scheme="light").value(ground) == "rgb(255, 255, 255)"
    assert show(prefers_color_scheme="dark").value(ground) == "rgb(22, 24, 28)"


@pytest.mark.many
@pytest.mark.parametrize("width", [320, 640, 1600])
def test_it_fits_into_any_window(show: Show, width: int) -> None:
    long = "vaðlaheiðarvegavinnuverkfærageymsluskúraútidyralyklakippuhringur" * 2
    tab = show(page(*FINALS, said(long, 12.0), events=EVENTS, file=long), width=width)
    assert tab.value("document.documentElement.scrollWidth <= innerWidth")
    assert tab.value(
        "[...document.querySelectorAll('#bar > *, #transcript p')].every((element) => "
        "element.getBoundingClientRect().right <= innerWidth)"
    )


def test_the_player_stays_in_view(show: Show) -> None:
    many = [said("já já já", second, 0.5) for second in range(0, 300, 3)]
    for window in ({"width": 1200, "height": 800}, {"width": 380, "height": 700}):
        tab = show(page(*many, duration=300.0), **window)
        tab.value("scrollTo(0, 2000)")
        tab.wait("scrollY > 1000")
        box = tab.value("(({top, bottom}) => [top, bottom])(get('bar').getBoundingClientRect())")
        assert 0 <= box[0] < box[1] < 300


def test_on_paper_are_the_words_and_the_waveform(show: Show) -> None:
    tab = show()
    assert tab.printed().startswith(b"%PDF")
    tab.call("Emulation.setEmulatedMedia", media="print")
    gone = ["#play", "#times", "#closeup", "#head", "#speed", "#follow", "footer", ".played"]
    assert tab.value(f"{gone}.filter((s) => document.querySelector(s).checkVisibility())") == []
    assert tab.value(
        "['h1', '#overview', '.said'].every((s) => get ? "
        "document.querySelector(s).checkVisibility() : false)"
    )


# -- following -----------------------------------------------------------------------------------

LONG = [said("orð um orð frá orði til orðs", 4.0 * index, 0.8) for index in range(900)]
# Whether the word of the present, or the one before it, is to be seen.
IN_VIEW = """(() => {
  const { element } = words[Math.max(0, lastBegun(wordStarts, audio.currentTime))];
  const { top, bottom } = element.getBoundingClientRect();
  return top >= player.getBoundingClientRect().bottom && bottom <= innerHeight;
})()"""


def repeated(sound: Sound, times: int) -> Sound:
    """Return a sound several times over, without encoding it again."""
    file = io.BytesIO()
    with (
        av.open(io.BytesIO(sound.data), "r") as source,
        av.open(file, "w", format="webm") as target,
    ):
        stream = target.add_stream_from_template(source.streams.audio[0])
        for turn in range(times):
            source.seek(0)
            for packet in source.demux(audio=0):
                if packet.pts is not None:
                    packet.pts = packet.dts = packet.pts + turn * 60_000
                    packet.stream = stream
                    target.mux(packet)
    return replace(sound, data=file.getvalue(), peaks=sound.peaks * times)


@pytest.fixture(scope="module")
def hour() -> str:
    """A page of an hour with 6,300 words."""
    minute = record(tones(60.0, *((second, second + 2.7) for second in range(0, 60, 4))))
    return page(*LONG, sound=repeated(minute, 60), duration=3600.0)


@pytest.mark.many
def test_an_hour_is_no_burden(show: Show, hour: str) -> None:
    assert len(hour) < 20e6
    tab = show(hour)
    assert tab.value("document.querySelectorAll('*').length") < 12_000
    tab.wait("audio.readyState >= 1")
    assert tab.value("audio.duration") == pytest.approx(3600, abs=1)
    for at in (0.99, 0.3, 0.6):
        tab.click("#overview", at=at)
        assert tab.value(AT) == pytest.approx(3600 * at, abs=10)
        tab.wait(IN_VIEW)
        tab.wait(f"Math.abs(closeup.scrollLeft + closeup.clientWidth / 3 - {AT} * 120) < 2")
        tab.wait("stretches.size > 1 && document.querySelectorAll('.stretch').length <= 6")


@pytest.mark.many
def test_the_words_are_followed_until_the_reader_scrolls_away(show: Show, hour: str) -> None:
    tab = show(hour)
    for _ in range(3):
        tab.press("ArrowRight", shift=True)
    tab.value("scrollTo({top: 3000, behavior: 'instant'})")
    tab.press("ArrowRight")
    tab.wait(IN_VIEW)
    tab.wheel("#transcript", 2000)
    tab.wait("astray && scrollY > 1000")
    left = tab.value("closeup.scrollLeft")
    tab.value("marks = [], audio.play(), 0")
    tab.wait("marks.includes('til')")
    assert not tab.value(IN_VIEW)
    assert tab.value("closeup.scrollLeft") == left
    # A seek is a wish to see the place.
    tab.press("ArrowRight")
    tab.wait(IN_VIEW)
    tab.wait(f"closeup.scrollLeft != {left}")


def test_who_does_not_want_to_be_led_is_not(show: Show, hour: str) -> None:
    tab = show(hour)
    tab.click("#follow")
    tab.click("#overview", at=0.5)
    assert tab.value(AT) == pytest.approx(1800, abs=10)
    assert tab.value("[scrollY, closeup.scrollLeft]") == [0, 0]
    tab.click("#follow")
    tab.wait("closeup.scrollLeft > 0")


def test_without_motion_the_close_up_turns_pages(show: Show) -> None:
    tab = show(width=600, prefers_reduced_motion="reduce")
    lefts = [tab.value(f"seek({second}), closeup.scrollLeft") for second in range(1, 8)]
    assert len(set(lefts)) == 2
