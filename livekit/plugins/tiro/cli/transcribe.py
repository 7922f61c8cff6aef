"""The `transcribe` command: its options, and which of them go together."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from enum import Enum
from typing import Annotated

import typer

from ..options import MAX_ALTERNATIVES, MAX_ENDPOINTING, MIN_ENDPOINTING
from . import signals
from .audio import Selection
from .exits import CliError, Exit, exits, note
from .formats import Format
from .job import Job, Task
from .look import FLAG
from .output import Style
from .plan import Plan, plan
from .service import Service
from .subtitles import LINE_COUNT, LINE_LENGTH, Layout

_SUBTITLES = (Format.SRT, Format.VTT)
# Hz of recordings without a header.
_MIN_RAW, _MAX_RAW = 1000, 384_000
_TIME = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d+)?)")


class Wanted(str, Enum):
    """What `--format` takes."""

    TEXT = Format.TEXT.value
    JSON = Format.JSON.value
    SRT = Format.SRT.value
    VTT = Format.VTT.value
    TSV = Format.TSV.value
    HTML = Format.HTML.value
    ALL = "all"


_Files = Annotated[
    list[str],
    typer.Argument(
        metavar="FILE...",
        help="Audio or video files of any kind; - is the standard input.",
        show_default=False,
    ),
]
_Language = Annotated[
    str,
    typer.Option("--language", "-l", metavar="TAG", help="The language spoken, as a BCP-47 tag."),
]
_Formats = Annotated[
    list[Wanted] | None,
    typer.Option(
        "--format",
        "-f",
        metavar="FORMAT",
        help="text: a line for each final. json: an object; for several FILEs an array of them. "
        "srt, vtt: subtitles. tsv: a table of times in ms and text. html: a page with the "
        "sound, to look at in a browser. all: each of them. Can be "
        "repeated. By default what --output ends in, else text.",
        show_default=False,
    ),
]
_Output = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="PATH",
        help="Write to this file instead of the standard output (-). If it is a directory or ends "
        "in /, or there is more than one document to write: to files in it, named after the FILEs.",
    ),
]


def _address(url: str | None) -> str | None:
    """Refuse an empty address, such as that of a variable that a script has not set."""
    if url is not None and not url.strip():
        raise typer.BadParameter("it is empty. Give an address, or leave the option out")
    return url


BaseUrl = Annotated[
    str | None,
    typer.Option(
        "--base-url",
        metavar="URL",
        callback=_address,
        help="Where the service is; else TIRO_BASE_URL, else Tiro's own address.",
    ),
]
# Of the commands that ask for one language.
Language = Annotated[
    str,
    typer.Option(
        "--language", "-l", metavar="TAG", help="The language to ask for, as a BCP-47 tag."
    ),
]
_Realtime = Annotated[
    bool,
    typer.Option("--realtime", metavar=FLAG, help="Send the audio at the pace of live speech."),
]
_Local = Annotated[
    bool,
    typer.Option(
        "--local",
        metavar=FLAG,
        help="Start a server on this machine for the run: no key, no network. It recognises "
        "en-US (needs the extra 'local'); for Icelandic it says the words of a script.",
    ),
]
_Start = Annotated[
    str | None,
    typer.Option("--start", metavar="TIME", help="Begin at this time: 90, 1:30 or 1:02:03.5."),
]
_End = Annotated[str | None, typer.Option("--end", metavar="TIME", help="End at this time.")]
_Track = Annotated[
    int | None,
    typer.Option(
        "--track",
        min=1,
        metavar="N",
        help="Hear this audio track; by default the file's own default, unless it is silent.",
    ),
]
_Channel = Annotated[
    int | None,
    typer.Option("--channel", min=1, metavar="N", help="Hear this channel instead of all mixed."),
]
_Raw = Annotated[
    int | None,
    typer.Option(
        "--raw",
        min=_MIN_RAW,
        max=_MAX_RAW,
        metavar="RATE",
        help="The FILEs are PCM without a header: 16-bit little-endian mono of this many Hz.",
    ),
]
_Skip = Annotated[
    bool,
    typer.Option(
        "--skip-existing",
        metavar=FLAG,
        help="Leave out FILEs whose documents are there, so that a run can be taken up again. Give "
        "it in the first run too: then an unfinished document ends in .partial. Without it, an "
        "unfinished one has its full name, and would be left out as well.",
    ),
]
_Timestamps = Annotated[
    bool,
    typer.Option("--timestamps", metavar=FLAG, help="text: begin each line with its time."),
]
_Width = Annotated[
    int | None,
    typer.Option(
        "--max-line-width",
        min=1,
        metavar="N",
        help=f"srt, vtt: characters in a line; by default {LINE_LENGTH}.",
    ),
]
_Lines = Annotated[
    int | None,
    typer.Option(
        "--max-line-count",
        min=1,
        metavar="N",
        help=f"srt, vtt: lines in a subtitle; by default {LINE_COUNT}.",
    ),
]
_WordCues = Annotated[
    bool,
    typer.Option(
        "--word-cues",
        metavar=FLAG,
        help="srt, vtt: a subtitle for each word, while it is said.",
    ),
]
_Alternatives = Annotated[
    int | None,
    typer.Option(
        "--max-alternatives",
        min=1,
        max=MAX_ALTERNATIVES,
        metavar="N",
        help="Ask for up to N readings of each final; json has them.",
    ),
]
_Diarize = Annotated[bool, typer.Option("--diarize", metavar=FLAG, help="Tell speakers apart.")]
_NoPunctuate = Annotated[
    bool, typer.Option("--no-punctuate", metavar=FLAG, help="No punctuation and no capitals.")
]
_Endpointing = Annotated[
    float | None,
    typer.Option(
        "--endpointing",
        min=MIN_ENDPOINTING,
        max=MAX_ENDPOINTING,
        metavar="SECONDS",
        help="End an utterance after this much silence; by default the service decides.",
    ),
]


def transcribe(
    files: _Files,
    language: _Language = "is-IS",
    formats: _Formats = None,
    output: _Output = None,
    base_url: BaseUrl = None,
    realtime: _Realtime = False,
    local: _Local = False,
    start: _Start = None,
    end: _End = None,
    track: _Track = None,
    channel: _Channel = None,
    raw: _Raw = None,
    skip_existing: _Skip = False,
    timestamps: _Timestamps = False,
    max_line_width: _Width = None,
    max_line_count: _Lines = None,
    word_cues: _WordCues = False,
    max_alternatives: _Alternatives = None,
    diarize: _Diarize = False,
    no_punctuate: _NoPunctuate = False,
    endpointing: _Endpointing = None,
) -> None:
    """Write down what is said in audio or video files.

    The key is read from TIRO_API_KEY, else TIRO_SPEECH_KEY.

    A FILE that cannot be transcribed is reported, and the others are done.

    If the run is cut short, what was heard until then is written.
    """
    with exits():
        if local and base_url is not None:
            raise CliError(Exit.USAGE, "--local and --base-url exclude each other")
        planned = plan(files, _forms(formats or ()), output)
        places = [place for group in planned.groups for place in group.places]
        if skip_existing and any(place.path is None for place in places):
            raise CliError(Exit.USAGE, "--skip-existing needs --output, for files to look for")
        forms = {place.form for place in places}
        to_screen = any(place.path is None and place.form is Format.HTML for place in places)
        if to_screen and sys.stdout is not None and sys.stdout.isatty():
            raise CliError(Exit.USAGE, "a page is for a browser: name its file with --output")
        settings = {
            "max_alternatives": max_alternatives,
            "diarization": diarize or None,
            "punctuate": False if no_punctuate else None,
            "endpointing": endpointing,
        }
        given = {name: value for name, value in settings.items() if value is not None}
        task = Task(
            Service(language, base_url, local, given),
            _selection(track, channel, start, end, raw),
            _style(forms, timestamps, max_line_width, max_line_count, word_cues),
            realtime,
            skip_existing,
        )
        _run(task, planned)


def _run(task: Task, planned: Plan) -> None:
    if planned.remark:
        note(planned.remark)
    jobs: list[Job] = []

    async def main(interruption: signals.Interruption) -> None:
        jobs.append(Job(task, interruption))
        await jobs[0].run(planned)

    code = signals.run(main)
    if code is None and jobs:
        code = jobs[0].failure
    if code is not None:
        raise typer.Exit(code)


def _forms(given: Sequence[Wanted]) -> list[Format]:
    if Wanted.ALL in given:
        return list(Format)
    return [Format(wanted.value) for wanted in given]


def _style(
    forms: set[Format], timestamps: bool, width: int | None, count: int | None, word_cues: bool
) -> Style:
    """Return how the documents look.

    Raises:
        CliError: An option was given that is of no use to any of them.
    """
    asked = {
        "--timestamps": (timestamps, (Format.TEXT,)),
        "--max-line-width": (width is not None, _SUBTITLES),
        "--max-line-count": (count is not None, _SUBTITLES),
        "--word-cues": (word_cues, _SUBTITLES),
    }
    for option, (given, useful) in asked.items():
        if given and forms.isdisjoint(useful):
            names = " or ".join(form.value for form in useful)
            raise CliError(Exit.USAGE, f"{option} is for --format {names}")
    layout = Layout(
        LINE_LENGTH if width is None else width, LINE_COUNT if count is None else count, word_cues
    )
    return Style(timestamps, layout)


def _selection(
    track: int | None, channel: int | None, start: str | None, end: str | None, raw: int | None
) -> Selection:
    first = 0.0 if start is None else _seconds("--start", start)
    last = None if end is None else _seconds("--end", end)
    if last is not None and last <= first:
        raise CliError(Exit.USAGE, "--end must be later than --start")
    return Selection(track, channel, first, last, raw)


def _seconds(option: str, time: str) -> float:
    wrong = f"{option} must be a time like 90, 1:30 or 1:02:03.5, not '{time}'"
    match = _TIME.fullmatch(time.strip())
    if match is None:
        raise CliError(Exit.USAGE, wrong)
    hours, minutes, seconds = match.groups(default="0")
    if (match[1] and int(minutes) >= 60) or (match[2] and float(seconds) >= 60):
        raise CliError(Exit.USAGE, f"{wrong}: what comes after a colon must be below 60")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
