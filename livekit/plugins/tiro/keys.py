"""The key of a connection: as given, or asked for."""

from __future__ import annotations

import asyncio
import inspect
from dataclasses import replace
from typing import TYPE_CHECKING

from livekit.agents import APIConnectionError

from . import errors
from .options import checked_key

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .options import Key, Options

# s that a function has to end once it is cancelled.
_TO_END = 0.1


async def with_key(options: Options, timeout: float) -> Options:
    """Return options with the key itself, asked for if a function is given for it.

    Args:
        options: The settings of a stream.
        timeout: Seconds that the function may take.

    Raises:
        APIConnectionError: It raised, returned what cannot be a key, or took too long. Retryable,
            unless it returned something other than a `str`.
    """
    source = options.api_key
    if isinstance(source, str):
        return options
    asking = asyncio.create_task(_ask(source), name="tiro.key")
    try:
        await asyncio.wait({asking}, timeout=timeout)
        if not asking.done():
            raise errors.no_key(f"took more than {timeout:g} s")
    finally:
        asking.cancel()
        # A function that catches its cancellation is left to itself.
        await asyncio.wait({asking}, timeout=_TO_END)
    # What the function waited for can have been cancelled.
    key = errors.no_key("was cancelled") if asking.cancelled() else asking.result()
    if isinstance(key, APIConnectionError):
        raise key
    return replace(options, api_key=key)


async def _ask(source: Callable[[], str | Awaitable[str]]) -> Key | APIConnectionError:
    """Return the key, or an error instead of raising one.

    What a function raises can hold the key, or what the key is made with, and so can its traceback.
    """
    try:
        key = source()
        if inspect.isawaitable(key):
            key = await key
    except Exception as fault:
        return errors.no_key(f"raised {type(fault).__name__}")
    if not isinstance(key, str):
        # A mistake in the program, which is there the next time too.
        return errors.no_key(f"returned {_kind(key)}, which is not a key", retryable=False)
    try:
        return checked_key(key)
    except ValueError:
        if not key.strip():
            return errors.no_key("returned nothing")
        if key.strip().isprintable():
            return errors.no_key("returned it in quotation marks", retryable=False)
        return errors.no_key("returned more than one line, or a control character")


def _kind(value: object) -> str:
    return "None" if value is None else f"a value of type {type(value).__name__}"
