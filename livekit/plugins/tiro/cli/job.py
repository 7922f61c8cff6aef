"""One run of `transcribe`: takes each file through the service, and tells of what fails."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from livekit.agents import APIError, APITimeoutError
from livekit.agents.stt import STTError

from ..stt import STT
from .audio import AudioFile, Selection
from .exits import CliError, Exit, FileError, complain, from_api, note, unexpected
from .formats import Segment, Transcript
from .hearing import Hearing
from .output import Document, FileTarget, Output, StdoutTarget, Style, Target, TerminalTarget
from .page import LineWatch, Recording
from .plan import Group, Place, Plan
from .reader import Reader
from .screen import Screen
from .service import Service
from .signals import Interruption
from .source import check_readable

# Files in a row for which the service failed, after which no more are tried.
_MAX_FAILURES = 3
# Added to the name of a document until it is complete.
_PARTIAL = ".partial"


@dataclass(frozen=True)
class Task:
    """What is asked of a run, beyond the files."""

    service: Service
    selection: Selection = field(default_factory=Selection)
    style: Style = field(default_factory=Style)
    realtime: bool = False
    """Send the audio at the pace of speech."""
    skip_existing: bool = False
    """Leave out files whose documents are there already."""


class Job:
    """Transcribes groups of files.

    Args:
        task: What is asked for.
        interruption: Ends the run early.

    Attributes:
        failure: The exit code of the first file that could not be transcribed.
    """

    def __init__(self, task: Task, interruption: Interruption) -> None:
        self.failure: Exit | None = None
        self._task = task
        self._interruption = interruption
        self._console = _terminal()
        # Files in a row for which the service failed, and whether the run gave up because of it.
        self._failures = 0
        self._gave_up = False

    async def run(self, plan: Plan) -> None:
        """Transcribe all files.

        Raises:
            CliError: There is no service to use, or the output cannot be written.
            BrokenPipeError: Nobody reads the standard output any more.
        """
        groups = self._left_to_do(plan.groups)
        readable = [(group, self._readable(group.files)) for group in groups]
        if not any(files for _, files in readable):
            return
        _make(plan.directory)
        async with self._task.service.open() as engine:
            tried = 0
            for group, files in readable:
                tried += await self._transcribe_group(engine, group, files)
                if self._gave_up or self._interruption.came.is_set():
                    break
        left = sum(len(files) for _, files in readable) - tried
        if left:
            why = "because the service fails" if self._gave_up else "because of the interruption"
            note(f"{left} more FILEs were not tried, {why}")

    def _left_to_do(self, groups: Sequence[Group]) -> Sequence[Group]:
        if not self._task.skip_existing:
            return groups
        left = [group for group in groups if not all(_exists(place) for place in group.places)]
        if len(left) < len(groups):
            skipped = sum(len(group.files) for group in groups)
            skipped -= sum(len(group.files) for group in left)
            note(f"skipped what is done already: {skipped} FILE(s)")
        return left

    def _readable(self, files: Sequence[str]) -> list[str]:
        """Return the files that are there, and tell of the others before any work is done."""
        readable = []
        for file in files:
            try:
                check_readable(file)
            except FileError as error:
                self._fail(error, file)
            else:
                readable.append(file)
        return readable

    async def _transcribe_group(self, engine: STT, group: Group, files: Sequence[str]) -> int:
        """Transcribe the files of one group. Return how many were tried."""
        if not files:
            return 0
        try:
            output = self._output(group)
        except CliError as error:
            # A name that cannot be written is no reason to leave out the other files.
            self._fail(error)
            return len(files)
        with output:
            for tried, file in enumerate(files, 1):
                await self._transcribe(engine, file, output)
                if self._gave_up or self._interruption.came.is_set():
                    return tried
        return len(files)

    async def _transcribe(self, engine: STT, file: str, output: Output) -> None:
        try:
            async with Reader(file, self._task.selection) as reader:
                await self._hear(engine, file, reader, output)
        except FileError as error:
            self._fail(error, file)
        except APIError as error:
            self._service_failed(from_api(error), file)
        except (CliError, BrokenPipeError):
            raise
        except Exception as error:
            self._fail(unexpected(error), file)

    async def _hear(self, engine: STT, file: str, reader: Reader, output: Output) -> None:
        audio = await self._interruption.first(reader.audio())
        if audio is None:
            return
        transcript = Transcript(file, engine.model)
        if output.needs_sound:
            transcript.recording = Recording(audio.sample_rate)
        output.begin(transcript)
        with (
            Screen(self._console, audio.length) as screen,
            LineWatch(engine, transcript),
            _timeouts_told(engine, screen, file),
        ):
            view = _View(screen, output, audio.start)
            realtime = self._task.realtime
            hearing = Hearing(reader, transcript, view, self._interruption, realtime=realtime)
            is_whole = await hearing.run(engine)
        if not is_whole:
            note(f"{file}: interrupted at {transcript.duration:.1f} s")
            return
        output.done()
        self._failures = 0
        _tell(file, audio, transcript)

    def _fail(self, error: CliError, file: str | None = None) -> None:
        complain(error if file is None else CliError(error.code, f"{file}: {error}"))
        self.failure = self.failure or error.code

    def _service_failed(self, error: CliError, file: str) -> None:
        """Note a failure that this file may cause; if others in a row fail too, it does not."""
        refused = error.code is Exit.KEY_REFUSED
        self._fail(error, None if refused else file)
        self._failures += 1
        self._gave_up = refused or self._failures >= _MAX_FAILURES

    def _output(self, group: Group) -> Output:
        many = len(group.files) > 1
        targets: list[Target] = []
        try:
            targets.extend(map(self._target, group.places))
        except CliError:
            for target in targets:
                target.close(complete=False)
            raise
        documents = [
            Document(target, place.form, self._task.style, many=many)
            for target, place in zip(targets, group.places, strict=True)
        ]
        return Output(documents, len(group.files))

    def _target(self, place: Place) -> Target:
        if place.path is not None:
            whole = place.path.name + _PARTIAL
            return FileTarget(
                place.path, place.path.with_name(whole) if self._task.skip_existing else None
            )
        if self._console is not None and self._console.file is sys.stdout:
            return TerminalTarget(self._console)
        return StdoutTarget()


class _View:
    """Passes what is heard on to the screen and to the output."""

    def __init__(self, screen: Screen, output: Output, start: float) -> None:
        self._screen = screen
        self._output = output
        self._start = start

    def interim(self, text: str) -> None:
        self._screen.show(text)

    def final(self, segment: Segment) -> None:
        self._screen.show("")
        self._output.final(segment)

    def heard(self, seconds: float) -> None:
        self._screen.heard(seconds - self._start)


@contextmanager
def _timeouts_told(engine: STT, screen: Screen, file: str) -> Iterator[None]:
    """Tell of each answer that was waited for in vain: with those to come, it can take minutes."""

    def tell(error: STTError) -> None:
        if error.recoverable and isinstance(error.error, APITimeoutError):
            what, _, _ = str(from_api(error.error)).partition(". ")
            screen.note(f"{file}: {what}; trying again")

    engine.on("error", tell)
    try:
        yield
    finally:
        engine.off("error", tell)


def _tell(file: str, audio: AudioFile, transcript: Transcript) -> None:
    """Tell what the user should know about a file that was heard."""
    for remark in audio.notes:
        note(f"{file}: {remark}")
    if audio.damaged:
        note(f"{file}: {audio.damaged} damaged piece(s) of it were skipped")
    if audio.shortfall is not None:
        note(f"{file}: {audio.shortfall}")
    if not transcript.segments:
        note(f"{file}: no speech was heard in it")


def _exists(place: Place) -> bool:
    return place.path is not None and place.path.exists()


def _make(directory: Path | None) -> None:
    try:
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CliError(Exit.OUTPUT, f"cannot make {directory}: {error.strerror}") from None


def _terminal() -> Console | None:
    """Return the terminal to show progress on; None if nobody is there to see it."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and stream.isatty():
            return Console(file=stream)
    return None
