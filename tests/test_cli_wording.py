"""The plugin's messages, as the command line says them."""

from __future__ import annotations

import pytest

from livekit.plugins.tiro import STT, errors
from livekit.plugins.tiro.cli.wording import OF_TRANSCRIBE, in_options

# Names that mean something to whoever writes Python, and nothing at a prompt.
PYTHON = (
    *("tiro.STT", "api_key", "base_url", "max_alternatives", "extra_config", "=True"),
    *("http_session", "worker"),
)


@pytest.mark.parametrize(
    "error",
    [
        *(errors.from_handshake(s) for s in (302, 400, 401, 403, 404, 407, 429, 500, 501)),
        errors.unreachable("tiro.is", "refused"),
        errors.unreachable("tiro.is", "refused", by_proxy=True),
        errors.connect_timeout("tiro.is", 5.0),
        errors.never_answered(),
        errors.dropped("early"),
        errors.unresponsive(15.0),
        errors.drain_timeout(5.0),
    ],
    ids=lambda error: str(error)[:40],
)
def test_failures_name_no_argument_of_python(error: Exception) -> None:
    message = in_options(str(getattr(error, "message", error)))
    assert not [name for name in PYTHON if name in message], message


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ({"language": "!"}, "--language must"),
        ({"base_url": "nowhere"}, "--base-url must"),
        ({"base_url": "ws://tiro.is?token=x"}, "--base-url must"),
        ({"max_alternatives": 99}, "--max-alternatives must"),
        ({"min_speakers": 2}, "needs --diarize"),
        ({"punctuate": 1}, "--no-punctuate must"),
        ({"api_key": " "}, "TIRO_API_KEY must"),
    ],
)
def test_settings_have_the_names_of_their_options(setting: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError) as caught:
        STT(**{"api_key": "test", **setting})  # type: ignore[arg-type]
    message = in_options(str(caught.value))
    assert named in message
    assert not [name for name in PYTHON if name in message], message


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (
            "Check the options given to tiro.STT (language, max_alternatives, extra_config).",
            "Check the options given to the command (--language, --max-alternatives).",
        ),
        ("Look at tiro.STT(extra_config) now.", "Look at the command now."),
        ("tiro.STT is closed", "the command is closed"),
        (
            "That of ALL_PROXY, or of the http_session or the worker that you gave one. So it is.",
            "That of ALL_PROXY. So it is.",
        ),
        ("pass api_key=, or TIRO_API_KEY", "pass TIRO_API_KEY"),
        ("endpointing must be 0.1 to 2.0", "--endpointing must be 0.1 to 2.0"),
        # What the service says is not touched.
        ("language_code is not supported", "language_code is not supported"),
        ("this language is unknown", "this language is unknown"),
    ],
)
def test_names_are_replaced(message: str, said: str) -> None:
    assert in_options(message) == said


def test_advice_lists_no_option_that_the_command_does_not_have() -> None:
    message = "Check the options given to tiro.STT (language, max_alternatives, extra_config)."
    said = in_options(message, without=OF_TRANSCRIBE)
    assert said == "Check the options given to the command (--language)."
