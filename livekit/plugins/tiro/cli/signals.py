"""Ctrl-C, SIGTERM and SIGHUP: what was heard is written, and within a second the program ends."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, TypeVar

# Seconds after a signal: how long the service may still say what it has heard; when all that still
# runs is cancelled, and writes what there is; and when the process ends, whatever it is doing. It
# may write to the end what it has begun to write, if a busy machine takes no longer than this.
ANSWERS = 0.3
_CANCEL = 0.5
_EXIT = 0.85
_WRITES_WITHIN = 2.0

T = TypeVar("T")

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")


class Interruption:
    """Whether a signal came, for whoever can end early.

    Attributes:
        came: Set when there is a signal.
    """

    def __init__(self) -> None:
        self.came = asyncio.Event()

    async def first(self, waiting: Coroutine[Any, Any, T]) -> T | None:
        """Return what is waited for; None if there is a signal before it comes."""
        awaited = asyncio.create_task(waiting, name="tiro.cli.awaited")
        signalled = asyncio.create_task(self.came.wait(), name="tiro.cli.signal")
        try:
            await asyncio.wait({awaited, signalled}, return_when=asyncio.FIRST_COMPLETED)
            return await awaited if awaited.done() else None
        finally:
            awaited.cancel()
            signalled.cancel()
            await asyncio.gather(awaited, signalled, return_exceptions=True)


uninterrupted = threading.Lock()
"""What is written while it is held comes to its end, though a signal has ended the program."""


def _end(code: int) -> None:
    if uninterrupted.acquire(timeout=_WRITES_WITHIN):
        uninterrupted.release()
    os._exit(code)


Main = Callable[[Interruption], Coroutine[Any, Any, None]]


def run(main: Main) -> int | None:
    """Run `main` in a loop of its own, until it ends or a signal ends it.

    A signal that the program was started to ignore, as by nohup, is ignored.

    Args:
        main: Told of a signal by its argument, and cancelled half a second after one.

    Returns:
        128 and the number of the signal that came; None if none did.
    """
    guard = _Guard(main)
    with guard:
        try:
            asyncio.run(guard.run())
        except asyncio.CancelledError:
            if guard.code is None:
                raise
    return guard.code


class _Guard:
    """Holds the signals while `main` runs."""

    def __init__(self, main: Main) -> None:
        self.code: int | None = None
        self._main = main
        self._loop: asyncio.AbstractEventLoop | None = None
        self._begin: Callable[[], None] = lambda: None
        self._watchdog: threading.Timer | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Guard:
        if threading.current_thread() is threading.main_thread():
            for name in _NAMES:
                number = getattr(signal, name, None)
                if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if self._watchdog is not None:
            self._watchdog.cancel()

    async def run(self) -> None:
        self._loop = asyncio.get_running_loop()
        interruption = Interruption()
        task = asyncio.create_task(self._main(interruption), name="tiro.cli.main")

        def begin() -> None:
            interruption.came.set()
            asyncio.get_running_loop().call_later(_CANCEL, task.cancel)

        self._begin = begin
        if self.code is not None:
            begin()
        await task

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """Take a signal, between any two steps of the main thread."""
        if self.code is not None:
            return
        self.code = 128 + number
        # A thread does it, not the loop: the loop may be what hangs.
        self._watchdog = threading.Timer(_EXIT, _end, (self.code,))
        self._watchdog.daemon = True
        self._watchdog.start()
        if self._loop is not None:
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(lambda: self._begin())
