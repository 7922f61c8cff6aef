"""The wire format: every recorded frame says what it says, and no frame at all can do harm."""

from __future__ import annotations

import base64
import json
import math
import unicodedata
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, strategies as st

from livekit.plugins.tiro.options import Options
from livekit.plugins.tiro.protocol import (
    END_OF_AUDIO,
    Alternative,
    Response,
    Result,
    ServiceError,
    Word,
    decode,
    encode_audio,
    encode_config,
)

from .support.examples import examples
from .support.texts import any_texts

WIRE = Path(__file__).parent / "data" / "wire"
RECORDINGS = sorted(path.name.removesuffix(".jsonl") for path in WIRE.glob("*.jsonl"))

MILD = examples(50)


@cache
def recording(name: str) -> list[dict[str, Any]]:
    lines = (WIRE / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def frames(name: str, event: str = "recv") -> list[str]:
    """The text frames of a recording."""
    return [line["text"] for line in recording(name) if line["ev"] == event]


def decoded(name: str) -> list[Response]:
    responses = [decode(frame) for frame in frames(name)]
    assert None not in responses, "a frame of the service was not understood"
    return [response for response in responses if response is not None]


def understood(document: Any) -> Response:
    response = decode(json.dumps(document))
    assert response is not None
    return response


def error_of(document: Any) -> ServiceError:
    response = understood(document)
    assert response.error is not None
    assert response.results == ()
    return response.error


def result_of(result: dict[str, Any]) -> Result:
    (only,) = understood({"result": {"results": [result]}}).results
    return only


def final_of(*words: dict[str, Any], **rest: Any) -> Result:
    alternative = {"transcript": "já", "words": list(words), **rest}
    return result_of({"alternatives": [alternative], "isFinal": True})


# -- recordings ----------------------------------------------------------------------------------


def test_all_recordings_are_there() -> None:
    assert len(RECORDINGS) == 206
    assert {name.partition(".")[2] for name in RECORDINGS} == {"full", "sparse", "v2"}
    assert sum(len(frames(name)) for name in RECORDINGS) == 1035


@pytest.mark.many
@pytest.mark.parametrize("name", RECORDINGS)
def test_a_recorded_frame_says_what_it_says(name: str) -> None:
    for frame, response in zip(frames(name), decoded(name), strict=True):
        if frame == "Not Found":
            assert response == Response(error=ServiceError(None, 404, "Not Found"))
            continue
        body = json.loads(frame).get("result", {})
        assert (response.error is None) == ("result" in json.loads(frame) and not body.get("error"))
        said = body.get("results", [])
        assert len(response.results) == len(said)
        for result, raw in zip(response.results, said, strict=True):
            assert_says(result, raw)


def assert_says(result: Result, raw: dict[str, Any]) -> None:
    """Compare with the frame as the service's documentation has it read."""
    assert result.is_final == raw.get("isFinal", False)
    assert [a.text for a in result.alternatives] == [a["transcript"] for a in raw["alternatives"]]
    words = raw["alternatives"][0].get("words", [])
    if not words:
        assert (result.start, result.end) == (None, None)
        return
    assert result.start == float(words[0]["startTime"].rstrip("s"))
    assert result.end == float(words[-1]["endTime"].rstrip("s"))
    expected = [
        Word(w["word"], float(w["startTime"][:-1]), float(w["endTime"][:-1]), 0.0, 0) for w in words
    ]
    assert list(result.alternatives[0].words) == (expected if result.is_final else [])


def finals(name: str) -> list[Result]:
    return [r for response in decoded(name) for r in response.results if r.is_final]


def test_the_finals_are_the_same_in_every_mode() -> None:
    modes: dict[str, list[list[Result]]] = {}
    for name in RECORDINGS:
        modes.setdefault(name.partition(".")[0], []).append(finals(name))
    # They were not recorded with the same words.
    del modes["long_final_200"]
    for scenario, (first, *others) in modes.items():
        assert all(other == first for other in others), scenario
    assert sum(bool(first and others) for first, *others in modes.values()) > 40


@pytest.mark.parametrize("mode", ["full", "sparse", "v2"])
def test_a_happy_stream(mode: str) -> None:
    results = [r for response in decoded(f"happy_is.{mode}") for r in response.results]
    assert [r.is_final for r in results] == [False] * (len(results) - 1) + [True]
    assert [r.alternatives[0].text for r in results[:3]] == ["góð", "góðan", "góðan dag"]
    assert results[-1] == Result(
        True,
        (
            Alternative(
                "góðan daginn og",
                0.0,
                (
                    Word("góðan", 0.66, 1.86, 0.0, 0),
                    Word("daginn", 1.86, 2.98, 0.0, 0),
                    Word("og", 2.98, 4.2, 0.0, 0),
                ),
            ),
        ),
        0.66,
        4.2,
        ((0.66, 1.86), (2.98, 4.2)),
    )


@pytest.mark.parametrize(
    ("name", "number"),
    [("empty_final.full", 1), ("empty_final.sparse", 1)]
    + [("silence_20ms.full", 3), ("silence_64ms.full", 0), ("trailing_hiss.sparse", 1)],
)
def test_empty_responses_are_responses(name: str, number: int) -> None:
    assert decoded(name).count(Response()) == number


VIOLATIONS = {
    "audio_before_config": ("audio_content: the first message has to be a streaming_config",),
    "config_without_config": ("config: required",),
    "invalid_language": (
        "config: this field did not pass, see the entries under it",
        "config.language_code: no model for language code 'xx-XX'",
    ),
    "max_alternatives_31": (
        "config: this field did not pass, see the entries under it",
        "config.max_alternatives: must be between 0 and 30",
    ),
    "missing_encoding": (
        "config.encoding: only LINEAR16 can be streamed",
        "config: this field did not pass, see the entries under it",
        "config.encoding: an encoding is required",
    ),
    "unknown_first_message": ("oneof_streaming_request: set streaming_config or audio_content",),
    "wrong_encoding": ("config.encoding: only LINEAR16 can be streamed",),
}

ERRORS: dict[str, tuple[int | None, int | None, str]] = {
    **dict.fromkeys(VIOLATIONS, (3, 400, "request not valid, the details say why")),
    "audio_idle_timeout": (11, 400, "no audio for 2 seconds"),
    "backend_gone": (14, None, "connection error: desc = "),
    "backend_killed": (14, 503, "transport is closing"),
    "backend_stopped": (14, 503, "Cancelling all calls"),
    "bad_key": (16, 401, "the API key is missing or not valid"),
    "bad_key_before_config": (16, 401, "the API key is missing or not valid"),
    "error_inside_result": (14, None, "a fault made by the test key"),
    "internal_mid_stream": (13, 500, "a fault made by the test key"),
    "key_in_header": (16, 401, "the API key is missing or not valid"),
    "malformed_json_first": (2, None, "invalid character 'o' in literal null"),
    "message_over_4mib": (8, 429, "SERVER: Received message larger than max"),
    "no_key": (16, 401, "the API key is missing or not valid"),
    "out_of_range": (11, 400, "the stream went over its limit of 4 seconds"),
    "quota": (8, 429, "the quota of this API key is used up"),
    "rate_missing": (13, 500, "no sample rate"),
    "unavailable": (14, 503, "no recogniser is available right now"),
    "unknown_encoding": (2, None, 'unknown value "OGG_OPUS" for enum'),
    "wrong_path": (None, 404, "Not Found"),
    "wrong_type_in_config": (2, None, "json: cannot unmarshal number"),
}


@pytest.mark.parametrize("name", [n for n in RECORDINGS if n.partition(".")[0] in ERRORS])
def test_a_recorded_error(name: str) -> None:
    scenario, _, mode = name.partition(".")
    code, status, message = ERRORS[scenario]
    if mode == "v2":
        # Only v1 tells the HTTP status, and only v2 gives an unknown path a code.
        code, status = (5 if scenario == "wrong_path" else code), None
    (error,) = [response.error for response in decoded(name) if response.error is not None]
    assert (error.code, error.http_status) == (code, status)
    assert error.message.startswith(message)
    assert error.violations == VIOLATIONS.get(scenario, ())


def test_every_recorded_error_is_in_the_table() -> None:
    with_error = {
        name.partition(".")[0]
        for name in RECORDINGS
        if any(response.error for response in decoded(name))
    }
    assert with_error == ERRORS.keys()


# -- error shapes --------------------------------------------------------------------------------

VIOLATION = {"field": "streaming_config.config.language_code", "description": "no model"}
SAID = ("config.language_code: no model",)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        pytest.param(
            {
                "error": {
                    "grpcCode": 3,
                    "httpCode": 400,
                    "message": "no",
                    "httpStatus": "Bad Request",
                    "details": [{"@type": "x/BadRequest", "fieldViolations": [VIOLATION]}],
                }
            },
            ServiceError(3, 400, "no", SAID),
            id="v1 camelCase",
        ),
        pytest.param(
            {
                "error": {
                    "grpc_code": 3,
                    "http_code": 400,
                    "message": "no",
                    "http_status": "Bad Request",
                    "details": [{"@type": "x/BadRequest", "field_violations": [VIOLATION]}],
                }
            },
            ServiceError(3, 400, "no", SAID),
            id="v1 snake_case",
        ),
        pytest.param(
            {"error": {"code": 3, "message": "no", "details": [{"fieldViolations": [VIOLATION]}]}},
            ServiceError(3, None, "no", SAID),
            id="v2",
        ),
        pytest.param(
            {"code": 3, "message": "no", "details": [{"fieldViolations": [VIOLATION]}]},
            ServiceError(3, None, "no", SAID),
            id="bare status",
        ),
        pytest.param(
            {"error": "no", "message": "no", "code": 2, "details": []},
            ServiceError(2, None, "no"),
            id="string error",
        ),
        pytest.param({"error": "no"}, ServiceError(None, None, "no"), id="string alone"),
        pytest.param(
            {"error": "no", "message": None, "code": None, "details": None},
            ServiceError(None, None, "no"),
            id="string beside null",
        ),
        pytest.param(
            {"error": "no", "message": "", "code": 2},
            ServiceError(2, None, "no"),
            id="string beside an empty message",
        ),
        pytest.param(
            {"result": {"error": {"code": 14, "message": "no", "details": []}, "results": []}},
            ServiceError(14, None, "no"),
            id="inside the result",
        ),
        pytest.param(
            {"result": {"error": "no"}}, ServiceError(None, None, "no"), id="string in the result"
        ),
        pytest.param(
            {"result": None, "error": {"code": 16, "message": "no"}},
            ServiceError(16, None, "no"),
            id="beside a null result",
        ),
        pytest.param({"error": {"code": 13}}, ServiceError(13), id="no message"),
        pytest.param({"error": {"message": "no"}}, ServiceError(message="no"), id="no code"),
        pytest.param(
            {"code": 5, "message": ""}, ServiceError(5, None, ""), id="bare with an empty message"
        ),
    ],
)
def test_the_shapes_of_an_error(document: Any, expected: ServiceError) -> None:
    assert error_of(document) == expected


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("Not Found", 404),
        ("not found\n", 404),
        ("Unauthorized", 401),
        ("Forbidden", 403),
        ("Bad Gateway", 502),
        ("Service Unavailable", 503),
        ("Gateway Timeout", 504),
    ],
)
def test_a_plain_reason_phrase_is_an_error(text: str, status: int) -> None:
    assert decode(text) == Response(error=ServiceError(None, status, text.strip()))
    assert decode(text.encode()) == decode(text)


@pytest.mark.parametrize(
    "details",
    [None, [], {}, "x", [None], [7], [[]], [{}], [{"fieldViolations": None}], {"a": 1}]
    + [[{"fieldViolations": [None, 7, "x", {}, {"field": 7}, {"description": None}]}]],
)
def test_details_without_a_violation(details: Any) -> None:
    error = error_of({"error": {"code": 3, "message": "no", "details": details}})
    assert error == ServiceError(3, None, "no")


def test_half_a_violation_is_told_as_far_as_it_goes() -> None:
    details = [{"fieldViolations": [{"field": "streaming_config.x"}, {"description": "too long"}]}]
    assert error_of({"code": 3, "message": "no", "details": details}).violations == (
        "x",
        "too long",
    )


@pytest.mark.parametrize("code", [None, "16", 16.0, True, [], {}, "UNAUTHENTICATED"])
def test_a_code_that_is_no_number_is_unknown(code: Any) -> None:
    assert error_of({"error": {"code": code, "message": "no"}}) == ServiceError(None, None, "no")


@pytest.mark.parametrize(
    "nothing",
    [None, {}, [], "", 0, False, {"code": 0, "message": "", "details": []}, {"code": None}],
)
def test_an_error_without_a_value_is_none(nothing: Any) -> None:
    frame = {
        "error": nothing,
        "result": {"error": nothing, "results": [{"alternatives": [{"transcript": "já"}]}]},
    }
    response = understood(frame)
    assert response.error is None
    assert response.results[0].alternatives[0].text == "já"


# -- results -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "document",
    [
        {"result": {}},
        {"result": None},
        {"result": {"results": []}},
        {"result": {"results": None, "error": None, "speechEventType": None}},
        {"result": {"results": [None, 7, "x", []]}},
        {"result": {"error": None, "results": [], "speechEventType": "SPEECH_EVENT_UNSPECIFIED"}},
        {"result": {"results": [{"alternatives": [{"transcript": ""}], "isFinal": True}]}},
        {"result": {"results": [{"alternatives": [{"transcript": " "}], "isFinal": True}] * 2}},
        {"result": {"results": [{"isFinal": True}]}},
        {"result": {"results": [{"is_final": True, "alternatives": {}}]}},
        {"result": {"results": {}}},
        {"result": {"results": [{"alternatives": None, "isFinal": True}]}},
        {"result": {"results": [{"alternatives": [], "isFinal": True}]}},
        {"result": {"results": [{"alternatives": [None], "isFinal": True}]}},
        {"results": []},
    ],
)
def test_an_empty_response(document: Any) -> None:
    assert understood(document) == Response()


@pytest.mark.parametrize(
    "hypothesis", [{}, {"alternatives": []}, {"alternatives": [7]}, {"isFinal": False}]
)
def test_a_hypothesis_without_a_text_is_no_empty_response(hypothesis: dict[str, Any]) -> None:
    """An empty response ends a segment; this is only the start of one."""
    empty: dict[str, Any] = {"alternatives": [{"transcript": ""}], "isFinal": True}
    for said in ([hypothesis], [hypothesis, empty]):
        assert decode(json.dumps({"result": {"results": said}})) is None
    silent = {"alternatives": [{"transcript": ""}]}
    expected = Response((Result(False, (Alternative(""),)),))
    assert understood({"result": {"results": [silent]}}) == expected
    assert understood({"result": {"results": [hypothesis, silent]}}) == expected


def test_a_final_without_a_text_is_no_result_beside_others() -> None:
    empty = {"alternatives": [{"transcript": "", "words": [{"word": "já", "endTime": "1s"}]}]}
    said = {"alternatives": [{"transcript": "já"}], "isFinal": True}
    results = understood({"result": {"results": [{**empty, "isFinal": True}, said]}}).results
    assert [result.alternatives[0].text for result in results] == ["já"]


# -- events --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "event",
    ["END_OF_SINGLE_UTTERANCE", "START_OF_SPEECH", "END_OF_SPEECH", "END_OF_AUDIO", "NEW_ONE"]
    + [1, 2, 3, 4, 77, "1"],
)
@pytest.mark.parametrize("results", [{}, {"results": []}, {"results": None, "error": None}])
def test_an_event_is_no_empty_response(event: Any, results: dict[str, Any]) -> None:
    """By name, by number, and such as nobody knows yet; full and sparse."""
    for name in ("speechEventType", "speech_event_type"):
        assert understood({"result": {**results, name: event}}) == Response(event=str(event))
        assert understood({"result": {**results, name: event}}) != Response()


@pytest.mark.parametrize("event", [0, "0", "", "SPEECH_EVENT_UNSPECIFIED", None, True, 1.5, [], {}])
def test_what_names_no_event_is_none(event: Any) -> None:
    assert understood({"result": {"results": [], "speechEventType": event}}) == Response()


def test_results_count_for_more_than_an_event_beside_them() -> None:
    said = [{"alternatives": [{"transcript": "já"}], "isFinal": True}]
    response = understood({"result": {"results": said, "speechEventType": "END_OF_SPEECH"}})
    assert (len(response.results), response.event) == (1, "")


def test_an_error_beside_an_event_is_an_error() -> None:
    error = {"code": 14, "message": "no"}
    response = understood({"result": {"error": error, "speechEventType": 4}})
    assert response.error == ServiceError(14, None, "no")


@pytest.mark.parametrize("mode", ["full", "sparse"])
def test_the_recorded_event_of_a_single_utterance(mode: str) -> None:
    events = [response.event for response in decoded(f"single_utterance.{mode}")]
    assert [event for event in events if event] == ["END_OF_SINGLE_UTTERANCE"]


def test_the_text_of_an_error_is_not_shown() -> None:
    error = ServiceError(16, 401, "lykill is no key", ("token: lykill",))
    assert repr(error) == "ServiceError(code=16, http_status=401)"


@pytest.mark.parametrize(
    "frame",
    ["", " ", "null", "0", "[]", "{}", '"x"', "true", "Hello", "<html>Not Found</html>", "{", "\0"]
    + ['{"type":"KeepAlive"}', '{"error":null}', '{"error":5}', '{"code":5}', '{"message":"x"}']
    + ['{"result":{}}{"result":{}}', "NaN", '{"code":0,"message":""}', '{"error":{"code":0}}'],
)
def test_what_the_service_never_says_is_nothing(frame: str) -> None:
    assert decode(frame) is None
    assert decode(frame.encode()) is None


@pytest.mark.parametrize("value", [None, False, 0, 1, "true", "false", [], {}])
def test_only_true_is_final(value: Any) -> None:
    said = {"alternatives": [{"transcript": "já"}]}
    assert result_of({**said, "isFinal": value}).is_final is False
    assert result_of(said).is_final is False
    assert result_of({**said, "isFinal": True}).is_final is True
    assert result_of({**said, "is_final": True}).is_final is True


def test_several_results_in_a_response() -> None:
    said = [
        {"alternatives": [{"transcript": "fyrst"}], "isFinal": True},
        {"alternatives": [{"transcript": "svo"}], "stability": 0.9},
        {"alternatives": [{"transcript": "kannski"}], "stability": 0.1},
    ]
    results = understood({"result": {"results": said}}).results
    assert [(r.is_final, r.alternatives[0].text) for r in results] == [
        (True, "fyrst"),
        (False, "svo"),
        (False, "kannski"),
    ]


def test_names_of_the_proto_are_read_as_well() -> None:
    word = {"word": "já", "start_time": "1s", "end_time": "1.5s", "speaker_tag": 2}
    said = {"alternatives": [{"transcript": "já", "words": [word]}], "is_final": True}
    result = result_of(said)
    assert result.alternatives[0].words == (Word("já", 1.0, 1.5, 0.0, 2),)
    assert (result.start, result.end) == (1.0, 1.5)


def test_alternatives_are_for_finals_only() -> None:
    said = {"alternatives": [{"transcript": "já"}, {"transcript": "jú"}]}
    assert [a.text for a in result_of({**said, "isFinal": True}).alternatives] == ["já", "jú"]
    assert [a.text for a in result_of(said).alternatives] == ["já"]


def test_an_interim_has_times_but_no_words() -> None:
    words = [
        {"word": "góðan", "startTime": "0.5s", "endTime": "1s"},
        {"word": "dag", "startTime": "1s", "endTime": "1.25s"},
    ]
    interim = result_of({"alternatives": [{"transcript": "góðan dag", "words": words}]})
    edges = ((0.5, 1.0), (1.0, 1.25))
    assert interim == Result(False, (Alternative("góðan dag"),), 0.5, 1.25, edges)


@pytest.mark.parametrize(
    ("spans", "has_edges"),
    [
        ([(1.0, 2.0)], True),
        ([(1.0, 2.0), (1.0, 2.0)], True),
        ([(1.0, 9.0), (2.0, 3.0)], False),
        ([(2.5, 2.6), (2.0, 3.0)], False),
    ],
)
def test_times_of_words_that_are_not_in_order_are_no_edges(
    spans: list[tuple[float, float]], has_edges: bool
) -> None:
    words = [{"word": "já", "startTime": f"{a}s", "endTime": f"{b}s"} for a, b in spans]
    said = result_of({"alternatives": [{"transcript": "já", "words": words}]})
    assert (said.start, said.end) == (spans[0][0], spans[-1][1])
    assert said.edges == ((spans[0], spans[-1]) if has_edges else ())


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0.660s", 0.66),
        ("4s", 4.0),
        ("0s", 0.0),
        ("-0s", 0.0),
        ("1e-3s", 0.001),
        (" 2s ", 2.0),
        ("2", 2.0),
        (2, 2.0),
        (2.5, 2.5),
        ("315576000000s", 315_576_000_000.0),
    ],
)
def test_a_duration(value: Any, seconds: float) -> None:
    result = final_of({"word": "já", "startTime": value, "endTime": "315576000000s"})
    assert result.start == seconds
    assert result.alternatives[0].words[0].start == seconds


@pytest.mark.parametrize(
    "value",
    [None, "", "s", "x", "-1s", -1, "nans", "infs", "1e999s", math.nan, math.inf, -math.inf]
    + [True, [], {}, {"seconds": 4}, "4ms", "4ss", "1:02", 1e300, 10**400, "315576000001s"],
)
def test_what_is_no_duration_is_unknown(value: Any) -> None:
    result = final_of({"word": "já", "startTime": "0s", "endTime": value})
    assert (result.start, result.end) == (None, None)
    assert result.alternatives == (Alternative("já"),)


def test_a_word_that_is_over_at_zero_has_no_time() -> None:
    """T3: the field is there, but was never filled in."""
    result = final_of({"word": "já", "startTime": "0s", "endTime": "0s"})
    assert (result.start, result.end) == (None, None)
    assert result.alternatives == (Alternative("já"),)


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("is_final", [False, True])
def test_a_word_that_starts_after_its_end_gives_no_times(at: int, is_final: bool) -> None:
    """Audio is dropped by the times of finals: those of such a word prove nothing."""
    words = [{"word": "já", "startTime": f"{n}s", "endTime": f"{n + 1}s"} for n in range(3)]
    words[at].update(startTime=f"{at + 0.9}s", endTime=f"{at + 0.5}s")
    alternative = {"transcript": "já já já", "words": words}
    frame = {"result": {"results": [{"alternatives": [alternative], "isFinal": is_final}]}}
    response = decode(json.dumps(frame))
    assert response is not None
    result = response.results[0]
    known = (0.0, 3.0) if at == 1 else (None, None)
    assert (result.start, result.end) == known
    if is_final:
        word = result.alternatives[0].words[at]
        assert (word.start, word.end) == (at + 0.5, at + 0.5)


def test_words_in_no_order_give_no_times() -> None:
    late = {"word": "já", "startTime": "8s", "endTime": "9s"}
    early = {"word": "jú", "startTime": "1s", "endTime": "2s"}
    result = final_of(late, early)
    assert (result.start, result.end) == (None, None)


def test_a_word_without_a_text_or_a_time_is_left_out() -> None:
    result = final_of(
        {"word": "góðan", "startTime": "0.5s", "endTime": "1s"},
        {"word": "", "startTime": "1s", "endTime": "1s"},
        {"word": "alltaf"},
        {"startTime": "1s", "endTime": "1s"},
        {"word": "dag", "startTime": "1s", "endTime": "1.5s"},
    )
    assert [word.text for word in result.alternatives[0].words] == ["góðan", "dag"]
    assert (result.start, result.end) == (0.5, 1.5)


@pytest.mark.parametrize(
    ("value", "confidence"),
    [(0.5, 0.5), (0, 0.0), (1, 1.0), (None, 0.0), (-0.1, 0.0), (1.1, 0.0), ("0.5", 0.0)]
    + [(True, 0.0), (math.nan, 0.0), (math.inf, 0.0), (10**400, 0.0)],
)
def test_a_confidence_is_a_fraction(value: Any, confidence: float) -> None:
    """E8: within 0 and 1, and 0 if it is not known."""
    word = {"word": "já", "endTime": "1s", "confidence": value}
    best = final_of(word, confidence=value).alternatives[0]
    assert (best.confidence, best.words[0].confidence) == (confidence, confidence)


@pytest.mark.parametrize(
    ("value", "speaker"), [(2, 2), (0, 0), (-3, 0), (None, 0), ("2", 0), (True, 0), (2.0, 0)]
)
def test_a_speaker_is_a_number(value: Any, speaker: int) -> None:
    word = {"word": "já", "endTime": "1s", "speakerTag": value}
    assert final_of(word).alternatives[0].words[0].speaker == speaker


# -- text ----------------------------------------------------------------------------------------

ICELANDIC = "Það væri gott að fá ýsu á Ísafirði, sagði Þórður við Æsu og Ölmu."


def test_text_is_composed() -> None:
    split = unicodedata.normalize("NFD", ICELANDIC)
    assert split != ICELANDIC
    result = final_of({"word": split, "endTime": "1s"}, transcript=f" {split} ")
    assert result.alternatives[0].text == ICELANDIC
    assert result.alternatives[0].words[0].text == ICELANDIC


def test_text_comes_through_escaped_or_not() -> None:
    document = {"result": {"results": [{"alternatives": [{"transcript": ICELANDIC + " 🎉"}]}]}}
    for ascii_only in (True, False):
        frame = json.dumps(document, ensure_ascii=ascii_only)
        for form in (frame, frame.encode()):
            response = decode(form)
            assert response is not None
            assert response.results[0].alternatives[0].text == ICELANDIC + " 🎉"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"a\ud800", "a\ufffd"),
        (r"\ud800a", "\ufffda"),
        (r"\udc00\ud800a", "\ufffd\ufffda"),
        (r"\ud83c\udf89", "🎉"),
        (r"\u0000", "\0"),
        (r"  ", ""),
    ],
)
def test_lone_surrogates_are_replaced(text: str, expected: str) -> None:
    frame = f'{{"result":{{"results":[{{"alternatives":[{{"transcript":"{text}"}}]}}]}}}}'
    response = decode(frame)
    assert response is not None
    assert response.results[0].alternatives[0].text == expected


def test_invalid_utf8_costs_no_more_than_the_letter() -> None:
    frame = b'{"result":{"results":[{"alternatives":[{"transcript":"g\xf3\xf0an dag"}]}]}}'
    response = decode(frame)
    assert response is not None
    assert response.results[0].alternatives[0].text == "g\ufffd\ufffdan dag"


# -- nothing raises ------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["[", '{"result":', '{"error":', '{"result":{"results":['])
def test_deep_nesting_does_not_raise(head: str) -> None:
    assert decode(head * 200_000) is None
    decode('{"result":{"results":' + "[" * 500 + "]" * 500 + "}}")


def test_a_number_without_end_does_not_raise() -> None:
    decode('{"error":{"code":' + "9" * 100_000 + "}}")
    decode('{"result":{"results":[{"alternatives":[{"confidence":' + "9" * 4000 + "}]}]}}")


NAMES = st.sampled_from(
    "result results error alternatives transcript words word startTime endTime start_time "
    "isFinal is_final speechEventType confidence speakerTag code grpcCode httpCode message details "
    "fieldViolations field description".split()
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | any_texts(max_size=8, halves=True)
    | st.sampled_from(["1s", "0.5s", "nans", "-1s", "\ud800", "Not Found", 16, 10**30])
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=30,
)


def likely(name: str, inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Objects that hold a certain field, so that decoding goes deep."""
    return st.fixed_dictionaries({name: inner | JSON}, optional={"message": JSON, "code": JSON})


WORDS = st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys(
    ["word", "startTime", "endTime", "confidence", "speakerTag"], SCALARS
)), max_size=3)  # fmt: skip
ALTERNATIVES = st.lists(
    st.fixed_dictionaries({"transcript": SCALARS, "words": WORDS | JSON}), max_size=3
)
RESULTS = st.lists(
    st.fixed_dictionaries({"alternatives": ALTERNATIVES | JSON}, optional={"isFinal": SCALARS}),
    max_size=3,
)
DOCUMENTS = JSON | likely("result", likely("results", RESULTS)) | likely("error", JSON)


def assert_sound(response: Response | None) -> None:
    """All that is promised of a response, whatever it was made from."""
    if response is None:
        return
    texts = []
    for result in response.results:
        assert result.alternatives
        assert (result.start is None) == (result.end is None)
        if result.start is not None and result.end is not None:
            assert 0 <= result.start <= result.end < 1e12
        for alternative in result.alternatives:
            assert 0 <= alternative.confidence <= 1
            assert result.is_final or not alternative.words
            texts.append(alternative.text)
            for word in alternative.words:
                assert word.text and 0 <= word.start <= word.end < 1e12
                assert 0 <= word.confidence <= 1 and word.speaker >= 0
                texts.append(word.text)
    if response.error is not None:
        texts += [response.error.message, *response.error.violations]
    for text in texts:
        assert text == unicodedata.normalize("NFC", text).strip()
        text.encode()


@MILD
@given(DOCUMENTS)
def test_any_json_gives_a_sound_response(document: Any) -> None:
    for ascii_only in (True, False):
        text = json.dumps(document, ensure_ascii=ascii_only)
        assert_sound(decode(text))
        assert_sound(decode(text.encode("utf-8", "surrogatepass")))


@MILD
@given(any_texts() | st.binary())
@example("\ufeff{}")
@example(b"\xff\xfe{\x00}\x00")
def test_any_frame_gives_a_sound_response(frame: str | bytes) -> None:
    assert_sound(decode(frame))


@MILD
@given(st.sampled_from(["happy_is.full", "invalid_language.full", "max_alternatives_3.sparse"]),
       st.data())  # fmt: skip
def test_any_damage_to_a_real_frame_gives_a_sound_response(name: str, data: st.DataObject) -> None:
    frame = bytearray(data.draw(st.sampled_from(frames(name))).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(frame)))
        frame[start : start + data.draw(st.integers(0, 5))] = data.draw(st.binary(max_size=3))
    assert_sound(decode(bytes(frame)))


# -- what is sent --------------------------------------------------------------------------------


@MILD
@given(st.binary(min_size=1, max_size=500))
def test_audio_round_trips(pcm: bytes) -> None:
    frame = encode_audio(pcm)
    assert base64.b64decode(json.loads(frame)["audioContent"], validate=True) == pcm
    content = base64.b64encode(pcm).decode()
    assert frame == json.dumps({"audioContent": content}, separators=(",", ":")).encode()
    assert encode_audio(bytearray(pcm)) == encode_audio(memoryview(pcm)) == frame


def test_the_end_marker_is_the_recorded_one() -> None:
    assert json.loads(END_OF_AUDIO) == json.loads(frames("end_empty.full", "send")[-1])
    assert encode_audio(b"\0\0") != END_OF_AUDIO


def sent_config(options: Options, sample_rate: int = 16000) -> Any:
    return json.loads(encode_config(options, sample_rate))["streamingConfig"]


@pytest.mark.parametrize(
    ("name", "sample_rate", "settings"),
    [
        ("happy_is.full", 16000, {}),
        ("happy_en.full", 16000, {"language": "en_us"}),
        ("idle_without_end.full", 16000, {"language": "is-IS-x-exp"}),
        ("rate_8000.full", 8000, {"language": "en-US"}),
        ("rate_44100.full", 44100, {"language": "en-US"}),
        ("no_interim.full", 16000, {"interim_results": False}),
        ("punctuation.full", 16000, {"punctuate": True}),
        ("max_alternatives_3.full", 16000, {"language": "en-US", "max_alternatives": 3}),
        ("no_word_offsets.full", 16000, {"extra_config": {"enableWordTimeOffsets": False}}),
        (
            "unknown_field_in_config.full",
            16000,
            {"extra_config": {"model": "latest_long", "useEnhanced": True}},
        ),
    ],
)
def test_the_config_means_what_was_recorded(
    name: str, sample_rate: int, settings: dict[str, Any]
) -> None:
    """Fields that the recorded client left out have the value that the service takes then."""
    recorded = json.loads(frames(name, "send")[0])["streamingConfig"]
    left_out = {"maxAlternatives": 1, "enableAutomaticPunctuation": False}
    options = Options(**{"api_key": "key", "punctuate": False, **settings})
    expected = {**recorded, "config": {**left_out, **recorded["config"]}}
    assert sent_config(options, sample_rate) == expected


def test_diarization_is_sent_when_asked_for() -> None:
    plain = sent_config(Options(api_key="key"))
    assert "diarizationConfig" not in plain["config"]
    assert plain["config"]["enableAutomaticPunctuation"] is True
    asked = Options(api_key="key", diarization=True)
    assert sent_config(asked)["config"]["diarizationConfig"] == {"enableSpeakerDiarization": True}
    bounded = Options(api_key="key", diarization=True, min_speakers=2, max_speakers=5)
    assert sent_config(bounded)["config"]["diarizationConfig"] == {
        "enableSpeakerDiarization": True,
        "minSpeakerCount": 2,
        "maxSpeakerCount": 5,
    }


def test_extra_config_comes_last() -> None:
    extra = {"maxAlternatives": 7, "metadata": {"heiti": "þögn", "ok": None}}
    config = sent_config(Options(api_key="key", extra_config=extra))["config"]
    assert config["maxAlternatives"] == 7
    assert config["metadata"] == {"heiti": "þögn", "ok": None}


def test_extra_config_may_use_the_other_name_of_a_field() -> None:
    """JSON of protobuf knows both; sent with both, the value of neither is certain."""
    extra = {"max_alternatives": 7, "enable_automatic_punctuation": False, "speech_contexts": []}
    config = sent_config(Options(api_key="key", extra_config=extra))["config"]
    assert {name: config[name] for name in extra} == extra
    assert not {"maxAlternatives", "enableAutomaticPunctuation", "speechContexts"} & config.keys()


def test_the_config_holds_no_key() -> None:
    assert b"lykill" not in encode_config(Options(api_key="lykill"), 16000)


@MILD
@given(st.dictionaries(any_texts(max_size=5), st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_texts(halves=True),
    lambda inner: st.lists(inner, max_size=3),
), max_size=3))  # fmt: skip
def test_what_the_options_take_can_be_sent(extra: dict[str, Any]) -> None:
    try:
        options = Options(api_key="key", extra_config=extra)
    except ValueError:
        return
    assert sent_config(options)["config"].items() >= extra.items()
