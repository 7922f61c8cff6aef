"""How many examples the tests draw. `TIRO_TESTS_TIMES=50` draws fifty times as many.

Each run draws the same examples, so that only a change of the code or of the tests can make a test
fail. A longer run draws new ones each time.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

TIMES = int(os.environ.get("TIRO_TESTS_TIMES", "1"))


def examples(count: int) -> settings:
    """Return the settings of a test that draws `count` examples, times `TIRO_TESTS_TIMES`."""
    return settings(
        max_examples=count * TIMES,
        derandomize=TIMES == 1,
        # A busy machine is no fault of the code.
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
