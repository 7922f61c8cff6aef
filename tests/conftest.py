"""What every test shares: nothing leaks, and nothing of the machine's environment is used."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is no fault of the code.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TIRO_API_KEY", "TIRO_SPEECH_KEY", "TIRO_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _no_key_in_logs(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level("DEBUG", logger="livekit.plugins.tiro")
    yield


@pytest.fixture
async def no_leaked_tasks() -> AsyncIterator[None]:
    """Fail if the test leaves a task behind."""
    yield
    deadline = asyncio.get_running_loop().time() + 2
    while asyncio.all_tasks() != {asyncio.current_task()}:
        left = [task.get_name() for task in asyncio.all_tasks()]
        assert asyncio.get_running_loop().time() < deadline, f"tasks left behind: {left}"
        await asyncio.sleep(0.01)
