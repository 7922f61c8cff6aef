"""Where transcripts go: finals of a text as they come, the other formats when they are complete."""

from __future__ import annotations

import os
import stat
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.text import Text

from .exits import CliError, Exit, abandon_stdout
from .formats import Format, Segment, Transcript, render


class Target(Protocol):
    """A place that text is written to."""

    def write(self, text: str) -> None:
        """Write whole lines, so that they are seen at once."""

    def close(self) -> None:
        """Let go of the place."""


class StdoutTarget:
    """The standard output, when it is not a terminal."""

    def write(self, text: str) -> None:
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            abandon_stdout()
            raise CliError(Exit.OUTPUT, f"cannot write: {error.strerror}") from None

    def close(self) -> None:
        """Nothing to let go of."""


class TerminalTarget:
    """A terminal: what is written goes above whatever the console keeps on its last lines."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def write(self, text: str) -> None:
        self._console.print(Text(text), end="", soft_wrap=True)

    def close(self) -> None:
        """Nothing to let go of."""


class FileTarget:
    """A file, opened early so that a place that cannot be written is known before the work.

    What it held stays until the first write; if there is none, a file made here is removed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written = False
        try:
            self._made = not path.exists()
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
        except OSError as error:
            raise self._error(error) from None

    def write(self, text: str) -> None:
        try:
            if not self._written and stat.S_ISREG(os.fstat(self._fd).st_mode):
                os.ftruncate(self._fd, 0)
            self._written = True
            data = memoryview(text.encode())
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError as error:
            raise self._error(error) from None

    def close(self) -> None:
        os.close(self._fd)
        if self._made and not self._written:
            with suppress(OSError):
                self._path.unlink()

    def _error(self, error: OSError) -> CliError:
        return CliError(Exit.OUTPUT, f"cannot write {self._path}: {error.strerror}")


class Output:
    """Writes the transcripts of one or more files to one target, in one format.

    As a context manager it closes the target, and writes what was collected before a failure.
    """

    def __init__(self, target: Target, form: Format, *, many: bool) -> None:
        self._target = target
        self._form = form
        self._streams = form is Format.TEXT
        self._many = many
        self._collected: list[Transcript] = []

    def begin(self, transcript: Transcript) -> None:
        """Say that the finals of another file follow."""
        self._collected.append(transcript)
        if self._streams and self._many:
            blank = "\n" if len(self._collected) > 1 else ""
            self._target.write(f"{blank}==> {transcript.file} <==\n")

    def final(self, segment: Segment) -> None:
        """Take the next final of the file begun last, which is in its transcript already."""
        if self._streams:
            self._target.write(f"{segment.text}\n")

    def __enter__(self) -> Output:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            heard = [item for item in self._collected if item.complete or item.segments]
            if heard:
                text = "" if self._streams else render(self._form, heard, many=self._many)
                self._target.write(text)
        finally:
            self._target.close()
