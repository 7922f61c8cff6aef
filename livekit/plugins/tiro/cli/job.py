"""One run of `transcribe`: finds a service, takes each file through it, and tells of what fails."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from livekit.agents.types import NOT_GIVEN

from ..options import wire_language
from ..stt import STT
from .audio import check_readable, open_audio
from .exits import CliError, Exit, FileError, complain, note
from .formats import Format, Segment, Transcript, printable
from .hearing import Hearing
from .output import FileTarget, Output, StdoutTarget, Target, TerminalTarget
from .page import LineWatch, Recording
from .screen import Screen

# The server of `--local` listens on loopback for this run only: its key guards nothing.
_LOCAL_KEY = "local"
_NO_KEY = (
    "no key: set TIRO_API_KEY (or TIRO_SPEECH_KEY) to the one that Tiro gave you, "
    "or try --local, which needs none"
)


@dataclass(frozen=True)
class Group:
    """Files whose transcripts go to the same place."""

    output: Path | None
    """None is the standard output."""
    files: Sequence[Path]


class Job:
    """Transcribes groups of files.

    Args:
        form: The format of the transcripts.
        language: The language spoken, as a BCP-47 tag.
        base_url: Where the service is; None leaves it to the environment.
        realtime: Send the audio at the pace of speech.
        local: Use a server on this machine, started for the run.

    Attributes:
        failure: The exit code of the first file that could not be transcribed.
    """

    def __init__(
        self, form: Format, *, language: str, base_url: str | None, realtime: bool, local: bool
    ) -> None:
        self.failure: Exit | None = None
        self._form = form
        self._language = language
        self._base_url = base_url
        self._realtime = realtime
        self._local = local
        self._console = _terminal()

    async def run(self, groups: Sequence[Group]) -> None:
        """Transcribe all files.

        Raises:
            CliError: If there is no service to use, or the output cannot be written.
            APIError: If the service fails.
        """
        readable = [Group(group.output, self._readable(group.files)) for group in groups]
        if not any(group.files for group in readable):
            return
        async with self._engine() as engine:
            for group, found in zip(groups, readable, strict=True):
                target = self._target(group.output)
                with Output(target, self._form, many=len(group.files) > 1) as output:
                    for file in found.files:
                        await self._transcribe(engine, file, output)

    def _readable(self, files: Sequence[Path]) -> list[Path]:
        """Return the files that are there, and tell of the others before any work is done."""
        readable = []
        for file in files:
            try:
                check_readable(file)
            except FileError as error:
                self._fail(file, error)
            else:
                readable.append(file)
        return readable

    async def _transcribe(self, engine: STT, file: Path, output: Output) -> None:
        try:
            with open_audio(file) as audio:
                transcript = Transcript(printable(str(file)), engine.model)
                if self._form is Format.HTML:
                    transcript.recording = Recording(audio.sample_rate)
                output.begin(transcript)
                watch = LineWatch(engine, transcript)
                with Screen(self._console, audio.length) as screen, watch:
                    view = _View(screen, output)
                    await Hearing(audio, transcript, view, realtime=self._realtime).run(engine)
        except FileError as error:
            self._fail(file, error)
            return
        if audio.damaged:
            note(f"{file}: {audio.damaged} damaged piece(s) of it were skipped")
        if not transcript.segments:
            note(f"{file}: no speech was heard in it")

    def _fail(self, file: Path, error: FileError) -> None:
        complain(CliError(error.code, f"{file}: {error}"))
        self.failure = self.failure or error.code

    def _target(self, path: Path | None) -> Target:
        if path is not None:
            return FileTarget(path)
        if self._console is not None and self._console.file is sys.stdout:
            return TerminalTarget(self._console)
        return StdoutTarget()

    @asynccontextmanager
    async def _engine(self) -> AsyncIterator[STT]:
        if not self._local:
            engine = _stt(self._language, self._base_url)
            async with engine:
                yield engine
            return
        _check_local(self._language)
        from ..testing import TiroServer

        async with TiroServer(api_key=_LOCAL_KEY) as server:
            engine = _stt(self._language, server.base_url, _LOCAL_KEY)
            async with engine:
                yield engine


class _View:
    """Passes what is heard on to the screen and to the output."""

    def __init__(self, screen: Screen, output: Output) -> None:
        self._screen = screen
        self._output = output

    def interim(self, text: str) -> None:
        self._screen.show(text)

    def final(self, segment: Segment) -> None:
        self._screen.show("")
        self._output.final(segment)

    def heard(self, seconds: float) -> None:
        self._screen.heard(seconds)


def _terminal() -> Console | None:
    """Return the terminal to show progress on; None if nobody is there to see it."""
    if sys.stdout.isatty():
        return Console(file=sys.stdout)
    return Console(file=sys.stderr) if sys.stderr.isatty() else None


def _stt(language: str, base_url: str | None, key: str | None = None) -> STT:
    try:
        return STT(
            language=language,
            base_url=NOT_GIVEN if base_url is None else base_url,
            api_key=NOT_GIVEN if key is None else key,
        )
    except ValueError as error:
        if "TIRO_API_KEY" in str(error):
            raise CliError(Exit.NO_KEY, _NO_KEY) from None
        raise CliError(Exit.USAGE, str(error)) from None


def _check_local(language: str) -> None:
    """Tell what the local server can do for a language, before anybody is disappointed."""
    try:
        tag = wire_language(language)
    except ValueError as error:
        raise CliError(Exit.USAGE, str(error)) from None
    if tag.startswith("en") and importlib.util.find_spec("pocketsphinx") is None:
        raise CliError(
            Exit.MISSING_EXTRA,
            "recognising English here needs the extra 'local': "
            "pip install 'livekit-plugins-tiro[local]'",
        )
    if tag.startswith("is"):
        note("the local server does not know Icelandic: the words that follow are a script's")
