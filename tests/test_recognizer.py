"""The recogniser that says a script while it hears a voice."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from livekit.plugins.tiro.testing import (
    DEFAULT_SCRIPT,
    At,
    Recognition,
    Script,
    ScriptedRecognizer,
    SpeechConfig,
    TiroServer,
    Word,
)

from .support.examples import examples
from .support.server_client import QUIET, TEST, VOICED, connect, say
from .support.server_recordings import (
    IS,
    recording,
    samples,
    transcript,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def scripted(script: Script | None = None, *, per_second: float = 10, **config: Any) -> Recognition:
    """A recognition whose words take 100 ms, unless said otherwise."""
    return ScriptedRecognizer(script, words_per_second=per_second)(SpeechConfig(**config))


def text(hypothesis: Sequence[Word]) -> str:
    return " ".join(word.text for word in hypothesis)


def test_a_word_is_said_for_each_stretch_of_voiced_audio() -> None:
    heard = scripted("eitt tvö þrjú")
    heard.feed(np.concatenate([QUIET] * 3 + [VOICED] * 7 + [QUIET] * 2 + [VOICED] * 3), 1.0)
    (best,) = heard.final(1)
    assert [(w.text, round(w.start, 3), round(w.end, 3)) for w in best] == [
        ("eitt", 1.06, 1.16),
        ("tvö", 1.16, 1.30),
    ]


def test_half_a_word_shows_in_interims_only() -> None:
    heard = scripted("sólskin")
    shown = []
    for _ in range(5):
        heard.feed(VOICED, 0.0)
        shown.append(text(heard.partial()))
    assert shown == ["", "", "sóls", "sóls", "sólskin"]


def test_word_that_is_cut_short_is_said_again_from_its_start() -> None:
    heard = scripted("eitt tvö þrjú")
    heard.feed(np.concatenate([VOICED] * 9), 0.0)
    assert text(heard.final(1)[0]) == "eitt"
    heard.feed(np.concatenate([VOICED] * 4), 3.0)
    assert heard.final(1) == []
    heard.feed(np.concatenate([VOICED] * 10), 6.0)
    (best,) = heard.final(1)
    assert text(best) == "tvö þrjú" and best[0].start == 6.0


def test_the_script_loops() -> None:
    heard = scripted("eitt tvö")
    heard.feed(np.concatenate([VOICED] * 25), 0.0)
    assert text(heard.final(1)[0]) == "eitt tvö eitt tvö eitt"


def test_silence_is_counted_from_the_last_voiced_frame() -> None:
    heard = scripted()
    heard.feed(np.concatenate([QUIET] * 4), 0.0)
    assert heard.silence() is None
    heard.feed(np.concatenate([VOICED, QUIET, QUIET, QUIET[:100]]), 0.08)
    assert heard.silence() == pytest.approx(0.04)
    heard.final(1)
    assert heard.silence() is None


@pytest.mark.parametrize(("punctuation", "expected"), [(False, 0), (True, 1)])
@pytest.mark.parametrize(
    ("script", "spellings"),
    [
        ("já takk", ("já takk", "Já takk.")),
        ("Já, takk. Ég kem!", ("já takk ég kem", "Já, takk. Ég kem!")),
        (["Hvað er að", "ekkert?"], ("hvað er að ekkert", "Hvað er að. Ekkert?")),
        ("hann er í Vík", ("hann er í Vík", "Hann er í Vík.")),
        ("já - nei", ("já - nei", "Já - nei.")),
        ("já ... nei", ("já nei", "Já Nei.")),
    ],
)
def test_spelling(
    script: Script, spellings: tuple[str, str], punctuation: bool, expected: int
) -> None:
    heard = scripted(script, punctuation=punctuation)
    count = len(spellings[0].split())
    heard.feed(np.concatenate([VOICED] * 5 * count), 0.0)
    assert text(heard.final(1)[0]) == spellings[expected]


def test_speakers() -> None:
    script = [(1, "eitt tvö"), (2, "þrjú")]
    heard = scripted(script, diarization=True)
    heard.feed(np.concatenate([VOICED] * 15), 0.0)
    assert [word.speaker for word in heard.final(1)[0]] == [1, 1, 2]


def test_alternatives_differ() -> None:
    heard = scripted("eitt tvö")
    heard.feed(np.concatenate([VOICED] * 10), 0.0)
    texts = [text(each) for each in heard.final(6)]
    assert texts[:3] == ["eitt tvö", "eitta tvö", "eitt tvöa"]
    assert len(set(texts)) == 6


@pytest.mark.parametrize("wrong", [{"script": " ... "}, {"words_per_second": 0}])
def test_senseless_settings(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        ScriptedRecognizer(**wrong)


@pytest.mark.parametrize(
    ("script", "advice"),
    [
        ("examples/conversation.txt", r"give read_script\('examples/conversation.txt'\)"),
        ("my notes.TXT", "read_script"),
        ("conversation.md", "read_script"),
        (["a.txt"], "read_script"),
        ("/tmp/script", "read_script"),
        (r"C:\script", "read_script"),
        (Path("examples/script"), r"give read_script\('examples/script'\)"),
        (b"Hall\xf3.", "a script must be a text, or a list of sentences or of utterances"),
        (7, "a script must be a text, or a list"),
        (At(1.2, "Halló."), r"or of utterances such as At\(1.2, .*\), not At\("),
        ([(0.5, "Halló.")], "At"),
        ([("1", "Halló.")], "speaker's number"),
        ([7], "no sentence"),
    ],
)
@pytest.mark.parametrize("take", [ScriptedRecognizer, lambda it: TiroServer(script=it)])
def test_what_is_no_script_is_told_how_to_be_one(
    take: Callable[[Any], object], script: Any, advice: str
) -> None:
    with pytest.raises(ValueError, match=advice):
        take(script)


@pytest.mark.parametrize("script", ["og/eða.", "Já og/eða nei", "Sjá conversation.md.", "17. júní"])
def test_a_sentence_is_no_path(script: str) -> None:
    assert ScriptedRecognizer(script)


@pytest.mark.parametrize("part", ["Halló.", At(1.2, "Halló.")])
async def test_a_script_can_come_from_a_generator(part: Any) -> None:
    async with TiroServer(script=(each for each in [part])) as server:  # type: ignore[arg-type]
        async with connect(server, TEST) as client:
            await say(client, IS)
    assert transcript(client.settled[0]).split()[0] == "halló"


@given(st.lists(st.integers(1, 2000), min_size=1, max_size=30))
@examples(30)
def test_borders_of_messages_change_nothing(sizes: list[int]) -> None:
    """The words depend on the audio alone, not on how it is cut."""
    audio = samples("is.wav")[10240 : 10240 + 32000]
    whole, cut = scripted(per_second=2.5), scripted(per_second=2.5)
    whole.feed(audio, 0.64)
    position = 0
    while position < len(audio):
        for size in sizes:
            cut.feed(audio[position : position + size], 0.64 + position / 16000)
            position += size
    assert cut.partial() == whole.partial() and cut.silence() == whole.silence()
    assert cut.final(2) == whole.final(2) != []


def test_default_script_is_the_recorded_one() -> None:
    """Every word of it was recorded, in this order."""
    said = [transcript(frame) for frame in recording("stalled_backend", "full").received]
    once = " ".join(said).split()[: len(" ".join(DEFAULT_SCRIPT).split())]
    heard = scripted()
    heard.feed(np.concatenate([VOICED] * 5 * len(once)), 0.0)
    assert text(heard.final(1)[0]).split() == once


def test_segment_without_a_word_is_an_empty_response() -> None:
    heard = scripted()
    heard.feed(VOICED, 0.0)
    assert heard.final(3) == []
