"""What a page says by itself, in the language of the transcript where that is known."""

from __future__ import annotations

from collections.abc import Mapping

_ENGLISH = {
    "ui": "en",
    "point": ".",
    "transcript": "Transcript",
    "player": "Player",
    "play": "Play",
    "pause": "Pause",
    "speed": "Speed",
    "follow": "Follow",
    "waveform": "Waveform of the whole file",
    "position": "Position",
    "of": "of",
    "word": "1 word",
    "words": "{} words",
    "gap": "{} s without words",
    "connection": "new connection",
    "given_up": "{} s of audio given up: the service did not hear it",
    "speaker": "Speaker {}",
    "confidence": "confidence",
    "shade": "The stronger the shade, the less certain the words.",
    "cut_short": "Cut short: not all of the file was heard.",
    "silent": "No speech was heard.",
    "trouble": "The sound cannot be played here.",
    "noscript": "The player needs JavaScript; the text and its times are complete without it.",
    "keys": "Keys: space plays and pauses, ← and → go from word to word, "
    "with Shift from paragraph to paragraph.",
}
_ICELANDIC = {
    "ui": "is",
    "point": ",",
    "transcript": "Texti",
    "player": "Spilari",
    "play": "Spila",
    "pause": "Gera hlé",
    "speed": "Hraði",
    "follow": "Fylgja",
    "waveform": "Hljóðbylgja allrar skrárinnar",
    "position": "Staða",
    "of": "af",
    "word": "1 orð",
    "words": "{} orð",
    "gap": "{} sek. án orða",
    "connection": "ný tenging",
    "given_up": "{} sek. af hljóði sleppt: þjónustan heyrði það ekki",
    "speaker": "Mælandi {}",
    "confidence": "vissa",
    "shade": "Því sterkari sem liturinn er, því óvissari eru orðin.",
    "cut_short": "Ófullgert: ekki var hlustað á alla skrána.",
    "silent": "Ekkert tal heyrðist.",
    "trouble": "Hér er ekki hægt að spila hljóðið.",
    "noscript": "Spilarinn þarf JavaScript; textinn og tímarnir eru heilir án þess.",
    "keys": "Lyklar: bilslá spilar og gerir hlé, ← og → færa um eitt orð, "
    "með Shift um eina efnisgrein.",
}
_TEXTS = {"en": _ENGLISH, "is": _ICELANDIC}


def texts_for(tag: str) -> Mapping[str, str]:
    """Return the page's own words for a BCP-47 tag; English where its language is not known.

    `ui` is the language they are in, `point` the decimal mark of its numbers.
    """
    return _TEXTS.get(tag.partition("-")[0].lower(), _ENGLISH)
