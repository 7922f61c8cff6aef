"""Looks after a connection, again and again, until it has to end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from .recovery import Reason

if TYPE_CHECKING:
    from collections.abc import Callable

# s from one look to the next.
_AT_MOST = 1.0


class Lookout:
    """Looks at least once a second, by a timer: to wake up a task would cost more than the look."""

    def __init__(self, look: Callable[[], Reason | float]) -> None:
        """Begin with `start`.

        Args:
            look: Returns why the connection has to end, or in how many seconds to look again.
        """
        self.over: asyncio.Future[Reason] = asyncio.get_running_loop().create_future()
        """Done once the connection has to end; the result says why."""
        self._look = look
        self._next: asyncio.TimerHandle | None = None

    def start(self, seconds: float) -> None:
        """Look in so many seconds for the first time, or in one if that is less."""
        wait = min(max(0.0, seconds), _AT_MOST)
        self._next = asyncio.get_running_loop().call_later(wait, self.look)

    def look(self) -> None:
        """Look now, and go on."""
        try:
            found = self._look()
        except Exception as error:
            # In a callback, nobody would see it.
            if not self.over.done():
                self.over.set_exception(error)
            return
        if isinstance(found, Reason):
            self.end(found)
        else:
            self.start(found)

    def end(self, reason: Reason) -> None:
        """Have the connection end."""
        if not self.over.done():
            self.over.set_result(reason)

    def close(self) -> None:
        """Look no more."""
        if self._next is not None:
            self._next.cancel()
