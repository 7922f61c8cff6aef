"""Takes the pictures of a page that the README shows: `python -m tests.pictures`."""

from __future__ import annotations

import sys
import tempfile
import wave
from pathlib import Path

from livekit.plugins.tiro.cli.formats import LineEvent, Segment, Transcript, Word
from livekit.plugins.tiro.cli.page import Recording, render_page

from .support.chromium import Chromium, chromium, find_chromium

ROOT = Path(__file__).parent.parent
SOUND = ROOT / "tests" / "data" / "is2.wav"
# What is said in the file, twice, with the seconds of its first time.
SENTENCE = [
    ("Góðan", 0.64, 1.12),
    ("daginn", 1.14, 1.58),
    ("og", 1.66, 1.82),
    ("velkomin", 1.84, 2.58),
    ("í", 2.6, 2.76),
    ("prófunina,", 2.78, 3.62),
    ("veðrið", 3.82, 4.3),
    ("er", 4.32, 4.5),
    ("milt", 4.52, 4.78),
    ("í", 4.8, 4.88),
    ("dag.", 4.9, 5.48),
]
AGAIN = 6.54


def said(offset: float, confidence: float) -> Segment:
    """The sentence, some seconds later."""
    words = tuple(Word(text, start + offset, end + offset) for text, start, end in SENTENCE)
    text = " ".join(word.text for word in words)
    return Segment(text, 0.64 + offset, 5.48 + offset, confidence, words)


def page() -> str:
    """The page of the file, heard over a line that broke twice."""
    with wave.open(str(SOUND)) as file:
        recording = Recording(file.getframerate())
        recording.write(file.readframes(file.getnframes()), 0.0)
        duration = file.getnframes() / file.getframerate()
    segments = [said(0.0, 0.94), said(AGAIN, 0.71)]
    transcript = Transcript("is2.wav", "is-IS", duration, segments, complete=True)
    events = [LineEvent("connection", 8.1), LineEvent("given_up", 12.2, 1.0)]
    return render_page(transcript, recording.finish(), events)


def take(browser: Chromium, url: str, name: str, width: int, height: int, **media: str) -> None:
    """Write a picture of the page, with a word marked."""
    tab = browser.open(url, width, height, **media)
    for _ in range(4):
        tab.press("ArrowRight")
    (ROOT / "docs" / f"page-{name}.png").write_bytes(tab.picture())
    tab.close()


def main() -> None:
    """Take the pictures."""
    program = find_chromium()
    if program is None:
        sys.exit("Chromium is not installed")
    with tempfile.TemporaryDirectory() as home:
        path = Path(home, "page.html")
        path.write_text(page(), encoding="utf-8")
        with chromium(program, Path(home, "profile")) as browser:
            take(browser, path.as_uri(), "light", 1000, 560, prefers_color_scheme="light")
            take(browser, path.as_uri(), "dark", 1000, 560, prefers_color_scheme="dark")
            take(browser, path.as_uri(), "narrow", 380, 560, prefers_color_scheme="light")


if __name__ == "__main__":
    main()
