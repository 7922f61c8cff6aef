"""Time that passes only when nobody has anything to do: a minute of a call takes a moment.

The sockets are real, the clock is not. While anything is ready to run or to be read, time stands
still; when nothing is, it goes on to the next timer. So the constants of the plugin stay what they
are, a busy machine changes nothing, and an outage of five minutes can be waited for.
"""

from __future__ import annotations

import asyncio
import asyncio.constants
import os
import selectors
import time
import traceback
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from traceback import walk_stack
from typing import TYPE_CHECKING, Any, TypeVar
from unittest import mock

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from concurrent.futures import Executor
    from types import FrameType

T = TypeVar("T")

# Virtual s; what a round of the event loop takes, so that nothing can wait for no time at all.
_ROUND = 1e-6
# Virtual s; the farthest that time goes before the sockets are looked at again.
_STEP = 0.05
_EPOCH = 1_700_000_000.0
_KERNELS_TURN = time.sleep
# Frames of the stack that asyncio records in debug mode. By default it records ten for each
# callback and all for each future: a test would cost three times as much.
_DEBUG_STACK = 1


class _Selector(selectors.DefaultSelector):
    """Looks at the sockets; time goes on only if none has anything to do."""

    now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.now += _ROUND
        ready = super().select(0)
        if ready or timeout is not None and timeout <= 0:
            return ready
        # What was sent over loopback has arrived when `send` returns, unless another process or
        # the kernel's own threads still have to act. (`time.sleep(0)` would take 60 µs or more.)
        os.sched_yield()
        ready = super().select(0)
        if not ready:
            self.now += _STEP if timeout is None else min(timeout, _STEP)
        return ready


class _Loop(asyncio.SelectorEventLoop):
    """Runs work for the default executor in the loop: time would not wait for a thread.

    aiohttp has two such tasks at each handshake: it reads the environment and netrc for proxies.
    """

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        if executor is not None:
            return super().run_in_executor(executor, func, *args)
        done: asyncio.Future[T] = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:
            done.set_exception(error)
        return done


def _walk_stack(
    frame: FrameType | None,
) -> Iterator[tuple[FrameType, int]]:
    return islice(walk_stack(frame), _DEBUG_STACK)


@contextmanager
def _clock(selector: _Selector) -> Iterator[None]:
    """Put the selector's time in place of the machine's."""
    with ExitStack() as stack:
        for name in ("monotonic", "perf_counter"):
            stack.enter_context(mock.patch.object(time, name, lambda: selector.now))
        stack.enter_context(mock.patch.object(time, "time", lambda: _EPOCH + selector.now))
        stack.enter_context(mock.patch.object(asyncio.constants, "DEBUG_STACK_DEPTH", _DEBUG_STACK))
        stack.enter_context(mock.patch.object(traceback, "walk_stack", _walk_stack))
        yield


def run(main: Coroutine[Any, Any, T], *, debug: bool | None = None) -> T:
    """Run a coroutine to its end in virtual time.

    Args:
        main: The coroutine.
        debug: Whether asyncio's debug mode is on; None leaves it to `PYTHONASYNCIODEBUG`.

    Raises:
        AssertionError: It left tasks or sockets behind.
    """
    before = _sockets()
    selector = _Selector()
    loop = _Loop(selector)
    own = _sockets()
    if debug is not None:
        loop.set_debug(debug)
    faults: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: faults.append(context))
    try:
        with _clock(selector):
            result = loop.run_until_complete(main)
            left = loop.run_until_complete(_leftovers(own))
            loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()
    assert not left, f"tasks left behind: {left}"
    assert not faults, f"exceptions that nobody saw: {faults}"
    assert _sockets() <= before, "sockets left behind"
    return result


async def _leftovers(own: int) -> list[str]:
    """Return the names of the tasks that are not over in a second.

    Args:
        own: How many sockets stay open.
    """
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        _, others = await asyncio.wait(others, timeout=1.0)
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    # The transports that were closed last want their turn too, and the kernel some time of its own
    # to tell them that the other side is gone.
    for turn in range(200):
        await asyncio.sleep(0.01)
        if turn >= 5 and _sockets() <= own:
            break
        _KERNELS_TURN(0.001 if turn >= 5 else 0)
    return sorted(task.get_name() for task in others)


def _sockets() -> int:
    """Count the open sockets of this process, as far as the system tells."""
    folder = Path("/proc/self/fd")
    if not folder.exists():
        return 0
    links = (_link(entry) for entry in folder.iterdir())
    return sum(link.startswith("socket:") for link in links)


def _link(entry: Path) -> str:
    try:
        return os.readlink(entry)
    except OSError:
        return ""
