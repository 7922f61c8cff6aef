"""The command line, `python -m livekit.plugins.tiro`: typer's application and its commands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated

import typer

from ..version import __version__
from .doctor import doctor
from .exits import MEANINGS, Exit, writing
from .look import FLAG, Command, Group
from .probe import probe
from .serve import serve
from .transcribe import transcribe


def _exit_codes(codes: Iterable[int], own: Mapping[int, str] | None = None) -> str:
    """Return the help text on exit codes; `own` replaces the meanings that one command changes."""
    meanings = {**MEANINGS, **(own or {})}
    # Typer shows the lines as they are; its older versions join them.
    return "Exit codes:\n" + ";\n".join(f"{code:d} {meanings[code]}" for code in codes)


_ENDED = (Exit.INTERRUPTED, Exit.BROKEN_PIPE)
_OF_FILES = (Exit.NO_FILE, Exit.NO_AUDIO, Exit.OUTPUT)
_TRANSCRIBE = _exit_codes(code for code in MEANINGS if code != Exit.ADDRESS)
_SERVE = _exit_codes(
    [0, Exit.UNEXPECTED, Exit.USAGE, Exit.NO_FILE, Exit.OUTPUT, Exit.ADDRESS, *_ENDED],
    {
        0: "all went well, as when a server that listens is stopped by Ctrl-C, SIGTERM or SIGHUP",
        Exit.INTERRUPTED: "interrupted (Ctrl-C) before it listened",
    },
)
_DOCTOR = _exit_codes(
    [0, Exit.UNEXPECTED, Exit.USAGE, Exit.OUTPUT, *_ENDED],
    {1: "a check failed, which can be that of the key, or an internal error"},
)
_PROBE = _exit_codes(
    [0, Exit.UNEXPECTED, Exit.USAGE, Exit.NO_KEY, *_OF_FILES, *_ENDED],
    {
        0: "every question has an answer, whatever it is",
        1: "something could not be measured, or an internal error",
    },
)

app = typer.Typer(
    cls=Group,
    help="Tiro's Icelandic speech recognition: transcribe files, run a local server, find faults, "
    "measure the service.",
    epilog=_exit_codes(
        MEANINGS,
        {1: "a check of doctor or a question of probe failed, or an internal error"},
    ),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        with writing():
            print(f"livekit-plugins-tiro {__version__}")
        raise typer.Exit


_Version = Annotated[
    bool,
    typer.Option(
        "--version",
        metavar=FLAG,
        is_eager=True,
        callback=_show_version,
        help="Show the version and exit.",
    ),
]


@app.callback()
def _main(version: _Version = False) -> None:
    pass


app.command(cls=Command, epilog=_TRANSCRIBE)(transcribe)
app.command(cls=Command, epilog=_SERVE)(serve)
app.command(cls=Command, epilog=_DOCTOR)(doctor)
app.command(cls=Command, epilog=_PROBE)(probe)
