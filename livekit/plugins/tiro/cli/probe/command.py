"""The `probe` command: what it asks before it starts, and what it prints and writes."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from livekit.agents import APIError

from ...environment import EITHER_KEY, key_of_environment, url_of_environment
from ...options import DEFAULT_BASE_URL, Options
from ...reach import new_http_session
from ..exits import CliError, Exit, advice_to_make, complain, exits, from_api, note, writing
from ..look import FLAG
from ..plan import is_named_as_recording
from ..screen import Screen
from ..transcribe import BaseUrl, Language
from ..wording import OF_TRANSCRIBE, in_options
from .lab import Lab, Probe
from .plan import cost, measure, plan
from .refusals import check_in
from .report import Report, console_for
from .sample import Sample, own_sample, sample_from

_Speech = Annotated[
    Path | None,
    typer.Option(
        "--speech",
        metavar="FILE",
        help="Speech to send in place of the package's own sample; at most 6 s of it are used.",
    ),
]
_Limits = Annotated[
    float | None,
    typer.Option(
        "--limits",
        metavar="MINUTES",
        min=0.1,
        max=120.0,
        help="Also look for limits of idle time and length, for up to this many minutes; that "
        "sends twice as many minutes of audio.",
    ),
]
_Json = Annotated[
    Path | None,
    typer.Option(
        "--json",
        metavar="FILE",
        help="Also write the findings to this file, for an issue: no key, no host, and no words "
        "but the sample's own.",
    ),
]
_WithHost = Annotated[
    bool, typer.Option("--with-host", metavar=FLAG, help="Name the address in the JSON.")
]
_Yes = Annotated[bool, typer.Option("--yes", "-y", metavar=FLAG, help="Start without asking.")]


def probe(
    base_url: BaseUrl = None,
    language: Language = "is-IS",
    speech: _Speech = None,
    limits: _Limits = None,
    json: _Json = None,
    with_host: _WithHost = False,
    yes: _Yes = False,
) -> None:
    """Measure how the service behaves where the plugin can only assume it.

    Each line is a question, with what was seen; a run takes some two minutes.

    The key is read from TIRO_API_KEY, else TIRO_SPEECH_KEY.

    If the run is cut short, what is known by then is shown.
    """
    with exits():
        options = _options(base_url, language)
        sample = own_sample() if speech is None else sample_from(speech)
        probes = plan(limits)
        _check_writable(json)
        _ask(f"{cost(probes, sample)}{_time(limits)}", yes)
        report = Report(
            options.language, "given" if speech else "own", _service(options, with_host)
        )
        try:
            asyncio.run(_Run(options, sample, probes, report).main())
        except APIError as error:
            complain(from_api(error, without=OF_TRANSCRIBE))
            note(
                "nothing was measured; `python -m livekit.plugins.tiro doctor` looks for the fault"
            )
        finally:
            _deliver(report, json)
        if not report.is_measured:
            raise typer.Exit(1)


def _options(base_url: str | None, language: str) -> Options:
    """Return the settings of the calls.

    Raises:
        CliError: There is no key, or a value cannot be right.
    """
    try:
        found = key_of_environment()
        if found is None:
            raise CliError(Exit.NO_KEY, f"no key: set {EITHER_KEY} to the one that Tiro gave you")
        url = url_of_environment() or DEFAULT_BASE_URL if base_url is None else base_url
        return Options(api_key=found[1], base_url=url, language=language)
    except ValueError as error:
        raise CliError(Exit.USAGE, in_options(str(error))) from None


def _service(options: Options, with_host: bool) -> str:
    """Say which service it is; give its address only if that is asked for."""
    if with_host:
        return options.base_url
    return "Tiro's own address" if options.base_url == DEFAULT_BASE_URL else "another address"


def _time(limits: float | None) -> str:
    return ", some two minutes" if limits is None else f", some {2 + limits:.0f} minutes"


def _ask(plan: str, yes: bool) -> None:
    """Say what the probes will use, and ask whether to start.

    Raises:
        CliError: There is nobody to ask.
        typer.Exit: The answer is no.
    """
    note(plan)
    if yes:
        return
    if not sys.stdin.isatty():
        raise CliError(Exit.USAGE, "there is no terminal to ask at: --yes starts without asking")
    if not typer.confirm("Start?", err=True):
        raise typer.Exit(0)


def _check_writable(path: Path | None) -> None:
    """Raise CliError if the file cannot be written: else minutes of work would be for nothing."""
    if path is None:
        return
    if is_named_as_recording(path):
        raise CliError(
            Exit.USAGE,
            f"--json {path} has the name of a recording: name another file, such as "
            f"{path.with_suffix('.json')}",
        )
    place = path if path.exists() else path.parent
    if path.is_dir() or not os.access(place, os.W_OK):
        advice = advice_to_make(path.parent)
        raise CliError(Exit.OUTPUT, f"--json {path}: no file can be written there{advice}")


def _deliver(report: Report, path: Path | None) -> None:
    """Print what is known, and write it to the file."""
    if not report.rows:
        return
    try:
        with writing():
            report.print(console_for(sys.stdout))
    finally:
        _write(report, path)


def _write(report: Report, path: Path | None) -> None:
    if path is not None:
        try:
            path.write_text(report.as_json(), encoding="utf-8")
        except OSError as error:
            text = f"--json {path}: cannot be written: {error.strerror}"
            raise CliError(Exit.OUTPUT, text) from None


@dataclass(frozen=True)
class _Run:
    """One run of all probes."""

    options: Options
    sample: Sample
    probes: Sequence[Probe]
    report: Report

    async def main(self) -> None:
        """Make the probes.

        Raises:
            APIError: The service cannot be reached, or refuses the key.
        """
        seconds = sum(probe.audio(self.sample) for probe in self.probes)
        async with new_http_session(self.options.url) as http:
            lab = Lab(http, self.options, self.sample)
            await check_in(lab)
            console = Console(stderr=True) if sys.stderr.isatty() else None
            with Screen(console, seconds) as screen:
                await measure(lab, self.probes, self.report, _progress(screen, lab))


def _progress(screen: Screen, lab: Lab) -> Callable[[str], None]:
    def show(line: str) -> None:
        screen.heard(lab.used)
        screen.show(line)

    return show
