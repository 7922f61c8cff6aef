"""How a command ends: one exit code and one line for every way it can fail."""

from __future__ import annotations

import errno
import io
import logging
import os
import re
import sys
from typing import TYPE_CHECKING

import pytest
import typer
from rich.console import Console

from livekit.agents import APIConnectionError, APIError, APIStatusError, APITimeoutError
from livekit.plugins.tiro import errors
from livekit.plugins.tiro.cli import exits as exits_module
from livekit.plugins.tiro.cli.exits import (
    MEANINGS,
    CliError,
    Exit,
    abandon_stdout,
    complain,
    exits,
    from_api,
    note,
    writing,
)

from .support.command import KEY, Forked, run

if TYPE_CHECKING:
    from pathlib import Path


def wrapped(cause: APIError) -> APIError:
    """What the framework raises when its retries are used up."""
    error = APIConnectionError("failed to recognize speech after 2 attempts")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (APIStatusError("no", status_code=401), Exit.KEY_REFUSED),
        (APIStatusError("no", status_code=403), Exit.KEY_REFUSED),
        (APIStatusError("no", status_code=400), Exit.SERVICE),
        (wrapped(APIStatusError("no", status_code=503)), Exit.SERVICE),
        (wrapped(APITimeoutError("no")), Exit.SERVICE),
        (APIConnectionError("no"), Exit.SERVICE),
        (APIError("no"), Exit.SERVICE),
    ],
)
def test_what_a_failure_of_the_service_means(error: APIError, code: Exit) -> None:
    failure = from_api(error)
    assert failure.code is code
    assert str(failure) == "no"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (wrapped(errors.unreachable("tiro.is", "refused")), Exit.UNREACHABLE),
        (errors.unreachable("tiro.is", "refused", by_proxy=True), Exit.UNREACHABLE),
        (errors.connect_timeout("tiro.is", 5.0), Exit.UNREACHABLE),
        (errors.from_proxy(403), Exit.UNREACHABLE),
        (errors.from_handshake(403), Exit.KEY_REFUSED),
        (errors.never_answered(), Exit.SERVICE),
        (wrapped(errors.dropped("in mid-sentence")), Exit.SERVICE),
        (errors.unresponsive(15.0), Exit.SERVICE),
        (errors.drain_timeout(5.0), Exit.SERVICE),
        (errors.as_api_error(ZeroDivisionError()), Exit.UNEXPECTED),
    ],
    ids=lambda value: str(value)[:40],
)
def test_only_what_was_never_connected_cannot_be_reached(error: APIError, code: Exit) -> None:
    assert from_api(error).code is code


def test_a_failure_of_the_service_speaks_of_options() -> None:
    error = APIConnectionError("Check the network, and base_url or TIRO_BASE_URL.")
    assert str(from_api(error)) == "Check the network, and --base-url or TIRO_BASE_URL."


def ended(error: BaseException) -> int:
    with pytest.raises(typer.Exit) as caught, exits():
        raise error
    return caught.value.exit_code


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (CliError(Exit.NO_FILE, "gone\nfor good"), Exit.NO_FILE, "error: gone for good\n"),
        (APIStatusError("no", status_code=401), Exit.KEY_REFUSED, "error: no\n"),
        (KeyboardInterrupt(), Exit.INTERRUPTED, ""),
        (typer.Exit(7), 7, ""),
        (
            RuntimeError(f"two\nlines and {KEY}"),
            Exit.UNEXPECTED,
            "error: unexpected RuntimeError: two lines and [key]. Please report this.\n",
        ),
    ],
)
def test_every_failure_is_a_line_and_a_code(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    said: str,
) -> None:
    monkeypatch.setenv("TIRO_API_KEY", KEY)
    assert ended(error) == code
    assert capsys.readouterr() == ("", said)


def test_a_reader_that_went_away_is_no_news(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    abandoned: list[None] = []
    monkeypatch.setattr(exits_module, "abandon_stdout", lambda: abandoned.append(None))
    assert ended(BrokenPipeError()) == Exit.BROKEN_PIPE
    assert abandoned == [None]
    assert capsys.readouterr().err == ""


class Output(io.StringIO):
    """A standard output that fails when it has to write what it has buffered."""

    def __init__(self, error: OSError) -> None:
        super().__init__()
        self.error = error

    def flush(self) -> None:
        raise self.error


def test_an_output_that_cannot_be_written_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", Output(OSError(errno.ENOSPC, "No space left on device")))
        with pytest.raises(typer.Exit) as caught, exits():
            sys.stdout.write("what")
    assert caught.value.exit_code == Exit.OUTPUT
    assert capsys.readouterr().err == "error: cannot write: No space left on device\n"


def test_a_reader_that_went_away_is_the_same_to_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    """rich would end the program with 1, whatever the caller does about it."""
    with monkeypatch.context() as patch, pytest.raises(BrokenPipeError):
        # Otherwise rich would act on the standard output of the tests.
        patch.setattr(os, "dup2", lambda *_: None)
        with writing():
            Console(file=Output(BrokenPipeError())).print("what")


def test_a_program_that_ends_itself_while_it_writes_ends() -> None:
    with pytest.raises(SystemExit), writing():
        raise SystemExit(1)


WRITING = [
    (),
    ("--help",),
    ("--version",),
    ("transcribe", "--help"),
    ("doctor",),
    ("serve", "--fault", "help"),
    ("serve", "--port", "0"),
]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no full device here")
@pytest.mark.parametrize("command", WRITING, ids=" ".join)
def test_every_command_says_that_its_output_is_full(command: tuple[str, ...]) -> None:
    with Forked(*command, stdout=os.open("/dev/full", os.O_WRONLY)) as started:
        assert started.errors.read() == b"error: cannot write: No space left on device\n"
        assert started.wait() == Exit.OUTPUT


@pytest.mark.parametrize("command", WRITING, ids=" ".join)
def test_every_command_ends_quietly_when_nobody_reads_it(command: tuple[str, ...]) -> None:
    reading, output = os.pipe()
    os.close(reading)
    with Forked(*command, stdout=output) as started:
        assert started.errors.read() == b""
        assert started.wait() == Exit.BROKEN_PIPE


def test_what_is_left_for_an_abandoned_output_goes_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "out").open("wb", buffering=0) as file:
        monkeypatch.setattr(sys, "stdout", file)
        abandon_stdout()
        file.write(b"what the interpreter flushes at its end")
        monkeypatch.undo()
    assert (tmp_path / "out").read_bytes() == b""


def test_the_logs_of_libraries_are_silent_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    # As in a program that does not set up logging: warnings go to stderr then.
    monkeypatch.setattr(logging.root, "handlers", [])
    with exits():
        assert len(logging.root.handlers) == 1
    assert logging.root.handlers == []


def test_remarks_are_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    note("two\nlines \x1b[31m")
    complain(CliError(Exit.USAGE, "what"))
    assert capsys.readouterr().err == "note: two lines [31m\nerror: what\n"


class Dead(io.StringIO):
    """The stderr of a terminal that was closed."""

    def write(self, text: str) -> int:
        raise OSError(5, "Input/output error")


def test_remarks_need_nobody_who_hears_them(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", Dead())
        note("what")


def test_remarks_never_go_to_the_standard_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", None)
        note("what")
    assert capsys.readouterr().out == ""


def test_a_command_without_a_standard_output_ends_well(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", None)
        with exits():
            pass


def test_what_was_closed_at_the_start_is_opened_to_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else the next file to be opened would get what goes to the standard output."""
    opened: list[str] = []

    def status(number: int) -> None:
        if number == 1:
            raise OSError(9, "Bad file descriptor")

    def open_nothing(path: str, flags: int) -> int:
        opened.append(path)
        return 1

    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", status)
        patch.setattr(os, "open", open_nothing)
        exits_module._open_standard_streams()
    assert opened == [os.devnull]


def codes_of(*command: str) -> dict[int, str]:
    """Return the exit codes in the help of a command, with what they mean."""
    result = run(*command, "--help")
    assert result.exit_code == 0
    listed = " ".join(result.stdout.partition("Exit codes:")[2].split())
    return {int(code): said for code, said in re.findall(r"(\d+) ([^;]+)", listed)}


def test_every_exit_code_is_in_the_help() -> None:
    codes = codes_of()
    assert {**codes, 1: MEANINGS[1]} == MEANINGS
    assert codes[1] == "a check of doctor or a question of probe failed, or an internal error"
    assert set(MEANINGS) == {0, *Exit}


@pytest.mark.parametrize(
    ("command", "others"),
    [
        ("transcribe", {*Exit} - {Exit.ADDRESS}),
        ("serve", {1, 2, Exit.NO_FILE, Exit.OUTPUT, Exit.ADDRESS, 130, 141}),
        ("doctor", {1, 2, Exit.OUTPUT, 130, 141}),
        ("probe", {1, 2, Exit.NO_KEY, Exit.NO_FILE, Exit.NO_AUDIO, Exit.OUTPUT, 130, 141}),
    ],
)
def test_the_help_of_a_command_has_the_codes_that_it_ends_with(
    command: str, others: set[int]
) -> None:
    codes = codes_of(command)
    assert codes.keys() == {0} | others
    own = {"doctor": {1}, "probe": {0, 1}, "serve": {0, 130}}.get(command, set())
    assert {code for code in codes if codes[code] != MEANINGS[code]} == own


def test_the_help_of_doctor_says_that_a_missing_key_is_a_failed_check() -> None:
    told = "a check failed, which can be that of the key, or an internal error"
    assert codes_of("doctor")[Exit.UNEXPECTED] == told
    assert run("doctor", "--base-url", "ws://127.0.0.1:1").exit_code == Exit.UNEXPECTED


@pytest.mark.parametrize("command", ["transcribe", "doctor", "probe"])
def test_the_help_names_both_places_of_the_key(command: str) -> None:
    shown = run(command, "--help").stdout
    assert "The key is read from TIRO_API_KEY, else TIRO_SPEECH_KEY." in shown


def test_the_key_of_the_local_server_is_left_in_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no secret, and a person would take the path for another one."""
    monkeypatch.setenv("TIRO_API_KEY", "local")
    result = run("transcribe", "/usr/local/none/a.wav")
    assert result.stderr == "error: /usr/local/none/a.wav: no such file\n"
    monkeypatch.setenv("TIRO_API_KEY", KEY)
    assert KEY not in run("transcribe", f"/none/{KEY}.wav").stderr
