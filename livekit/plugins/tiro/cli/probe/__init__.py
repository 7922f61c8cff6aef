"""The `probe` command: turns what can only be assumed of the service into facts."""

from __future__ import annotations

from .command import probe

__all__ = ["probe"]
