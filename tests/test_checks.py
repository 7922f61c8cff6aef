"""What the arguments of the local server and of its faults may be."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from livekit.plugins.tiro.testing.checks import (
    check_above,
    check_number,
    check_one_of,
    check_whole,
    is_number,
)

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize("value", [0, 2, 1.5, np.float32(0.5), np.int64(2)])
def test_a_number(value: Any) -> None:
    assert is_number(value, 0, 2)


@pytest.mark.parametrize("value", [-1, 3, True, "1", None, math.nan, math.inf, 10**400])
def test_no_number(value: Any) -> None:
    assert not is_number(value, 0, 2)


@pytest.mark.parametrize("value", [math.inf, 10**400])
def test_a_number_without_bounds_is_finite(value: Any) -> None:
    assert not is_number(value)


def test_what_is_within_its_bounds() -> None:
    check_number("it", 1.5, 1, 2)
    check_above("it", 0.1, 0)
    check_whole("it", 65535, 0, 65535)
    check_one_of("it", "v1", ("v1", "v2"))


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (lambda: check_number("it", -1), "it must be a number of 0 or more, not -1"),
        (lambda: check_number("it", 3, 0.5, 2), "it must be a number from 0.5 to 2, not 3"),
        (lambda: check_above("it", 0, 0), "it must be a number above 0, not 0"),
        (lambda: check_whole("it", 1.0), "it must be a whole number of 0 or more, not 1.0"),
        (lambda: check_whole("it", 70000, 0, 65535), "it must be .* from 0 to 65535, not 70000"),
        (lambda: check_one_of("it", "v3", ("v1", "v2")), "it must be one of v1, v2, not 'v3'"),
    ],
)
def test_what_is_not_says_what_it_must_be(check: Callable[[], None], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check()
