"""What numbers and names the local server and its faults take as arguments."""

from __future__ import annotations

import sys
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

# The largest finite float: everything but infinity is allowed.
_MOST = sys.float_info.max


def is_number(value: Any, least: float = 0, most: float = _MOST) -> bool:
    """Tell whether a value is a finite number within bounds; True and False are none."""
    is_real = isinstance(value, Real) and not isinstance(value, bool)
    return is_real and bool(least <= value <= most)


def check_number(name: str, value: Any, least: float = 0, most: float = _MOST) -> None:
    """Raise ValueError with the bounds if an argument is no finite number within them."""
    if not is_number(value, least, most):
        raise ValueError(f"{name} must be a number {_bounds(least, most)}, not {value!r}")


def check_above(name: str, value: Any, bound: float) -> None:
    """Raise ValueError if an argument is no finite number above a bound."""
    if not is_number(value, bound) or value == bound:
        raise ValueError(f"{name} must be a number above {bound:g}, not {value!r}")


def check_whole(name: str, value: Any, least: int = 0, most: float = _MOST) -> None:
    """Raise ValueError with the bounds if an argument is no whole number within them."""
    if not isinstance(value, Integral) or not is_number(value, least, most):
        raise ValueError(f"{name} must be a whole number {_bounds(least, most)}, not {value!r}")


def check_one_of(name: str, value: Any, names: Sequence[str]) -> None:
    """Raise ValueError with the names if an argument is none of them."""
    if value not in names:
        raise ValueError(f"{name} must be one of {', '.join(names)}, not {value!r}")


def _bounds(least: float, most: float) -> str:
    return f"of {least:g} or more" if most == _MOST else f"from {least:g} to {most:g}"
