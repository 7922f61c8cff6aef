"""What a person at a terminal sees while a file is being heard: the words and the progress."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from types import TracebackType

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.errors import LiveError
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from .exits import note
from .formats import clock

# Seconds of audio from which on people want to know how long it will take.
_LONG = 20.0
_BAR_WIDTH = 40


class Screen:
    """The last lines of a terminal, while one file is being heard; they vanish at the end.

    Args:
        console: The terminal; None shows nothing.
        length: Seconds of audio to come; None if unknown.
    """

    def __init__(self, console: Console | None, length: float | None) -> None:
        self._length = length
        self._line = ""
        self._done = 0.0
        self._speed = 0.0
        self._began = time.monotonic()
        # No refreshing by a thread: what changes is shown at once, and nothing else moves.
        self._live = console and Live(
            self,
            console=console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def show(self, line: str) -> None:
        """Show what is being said; it takes the place of what was shown before."""
        self._line = line
        self._refresh()

    def heard(self, seconds: float) -> None:
        """Show how many seconds of the audio are done."""
        self._done = seconds
        self._speed = seconds / max(time.monotonic() - self._began, 0.001)
        self._refresh()

    def note(self, text: str) -> None:
        """Write a remark to stderr, above these lines if that is the same terminal."""
        self._stop()
        note(text)
        self._start()

    def _start(self) -> None:
        self._if_there_is_one(partial(Live.start, refresh=True))

    def _stop(self) -> None:
        self._if_there_is_one(Live.stop)

    def _refresh(self) -> None:
        self._if_there_is_one(Live.refresh)

    def _if_there_is_one(self, act: Callable[[Live], None]) -> None:
        """Go on without the terminal if it was closed: the transcript may go elsewhere."""
        if self._live:
            try:
                act(self._live)
            except (OSError, LiveError):
                self._live = None

    def __enter__(self) -> Screen:
        self._start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self._line:
            yield Text(_tail(self._line, options.max_width), style="dim", no_wrap=True)
        if self._length is None or self._length >= _LONG:
            yield self._bar()

    def _bar(self) -> Table:
        total = "" if self._length is None else f" / {clock(self._length)}"
        row = Table.grid(padding=(0, 1))
        row.add_row(
            ProgressBar(total=self._length, completed=self._done, width=_BAR_WIDTH),
            Text(f"{clock(self._done)}{total}"),
            Text(f"{self._speed:.1f}x"),
        )
        return row


def _tail(text: str, width: int) -> str:
    """Return the end of a text that is too long for a line: the newest words are there."""
    if cell_len(text) <= width:
        return text
    mark = "… " if width > 2 else ""
    room = max(0, width - len(mark))
    while cell_len(text) > room:
        text = text[1:]
    return mark + text.lstrip()
