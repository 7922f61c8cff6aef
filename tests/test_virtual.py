"""Virtual time: it passes when nobody has anything to do, and only then."""

from __future__ import annotations

import asyncio
import time

import pytest

from .support import virtual

REALLY_SLEEP = time.sleep


def test_a_minute_takes_no_time() -> None:
    async def main() -> float:
        started = time.monotonic()
        await asyncio.sleep(60)
        return time.monotonic() - started

    started = time.perf_counter()
    assert virtual.run(main()) == pytest.approx(60, abs=0.1)
    # This takes 1200 looks at the sockets.
    assert time.perf_counter() - started < 10


def test_no_time_passes_while_there_is_work_in_a_thread() -> None:
    """Such as aiohttp does at each handshake."""

    async def main() -> float:
        started = time.monotonic()
        await asyncio.to_thread(REALLY_SLEEP, 0.02)
        with pytest.raises(KeyError):
            await asyncio.to_thread(dict[str, int]().__getitem__, "x")
        return time.monotonic() - started

    assert virtual.run(main()) < 0.01


def test_what_is_left_behind_is_named() -> None:
    async def main() -> None:
        asyncio.get_running_loop().create_task(asyncio.sleep(60), name="forgotten")

    with pytest.raises(AssertionError, match="forgotten"):
        virtual.run(main())


@pytest.mark.parametrize("debug", [None, False, True])
def test_debug_mode_is_on_when_asked_for(debug: bool | None) -> None:
    async def main() -> bool:
        return asyncio.get_running_loop().get_debug()

    assert virtual.run(main(), debug=debug) is bool(debug)


@pytest.mark.usefixtures("asyncio_debug")
def test_a_test_can_ask_for_debug_mode() -> None:
    async def main() -> bool:
        return asyncio.get_running_loop().get_debug()

    assert virtual.run(main())


@pytest.mark.usefixtures("asyncio_debug")
async def test_a_test_of_real_time_can_too() -> None:
    assert asyncio.get_running_loop().get_debug()
