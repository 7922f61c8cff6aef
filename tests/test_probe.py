"""The questions of `probe`, each put to services that answer one way and the other."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
from aiohttp import web

from livekit.agents import APIConnectionError, APIError, APIStatusError, APITimeoutError
from livekit.plugins.tiro.cli.probe.lab import (
    HeardWord,
    Refused,
    compare,
    kind_of,
    name_of,
)
from livekit.plugins.tiro.cli.probe.refusals import error_shape
from livekit.plugins.tiro.protocol import ServiceError
from livekit.plugins.tiro.testing import (
    At,
    ConnectionRecord,
    Hooks,
    StatusError,
    TimedRecognizer,
    TiroServer,
    backend,
    faults,
)
from livekit.plugins.tiro.testing.conversation import STREAMING_PATH

from .support.probe_service import (
    KEY,
    BadKeys,
    Deaf,
    NoPongs,
    OneCall,
    OwnPings,
    Rewritten,
    SampleRecognizer,
    Says,
    Unpunctual,
    ask,
    each_alternative,
    verdict,
)

M = faults.Moment
AS_ASSUMED, DIFFERS, NOT_SEEN, NOT_MEASURED = "as assumed", "differs", "not seen", "not measured"


def one(question: str, **service: Any) -> tuple[str, str, str]:
    """Ask a service one question; return the verdict, what was seen and what it means."""
    row = ask(question, **service)[question]
    return verdict(row), row.saw, row.means


def holds(question: str, expected: str, *texts: str, **service: Any) -> None:
    """Ask a service one question, and hold the answer to a verdict and to texts in it."""
    found, saw, means = one(question, **service)
    assert found == expected, (saw, means)
    for text in texts:
        assert text in f"{saw} | {means}"


# -- how it lets in, and turns away ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("hooks", "expected", "text"),
    [
        (Hooks(), AS_ASSUMED, "open after 0.0"),
        (faults.StalledHandshake(2.0), DIFFERS, "each new connection takes this long"),
        (faults.StalledHandshake(12.0), NOT_MEASURED, "no answer in time"),
        (faults.Refuse(503), NOT_MEASURED, "refused with status 503"),
        (faults.ResetHandshake(), NOT_MEASURED, "it could not be reached"),
    ],
)
def test_handshake(hooks: Hooks, expected: str, text: str) -> None:
    holds("handshake", expected, text, hooks=hooks)


@pytest.mark.parametrize(("style", "status"), [("v1", 405), ("v2", 501)])
def test_the_gateway_is_in_front(style: str, status: int) -> None:
    holds("what is in front", AS_ASSUMED, str(status), error_style=style)


@pytest.mark.parametrize("status", [403, 0])
def test_something_else_is_in_front(status: int) -> None:
    def plain(server: TiroServer, request: web.Request) -> web.Response:
        if not status and request.transport is not None:
            request.transport.abort()
        return web.Response(status=status or 200)

    with mock.patch.object(TiroServer, "_plain", plain):
        text = "403" if status else "it hangs up"
        holds("what is in front", DIFFERS, text, "something else than the gateway")


class Fails(Hooks):
    """Keys that are not right are answered with an error of any code."""

    def __init__(self, code: int) -> None:
        self._code = code

    async def first_message(self, connection: ConnectionRecord) -> None:
        if connection.token != KEY:
            raise StatusError(self._code, f"no entry for {connection.token}")


@pytest.mark.parametrize("question", ["wrong key", "missing key"])
@pytest.mark.parametrize(
    ("service", "expected", "texts"),
    [
        ({}, AS_ASSUMED, ["by a frame: UNAUTHENTICATED (code 16), after 0.0"]),
        ({"error_style": "v2"}, AS_ASSUMED, ["UNAUTHENTICATED"]),
        ({"hooks": Fails(7)}, AS_ASSUMED, ["PERMISSION_DENIED"]),
        ({"hooks": Fails(3)}, DIFFERS, ["INVALID_ARGUMENT", "under another name"]),
        ({"hooks": Fails(14)}, DIFFERS, ["UNAVAILABLE", "and retries"]),
        ({"hooks": BadKeys("handshake")}, DIFFERS, ["at the handshake: HTTP 401", "nothing"]),
        ({"hooks": BadKeys("drop")}, DIFFERS, ["hung up without a word", "it retries"]),
        ({"hooks": BadKeys("close")}, DIFFERS, ["close frame 1008"]),
        ({"hooks": BadKeys("stay")}, NOT_SEEN, ["the connection stays"]),
        ({"api_key": None}, DIFFERS, ["let in"]),
        ({"api_key": None, "hooks": Deaf()}, NOT_SEEN, ["hung up at the end of the audio"]),
    ],
)
def test_keys(question: str, service: dict[str, Any], expected: str, texts: list[str]) -> None:
    holds(question, expected, *texts, **service)


def test_a_missing_key_where_nobody_is() -> None:
    holds("missing key", NOT_MEASURED, "could not be reached", hooks=faults.ResetHandshake())


class AnyPath(Hooks):
    """Whatever the path is, it is the right one."""

    async def opened(self, connection: ConnectionRecord) -> None:
        connection.path = STREAMING_PATH


@pytest.mark.parametrize(
    ("service", "expected", "text"),
    [
        ({}, AS_ASSUMED, "HTTP 404"),
        ({"error_style": "v2"}, AS_ASSUMED, "NOT_FOUND (code 5)"),
        ({"hooks": faults.Refuse(404)}, DIFFERS, "at the handshake: HTTP 404"),
        ({"hooks": AnyPath(), "api_key": None}, DIFFERS, "a wrong base_url is not noticed"),
    ],
)
def test_a_wrong_path(service: dict[str, Any], expected: str, text: str) -> None:
    holds("wrong path", expected, text, **service)


def test_an_unknown_language() -> None:
    holds("unknown language", AS_ASSUMED, "INVALID_ARGUMENT (code 3)")
    everything = {"": SampleRecognizer()}
    rows = ask("unknown language", recognizers=everything)
    assert "a wrong one is not noticed" in rows["unknown language"].means
    assert verdict(rows["shape of errors"]) == NOT_SEEN


@pytest.mark.parametrize("shape", ["v1", "v2", "gateway v1", "gateway v2", "result", "text"])
def test_the_shape_of_errors(shape: faults.Shape) -> None:
    message = "Bad Request" if shape == "text" else f"no entry for {KEY}"
    rows = ask("shape of errors", hooks=faults.Fail(3, message=message, shape=shape))
    assert verdict(rows["unknown language"]) == AS_ASSUMED
    assert rows["shape of errors"].saw == shape
    assert verdict(rows["shape of errors"]) == (AS_ASSUMED if shape == "v1" else DIFFERS)


def test_shapes_that_no_gateway_writes() -> None:
    assert error_shape("[1]") == error_shape("{") == "text"
    assert error_shape('{"error":{"grpc_code":3}}') == "v1"


# -- two sentences ---------------------------------------------------------------------------------


def test_what_a_call_shows_if_all_is_as_assumed() -> None:
    rows = ask("words")
    assert {verdict(row) for row in rows.values()} == {AS_ASSUMED}
    assert rows["words"].values["found"][:2] == ["góðan", "daginn"]
    assert rows["words"].values["heard"] == 19
    assert abs(rows["times of words"].values["seconds"]) < 0.02
    assert 0.8 <= rows["silence to a final"].values["seconds"] <= 0.9


def test_sparse_frames() -> None:
    rows = ask("shape of frames", emit_unpopulated=False)
    assert verdict(rows["shape of frames"]) == DIFFERS
    assert "unset fields are left out" in rows["shape of frames"].saw
    others = {row.question for row in rows.values() if verdict(row) == AS_ASSUMED}
    assert others == rows.keys() - {"shape of frames"}


def test_a_service_that_says_nothing() -> None:
    rows = ask("words", hooks=Deaf())
    assert verdict(rows["how a call ends"]) == AS_ASSUMED
    assert verdict(rows["events"]) == AS_ASSUMED
    seen = {row.question for row in rows.values() if verdict(row) != NOT_SEEN}
    assert seen == {"how a call ends", "events"}


def with_another(*, after: bool) -> Rewritten:
    """A final comes with a hypothesis in its frame."""

    def change(body: dict[str, Any]) -> None:
        for result in list(body.get("results") or ()):
            if result["isFinal"]:
                other = {"alternatives": [{"transcript": "og"}], "isFinal": False}
                body["results"] = [result, other] if after else [other, result]

    return Rewritten(change)


@pytest.mark.parametrize(("after", "text"), [(True, "2 at most"), (False, "before a final")])
def test_several_results_in_a_frame(after: bool, text: str) -> None:
    holds("results in a frame", DIFFERS, text, hooks=with_another(after=after))


def test_what_is_filled() -> None:
    def fill(body: dict[str, Any]) -> None:
        for result in body.get("results") or ():
            result["stability"] = 0.9
            result["alternatives"][0]["confidence"] = 0.7

    rows = ask("confidence", hooks=Rewritten(fill))
    for name in ("confidence", "stability"):
        assert verdict(rows[name]) == DIFFERS and "filled in" in rows[name].saw


@pytest.mark.parametrize("name", ["END_OF_AUDIO", "no entry for you"])
def test_events(name: str) -> None:
    event = Says(f'{{"result":{{"results":[],"speechEventType":"{name}"}}}}')
    holds("events", DIFFERS, "END_OF_AUDIO" if name.isupper() else "another", hooks=event)


class NoInterims(Hooks):
    async def frame(self, connection: ConnectionRecord, text: str) -> str | None:
        return None if '"isFinal":false' in text else text


def test_interims() -> None:
    rows = ask("first interim", hooks=NoInterims())
    for name in ("first interim", "interval of interims", "words on interims"):
        assert verdict(rows[name]) == NOT_SEEN
    rows = ask("first interim", interim_interval=1.9)
    assert verdict(rows["first interim"]) == verdict(rows["interval of interims"]) == DIFFERS
    assert 1.5 < rows["first interim"].values["seconds"] < 2.0
    holds("interval of interims", NOT_SEEN, "no two came", interim_interval=3.0)


def test_interims_without_times() -> None:
    def change(alternative: dict[str, Any], final: bool) -> None:
        if not final:
            alternative["words"] = []

    rows = ask("words on interims", hooks=each_alternative(change))
    assert verdict(rows["words on interims"]) == DIFFERS
    assert verdict(rows["times of words"]) == AS_ASSUMED


def test_finals_without_times() -> None:
    def change(alternative: dict[str, Any], final: bool) -> None:
        alternative["words"] = []

    rows = ask("times of words", hooks=each_alternative(change))
    assert verdict(rows["words"]) == AS_ASSUMED
    assert verdict(rows["times of words"]) == DIFFERS
    assert rows["times of words"].saw == "on 0 of 19"


def test_times_that_are_wrong() -> None:
    holds("times of words", DIFFERS, "ms from the sample's", hooks=faults.Drift(0.2))


def test_other_words() -> None:
    rows = ask("words", recognizers={})
    assert verdict(rows["words"]) == DIFFERS
    assert "19" in rows["words"].saw and "--speech" in rows["words"].means
    assert rows["times of words"].saw == "on all words"
    assert set(rows["words"].values["found"]) < {"ég", "á", "að", "daginn", "góðan", "ætla"}


@pytest.mark.parametrize(
    ("silence", "expected", "text"),
    [
        (0.5, AS_ASSUMED, "0.85 s"),
        (1.5, DIFFERS, "turn_detection='vad'"),
        (0.15, DIFFERS, "raise min_delay"),
        (9.0, NOT_SEEN, "no final within 6 s"),
    ],
)
def test_the_endpointer_after_a_sentence(silence: float, expected: str, text: str) -> None:
    holds("silence to a final", expected, text, endpoint_silence=silence)


@pytest.mark.parametrize(
    ("more", "expected", "text"),
    [
        (1.5, AS_ASSUMED, "2.35 s"),
        (2.5, DIFFERS, "2.5 s of silence of a flush"),
        (7.0, NOT_SEEN, "no final within 6 s"),
    ],
)
def test_the_endpointer_after_a_sentence_that_breaks_off(
    more: float, expected: str, text: str
) -> None:
    holds("silence, broken off", expected, text, recognizer=SampleRecognizer(slow_ending=more))


@pytest.mark.parametrize(
    ("hooks", "expected", "text"),
    [
        (Hooks(), AS_ASSUMED, "dropped, 0.0"),
        (faults.Close(M.DONE, 1000), DIFFERS, "close frame 1000"),
        (faults.IgnoreEnd(), NOT_SEEN, "stays open for 5 s"),
    ],
)
def test_how_a_call_ends(hooks: Hooks, expected: str, text: str) -> None:
    holds("how a call ends", expected, text, hooks=hooks)


def test_a_call_that_breaks_off_answers_what_it_can() -> None:
    rows = ask("words", hooks=faults.Fail(14, M.FINAL))
    assert {verdict(row) for row in rows.values()} == {NOT_MEASURED}
    assert "UNAVAILABLE" in rows["words"].saw


# -- the end marker --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hooks", "expected", "text"),
    [
        (Hooks(), AS_ASSUMED, "end after 0.0"),
        (faults.Delay(1.0), AS_ASSUMED, "final after 1.0"),
        (faults.IgnoreEnd(), DIFFERS, "ignores the end marker: a stream ends 5 s later"),
        (faults.Mute(M.DONE), DIFFERS, "but the connection stays"),
        (faults.Disconnect(M.END), DIFFERS, "without a final"),
    ],
)
def test_the_end_marker(hooks: Hooks, expected: str, text: str) -> None:
    holds("end marker", expected, text, hooks=hooks)


def test_the_last_word_at_the_end_marker() -> None:
    holds("last word", AS_ASSUMED, "cut off")
    with mock.patch.object(backend, "LOOKAHEAD_SAMPLES", 0):
        holds("last word", DIFFERS, "heard", "is not needed here")
    holds("last word", NOT_SEEN, "no final came", hooks=faults.Disconnect(M.END))


def test_what_needs_the_first_call_says_so() -> None:
    for question in ("end marker", "8 kHz", "flush"):
        holds(question, NOT_MEASURED, "no words to compare with", knows=False)


# -- options, rates, pace --------------------------------------------------------------------------


class Refuses(Hooks):
    """A config with a field is refused."""

    def __init__(self, name: str, code: int = 3) -> None:
        self._name = name
        self._code = code

    async def first_message(self, connection: ConnectionRecord) -> None:
        if self._name in connection.config:
            raise StatusError(self._code, "no entry")


@pytest.mark.parametrize(
    ("question", "without"),
    [
        ("punctuation", {"marks": False}),
        ("alternatives", {"readings": 1}),
        ("speaker tags", {"tags": False}),
    ],
)
def test_an_option(question: str, without: dict[str, Any]) -> None:
    holds(question, AS_ASSUMED)
    holds(question, DIFFERS, "no effect", recognizer=SampleRecognizer(**without))
    holds(question, NOT_MEASURED, "no final came", hooks=Deaf())


def test_an_option_that_is_refused() -> None:
    refused = Refuses("diarizationConfig")
    holds("speaker tags", DIFFERS, "refused: INVALID_ARGUMENT", "do without it", hooks=refused)
    holds("alternatives", AS_ASSUMED, hooks=refused)
    busy = Refuses("diarizationConfig", code=8)
    holds("speaker tags", NOT_MEASURED, "RESOURCE_EXHAUSTED", hooks=busy)


@pytest.mark.parametrize(
    ("question", "rate"),
    [("8 kHz", 8000), ("24 kHz", 24000), ("44.1 kHz", 44100), ("48 kHz", 48000)],
)
def test_a_sample_rate(question: str, rate: int) -> None:
    holds(question, AS_ASSUMED, "11 of 11 words the same")
    deaf = SampleRecognizer(forgets=[rate])
    holds(question, DIFFERS, "3 of 11 words the same (3 heard)", "16000", recognizer=deaf)


def test_a_sample_rate_that_moves_the_times() -> None:
    holds("48 kHz", DIFFERS, "11 of 11 words the same", "+19", hooks=faults.Drift(0.05))


def test_audio_faster_than_speech() -> None:
    holds("faster than speech", AS_ASSUMED, "19 of 19 words")
    holds("faster than speech", DIFFERS, "as long as the audio that waited", hooks=Unpunctual())
    lossy = SampleRecognizer(forgets=[16000])
    holds("faster than speech", DIFFERS, "6 of 19", "not heard as well", recognizer=lossy)
    holds("faster than speech", NOT_MEASURED, "no final came", hooks=Deaf())


# -- connections -----------------------------------------------------------------------------------


def test_two_at_once() -> None:
    holds("two at once", AS_ASSUMED, "2 of 2 heard the same")
    refused = ("two at once", DIFFERS, "1 of 2 refused")
    holds(*refused, "status 429", hooks=OneCall("handshake"))
    holds(*refused, "RESOURCE_EXHAUSTED", hooks=OneCall("frame"))
    one_deaf = faults.PerConnection(None, Deaf())
    holds("two at once", DIFFERS, "1 of 2 heard the same", "disturb", hooks=one_deaf)


def test_pings() -> None:
    rows = ask("pings")
    assert [verdict(row) for row in rows.values()] == [AS_ASSUMED, AS_ASSUMED]
    holds("pings", DIFFERS, "half-open every 13 s", hooks=NoPongs())
    holds("pings of the service", DIFFERS, "one every", hooks=OwnPings(0.1))


# -- silence ---------------------------------------------------------------------------------------


def test_digital_silence() -> None:
    holds("digital silence", AS_ASSUMED, "no answer: 0 in 6.5 s")
    with mock.patch.object(backend, "GATE_SAMPLES", 10**9):
        holds("digital silence", DIFFERS, "no results: 1 in 6.5 s")


def without_text(body: dict[str, Any]) -> None:
    body["results"] = [{"alternatives": [{"transcript": ""}], "isFinal": True}]


@pytest.mark.parametrize(
    ("service", "expected", "text"),
    [
        ({}, AS_ASSUMED, "no results: 1 in 6.5 s, 1 at the end"),
        ({"emit_unpopulated": False}, AS_ASSUMED, "an empty result"),
        ({"hooks": Rewritten(without_text)}, AS_ASSUMED, "a final without text"),
        ({"hooks": Deaf()}, DIFFERS, "no answer"),
        ({"recognizers": {"is": TimedRecognizer([At(1, "suð")])}}, DIFFERS, "words are heard"),
    ],
)
def test_noise(service: dict[str, Any], expected: str, text: str) -> None:
    holds("noise", expected, text, **service)


def test_an_event_is_no_answer_to_silence() -> None:
    event = Says('{"result":{"results":[],"speechEventType":"END_OF_AUDIO"}}')
    holds("digital silence", AS_ASSUMED, "an event: 0 in 6.5 s, 1 at the end", hooks=event)


@pytest.mark.parametrize(
    ("cuts", "expected", "text"),
    [
        ("without lead-in", AS_ASSUMED, "without lead-in: no, with 300 ms: yes"),
        ("never", NOT_SEEN, "does not show if there is one"),
        ("always", DIFFERS, "can be lost"),
    ],
)
def test_the_voice_gate(cuts: Any, expected: str, text: str) -> None:
    holds("voice gate", expected, text, recognizer=SampleRecognizer(cuts=cuts))


@pytest.mark.parametrize("voice_gate", [True, False])
def test_a_voice_gate_that_the_sample_opens_is_not_denied(voice_gate: bool) -> None:
    _, _, means = one("voice gate", voice_gate=voice_gate)
    assert "does not show if there is one" in means and "no voice gate" not in means


# -- the plugin ------------------------------------------------------------------------------------


def test_flush() -> None:
    rows = ask("flush")
    assert [verdict(row) for row in rows.values()] == [AS_ASSUMED, AS_ASSUMED]
    assert rows["flush"].values["seconds"] < 0.2


def test_a_flush_that_takes_the_time_of_its_silence() -> None:
    holds("flush", DIFFERS, "wait this long for their final", hooks=Unpunctual())


def test_a_flush_that_brings_nothing() -> None:
    holds("flush", NOT_SEEN, "does not work", endpoint_silence=9.0)
    holds("flush", NOT_SEEN, "does not work", hooks=Deaf())
    holds("flush", NOT_MEASURED, "refused with status 500", hooks=faults.Fail(13, 1.0))
    rows = ask("flush", knows=True, hooks=Deaf())
    assert "0 of 8 words" in rows["speech after a flush"].saw


def test_speech_after_a_flush_that_is_not_heard() -> None:
    lossy = SampleRecognizer(cuts="always")
    holds("speech after a flush", DIFFERS, "pause before you go on", recognizer=lossy)


def test_a_reconnect_in_mid_sentence() -> None:
    holds("reconnect in mid-sentence", AS_ASSUMED, "11 of 11 words the same")
    lossy = SampleRecognizer(cuts="always")
    holds("reconnect in mid-sentence", DIFFERS, "10 of 11", "can cost words", recognizer=lossy)


# -- limits ----------------------------------------------------------------------------------------


def test_no_limits() -> None:
    rows = ask("limit: no audio", limits=0.2)
    assert {verdict(row) for row in rows.values()} == {NOT_SEEN}
    assert "none within 0.2 minutes" in rows["limit: a long call"].saw


@pytest.mark.parametrize(
    ("code", "expected", "text"),
    [
        (11, AS_ASSUMED, "OUT_OF_RANGE (code 11)"),
        (None, AS_ASSUMED, "ended after 5 s: dropped"),
        (13, DIFFERS, "takes this end for a fault"),
    ],
)
def test_a_limit_of_length(code: int | None, expected: str, text: str) -> None:
    rows = ask("limit: a long call", limits=0.2, hooks=faults.SessionLimit(5.0, code))
    for row in rows.values():
        assert verdict(row) == expected and text in f"{row.saw} {row.means}"


def test_a_limit_of_idle_time() -> None:
    rows = ask("limit: no audio", limits=0.2, hooks=faults.IdleLimit(4.0, None))
    assert verdict(rows["limit: no audio"]) == AS_ASSUMED
    assert verdict(rows["limit: silence only"]) == verdict(rows["limit: a long call"]) == NOT_SEEN


def test_a_limit_that_comes_with_a_close_frame() -> None:
    rows = ask("limit: silence only", limits=0.2, hooks=faults.Close(3.0))
    assert "ended after 3 s: close frame 1001" in rows["limit: silence only"].saw


# -- words and errors ------------------------------------------------------------------------------


def heard(text: str, *, start: float | None = 1.0) -> list[HeardWord]:
    return [
        HeardWord(word, None if start is None else start + n) for n, word in enumerate(text.split())
    ]


@pytest.mark.parametrize(
    ("now", "same", "is_same"),
    [
        ("a b c", 3, True),
        ("a c", 2, False),
        ("a b b c", 3, False),
        ("c b a", 1, False),
        ("", 0, False),
    ],
)
def test_words_are_compared_in_order(now: str, same: int, is_same: bool) -> None:
    found = compare(heard(now, start=None), heard("a b c"))
    assert (found.same, found.is_same, found.shift) == (same, is_same, None)


def test_times_are_compared() -> None:
    before = heard("a b c")
    assert compare(heard("a b c", start=3.05), before, later=2.0).is_same
    late = compare(heard("a b c", start=1.1), before)
    assert not late.is_same and str(late) == "3 of 3 words the same, times off by +100 ms"


def test_errors_are_named_by_their_kind() -> None:
    assert name_of(ServiceError(code=14, message="no entry")) == "UNAVAILABLE (code 14)"
    assert name_of(ServiceError(http_status=404)) == "HTTP 404"
    assert name_of(ServiceError(code=99)) == "code 99"
    assert Refused(ServiceError(code=3)).is_answer and not Refused(ServiceError(code=14)).is_answer
    kinds = [
        kind_of(APIStatusError("secret", status_code=401)),
        kind_of(APITimeoutError("secret")),
        kind_of(APIConnectionError("secret")),
        kind_of(APIError("secret")),
    ]
    assert len(set(kinds)) == 4 and "secret" not in "".join(kinds)
