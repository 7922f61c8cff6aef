"""`tests.support.virtual.run` at its former place, for scripts outside the suite."""

from __future__ import annotations

from .support.virtual import run

__all__ = ["run"]
