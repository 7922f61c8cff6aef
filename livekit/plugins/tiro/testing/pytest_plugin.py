"""A pytest plugin: the local Tiro server as a fixture. It needs the extra `testing`.

It is loaded only when asked for, in a test module or in the topmost `conftest.py`:

```python
pytest_plugins = ["livekit.plugins.tiro.testing.pytest_plugin"]
```

or with `pytest -p livekit.plugins.tiro.testing.pytest_plugin`. Then an agent's own `tiro.STT()`
is tested with neither key nor network:

```python
@pytest.fixture
def tiro_server_options() -> dict[str, Any]:
    return {"script": [At(1.2, "Góðan daginn."), At(6.0, "Já, takk.")]}

@pytest.mark.asyncio
async def test_my_agent(tiro_server: TiroServer) -> None:
    session = AgentSession(stt=tiro.STT(), ...)
```

Here the caller says two things, 1.2 s and 6 s into the call, whatever the audio is that the test
gives to the agent, silence included. With a script without times, such as `"Góðan daginn."`, the
words are said while there is a voice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from .server import TiroServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["tiro_server", "tiro_server_options"]


@pytest.fixture
def tiro_server_options() -> dict[str, Any]:
    """The arguments of `TiroServer` for `tiro_server`: none, unless a test overrides this.

    Define a fixture of this name in a test class, a module or a `conftest.py`, or parametrize it
    for one test: `@pytest.mark.parametrize("tiro_server_options", [{"script": "Halló."}])`.
    """
    return {}


@pytest_asyncio.fixture
async def tiro_server(
    tiro_server_options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[TiroServer]:
    """A running `TiroServer` for one asynchronous test.

    `TIRO_BASE_URL` and `TIRO_API_KEY` point at it until the test is over, so an agent's own
    `tiro.STT()` uses it without a change. What the agent sent is in `tiro_server.connections`.
    """
    options = {"api_key": "test", **tiro_server_options}
    async with TiroServer(**options) as server:
        monkeypatch.setenv("TIRO_BASE_URL", server.base_url)
        monkeypatch.setenv("TIRO_API_KEY", options["api_key"] or "test")
        yield server
