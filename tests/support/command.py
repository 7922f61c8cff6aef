"""The command line as tests run it: in this process or as one of its own, and its service."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from livekit.plugins.tiro.cli import app
from livekit.plugins.tiro.cli.exits import Exit
from livekit.plugins.tiro.testing import TiroServer

KEY = "leyndarmal-1"

DATA = Path(__file__).parent.parent / "data"
FOX = str(DATA / "fox.wav")
TWO = str(DATA / "two.wav")
ICELANDIC = str(DATA / "is.wav")
SILENCE = str(DATA / "silence.wav")
SAYS_FOX = "the quick brown fox jumps over the lazy dog"
SAYS_TWO = "the weather is very nice today and the sun is shining"
SAYS_ICELANDIC = "Góðan daginn og velkomin í prófunina. Veðrið er milt"


def run(*arguments: str) -> Any:
    """Run a command in this process."""
    return CliRunner().invoke(app, list(arguments))


def transcribe(*arguments: str) -> Any:
    """Run `transcribe` in this process."""
    return run("transcribe", *arguments)


def process(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    """Start a command as a process of its own; its output goes into pipes."""
    command = [sys.executable, "-m", "livekit.plugins.tiro", *arguments]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen(command, **pipes)


def assert_failed(result: Any, code: Exit, *parts: str) -> None:
    """One line on stderr that says all of `parts`, and never a key."""
    assert result.exit_code == code, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert all(part in line for part in parts), line
    assert KEY not in result.output


class ServerThread:
    """A local server on a loop of its own, as another process would run it."""

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> TiroServer:
        self._thread.start()
        self._server = TiroServer(api_key=KEY, **self._options)
        self._do(self._server.start)
        return self._server

    def __exit__(self, *_: object) -> None:
        self._do(self._server.aclose)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, action: Callable[[], Coroutine[Any, Any, None]]) -> None:
        asyncio.run_coroutine_threadsafe(action(), self._loop).result(10)
