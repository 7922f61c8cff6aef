"""Says what is being measured."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def open_console() -> Console:
    """Return the standard output, wide enough for the tables where it is no terminal."""
    console = Console()
    return console if console.is_terminal else Console(width=150)


@contextmanager
def progress(console: Console) -> Iterator[Callable[[str], None]]:
    """Give a function that says what is going on.

    It says so in one line of a terminal; where the output goes elsewhere, in a line each on stderr.
    """
    if not console.is_terminal:
        yield partial(print, file=sys.stderr, flush=True)
        return
    with console.status("starting") as status:
        yield status.update
