"""`tests.support.virtual.run` at its former place, for scripts elsewhere."""

from __future__ import annotations

from .support.virtual import run

__all__ = ["run"]
