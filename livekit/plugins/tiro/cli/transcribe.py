"""The `transcribe` command: what it accepts, and which transcript goes where."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from .exits import CliError, Exit, exits
from .formats import Format
from .job import Group, Job

_Files = Annotated[
    list[Path], typer.Argument(metavar="FILE", help="Audio or video files of any kind.")
]
_Language = Annotated[
    str, typer.Option("--language", "-l", help="The language spoken, as a BCP-47 tag.")
]
_Format = Annotated[
    Format,
    typer.Option(
        "--format",
        "-f",
        help="text: a line for each final. json: an object; for several FILEs an array of them. "
        "srt, vtt: subtitles. html: a page with the sound, to look at in a browser.",
    ),
]
_Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="Write to this file instead of the standard output; if it is a directory, to a file "
        "in it for each FILE.",
    ),
]
BaseUrl = Annotated[
    str | None,
    typer.Option(
        "--base-url", help="Where the service is; else TIRO_BASE_URL, else Tiro's own address."
    ),
]
_Realtime = Annotated[
    bool, typer.Option("--realtime", help="Send the audio at the pace of live speech.")
]
_Local = Annotated[
    bool,
    typer.Option(
        "--local",
        help="Start a server on this machine for the run: no key, no network. It recognises "
        "en-US (needs the extra 'local'); for Icelandic it says the words of a script.",
    ),
]


def transcribe(
    files: _Files,
    language: _Language = "is-IS",
    form: _Format = Format.TEXT,
    output: _Output = None,
    base_url: BaseUrl = None,
    realtime: _Realtime = False,
    local: _Local = False,
) -> None:
    """Write down what is said in audio or video files.

    The key is read from TIRO_API_KEY, else TIRO_SPEECH_KEY.

    A FILE that cannot be transcribed is reported, and the others are done.

    If the run is cut short, what was heard until then is written.
    """
    with exits():
        if local and base_url is not None:
            raise CliError(Exit.USAGE, "--local and --base-url exclude each other")
        if form is Format.HTML and output is None and sys.stdout.isatty():
            raise CliError(Exit.USAGE, "a page is for a browser: name its file with --output")
        groups = plan(files, form, output)
        job = Job(form, language=language, base_url=base_url, realtime=realtime, local=local)
        asyncio.run(job.run(groups))
        if job.failure is not None:
            raise typer.Exit(job.failure)


def plan(files: Sequence[Path], form: Format, output: Path | None) -> list[Group]:
    """Decide which transcript goes where.

    Raises:
        CliError: If one place would get what needs two, or is one of the files.
    """
    if output is not None and output.is_dir():
        groups = [Group(output / f"{file.stem}{form.suffix}", [file]) for file in files]
    elif len(files) > 1 and form in (Format.SRT, Format.VTT, Format.HTML):
        raise CliError(
            Exit.USAGE,
            f"--format {form.value} makes one document of each FILE: "
            "with several of them, --output must be a directory that exists",
        )
    else:
        groups = [Group(output, files)]
    places = [group.output for group in groups if group.output is not None]
    for place in places:
        if places.count(place) > 1:
            raise CliError(Exit.USAGE, f"two of the FILEs would be written to {place}")
        if place.is_file() and any(file.is_file() and file.samefile(place) for file in files):
            raise CliError(Exit.USAGE, f"{place} is one of the FILEs and would be overwritten")
    return groups
