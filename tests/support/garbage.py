"""Garbage collection in a process that holds all modules of the tests."""

from __future__ import annotations

import gc


def set_aside() -> None:
    """Leave all objects that there are out of later collections.

    To look through the modules of the tests, and what pytest keeps of those that are over, takes a
    quarter of a second each time.
    """
    gc.collect()
    gc.freeze()
