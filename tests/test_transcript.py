"""What the service says, as events: in order, once each, with true times. Ids are of the contract
with the framework (E: events, T: times)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from livekit.agents.types import NOT_GIVEN, TimedString
from livekit.plugins.tiro.protocol import Alternative, Response, Result, ServiceError, Word
from livekit.plugins.tiro.transcript import Transcript

from .support.caller import Caller, quiet, tone
from .support.examples import examples
from .support.harness import END, FINAL, INTERIM, START

if TYPE_CHECKING:
    from livekit.agents.stt import SpeechData, SpeechEvent

EMPTY = Response()


class Conversation(Caller):
    """A transcript over audio that is pushed and sent live."""

    def __init__(self, seconds: float = 60.0) -> None:
        super().__init__()
        self.transcript = Transcript(self.clock, self.backlog, self.feed)
        self.transcript.request_id = "tiro_1"
        self.connections = 1
        self.events: list[SpeechEvent] = []
        self.listen(seconds)

    def listen(self, seconds: float) -> None:
        """Push and send audio in which nobody speaks."""
        self.say(quiet(seconds))

    def mute(self, seconds: float) -> None:
        self.now += seconds

    def reconnect(self, *, insist: bool = False) -> float:
        start = super().reconnect(insist=insist)
        self.connections += 1
        self.transcript.begin(f"tiro_{self.connections}", self.feed)
        self.send()
        return start

    def hear(self, *results: Result) -> list[SpeechEvent]:
        return self.respond(Response(results))

    def respond(self, response: Response) -> list[SpeechEvent]:
        return self.note(self.transcript.on_response(response, self.now))

    def flush(self) -> list[SpeechEvent]:
        return self.note(self.transcript.flush())

    def note(self, events: list[SpeechEvent]) -> list[SpeechEvent]:
        self.events += events
        return events


@pytest.fixture
def talk() -> Conversation:
    return Conversation()


def words_of(text: str, start: float, end: float, **rest: Any) -> tuple[Word, ...]:
    """Spread the words of a text evenly over its time."""
    tokens = text.split()
    edges = np.linspace(start, end, len(tokens) + 1).tolist()
    given = {"confidence": 0.0, "speaker": 0, **rest}
    return tuple(Word(token, edges[i], edges[i + 1], **given) for i, token in enumerate(tokens))


def final(text: str, start: float, end: float, *others: str, **rest: Any) -> Result:
    best = Alternative(text, 0.0, words_of(text, start, end, **rest))
    return Result(True, (best, *map(Alternative, others)), start, end)


def interim(text: str, start: float | None = None, end: float | None = None) -> Result:
    return Result(False, (Alternative(text),), start, end)


def untimed(text: str) -> Result:
    return Result(True, (Alternative(text),))


def kinds(events: list[SpeechEvent]) -> list[Any]:
    return [event.type for event in events]


def texts(events: list[SpeechEvent]) -> list[str]:
    return [event.alternatives[0].text for event in events if event.alternatives]


def data(events: list[SpeechEvent], kind: Any = FINAL) -> SpeechData:
    (event,) = [event for event in events if event.type is kind]
    return event.alternatives[0]


def times(data: SpeechData) -> tuple[float, float]:
    return data.start_time, data.end_time


def words(data: SpeechData) -> list[TimedString]:
    assert data.words is not None
    return data.words


# -- the order of events -------------------------------------------------------------------------


def test_an_utterance(talk: Conversation) -> None:
    """E4: START before the first transcript, END after the final."""
    assert kinds(talk.hear(interim("góðan", 1, 1.5))) == [START, INTERIM]
    assert kinds(talk.hear(interim("góðan dag", 1, 2))) == [INTERIM]
    assert kinds(talk.hear(final("góðan daginn", 1, 2.5))) == [FINAL, END]
    assert texts(talk.events) == ["góðan", "góðan dag", "góðan daginn"]
    assert not talk.transcript.speaking


def test_a_final_without_a_hypothesis(talk: Conversation) -> None:
    assert kinds(talk.hear(final("já", 1, 2))) == [START, FINAL, END]


def test_a_hypothesis_shows_that_somebody_speaks(talk: Conversation) -> None:
    talk.hear(interim("já", 1, 2))
    assert talk.transcript.speaking
    assert talk.backlog.may_hold_words(), "so that all of it is kept"
    talk.hear(final("já", 1, 2))
    assert not talk.backlog.may_hold_words()


def test_an_empty_response_to_silence_is_nothing(talk: Conversation) -> None:
    """E6."""
    assert talk.respond(EMPTY) == []


def test_an_empty_response_clears_what_was_shown(talk: Conversation) -> None:
    """E5, E6: a segment ended without a word in it."""
    talk.hear(interim("ha", 1, 2))
    events = talk.respond(EMPTY)
    assert kinds(events) == [FINAL, END]
    assert texts(events) == [""]
    assert talk.respond(EMPTY) == []


def test_a_hypothesis_of_the_connection_before_stands_until_nothing_is_heard_twice(
    talk: Conversation,
) -> None:
    """The first empty response can be about the pause before it, which was sent again."""
    talk.hear(interim("ha", 1, 2))
    talk.reconnect()
    assert talk.respond(EMPTY) == []
    assert talk.transcript.speaking
    events = talk.respond(EMPTY)
    assert (kinds(events), texts(events)) == ([FINAL, END], [""])
    talk.hear(interim("ha", 1, 2))
    talk.reconnect()
    assert talk.respond(EMPTY) == [], "each hypothesis anew"


def test_each_of_two_connections_may_say_that_there_was_nothing(talk: Conversation) -> None:
    """E5: otherwise the hypothesis of a cough would never end where connections are short."""
    talk.hear(interim("ha", 1, 2))
    talk.reconnect()
    assert talk.respond(EMPTY) == []
    talk.reconnect()
    assert kinds(talk.respond(EMPTY)) == [FINAL, END]


def test_a_flush_waits_until_the_service_had_time_for_what_it_was_sent_again(
    talk: Conversation,
) -> None:
    """Then a second empty response counts for the open hypothesis; before that, only a third."""
    talk.hear(interim("ha", 1, 2))
    talk.listen(15.0)
    for had_time, enough in ((True, 2), (False, 3)):
        talk.hear(interim("ha", 1, 2))
        talk.flush()
        talk.reconnect()
        talk.now += 20 if had_time else 0
        for _ in range(enough - 1):
            assert talk.respond(EMPTY) == []
        assert talk.transcript.flush_pending
        assert kinds(talk.respond(EMPTY)) == [FINAL, END]
        assert not talk.transcript.flush_pending


def after_coughs(coughs: int = 1) -> tuple[Conversation, Result]:
    """Return a call with coughs, each followed by 7 s of quiet, and the hypothesis that follows."""
    talk = Conversation(1.0)
    for _ in range(coughs):
        talk.say(tone(0.3) + quiet(7.0))
    begins = talk.backlog.end / talk.rate
    talk.say(tone(1.0))
    hypothesis = interim("ha", begins, begins + 1.0)
    talk.hear(hypothesis)
    return talk, hypothesis


@pytest.mark.parametrize("flushed", [False, True])
def test_what_is_said_of_coughs_before_a_hypothesis_does_not_take_it_back(flushed: bool) -> None:
    """A new connection is sent them again: it gives an empty response for each at first."""
    talk, hypothesis = after_coughs(3)
    if flushed:
        talk.flush()
    talk.reconnect()
    for _ in range(3):
        talk.now += 0.5
        assert talk.respond(EMPTY) == [], "a fast service comes to the words later"
    assert hypothesis.start is not None and hypothesis.end is not None
    assert kinds(talk.hear(final("ha", hypothesis.start, hypothesis.end))) == [FINAL, END]


def test_a_hypothesis_that_is_shown_again_is_taken_back_at_once() -> None:
    talk, hypothesis = after_coughs()
    talk.reconnect()
    talk.hear(hypothesis)
    assert kinds(talk.respond(EMPTY)) == [FINAL, END], "the service came to it"


@pytest.mark.parametrize(
    ("coughs", "waits", "about_coughs"), [(1, 0.5, 1), (1, 30.0, 0), (5, 0.5, 5)]
)
def test_a_hypothesis_after_coughs_is_taken_back_by_what_is_said_of_itself(
    coughs: int, waits: float, about_coughs: int
) -> None:
    talk, _ = after_coughs(coughs)
    talk.reconnect()
    talk.now += waits
    for _ in range(about_coughs + 1):
        assert talk.respond(EMPTY) == []
    assert kinds(talk.respond(EMPTY)) == [FINAL, END]


def test_a_fast_service_may_have_meant_the_hypothesis_too() -> None:
    """It says nothing more. Once it had the time for all of it, that is what it meant."""
    talk, _ = after_coughs()
    talk.reconnect()
    began = talk.now
    assert talk.respond(EMPTY) == talk.respond(EMPTY) == []
    assert talk.transcript.reconsider(began - 1.0) == []
    assert talk.transcript.speaking
    assert kinds(talk.transcript.reconsider(began + 10.0)) == [FINAL, END]
    assert talk.transcript.reconsider(began + 10.0) == []


def test_each_early_response_counts_once() -> None:
    talk, _ = after_coughs()
    talk.reconnect()
    assert talk.respond(EMPTY) == []
    for _ in range(2):
        assert talk.transcript.reconsider(talk.now + 10.0) == []
    assert talk.transcript.speaking


def test_one_early_response_is_not_enough_to_take_it_back() -> None:
    talk, hypothesis = after_coughs()
    for shown_again in (False, True):
        talk.reconnect()
        assert talk.respond(EMPTY) == []
        if shown_again:
            talk.hear(hypothesis)
        assert talk.transcript.reconsider(talk.now + 10.0) == []
        assert talk.transcript.speaking


@pytest.mark.parametrize("name", ["END_OF_SINGLE_UTTERANCE", "START_OF_SPEECH", "4"])
def test_an_event_is_no_empty_response(talk: Conversation, name: str) -> None:
    event = Response(event=name)
    assert talk.respond(event) == []
    talk.hear(interim("ha", 1, 2))
    talk.flush()
    assert talk.respond(event) == []
    assert talk.transcript.speaking and talk.transcript.flush_pending
    assert not talk.feed.found_nothing_in_all
    assert kinds(talk.hear(final("hana", 1, 2))) == [FINAL, END]


def test_an_interim_without_text_is_nothing(talk: Conversation) -> None:
    assert talk.hear(interim("")) == []
    talk.hear(interim("já", 1, 2))
    assert talk.hear(interim("")) == []
    assert talk.transcript.speaking


def test_a_final_with_a_hypothesis_after_it_does_not_end_the_speech(talk: Conversation) -> None:
    """The cut after 20 s of speech: the words after it belong to the next final."""
    talk.hear(interim("eitt tvö", 1, 2))
    events = talk.hear(final("eitt tvö", 1, 2), interim("þrjú", 2, 3))
    assert kinds(events) == [FINAL, INTERIM]
    assert texts(events) == ["eitt tvö", "þrjú"]
    assert kinds(talk.hear(final("þrjú fjögur", 2, 4))) == [FINAL, END]


def test_the_hypothesis_of_a_final_in_one_frame_is_not_shown_after_it(
    talk: Conversation,
) -> None:
    """v2beta1: interims first, then the final of them; with and without times."""
    events = talk.hear(interim("eitt", 1, 1.5), interim("tvö", 1.5, 2), final("eitt tvö", 1, 2))
    assert kinds(events) == [START, FINAL, END]
    assert kinds(talk.hear(interim("þrjú"), untimed("þrjú"))) == [START, FINAL, END]
    assert kinds(talk.hear(interim("fjögur", 5, 6), untimed("fjögur"))) == [START, FINAL, END]
    assert kinds(talk.hear(interim("fimm"), final("fimm", 7, 8))) == [START, FINAL, END]
    assert texts(talk.events) == ["eitt tvö", "þrjú", "fjögur", "fimm"]


def test_a_hypothesis_of_what_follows_a_final_is_shown_wherever_it_stands(
    talk: Conversation,
) -> None:
    events = talk.hear(interim("þrjú", 2, 3), final("eitt tvö", 1, 2))
    assert kinds(events) == [START, FINAL, INTERIM]


def test_several_finals_in_a_response_are_one_utterance(talk: Conversation) -> None:
    events = talk.hear(final("eitt", 1, 2), final("tvö", 2, 3))
    assert kinds(events) == [START, FINAL, FINAL, END]


def test_the_parts_of_a_hypothesis_are_one_text(talk: Conversation) -> None:
    """E2: the whole tail, because it replaces what was shown."""
    events = talk.hear(interim("góðan daginn", 1, 2), interim("og vel", 2, 2.5), interim(""))
    assert kinds(events) == [START, INTERIM]
    assert texts(events) == ["góðan daginn og vel"]
    assert times(data(events, INTERIM)) == (1, 2.5)


def test_a_hypothesis_that_did_not_change_is_not_repeated(talk: Conversation) -> None:
    talk.hear(interim("já", 1, 2))
    assert talk.hear(interim("já", 1, 2.2)) == []
    assert kinds(talk.hear(interim("já já", 1, 2.5))) == [INTERIM]
    assert kinds(talk.hear(interim("já", 1, 2.6))) == [INTERIM]


def test_the_hypothesis_of_a_new_utterance_may_be_that_of_the_last(talk: Conversation) -> None:
    for second in (1, 3):
        assert kinds(talk.hear(interim("já", second, second + 1))) == [START, INTERIM]
        assert kinds(talk.hear(final("já", second, second + 1))) == [FINAL, END]


def test_an_error_is_no_end_of_speech(talk: Conversation) -> None:
    """The audio is sent again, and the words come after all."""
    talk.hear(interim("já", 1, 2))
    assert talk.respond(Response(error=ServiceError(14))) == []
    assert talk.transcript.speaking


def test_results_beside_an_error_are_results(talk: Conversation) -> None:
    events = talk.respond(Response((final("já", 1, 2),), ServiceError(14)))
    assert kinds(events) == [START, FINAL, END]


def test_every_event_has_the_id_of_its_connection(talk: Conversation) -> None:
    """E9."""
    talk.hear(interim("já", 1, 2))
    talk.reconnect()
    talk.hear(interim("já já", 0, 1))
    talk.transcript.finish()
    assert [event.request_id for event in talk.events] == ["tiro_1"] * 2 + ["tiro_2"]


# -- nothing twice -------------------------------------------------------------------------------


def test_what_is_final_already_is_dropped_by_time(talk: Conversation) -> None:
    talk.hear(final("góðan daginn", 1, 2))
    assert talk.hear(final("góðan daginn", 1, 2)) == []
    assert talk.hear(final("dag", 1.5, 2)) == []
    assert talk.hear(interim("daginn", 1.5, 2)) == []
    assert not talk.transcript.speaking


def test_a_word_said_twice_is_two_words(talk: Conversation) -> None:
    """By time and never by text: "já já" is legal."""
    talk.hear(final("já", 1, 1.4))
    assert kinds(talk.hear(final("já", 1.4, 1.8))) == [START, FINAL, END]
    assert texts(talk.hear(final("já já", 1.8, 2.4))) == ["já já"]


def test_words_without_times_are_never_dropped(talk: Conversation) -> None:
    talk.hear(untimed("já"))
    assert texts(talk.hear(untimed("já"))) == ["já"]


def test_a_final_with_times_after_one_without_is_not_dropped() -> None:
    """How much audio the one without times covers is only a guess."""
    talk = Conversation(4)
    talk.hear(untimed("góðan daginn"))
    assert texts(talk.hear(interim("og", 2, 2.5))) == ["og"]
    assert texts(talk.hear(final("og velkomin", 2, 3))) == ["og velkomin"]


def test_a_cut_in_the_middle_of_an_utterance_is_not_seen() -> None:
    """E5: one START, one END, and the words of the second connection where they were said."""
    talk = Conversation(12)
    talk.hear(final("fyrst", 10, 11))
    talk.hear(interim("góðan", 11.25, 12))
    talk.listen(5)
    assert talk.reconnect() == 11
    assert talk.hear(interim("góðan", 0.25, 1)) == [], "it is shown still"
    events = talk.hear(final("góðan daginn", 0.25, 2))
    assert kinds(events) == [FINAL, END]
    assert times(data(events)) == (11.25, 13)
    assert kinds(talk.events) == [START, FINAL, END, START, INTERIM, FINAL, END]


def test_a_new_connection_does_not_take_back_what_it_has_not_heard_yet() -> None:
    talk = Conversation(12)
    talk.hear(interim("góðan daginn og", 10, 12))
    talk.reconnect()
    assert talk.hear(interim("góðan", 1, 1.5)) == []
    assert texts(talk.transcript.finish()) == ["góðan daginn og"]


def test_audio_that_is_final_is_not_kept(talk: Conversation) -> None:
    talk.hear(interim("já", 58, 59))
    talk.hear(final("já", 58, 59.25))
    assert talk.reconnect() == 59.25


SPEECH = tone(1.0) + quiet(2)


def test_only_a_final_lets_audio_go() -> None:
    talk = Conversation(2)
    talk.say(SPEECH)
    for said in (EMPTY, Response(event="END_OF_AUDIO"), Response(error=ServiceError(14))):
        talk.respond(said)
        talk.now += 10
        assert talk.backlog.may_hold_words()
    talk.hear(interim("ha", 2, 3))
    talk.respond(EMPTY)
    assert talk.backlog.may_hold_words()
    assert talk.reconnect() == 1.5
    talk.hear(final("ha", 0.5, 1.5))
    assert not talk.backlog.may_hold_words()


def test_a_final_of_a_slow_service_decides_up_to_its_end_only() -> None:
    talk = Conversation(0)
    talk.push(SPEECH * 2, waits=False)
    talk.send()
    talk.now += 60
    talk.hear(final("já", 0.1, 1.0))
    assert talk.backlog.may_hold_words(), "the second word comes after it"


def test_a_final_without_times_decides_on_one_stretch_of_sound() -> None:
    talk = Conversation(0)
    talk.push(SPEECH * 2, waits=False)
    talk.send()
    talk.hear(untimed("já"))
    assert talk.backlog.may_hold_words()
    talk.hear(untimed("jú"))
    assert not talk.backlog.may_hold_words()


def test_a_cut_without_times_in_a_response_keeps_what_follows() -> None:
    talk = Conversation(1)
    talk.say(tone(5))
    talk.hear(untimed("eitt tvö"), interim("þrjú"))
    assert talk.transcript.speaking
    assert talk.reconnect() <= 1


# -- what a final holds --------------------------------------------------------------------------


def test_words_are_on_finals_only(talk: Conversation) -> None:
    """T5."""
    shown = Result(False, (Alternative("góðan dag", 0.5, words_of("góðan dag", 1, 2)),), 1, 2)
    assert data(talk.hear(shown), INTERIM).words is None
    said = data(talk.hear(final("góðan daginn", 1, 2)))
    assert [str(word) for word in words(said)] == ["góðan", "daginn"]
    assert [(word.start_time, word.end_time) for word in words(said)] == [(1, 1.5), (1.5, 2)]
    assert [word.confidence for word in words(said)] == [NOT_GIVEN, NOT_GIVEN]


def test_alternatives_follow_the_best(talk: Conversation) -> None:
    (event,) = [e for e in talk.hear(final("best", 1, 2, "bezt", "brest")) if e.type is FINAL]
    assert [a.text for a in event.alternatives] == ["best", "bezt", "brest"]
    assert [times(a) for a in event.alternatives] == [(1, 2)] * 3
    assert event.alternatives[1].words is None


@pytest.mark.parametrize(
    ("given", "of_words", "expected"),
    [(0.8, 0.2, 0.8), (0.0, 0.4, 0.4), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)],
)
def test_confidence(talk: Conversation, given: float, of_words: float, expected: float) -> None:
    """E8: the service's, or that of the words, or unknown."""
    best = Alternative("góðan dag", given, words_of("góðan dag", 1, 2, confidence=of_words))
    said = data(talk.hear(Result(True, (best,), 1, 2)))
    assert said.confidence == pytest.approx(expected)
    assert [word.confidence for word in words(said)] == [of_words or NOT_GIVEN] * 2


@pytest.mark.parametrize(
    ("speakers", "expected"), [((2, 1, 2), "2"), ((0, 0, 0, 1), "1"), ((0, 0), None)]
)
def test_the_speaker_is_the_one_of_most_words_whose_speaker_is_known(
    talk: Conversation, speakers: tuple[int, ...], expected: str | None
) -> None:
    spoken = [Word(f"w{i}", i + 1, i + 2, 0.0, tag) for i, tag in enumerate(speakers)]
    best = Alternative("w0 w1 w2", 0.0, tuple(spoken))
    said = data(talk.hear(Result(True, (best,), 1, 5)))
    assert said.speaker_id == expected
    assert [word.speaker_id for word in words(said)] == [
        str(tag) if tag else None for tag in speakers
    ]


def test_nobody_known_speaks(talk: Conversation) -> None:
    said = data(talk.hear(final("já", 1, 2)))
    assert said.speaker_id is None
    assert [word.speaker_id for word in words(said)] == [None]


@pytest.mark.parametrize(
    ("tag", "language"),
    [("is-IS", "is-IS"), ("is-IS-x-exp", "is-IS"), ("is-is-X-Exp", "is-IS"), ("en-US", "en-US")]
    + [("is_IS_x_exp", "is-IS")],
)
def test_the_language_is_a_plain_tag(talk: Conversation, tag: str, language: str) -> None:
    """E7."""
    assert data(talk.hear(final("já", 1, 2))).language == "is-IS"
    talk.transcript.set_language(tag)
    talk.hear(interim("jæja", 3, 4))
    assert [e.alternatives[0].language for e in talk.events[-1:]] == [language]
    assert data(talk.respond(EMPTY)).language == language


def test_finals_with_words_are_counted(talk: Conversation) -> None:
    talk.hear(interim("já", 1, 2))
    talk.respond(EMPTY)
    talk.hear(final("já", 3, 4), final("jú", 4, 5))
    talk.hear(final("já", 3, 4))
    assert talk.transcript.finals == 2


# -- times ---------------------------------------------------------------------------------------


def test_times_are_those_of_the_audio(talk: Conversation) -> None:
    """T1."""
    assert times(data(talk.hear(interim("já", 1, 2)), INTERIM)) == (1, 2)
    assert times(data(talk.hear(final("já", 1, 2.5)))) == (1, 2.5)


def test_the_offset_is_added_to_all_times(talk: Conversation) -> None:
    """T1, T2."""
    talk.transcript.set_offset(100.0)
    assert times(data(talk.hear(interim("já", 1, 2)), INTERIM)) == (101, 102)
    said = data(talk.hear(final("já", 1, 2.5)))
    assert times(said) == (101, 102.5)
    (word,) = words(said)
    assert (word.start_time, word.end_time, word.start_time_offset) == (101, 102.5, 100)


def test_unknown_times_stay_zero_whatever_the_offset(talk: Conversation) -> None:
    """T3: any other end would be believed."""
    talk.transcript.set_offset(100.0)
    events = talk.hear(interim("já")) + talk.hear(untimed("já já"))
    assert [times(event.alternatives[0]) for event in events if event.alternatives] == [(0, 0)] * 2
    assert data(events).words is None
    talk.hear(interim("ha"))
    assert times(data(talk.respond(EMPTY))) == (0, 0)
    start, end = events[0], events[-1]
    assert (start.type, start.speech_start_time) == (START, None)
    assert (end.type, end.speech_end_time) == (END, None)


def test_times_of_some_parts_of_a_hypothesis_are_its_times(talk: Conversation) -> None:
    events = talk.hear(interim("góðan", 1, 2), interim("daginn"))
    assert texts(events) == ["góðan daginn"]
    assert times(data(events, INTERIM)) == (1, 2)


def test_the_parts_of_a_hypothesis_may_stand_in_any_order(talk: Conversation) -> None:
    events = talk.hear(interim("daginn", 2, 3), interim("góðan", 1, 2))
    assert times(data(events, INTERIM)) == (1, 3)


def test_times_after_a_mute(talk: Conversation) -> None:
    talk.mute(20)
    talk.listen(5)
    said = data(talk.hear(final("góðan dag", 61, 62)))
    assert times(said) == pytest.approx((81, 82))
    assert [word.start_time for word in words(said)] == pytest.approx([81, 81.5])


def over_a_gap(talk: Conversation, *, is_final: bool) -> Result:
    """Return a result with a word before a gap of 20 s at second 60, and one after it."""
    talk.mute(20)
    talk.listen(5)
    spoken = (Word("góðan", 59.0, 59.5, 0.0, 0), Word("dag", 61.0, 61.5, 0.0, 0))
    edges = ((59.0, 59.5), (61.0, 61.5))
    best = Alternative("góðan dag", 0.0, spoken if is_final else ())
    return Result(is_final, (best,), 59.0, 61.5, edges)


@pytest.mark.parametrize("is_final", [False, True])
def test_an_utterance_over_a_gap_starts_before_it_and_ends_after_it(
    talk: Conversation, is_final: bool
) -> None:
    said = data(talk.hear(over_a_gap(talk, is_final=is_final)), FINAL if is_final else INTERIM)
    assert times(said) == pytest.approx((59.0, 81.5))
    if is_final:
        assert [word.start_time for word in words(said)] == pytest.approx([59.0, 81.0])


def test_the_parts_of_a_hypothesis_are_placed_by_their_outer_words(talk: Conversation) -> None:
    first = over_a_gap(talk, is_final=False)
    second = Result(False, (Alternative("inn"),), 62.0, 63.0, ((62.0, 63.0), (62.0, 63.0)))
    assert times(data(talk.hear(first, second), INTERIM)) == pytest.approx((59.0, 83.0))
    before = Result(False, (Alternative("og"),), 58.0, 58.5, ((58.0, 58.5), (58.0, 58.5)))
    assert times(data(talk.hear(first, before), INTERIM)) == pytest.approx((58.0, 81.5))
    # Without the times of all outer words, all of it is placed by its middle.
    disordered = Result(False, (Alternative("en"),), 57.0, 57.5)
    assert times(data(talk.hear(first, disordered), INTERIM)) == pytest.approx((57.0, 61.5))
    untimed_end = Result(False, (Alternative("og"),))
    assert times(data(talk.hear(first, untimed_end), INTERIM)) == pytest.approx((59.0, 81.5))


def test_speech_is_started_and_ended_by_the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """T6: epoch seconds, without the framework's offset."""
    talk = Conversation()
    monkeypatch.setattr(time, "monotonic", lambda: talk.now)
    monkeypatch.setattr(time, "time", lambda: talk.now - 1000 + 1.6e9)
    talk.transcript.set_offset(100.0)
    events = talk.hear(interim("góðan", 1, 2)) + talk.hear(final("góðan dag", 1, 2.5))
    assert events[0].speech_start_time == 1.6e9 + 1
    assert events[-1].speech_end_time == 1.6e9 + 2.5


def test_no_wall_clock_time_is_in_the_future(monkeypatch: pytest.MonkeyPatch) -> None:
    """T6: audio that is pushed faster than it is spoken."""
    talk = Conversation()
    monkeypatch.setattr(time, "monotonic", lambda: 1010.0)
    events = talk.hear(interim("já", 1, 2)) + talk.hear(final("já", 50, 55))
    started, ended = events[0].speech_start_time, events[-1].speech_end_time
    assert started is not None and ended is not None
    assert started <= ended <= time.time()


@pytest.mark.parametrize("step", [3600.0, -3600.0])
def test_the_system_clock_may_be_set_in_mid_call(
    monkeypatch: pytest.MonkeyPatch, step: float
) -> None:
    """T6: NTP puts it right, or a machine wakes up."""
    talk = Conversation()
    monkeypatch.setattr(time, "monotonic", lambda: talk.now)
    monkeypatch.setattr(time, "time", lambda: talk.now - 1000 + 1.6e9 + step)
    events = talk.hear(interim("já", 1, 2)) + talk.hear(final("já", 1, 2.5))
    assert events[0].speech_start_time == 1.6e9 + step + 1
    assert events[-1].speech_end_time == 1.6e9 + step + 2.5


def test_the_end_of_speech_is_that_of_its_own_utterance(talk: Conversation) -> None:
    first = talk.hear(final("já", 1, 2))[-1]
    second = talk.hear(untimed("já"))[-1]
    assert first.speech_end_time is not None
    assert second.speech_end_time is None


def test_times_end_with_the_audio_that_was_sent(talk: Conversation) -> None:
    """T4: a time after the end of the audio that was sent is not believed."""
    sent = talk.feed.sent_to / talk.rate
    assert times(data(talk.hear(final("já", 55, 62)))) == (55, sent)


@pytest.mark.parametrize("end", [66.1, 1000.0, 3e11])
def test_times_far_beyond_what_was_sent_are_none(talk: Conversation, end: float) -> None:
    """T3: they drop no audio, and no later word."""
    talk.say(SPEECH)
    events = talk.hear(interim("já", 1, end * 2)) + talk.hear(final("já", 1, end * 2))
    assert [times(event.alternatives[0]) for event in events if event.alternatives] == [(0, 0)] * 2
    assert data(events).words is None
    assert texts(talk.hear(final("jú", 61, 62))) == ["jú"]
    assert not talk.backlog.may_hold_words()


def test_words_keep_the_times_that_can_be_true(talk: Conversation) -> None:
    possible = Word("já", 1.0, 2.0, 0.0, 0)
    spoken = (possible, Word("jú", 2.0, 1e6, 0.0, 0))
    said = data(talk.hear(Result(True, (Alternative("já jú", 0.0, spoken),), 1.0, 1e6)))
    assert [str(word) for word in words(said)] == ["já"]
    assert times(said) == (0, 0)


# -- flush ---------------------------------------------------------------------------------------


def test_a_flush_of_nothing_is_answered_at_once_and_once(talk: Conversation) -> None:
    events = talk.flush()
    assert kinds(events) == [FINAL]
    assert texts(events) == [""]
    assert not talk.transcript.flush_pending
    assert talk.respond(EMPTY) == []
    assert talk.transcript.finish() == []


@pytest.mark.parametrize("peak", [30, 100, 200, 3000])
def test_while_words_may_be_open_no_empty_response_answers_a_flush(peak: int) -> None:
    """The empty response can be about an earlier pause; the caller's own timeout decides."""
    talk = Conversation(5)
    talk.say(tone(0.2, peak) + quiet(1))
    assert talk.flush() == []
    for _ in range(3):
        assert talk.respond(EMPTY) == []
        talk.now += 5
    assert talk.transcript.flush_pending
    assert kinds(talk.hear(final("já", 5, 5.2))) == [START, FINAL, END]
    assert not talk.transcript.flush_pending


def test_an_empty_response_answers_a_flush_once_no_words_may_be_open() -> None:
    talk = Conversation(5)
    talk.say(SPEECH)
    assert talk.flush() == []
    talk.feed.finalize(5, 6, talk.now)
    assert kinds(talk.respond(EMPTY)) == [FINAL]
    assert talk.respond(EMPTY) == []


def test_an_empty_response_that_concludes_a_hypothesis_answers_a_flush() -> None:
    """The service has looked at the words of the hypothesis, and takes them back."""
    talk = Conversation(5)
    talk.say(SPEECH)
    talk.hear(interim("ha", 5, 6))
    assert talk.flush() == []
    events = talk.respond(EMPTY)
    assert kinds(events) == [FINAL, END]
    assert texts(events) == [""]
    assert talk.respond(EMPTY) == []


def test_an_empty_response_of_a_new_connection_is_not_about_the_old_hypothesis() -> None:
    """It is about the start of the audio that is sent again; the words come later."""
    talk = Conversation(5)
    talk.say(SPEECH)
    talk.hear(interim("ha", 5, 6))
    talk.flush()
    start = talk.reconnect()
    assert talk.respond(EMPTY) == []
    assert talk.transcript.flush_pending
    assert kinds(talk.hear(final("hana", 5 - start, 6 - start))) == [FINAL, END]


def test_a_final_answers_a_flush(talk: Conversation) -> None:
    talk.hear(interim("já", 1, 2))
    assert talk.flush() == []
    assert kinds(talk.hear(final("já", 1, 2))) == [FINAL, END]
    assert not talk.transcript.flush_pending
    assert talk.respond(EMPTY) == []


def test_a_final_that_is_dropped_answers_no_flush() -> None:
    talk = Conversation(5)
    talk.say(SPEECH * 2)
    talk.hear(final("já", 5, 6))
    assert talk.flush() == []
    assert talk.hear(final("já", 5, 6)) == []
    assert talk.transcript.flush_pending


def test_an_error_answers_no_flush() -> None:
    talk = Conversation(5)
    talk.say(SPEECH)
    talk.flush()
    assert talk.respond(Response(error=ServiceError(14))) == []
    assert talk.transcript.flush_pending


# -- the end -------------------------------------------------------------------------------------


def test_a_hypothesis_that_never_became_final_is_made_final(talk: Conversation) -> None:
    talk.hear(interim("góðan", 1, 2))
    talk.hear(interim("góðan", 1, 2.5))
    events = talk.transcript.finish()
    assert kinds(events) == [FINAL, END]
    assert texts(events) == ["góðan"]
    assert times(data(events)) == (1, 2.5), "the newest times, although it was not repeated"
    assert events[-1].speech_end_time is not None
    assert talk.transcript.finish() == []


def test_nothing_is_left_to_finish_after_a_final(talk: Conversation) -> None:
    talk.hear(interim("já", 1, 2))
    talk.hear(final("já", 1, 2))
    assert talk.transcript.finish() == []


def test_the_end_closes_an_utterance_and_answers_a_flush() -> None:
    talk = Conversation(5)
    talk.say(SPEECH)
    assert talk.flush() == []
    assert kinds(talk.transcript.finish()) == [FINAL]
    assert talk.transcript.finish() == []
    talk.hear(interim("já", 5, 6))
    talk.flush()
    assert kinds(talk.transcript.finish()) == [FINAL, END]


# -- any sequence --------------------------------------------------------------------------------

TEXTS = st.sampled_from(["", "já", "já já", "góðan daginn"])
SECONDS = st.none() | st.tuples(st.floats(0, 20), st.floats(0, 20)).map(sorted)


@st.composite
def results(draw: st.DrawFn) -> Result:
    span, is_final = draw(SECONDS), draw(st.booleans())
    # A final without a text is none: the protocol leaves it out.
    text = draw(TEXTS.filter(bool) if is_final else TEXTS)
    start, end = span if span is not None else (None, None)
    spoken: tuple[Word, ...] = ()
    if is_final and start is not None and end is not None:
        tag = draw(st.integers(0, 2))
        confidence = draw(st.floats(0, 1))
        spoken = words_of(text, start, end, confidence=confidence, speaker=tag)
    best = Alternative(text, draw(st.floats(0, 1)), spoken)
    others = draw(st.lists(TEXTS.map(Alternative), max_size=2)) if is_final else []
    return Result(is_final, (best, *others), start, end)


RESPONSES = st.builds(
    Response,
    st.lists(results(), max_size=4).map(tuple),
    st.sampled_from([None, None, None, ServiceError(14)]),
    st.sampled_from(["", "", "END_OF_SPEECH"]),
)
STEPS = RESPONSES | st.sampled_from(["flush", "listen", "speech", "mute", "reconnect", "finish"])


def perform(talk: Conversation, step: Response | str) -> list[SpeechEvent]:
    if isinstance(step, Response):
        return talk.respond(step)
    if step == "flush":
        return talk.flush()
    elif step == "listen":
        talk.listen(2)
    elif step == "speech":
        talk.say(SPEECH)
    elif step == "mute":
        talk.mute(5)
    elif step == "reconnect":
        talk.reconnect()
    else:
        return talk.note(talk.transcript.finish())
    return []


def assert_sound(event: SpeechEvent, audio: float) -> None:
    """E1, E7, E8, E9, T1, T3, T6 of one event; `audio` is the time of the last sample."""
    assert event.request_id
    assert (event.type in (INTERIM, FINAL)) == bool(event.alternatives)
    for wall in (event.speech_start_time, event.speech_end_time):
        assert wall is None or 0 < wall <= time.time()
    for spoken in event.alternatives:
        assert spoken.language == "is-IS"
        assert 0 <= spoken.confidence <= 1
        assert times(spoken) == (0, 0) or 100 <= spoken.start_time <= spoken.end_time
        assert spoken.end_time <= 100 + audio + 1e-6
        assert event.type is FINAL or not spoken.words
        for word in spoken.words or ():
            assert isinstance(word.start_time, float) and isinstance(word.end_time, float)
            assert 100 <= word.start_time <= word.end_time <= 100 + audio + 1e-6


@examples(30)
@given(st.lists(STEPS, min_size=5, max_size=25))
def test_any_sequence_gives_sound_events(steps: list[Response | str]) -> None:
    talk = Conversation(10)
    talk.transcript.set_offset(100.0)
    speaking, shown, owed = False, "", False
    for step in [*steps, "finish"]:
        owed = owed or step == "flush"
        for event in perform(talk, step):
            assert_sound(event, talk.clock.pushed + talk.clock.pause_around(talk.clock.pushed)[0])
            if event.type is START:
                assert not speaking, "START twice (E4)"
                speaking = True
                continue
            if event.type is END:
                assert speaking, "END without START (E4)"
                assert not shown, "END before the final of what was shown (E4)"
                speaking = False
                continue
            text = event.alternatives[0].text
            assert speaking or (event.type is FINAL and not text and owed), "outside (E4, E6)"
            if event.type is INTERIM:
                assert text and text != shown, "an empty or a repeated hypothesis (E6)"
                shown = text
            else:
                assert text or shown or owed, "an empty final for nothing (E6)"
                shown, owed = "", False
        assert talk.transcript.speaking == speaking
    assert not speaking and not shown and not owed, "something was left open (E5)"


@examples(15)
@given(
    st.lists(st.tuples(st.integers(1, 4), st.floats(0, 1.5), st.booleans()), max_size=12),
    st.data(),
)
def test_finals_are_heard_once_whatever_the_connections_do(
    utterances: list[tuple[int, float, bool]], data: st.DataObject
) -> None:
    """A service that hears what it is sent, with cuts and repeats between its answers."""
    talk = Conversation(0)
    talk.backlog.set_interims(False)
    said: list[tuple[float, float]] = []
    connected_at = 0.0
    for length, gap, cut in utterances:
        talk.listen(length + 3)
        start = (said[-1][1] if said else 0.0) + gap
        said.append((start, start + length))
        span = start - connected_at, start + length - connected_at
        if cut:
            talk.hear(interim("já", *span))
            connected_at = talk.reconnect()
            assert connected_at <= start + 1e-3, "the utterance is sent again"
            span = max(0, start - connected_at), start + length - connected_at
        for _ in range(data.draw(st.integers(1, 2))):
            talk.hear(final("já", *span))
    heard = [event.alternatives[0] for event in talk.events if event.type is FINAL]
    assert [times(spoken) for spoken in heard] == [pytest.approx(span, abs=1e-3) for span in said]


@pytest.mark.parametrize(("start", "end", "known"), [(2.0, 2.5, True), (90.0, 91.0, False)])
def test_where_a_hypothesis_starts_is_known_by_times_that_can_be_true(
    start: float, end: float, known: bool
) -> None:
    """Without, it can be about any audio."""
    talk = Conversation(10.0)
    talk.hear(interim("hvað", start, end))
    assert talk.backlog.speaking
    assert talk.backlog.open_from == (round(start * talk.rate) if known else 0)
