"""Texts of any characters, for tests that hypothesis thinks up.

`st.text` has hypothesis classify all of Unicode, whatever its alphabet is: some 5 s of CPU in each
process of a fresh clone. The strategies here do not need that.
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Sequence

# Icelandic, other scripts and the marks they combine with; right to left; what is wide, is more
# than one code point, or lies beyond the first 65,536.
_SCRIPTS = (
    "abcxyzABCXYZ0129áéíóúýðþæöÁÉÍÓÚÝÐÞÆÖßıİſÅåñçœ"
    "e\u0301a\u030ao\u0308\u0323n\u0303\u20d7"
    "αΩσςжЯ한글日本語、。क्षिตา\u0e49\u0e33١٢½²Ⅷ①"
    "אבג\u05b0عربي\u064b\u202e\u202d\u200f\u2067\u2069"
    "😀👍🏽👩\u200d👧🇮🇸❤\ufe0f𝒳𐍈𝟙𠀋\U000e0100\U0010fffd"
)
# What means something to JSON, HTML, addresses, terminals, subtitles, formats and regular
# expressions; what is blank, what breaks a line, what controls; what is no character.
_SYNTAX = (
    " \"'`\\/|<>&;:,.!?%+-=_*^$#@~()[]{}—–«»„“”…"
    "\t\n\v\f\r\x1c\x1d\x1e\x85\u2028\u2029\xa0\u3000\u200b\xad\ufeff"
    "\x00\x01\x07\x08\x1b\x7f\x80\x9b\x9f\ufffd\ufffe\uffff\ue000"
)
CHARACTERS = tuple(dict.fromkeys(_SCRIPTS + _SYNTAX))
"""Characters that code trips over, each once; none is half of a surrogate pair."""

_ANY = st.integers(0, 0xD7FF).map(chr) | st.integers(0xE000, 0x10FFFF).map(chr)
_HALF = st.integers(0xD800, 0xDFFF).map(chr)


def texts(
    characters: Sequence[str] = CHARACTERS, *, min_size: int = 0, max_size: int | None = None
) -> st.SearchStrategy[str]:
    """Return texts of at most 256 different characters.

    Each is made of one draw of bytes: one draw for each character takes ten times as long.
    """
    assert len(characters) <= 256

    def text(drawn: bytes) -> str:
        return "".join(characters[byte % len(characters)] for byte in drawn)

    return st.binary(min_size=min_size, max_size=max_size).map(text)


def any_texts(
    *, min_size: int = 0, max_size: int = 20, halves: bool = False
) -> st.SearchStrategy[str]:
    """Return texts of any characters of Unicode, those of `CHARACTERS` most often.

    Args:
        min_size: Characters at least.
        max_size: Characters at most.
        halves: Whether there are halves of surrogate pairs too, as Python allows.
    """
    character = st.sampled_from(CHARACTERS) | (_ANY | _HALF if halves else _ANY)
    rare = st.lists(character, min_size=min_size, max_size=max_size).map("".join)
    return texts(min_size=min_size, max_size=max_size) | rare


def of_categories(initials: str) -> list[str]:
    """Return those of `CHARACTERS` whose category in Unicode has one of some initials."""
    return [each for each in CHARACTERS if unicodedata.category(each)[0] in initials]
