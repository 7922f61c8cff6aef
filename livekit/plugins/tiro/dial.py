"""Opens a stream's connections: asks for the key, and tries again while that makes sense."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from livekit.agents import APIError

from . import errors
from .connection import Connection
from .keys import with_key

if TYPE_CHECKING:
    from collections.abc import Callable

    import aiohttp

    from .errors import Redactor
    from .journal import Journal
    from .options import Options
    from .recovery import Budget, Recovery

# Fraction of `conn_options.timeout` that it may take to get a connection. The base class resets its
# retry count after an attempt that used the whole timeout, and would retry for ever; and a
# `FallbackAdapter`, which makes two attempts, is to turn to the next STT within that time.
ATTEMPT_SHARE = 0.5
# s between the tries of one attempt to connect, doubled from the first to the last.
_REDIAL_FIRST = 0.1
_REDIAL_AT_MOST = 1.0
# s. A shorter try would time out at a healthy service too, and its error would take the place of
# the one that explains the outage.
_SHORTEST_TRY = 0.2


class Dialer:
    """Opens the connections of one stream, one after the other."""

    def __init__(
        self,
        http_session: Callable[[], aiohttp.ClientSession],
        recovery: Recovery,
        redact: Redactor,
        journal: Journal,
    ) -> None:
        """Open nothing yet.

        Args:
            http_session: Returns the HTTP session to connect with.
            recovery: Tells whether a failure is worth another try.
            redact: Told of the key and the headers of each connection.
            journal: Told what fails.
        """
        self._http_session = http_session
        self._recovery = recovery
        self._redact = redact
        self._journal = journal
        self._deadline: float | None = None
        self._wait = _REDIAL_FIRST

    def start_over(self) -> None:
        """Allow the whole time again: another attempt begins, or the service was there."""
        self._deadline = None

    async def connect(
        self, options: Callable[[], Options], budget: Callable[[], Budget]
    ) -> Connection:
        """Open a connection; in a call that is under way, try again while the attempt lasts.

        Most outages are over in seconds, and the framework's retries alone would be used up by
        then, as a service that is down refuses at once.

        Args:
            options: Returns the stream's settings, as they stand: the key may have changed.
            budget: Returns what the base class allows, as it stands.

        Raises:
            APIError: There is no connection, or no key for it.
        """
        while True:
            deadline = self._start_attempt(budget())
            try:
                return await self._open(options(), deadline)
            except APIError as failure:
                self._journal.not_connected(failure)
                await self.wait_after(failure, budget())

    async def wait_after(self, failure: APIError, budget: Budget) -> None:
        """Wait for the next try, after one that failed.

        Args:
            failure: What went wrong, before the service said anything.
            budget: What the base class allows, as it stands.

        Raises:
            APIError: The failure, if another try makes no sense, or comes too late.
        """
        deadline = self._start_attempt(budget)
        too_late = time.monotonic() + self._wait + _SHORTEST_TRY > deadline
        if too_late or not self._recovery.may_redial(failure, budget):
            raise failure
        self._journal.failed(failure)
        await asyncio.sleep(self._wait)
        self._wait = min(2 * self._wait, _REDIAL_AT_MOST)

    def _start_attempt(self, budget: Budget) -> float:
        """Return until when the attempt lasts; the first try starts it."""
        if self._deadline is None:
            self._deadline = time.monotonic() + budget.timeout * ATTEMPT_SHARE
            self._wait = _REDIAL_FIRST
        return self._deadline

    async def _open(self, options: Options, deadline: float) -> Connection:
        keyed = await with_key(options, _left(deadline))
        self._redact.learn(keyed.key, keyed.extra_headers.values())
        left = _left(deadline)
        if keyed is not options and left < _SHORTEST_TRY:
            raise errors.no_key("took so long that no time was left to connect")
        return await Connection.open(self._http_session(), keyed, left)


def _left(deadline: float) -> float:
    """Return the seconds that are left, as they are said in an error."""
    return max(0.0, round(deadline - time.monotonic(), 2))
