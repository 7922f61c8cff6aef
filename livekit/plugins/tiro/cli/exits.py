"""How a command ends: one exit code and one line a person can act on for every way it can fail."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from enum import IntEnum
from pathlib import Path

import typer

from livekit.agents import APIError, APIStatusError

from ..environment import EITHER_KEY, KEY_VARIABLES
from ..errors import Redactor
from .formats import printable
from .wording import in_options

LOCAL_KEY = "local"
"""The key of the local server, unless another is given. It guards nothing."""


class Exit(IntEnum):
    """The exit codes. They are part of the command line's interface."""

    UNEXPECTED = 1
    USAGE = 2
    NO_KEY = 3
    NO_FILE = 4
    NO_AUDIO = 5
    KEY_REFUSED = 6
    UNREACHABLE = 7
    SERVICE = 8
    OUTPUT = 9
    MISSING_EXTRA = 10
    ADDRESS = 11
    HUNG_UP = 129
    INTERRUPTED = 130
    BROKEN_PIPE = 141
    TERMINATED = 143


MEANINGS = {
    0: "all went well",
    Exit.UNEXPECTED: "internal error",
    Exit.USAGE: "the command line is wrong",
    Exit.NO_KEY: f"no key ({EITHER_KEY})",
    Exit.NO_FILE: "no such file, or not readable",
    Exit.NO_AUDIO: "no audio in the file, or not decodable",
    Exit.KEY_REFUSED: "the service refused the key",
    Exit.UNREACHABLE: "the service cannot be reached",
    Exit.SERVICE: "the service refused the request, or failed",
    Exit.OUTPUT: "the output cannot be written",
    Exit.MISSING_EXTRA: "an optional part is not installed",
    Exit.ADDRESS: "serve: cannot listen at that address",
    Exit.HUNG_UP: "the terminal was closed (SIGHUP)",
    Exit.INTERRUPTED: "interrupted (Ctrl-C)",
    Exit.BROKEN_PIPE: "the reader of the output went away",
    Exit.TERMINATED: "terminated (SIGTERM)",
}
"""What `--help` says about each exit code."""


# How the plugin's messages begin, for errors whose type does not tell the exit code: the framework
# has one type for all failures to connect, and a proxy refuses with a status as a service does.
_BY_MESSAGE = {
    "could not connect to Tiro": Exit.UNREACHABLE,
    "no connection to Tiro": Exit.UNREACHABLE,
    "the proxy on the way to Tiro": Exit.UNREACHABLE,
    "unexpected ": Exit.UNEXPECTED,
}


class CliError(Exception):
    """A failure that the user can do something about.

    Args:
        code: The exit code.
        message: One line: what is wrong, and what to do unless that is obvious.
    """

    def __init__(self, code: Exit, message: str) -> None:
        super().__init__(message)
        self.code = code


class FileError(CliError):
    """A failure that concerns one input file; the others can still be transcribed."""


def complain(error: CliError) -> None:
    """Write the error's line to stderr."""
    _say(f"error: {printable(redact(str(error)))}")


def note(text: str) -> None:
    """Write a remark to stderr that is not an error."""
    _say(f"note: {printable(text)}")


def _say(line: str) -> None:
    # Without a stderr, `print` would write to the standard output. And a terminal that was closed
    # is no reason to lose what was heard.
    if sys.stderr is not None:
        with suppress(OSError):
            print(line, file=sys.stderr, flush=True)


def from_api(error: APIError, *, without: Collection[str] = ()) -> CliError:
    """Return what a failure of the service means for the user.

    Args:
        error: The failure.
        without: Settings that are no options of the command: advice does not list them.
    """
    # The framework wraps the last failure in "failed to recognize speech after n attempts".
    while isinstance(error.__cause__, APIError):
        error = error.__cause__
    return CliError(_code_of(error), in_options(error.message, without=without))


def _code_of(error: APIError) -> Exit:
    for beginning, code in _BY_MESSAGE.items():
        if error.message.startswith(beginning):
            return code
    refused = isinstance(error, APIStatusError) and error.status_code in (401, 403)
    return Exit.KEY_REFUSED if refused else Exit.SERVICE


@contextmanager
def exits() -> Iterator[None]:
    """Run a command's body: turn each failure into its line on stderr and its exit code.

    Output is UTF-8 whatever the locale says, and the logs of the libraries are silent: what they
    have to say is in the error line.

    Raises:
        typer.Exit: With the code, if the body failed.
    """
    _open_standard_streams()
    _speak_utf8()
    silence = logging.NullHandler()
    logging.getLogger().addHandler(silence)
    with told():
        try:
            yield
            with writing():
                pass
        except APIError as error:
            raise from_api(error) from None
        except KeyboardInterrupt:
            raise typer.Exit(Exit.INTERRUPTED) from None
        except (CliError, BrokenPipeError, typer.Exit):
            raise
        except Exception as error:
            raise unexpected(error) from None
        finally:
            logging.getLogger().removeHandler(silence)


@contextmanager
def told() -> Iterator[None]:
    """Turn a failure that has an exit code into its line on stderr and the end of the command.

    Raises:
        typer.Exit: With the code.
    """
    try:
        yield
    except CliError as error:
        complain(error)
        raise typer.Exit(error.code) from None
    except BrokenPipeError:
        abandon_stdout()
        raise typer.Exit(Exit.BROKEN_PIPE) from None


@contextmanager
def writing() -> Iterator[None]:
    """Write to the standard output, so that all of it is written at the end of the block.

    Raises:
        BrokenPipeError: Nobody reads it any more.
        CliError: It cannot be written.
    """
    try:
        yield
        # Python has none if it was closed when the program started.
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        abandon_stdout()
        raise CliError(Exit.OUTPUT, f"cannot write: {error.strerror}") from None
    except SystemExit as end:
        # This is how rich ends a program when the reader of its output went away.
        if isinstance(end.__context__, BrokenPipeError):
            raise BrokenPipeError from None
        raise


def abandon_stdout() -> None:
    """Send what is left in stdout's buffer nowhere, so that the interpreter's exit is quiet."""
    with suppress(OSError):
        stdout = sys.stdout.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stdout)
        os.close(nowhere)


def unexpected(error: Exception) -> CliError:
    """Return the message to the user for an internal error."""
    return CliError(
        Exit.UNEXPECTED, f"unexpected {type(error).__name__}: {error}. Please report this."
    )


def _open_standard_streams() -> None:
    """Open the null device in place of each standard stream that was closed at the start.

    Else the next file to be opened would be the standard output or error, and would get what the
    libraries write there.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is taken.
            os.open(os.devnull, os.O_RDWR)


def _speak_utf8() -> None:
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(encoding="utf-8", errors="replace")


def advice_to_make(folder: Path) -> str:
    """Return what to add to an error if a folder is not there; nothing if it is."""
    return "" if folder.exists() else f" (make {folder} first)"


def redact(text: str) -> str:
    """Take the keys of the environment out of a text, in case one got into it."""
    for name in KEY_VARIABLES:
        key = os.environ.get(name, "").strip()
        # It is in paths such as /usr/local.
        if key and key != LOCAL_KEY:
            text = Redactor(key)(text)
    return text
