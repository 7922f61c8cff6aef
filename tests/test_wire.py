"""The wire of the local server: what a client's frames are read as, and what that may cost."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest

from livekit.plugins.tiro import options, protocol
from livekit.plugins.tiro.testing import SpeechConfig, conversation, server, wire
from livekit.plugins.tiro.testing.wire import GatewayError, MessageReader, StatusError

from .support.server_recordings import audio_message, modes, recording

CONFIG = json.dumps(
    {
        "streamingConfig": {
            "config": {
                "encoding": "LINEAR16",
                "sampleRateHertz": 16000,
                "languageCode": "is-IS",
                "enableWordTimeOffsets": True,
            },
            "interimResults": True,
        }
    }
)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{'a': 1}", "invalid character '\\'' looking for beginning of object key string"),
        ('{"a" 1}', "invalid character '1' after object key"),
        ('{"a": 1 "b"}', "invalid character '\"' after object key:value pair"),
        ("]", "invalid character ']' looking for beginning of value"),
        ("[]", "json: cannot unmarshal array into Go value of type map[string]json.RawMessage"),
        (
            '{"streamingConfig":{"config":{"sampleRateHertz":true}}}',
            "json: cannot unmarshal bool into Go value of type int32",
        ),
        (
            '{"streamingConfig":{"config":{"sampleRateHertz":"99999999999"}}}',
            "json: cannot unmarshal number 99999999999 into Go value of type int32",
        ),
        (
            '{"streamingConfig":{"interimResults":"yes"}}',
            "json: cannot unmarshal string into Go value of type bool",
        ),
        ('{"audioContent":"AA=="}{', None),
        ('{"audioContent":"A"}', "illegal base64 data at input byte 1"),
        ("[" * 100_000, "json: a number too long or a value too deep"),
        ('{"audioContent":' + "9" * 5000 + "}", "json: a number too long or a value too deep"),
    ],
)
def test_messages_the_gateway_cannot_read(text: str, error: str | None) -> None:
    reader = MessageReader()
    if error is None:
        assert [message.audio for message in reader.feed(text)] == [b"\x00"]
        return
    with pytest.raises(GatewayError) as caught:
        list(reader.feed(text))
    assert str(caught.value).replace('"\'"', "'\\''") == error


def test_a_message_can_be_split_between_tokens_only() -> None:
    """A line feed lies between two frames, so a token is never put together again."""
    tokens = re.findall(r'[{}:,]|"[^"]*"|[0-9]+|true', CONFIG)
    for cut in range(1, len(tokens)):
        reader = MessageReader()
        assert list(reader.feed("".join(tokens[:cut]))) == []
        (message,) = reader.feed("".join(tokens[cut:]))
        assert message.config is not None and message.config.raw == json.loads(CONFIG).get(
            "streamingConfig"
        )
    inside = CONFIG.index("16000") + 2
    reader = MessageReader()
    with pytest.raises(GatewayError):
        for part in (CONFIG[:inside], CONFIG[inside:]):
            list(reader.feed(part))


def test_escaped_halves_of_characters_do_no_harm() -> None:
    first = '{"streamingConfig":{"config":{"languageCode":"\\ud800"}}}'
    message = next(iter(MessageReader().feed(first)))
    assert message.config is not None
    message.config.language.encode()


def test_a_config_keeps_unknown_fields() -> None:
    text = '{"streamingConfig":{"config":{"model":"latest"}}}'
    message = next(iter(MessageReader().feed(text)))
    assert isinstance(message.config, SpeechConfig)
    assert message.config.raw["config"]["model"] == "latest"


def test_a_string_that_a_frame_cuts_is_an_error_at_once() -> None:
    """The string would contain the line feed that follows each frame."""
    with pytest.raises(GatewayError, match="in string literal"):
        list(MessageReader().feed('{"audioContent":"AAAA'))


# -- what a client may cost ------------------------------------------------------------------------


def test_a_long_message_in_pieces_is_read_a_few_times_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However small the pieces are: here a number each, and each of its own frame."""
    looked_at: list[int] = []
    read_value = wire._read_value

    def counting(text: str, at: int) -> tuple[Any, int] | None:
        looked_at.append(len(text) - at)
        return read_value(text, at)

    monkeypatch.setattr(wire, "_read_value", counting)
    pieces = ['{"streamingConfig":{"config":{"speechContexts":[', *["1234567,"] * 5000, "1]}}}"]
    reader = MessageReader()
    messages = [message for piece in pieces for message in reader.feed(piece)]
    assert len(messages) == 1
    eager = wire.EAGER_BYTES * wire.EAGER_BYTES // len("1234567,")
    assert sum(looked_at) < eager + 4 * sum(map(len, pieces))


def test_a_syntax_error_in_a_long_message_is_found() -> None:
    reader = MessageReader()
    assert list(reader.feed('{"a":[' + "1," * wire.EAGER_BYTES)) == []
    with pytest.raises(GatewayError, match="looking for beginning of value"):
        for _ in range(2 * wire.EAGER_BYTES):
            assert list(reader.feed("!,")) == []


@pytest.mark.parametrize(
    ("frames", "error"),
    [
        (["{"] + [" " * 1_000_000] * 9, "a message of more than"),
        ([" " * (wire.MAX_UNREAD_BYTES + 1)], "a message of more than"),
        (['{"a":[' + "[]," * 100_000 + "1]}"], "values at once"),
        (["{}" * 100_001], "values at once"),
        ([json.dumps({"streamingConfig": {"config": {"model": "a" * 70_000}}})], "a config of"),
        (['{"unknown":"' + "a" * 70_000 + '"}'], "a config of"),
    ],
)
def test_what_costs_too_much_is_an_error(frames: list[str], error: str) -> None:
    reader = MessageReader()
    with pytest.raises(GatewayError, match=error):
        for frame in frames:
            list(reader.feed(frame))
    assert len(reader._unread) < 100


def test_the_longest_message_that_grpc_takes_is_read() -> None:
    (message,) = MessageReader().feed(audio_message(bytes(wire.MAX_MESSAGE_BYTES)))
    assert message.audio == bytes(wire.MAX_MESSAGE_BYTES)


@pytest.mark.many
def test_messages_in_one_frame_are_read_in_one_go() -> None:
    """Eight times as many take some eight times as long: the rest of the frame is not copied."""

    def seconds(count: int) -> float:
        frame = audio_message(bytes(30)) * count
        started = time.process_time()
        assert len(list(MessageReader().feed(frame))) == count
        return time.process_time() - started

    assert seconds(40_000) < 24 * max(seconds(5000), seconds(5000))


def test_an_error_keeps_nothing_of_what_was_read() -> None:
    with pytest.raises(GatewayError) as caught:
        list(MessageReader().feed('{"audioContent":!'))
    assert caught.value.__context__ is None and caught.value.__cause__ is None


# -- what the service refuses ----------------------------------------------------------------------


def fields_of(error: StatusError) -> list[str]:
    return [violation.field for violation in error.violations]


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ('{"audioContent":"AAAA"}', "audio_content"),
        ("{}", "oneof_streaming_request"),
        ("null", "oneof_streaming_request"),
        ('{"keepAlive":true}', "oneof_streaming_request"),
        ('{"streamingConfig":{"interimResults":true}}', "streaming_config.config"),
    ],
)
def test_the_first_message_is_a_config(text: str, field: str) -> None:
    (message,) = MessageReader().feed(text)
    with pytest.raises(StatusError) as caught:
        wire.check_first(message)
    assert caught.value.code == wire.INVALID_ARGUMENT and fields_of(caught.value) == [field]


def checked(known: bool = True, **fields: Any) -> StatusError | None:
    """What the service says of the usual config with other fields."""
    first = json.loads(CONFIG)
    first["streamingConfig"]["config"].update(fields)
    (message,) = MessageReader().feed(json.dumps(first))
    try:
        wire.check_config(wire.check_first(message), known_language=known)
    except StatusError as error:
        return error
    return None


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"encoding": "MP3"}, [".encoding"]),
        ({"encoding": 0}, [".encoding", "", ".encoding"]),
        ({"sampleRateHertz": 7999}, ["", ".sample_rate_hertz"]),
        ({"maxAlternatives": 31}, ["", ".max_alternatives"]),
        ({"maxAlternatives": "-1"}, ["", ".max_alternatives"]),
        ({"known": False}, ["", ".language_code"]),
    ],
)
def test_fields_at_fault_are_named(fields: dict[str, Any], wrong: list[str]) -> None:
    error = checked(**fields)
    assert error is not None and error.code == wire.INVALID_ARGUMENT
    prefix = "streaming_config.config"
    assert [field.removeprefix(prefix) for field in fields_of(error)] == wrong


def test_a_config_without_a_rate_is_an_internal_error() -> None:
    error = checked(sampleRateHertz=None)
    assert error is not None and error.code == wire.INTERNAL


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"encoding": 1, "sampleRateHertz": "48000", "maxAlternatives": 30, "model": "private"},
        {"diarizationConfig": {"enableSpeakerDiarization": True, "maxSpeakerCount": "3"}},
        {"diarizationConfig": None, "languageCode": None},
    ],
)
def test_what_the_service_takes(fields: dict[str, Any]) -> None:
    assert checked(**fields) is None


def test_both_spellings_of_a_field_are_read() -> None:
    text = '{"streaming_config":{"config":{"sample_rate_hertz":8000},"interim_results":true}}'
    (message,) = MessageReader().feed(text)
    assert message.config is not None
    assert message.config.sample_rate == 8000 and message.config.interim_results


@pytest.mark.parametrize(
    ("config", "error"),
    [
        ({"encoding": "OPUS"}, 'unknown value "OPUS" for enum'),
        ({"languageCode": 5}, "cannot unmarshal number into Go value of type string"),
        (
            {"enableAutomaticPunctuation": "no"},
            "cannot unmarshal string into Go value of type bool",
        ),
        ({"sampleRateHertz": 1.5}, "cannot unmarshal number into Go value of type int32"),
        ({"diarizationConfig": [1]}, "cannot unmarshal array into Go value"),
    ],
)
def test_a_field_of_the_wrong_type_is_an_error(config: dict[str, Any], error: str) -> None:
    with pytest.raises(GatewayError, match=re.escape(error)):
        list(MessageReader().feed(json.dumps({"streamingConfig": {"config": config}})))


@pytest.mark.parametrize("text", ["nul", "tru,", "falsy"])
def test_a_literal_that_is_none_is_an_error(text: str) -> None:
    with pytest.raises(GatewayError, match="in literal"):
        list(MessageReader().feed(text))


def test_a_message_over_the_limit_of_grpc_is_refused() -> None:
    wire.check_size(bytes(wire.MAX_MESSAGE_BYTES - 5))
    with pytest.raises(StatusError, match="Received message larger than max") as caught:
        wire.check_size(bytes(wire.MAX_MESSAGE_BYTES - 4))
    assert caught.value.code == wire.RESOURCE_EXHAUSTED


# -- frames ----------------------------------------------------------------------------------------

WORDS = [wire.TimedWord("já", 0, 1000), wire.TimedWord("takk", 1000, 1250, speaker=2)]
FULL, SPARSE = wire.FrameStyle(), wire.FrameStyle(emit_unpopulated=False)


def test_a_result_with_all_its_fields() -> None:
    frame = json.loads(FULL.result([wire.Alternative("já takk", WORDS)], final=False))
    (result,) = frame["result"]["results"]
    assert frame["result"]["speechEventType"] == "SPEECH_EVENT_UNSPECIFIED"
    assert frame["result"]["error"] is None
    assert (result["isFinal"], result["stability"]) == (False, 0)
    (alternative,) = result["alternatives"]
    assert (alternative["transcript"], alternative["confidence"]) == ("já takk", 0)
    assert alternative["words"] == [
        {"startTime": "0s", "endTime": "1s", "word": "já", "confidence": 0, "speakerTag": 0},
        {"startTime": "1s", "endTime": "1.250s", "word": "takk", "confidence": 0, "speakerTag": 2},
    ]


def test_a_result_with_only_what_is_set() -> None:
    alternatives = [wire.Alternative("já takk", WORDS), wire.Alternative("já tak")]
    assert json.loads(SPARSE.result(alternatives, final=True)) == {
        "result": {
            "results": [
                {
                    "alternatives": [
                        {
                            "transcript": "já takk",
                            "words": [
                                {"startTime": "0s", "endTime": "1s", "word": "já"},
                                {
                                    "startTime": "1s",
                                    "endTime": "1.250s",
                                    "word": "takk",
                                    "speakerTag": 2,
                                },
                            ],
                        },
                        {"transcript": "já tak"},
                    ],
                    "isFinal": True,
                }
            ]
        }
    }


def test_empty_responses_and_events() -> None:
    assert SPARSE.result([], final=True) == '{"result":{}}'
    assert json.loads(FULL.result([], final=True))["result"]["results"] == []
    event = {"speechEventType": "END_OF_SINGLE_UTTERANCE"}
    assert json.loads(SPARSE.end_of_utterance()) == {"result": event}
    assert json.loads(FULL.end_of_utterance()) == {
        "result": {"error": None, "results": [], **event}
    }


@pytest.mark.parametrize("scenario", ["quota", "invalid_language", "malformed_json_first"])
def test_errors_are_written_as_recorded(scenario: str) -> None:
    """In the style of each recording; what is written comes from what is in it."""
    for mode in modes(scenario):
        recorded = recording(scenario, mode)
        style = wire.FrameStyle(recorded.error_style, recorded.emit_unpopulated)
        (frame,) = recorded.received
        body = json.loads(frame)
        if "error" not in body or isinstance(body["error"], str):
            assert style.gateway_error(body["message"], body["code"]) == frame
            continue
        error = body["error"]
        details = (error.get("details") or [{"fieldViolations": []}])[0]["fieldViolations"]
        violations = [wire.Violation(each["field"], each["description"]) for each in details]
        code = error.get("grpcCode", error.get("code"))
        assert style.error(StatusError(code, error["message"], violations)) == frame


def test_a_wrong_path_is_not_found() -> None:
    assert FULL.not_found() == "Not Found"
    assert json.loads(wire.FrameStyle("v2").not_found()) == {
        "code": 5,
        "message": "Not Found",
        "details": [],
    }


# -- written twice, on purpose ---------------------------------------------------------------------


def test_server_and_plugin_mean_the_same() -> None:
    """Neither imports the other, so what both must know is compared here."""
    sent = options.Options(api_key="test", base_url=options.DEFAULT_BASE_URL)
    assert sent.url.endswith(conversation.STREAMING_PATH)
    assert options.DEFAULT_BASE_URL.endswith(server.BASE_PATH)
    assert conversation.STREAMING_PATH.startswith(server.BASE_PATH + "/")
    assert wire.RATES == (options.MIN_SAMPLE_RATE, options.MAX_SAMPLE_RATE)
    assert wire.MAX_ALTERNATIVES == options.MAX_ALTERNATIVES
    (end,) = MessageReader().feed(protocol.END_OF_AUDIO.decode())
    assert conversation._end_of(end) == "audio_content"
