"""The command line as tests run it: in this process or as one of its own, and its service."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typer.testing import CliRunner

from livekit.plugins.tiro.__main__ import main
from livekit.plugins.tiro.cli import app
from livekit.plugins.tiro.testing import TiroServer

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    from livekit.plugins.tiro.cli.exits import Exit

KEY = "leyndarmal-1"

DATA = Path(__file__).parent.parent / "data"
FOX = str(DATA / "fox.wav")
TWO = str(DATA / "two.wav")
ICELANDIC = str(DATA / "is.wav")
SILENCE = str(DATA / "silence.wav")
SAYS_ICELANDIC = "Góðan daginn og velkomin í prófunina. Veðrið er milt"


def run(*arguments: str) -> Any:
    """Run a command in this process."""
    return CliRunner().invoke(app, list(arguments))


def transcribe(*arguments: str) -> Any:
    """Run `transcribe` in this process."""
    return run("transcribe", *arguments)


def process(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    """Start a command as a process from scratch; its output goes into pipes.

    Loading takes seconds of CPU. `Forked` is a process too, without that.
    """
    command = [sys.executable, "-m", "livekit.plugins.tiro", *arguments]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen(command, **pipes)


class Forked:
    """A command as a process of its own, forked off one that has loaded it already.

    As a context manager it is killed at the end if it still runs.

    Args:
        arguments: Of the command.
        stdin: What it reads; by default nothing. Closed here.
        stdout: Where it writes; by default into `output`. Closed here.
        closed: Of 0, 1 and 2, those that are closed when it starts.
        ignored: Signals that it is started to ignore.

    Attributes:
        output: Its standard output.
        errors: What it says on stderr.
    """

    def __init__(
        self,
        *arguments: str,
        stdin: int | None = None,
        stdout: int | None = None,
        closed: Sequence[int] = (),
        ignored: Sequence[int] = (),
    ) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        reading, writing = os.pipe()
        reading_errors, writing_errors = os.pipe()
        self.output = os.fdopen(reading, "rb")
        self.errors = os.fdopen(reading_errors, "rb")
        given = [
            os.open(os.devnull, os.O_RDONLY) if stdin is None else stdin,
            writing if stdout is None else stdout,
            writing_errors,
        ]
        passed = [DupFd(number) for number in given]
        self._process = context.Process(
            target=_command,
            args=(arguments, dict(os.environ), passed, tuple(closed), tuple(ignored)),
        )
        self._process.start()
        for number in {*given, writing}:
            os.close(number)

    def signal(self, number: int) -> float:
        """Send it a signal. Return when, in monotonic seconds."""
        assert self._process.pid is not None
        before = time.monotonic()
        os.kill(self._process.pid, number)
        return before

    def wait(self, timeout: float = 30.0) -> int:
        """Wait for its end. Return its exit code."""
        self._process.join(timeout)
        assert self._process.exitcode is not None, "it still runs"
        return self._process.exitcode

    def __enter__(self) -> Forked:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()
        self._process.close()
        self.output.close()
        self.errors.close()


def _command(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    passed: Sequence[Any],
    closed: Sequence[int],
    ignored: Sequence[int],
) -> None:
    """Become the command, in the process that was forked."""
    os.environ.clear()
    os.environ.update(environment)
    # Tests that run in the background, or by nohup, may have been started to ignore these.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
    for number, duplicate in enumerate(passed):
        os.dup2(duplicate.detach(), number)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        # As the interpreter opens them at its start.
        opened = None if number in closed else open(number, "w" if number else "r", closefd=False)
        setattr(sys, name, opened)
    for number in closed:
        os.close(number)
    sys.argv = ["__main__.py", *arguments]
    main()


def wait_until(condition: Callable[[], bool], timeout: float = 30.0) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it never was"
        time.sleep(0.005)


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
