"""Where transcripts go: finals of a text as they come, the other formats when they are complete."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.text import Text

from .exits import CliError, Exit, advice_to_make, writing
from .formats import (
    Format,
    Segment,
    Transcript,
    json_document,
    printable,
    text_line,
    tsv_document,
)
from .signals import uninterrupted
from .subtitles import Layout, srt_document, vtt_document


@dataclass(frozen=True)
class Style:
    """How documents are written, beyond their format."""

    timestamps: bool = False
    """Whether lines of text start with their time."""
    layout: Layout = field(default_factory=Layout)
    """How subtitles are laid out."""


class Target(Protocol):
    """A place that text is written to."""

    def write(self, text: str) -> None:
        """Write whole lines, so that they are seen at once."""

    def close(self, *, complete: bool) -> None:
        """Let go of the place, once all was written or nothing more will be."""


class StdoutTarget:
    """The standard output, when it is not a terminal.

    Raises:
        CliError: It is closed.
    """

    def __init__(self) -> None:
        # Python has none if it was closed when the program started.
        if sys.stdout is None:
            raise CliError(
                Exit.OUTPUT, "cannot write: the standard output is closed; --output names a file"
            )

    def write(self, text: str) -> None:
        with writing():
            sys.stdout.write(text)

    def close(self, *, complete: bool) -> None:
        """Do nothing: there is nothing to close."""


class TerminalTarget:
    """A terminal: what is written goes above whatever the console keeps on its last lines."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def write(self, text: str) -> None:
        with writing():
            self._console.print(Text(text), end="", soft_wrap=True)

    def close(self, *, complete: bool) -> None:
        """Do nothing: there is nothing to close."""


class FileTarget:
    """A file, opened early so that a place that cannot be written is known before the work.

    What it held stays until the first write; if there is none, a file made here is removed.

    Args:
        path: Where it is.
        partial: Where to write until it is complete; None writes to `path` at once.

    Raises:
        CliError: It cannot be written.
    """

    def __init__(self, path: Path, partial: Path | None = None) -> None:
        self._path = path
        self._place = partial or path
        self._written = False
        try:
            self._made = not self._place.exists()
            self._fd = os.open(self._place, os.O_WRONLY | os.O_CREAT, 0o666)
        except OSError as error:
            raise self._error(error) from None

    def write(self, text: str) -> None:
        try:
            if not self._written and stat.S_ISREG(os.fstat(self._fd).st_mode):
                os.ftruncate(self._fd, 0)
            self._written = True
            data = memoryview(text.encode("utf-8", "replace"))
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError as error:
            raise self._error(error) from None

    def close(self, *, complete: bool) -> None:
        os.close(self._fd)
        if not self._written:
            if self._made:
                with suppress(OSError):
                    self._place.unlink()
        elif complete and self._place != self._path:
            try:
                self._place.replace(self._path)
            except OSError as error:
                raise self._error(error) from None

    def _error(self, error: OSError) -> CliError:
        is_gone = isinstance(error, FileNotFoundError)
        advice = advice_to_make(self._place.parent) if is_gone else ""
        return CliError(Exit.OUTPUT, f"cannot write {self._place}: {error.strerror}{advice}")


class Document:
    """One document: the transcripts of one or more files, in one format, at one place.

    Args:
        target: The place.
        form: The format.
        style: How it looks.
        many: Whether it is for more than one file.
    """

    def __init__(self, target: Target, form: Format, style: Style, *, many: bool) -> None:
        self._target = target
        self._form = form
        self._style = style
        self._many = many
        self._begun = False

    def begin(self, transcript: Transcript) -> None:
        """Say that the finals of another file follow."""
        if self._form is Format.TEXT and self._many:
            blank = "\n" if self._begun else ""
            self._target.write(f"{blank}==> {printable(transcript.file)} <==\n")
        self._begun = True

    def final(self, segment: Segment) -> None:
        """Take the next final of the file begun last, which is in its transcript already."""
        if self._form is Format.TEXT:
            self._target.write(text_line(segment, timestamps=self._style.timestamps))

    def finish(self, transcripts: Sequence[Transcript], *, complete: bool) -> None:
        """Write what waited for the end, and let go of the place.

        Args:
            transcripts: What was heard; without any, nothing is written.
            complete: Whether that is all.
        """
        try:
            if transcripts:
                self._target.write(self._render(transcripts))
        finally:
            self._target.close(complete=complete)

    def _render(self, transcripts: Sequence[Transcript]) -> str:
        match self._form:
            case Format.TEXT:
                # It was written segment by segment.
                return ""
            case Format.JSON:
                return json_document(transcripts, many=self._many)
            case Format.SRT:
                return srt_document(transcripts[0], self._style.layout)
            case Format.VTT:
                return vtt_document(transcripts[0], self._style.layout)
            case Format.TSV:
                return tsv_document(transcripts[0])
            case Format.HTML:
                return _page(transcripts[0])

    @property
    def needs_sound(self) -> bool:
        """Whether it needs the recording of the file."""
        return self._form is Format.HTML


def _page(transcript: Transcript) -> str:
    # Imported only here: it loads the encoder of the sound, which no other format needs.
    from .page import render_page

    assert transcript.recording is not None
    return render_page(transcript, transcript.recording.finish(), transcript.events)


class Output:
    """The documents of a group of files.

    As a context manager it finishes them, also after a failure: what was heard until then is in
    them.

    Args:
        documents: Where each transcript goes.
        files: How many files there are in the group.
    """

    def __init__(self, documents: Sequence[Document], files: int) -> None:
        self.needs_sound = any(document.needs_sound for document in documents)
        """Whether any of them needs the recording of a file."""
        self._documents = documents
        self._files = files
        self._transcripts: list[Transcript] = []
        # By identity: the transcripts of two files can be equal.
        self._done: set[int] = set()

    def begin(self, transcript: Transcript) -> None:
        """Say that the finals of another file follow."""
        self._transcripts.append(transcript)
        for document in self._documents:
            document.begin(transcript)

    def final(self, segment: Segment) -> None:
        """Take the next final of the file begun last, which is in its transcript already."""
        for document in self._documents:
            document.final(segment)

    def done(self) -> None:
        """Say that the file begun last was heard to its end."""
        self._done.add(id(self._transcripts[-1]))

    def __enter__(self) -> Output:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        heard = [item for item in self._transcripts if item.segments or id(item) in self._done]
        complete = len(self._done) == self._files
        with uninterrupted, ExitStack() as stack:
            for document in reversed(self._documents):
                # One that cannot be written does not keep the others from being.
                stack.callback(document.finish, heard, complete=complete)
