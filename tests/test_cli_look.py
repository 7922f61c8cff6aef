"""What the help and the errors of the command line look like."""

from __future__ import annotations

import re

import pytest

from livekit.plugins.tiro import __version__

from .support.command import run

COMMANDS = ("transcribe", "serve", "doctor", "probe")


def shown(*arguments: str) -> str:
    result = run(*arguments, "--help")
    assert result.exit_code == 0, result.output
    return str(result.stdout)


@pytest.mark.parametrize("arguments", [(), *((command,) for command in COMMANDS)])
def test_the_help_names_no_type_of_python(arguments: tuple[str, ...]) -> None:
    text = shown(*arguments)
    assert "--help" in text
    assert re.findall(r"<\S.*?>|\{.*?\}|\bbool\b|\bstr\b|list\[", text, re.IGNORECASE) == []


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        ("transcribe", "realtime local skip-existing timestamps word-cues diarize no-punctuate"),
        ("serve", "help"),
        ("doctor", "help"),
        ("probe", "with-host yes help"),
    ],
)
def test_a_flag_is_shown_without_a_value(command: str, flags: str) -> None:
    text = shown(command)
    for flag in flags.split():
        assert re.search(rf"--{flag} +(-\w +)?[A-Z][a-z]|--{flag} +text:|--{flag} +srt", text), flag


def test_files_are_what_transcribe_takes() -> None:
    text = shown("transcribe")
    assert re.search(r"transcribe \[OPTIONS\] FILE\.\.\. *\n", text)
    assert re.search(r"FILE\.\.\. +Audio or video files", text)


def test_the_version_is_shown() -> None:
    result = run("--version")
    assert (result.exit_code, result.stdout) == (0, f"livekit-plugins-tiro {__version__}\n")
    assert "--version" in shown()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("transcribe", "a.wav", "--format", "foo"), "'foo' is not one of 'text', 'json'"),
        (("transcribe", "a.wav", "--max-alternatives", "31"), "--max-alternatives"),
        (("transcribe",), "Missing argument 'FILE...'"),
        (("serve", "--port", "x"), "--port"),
        (("probe", "--limits", "x"), "--limits"),
        (("doctor", "--nothing"), "--nothing"),
    ],
)
def test_an_error_of_the_command_line_is_said_plainly(
    arguments: tuple[str, ...], said: str
) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    error = " ".join(result.stderr.replace("\u2502", " ").split())
    assert said in error
    assert "Value error" not in error
