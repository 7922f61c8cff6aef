"""The wire of the local server: what a client's frames are read as, and what that may cost."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest

from livekit.plugins.tiro import options, protocol
from livekit.plugins.tiro.testing import SpeechConfig, conversation, server, wire
from livekit.plugins.tiro.testing.wire import GatewayError, MessageReader

from .support.server_recordings import audio_message

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
    """The line feed behind each frame would be in it."""
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


def test_messages_in_one_frame_are_read_in_one_go() -> None:
    """What is behind a message is not copied to read it: that would take minutes here."""
    started = time.process_time()
    frame = audio_message(bytes(30)) * 90_000
    assert sum(len(message.audio or b"") for message in MessageReader().feed(frame)) == 2_700_000
    assert time.process_time() - started < 20


def test_an_error_keeps_nothing_of_what_was_read() -> None:
    with pytest.raises(GatewayError) as caught:
        list(MessageReader().feed('{"audioContent":!'))
    assert caught.value.__context__ is None and caught.value.__cause__ is None


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
