"""A call over a link of its own, between two network namespaces: loss, delay, 20 s without it.

The trials are started with the first test of a run and take real time, which they spend waiting;
see `tests/support/netns.py`. These tests come last, and look at the results.
"""

from __future__ import annotations

import pytest

from .support import netns


def result(name: str) -> netns.Result:
    found = netns.result(name)
    if found.skipped:
        pytest.skip(found.skipped)
    assert not found.failed, found.failed
    assert not found.broken, found.broken
    assert found.exact, found.outcome
    return found


def test_a_link_that_is_down_for_20_s_costs_no_words() -> None:
    found = result("outage")
    assert found.connections > 1, "nothing was noticed of it"
    assert found.seconds > netns.OUTAGE


@pytest.mark.parametrize("discipline", ["netem", "tbf"])
def test_packets_that_are_late_or_lost_cost_no_words(discipline: str) -> None:
    assert result(discipline).lost_packets > 0
