"""The command line, `python -m livekit.plugins.tiro`: typer's application and its commands."""

from __future__ import annotations

from typing import Annotated

import typer

from ..version import __version__
from .doctor import doctor
from .exits import MEANINGS
from .look import FLAG, Command, Group
from .probe import probe
from .serve import serve
from .transcribe import transcribe

# Typer shows the lines as they are; its older versions join them.
_EPILOG = "Exit codes:\n" + ";\n".join(f"{code:d} {what}" for code, what in MEANINGS.items())

app = typer.Typer(
    cls=Group,
    help="Tiro's Icelandic speech recognition: transcribe files, run a local server, find faults, "
    "measure the service.",
    epilog=_EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
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


app.command(cls=Command, epilog=_EPILOG)(transcribe)
app.command(cls=Command, epilog=_EPILOG)(serve)
app.command(cls=Command, epilog="Exit codes:\n0 all went well;\n1 a check failed")(doctor)
app.command(
    cls=Command,
    epilog="Exit codes:\n0 every question has an answer, whatever it is;\n"
    "1 something could not be measured;\n130 interrupted (Ctrl-C)",
)(probe)
