"""Reads and decodes an input in a thread of its own, so that nothing waits for a slow one."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

from .audio import ALL, AudioFile, Selection, open_audio
from .blocks import Block
from .source import Source

# Blocks that are decoded ahead: some 10 s of audio.
_AHEAD = 100
# Seconds for the thread to notice that it is to end. It is not waited for any longer: a disk that
# does not answer would keep the program running for ever.
_PATIENCE = 0.2


class Reader:
    """Reads one input ahead. As an async context manager it starts and ends the thread.

    Args:
        name: A path, or `source.STDIN`.
        selection: Which sound of it.
    """

    def __init__(self, name: str, selection: Selection = ALL) -> None:
        self._source = Source(name)
        self._selection = selection
        self._loop = asyncio.get_running_loop()
        self._room = threading.Semaphore(_AHEAD)
        self._stopped = False
        # The attributes from here on are changed only in the event loop.
        self._arrived = asyncio.Event()
        self._audio: AudioFile | None = None
        self._blocks: deque[Block] = deque()
        self._failure: Exception | None = None
        self._ended = False
        # A daemon: one that cannot be stopped does not keep the program from ending.
        self._thread = threading.Thread(target=self._work, name="tiro.cli.reader", daemon=True)

    async def __aenter__(self) -> Reader:
        self._thread.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopped = True
        self._source.stop()
        self._room.release()
        deadline = self._loop.time() + _PATIENCE
        while not self._ended and self._loop.time() < deadline:
            with suppress(asyncio.TimeoutError):
                await self._wait(deadline - self._loop.time())

    async def audio(self) -> AudioFile:
        """Return the input, once there is enough of it to tell what it is.

        Raises:
            FileError: It cannot be read, or there is no audio in it.
        """
        while self._audio is None:
            if self._failure is not None:
                raise self._failure
            await self._wait(None)
        return self._audio

    async def get_ahead(self) -> None:
        """Wait, once `audio` is there, until some seconds of a file are decoded; not for a pipe.

        On a busy machine the thread may not run for longer than a caller pauses.
        """
        while self._source.is_file and len(self._blocks) < _AHEAD and not self._ended:
            await self._wait(None)

    @property
    def is_file(self) -> bool:
        """Whether the input is a file, known once `audio` is there; a pipe may be live."""
        return self._source.is_file

    async def next(self, patience: float | None = None) -> Block | None:
        """Return the next block; None at the end.

        Args:
            patience: Seconds to wait for it; None waits for as long as it takes.

        Raises:
            asyncio.TimeoutError: It did not come.
            FileError: The input cannot be read any further.
        """
        while not self._blocks:
            if self._failure is not None:
                raise self._failure
            if self._ended:
                return None
            try:
                await self._wait(patience)
            except asyncio.TimeoutError:
                # When the loop itself was late, the block can have come all the same.
                if not self._blocks:
                    raise
        self._room.release()
        return self._blocks.popleft()

    async def _wait(self, patience: float | None) -> None:
        self._arrived.clear()
        await asyncio.wait_for(self._arrived.wait(), patience)

    # -- in the loop, for the thread -------------------------------------------------------------

    def _on_audio(self, audio: AudioFile) -> None:
        self._audio = audio
        self._arrived.set()

    def _on_block(self, block: Block) -> None:
        self._blocks.append(block)
        self._arrived.set()

    def _on_end(self, failure: Exception | None) -> None:
        self._failure, self._ended = failure, True
        self._arrived.set()

    # -- in the thread ---------------------------------------------------------------------------

    def _work(self) -> None:
        failure = None
        try:
            with open_audio(self._source, self._selection) as audio:
                self._tell(lambda: self._on_audio(audio))
                for block in audio.blocks():
                    self._room.acquire()
                    if self._stopped:
                        break
                    self._pass_on(block)
        except Exception as error:
            failure = error
        self._tell(lambda: self._on_end(failure))

    def _pass_on(self, block: Block) -> None:
        self._tell(lambda: self._on_block(block))

    def _tell(self, action: Callable[[], None]) -> None:
        with suppress(RuntimeError):
            # The loop can be closed by now, if the thread could not be stopped in time.
            self._loop.call_soon_threadsafe(action)
