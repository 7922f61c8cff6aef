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

The server runs in the loop of the asynchronous test, whatever its `loop_scope` is, and in a thread
beside a synchronous one. An asynchronous fixture that uses it needs the loop scope of the test.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import pytest

try:
    import pytest_asyncio
except ModuleNotFoundError:
    raise ModuleNotFoundError(
        "the fixtures need pytest-asyncio: install livekit-plugins-tiro with the extra 'testing'"
    ) from None

from .server import TiroServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

__all__ = ["tiro_server", "tiro_server_options"]

_LoopScope = Literal["function", "class", "module", "package", "session"]


@pytest.fixture
def tiro_server_options() -> dict[str, Any]:
    """The arguments of `TiroServer` for `tiro_server`: none, unless a test overrides this.

    Define a fixture of this name in a test class, a module or a `conftest.py`, or parametrize it
    for one test: `@pytest.mark.parametrize("tiro_server_options", [{"script": "Halló."}])`.
    """
    return {}


@pytest.fixture
def tiro_server(
    request: pytest.FixtureRequest,
    tiro_server_options: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[TiroServer]:
    """A running `TiroServer` for one test.

    `TIRO_BASE_URL` and `TIRO_API_KEY` point at it until the test is over, so an agent's own
    `tiro.STT()` uses it without a change. What the agent sent is in `tiro_server.connections`.
    Beside a synchronous test only what is no coroutine can be used of it.
    """
    options = {"api_key": "test", **tiro_server_options}
    with _running(request, options) as server:
        monkeypatch.setenv("TIRO_BASE_URL", server.base_url)
        monkeypatch.setenv("TIRO_API_KEY", options["api_key"] or "test")
        yield server


@contextmanager
def _running(request: pytest.FixtureRequest, options: dict[str, Any]) -> Iterator[TiroServer]:
    """Run a server in the test's own loop, or in a thread if the test has none."""
    scope = _loop_scope(request)
    _check_fixtures(request, scope)
    if scope is None:
        with _in_thread(options) as server:
            yield server
    else:
        # Made for this test, in that loop; pytest ends it.
        yield request.getfixturevalue(f"_tiro_server_in_{scope}_loop")


def _loop_scope(request: pytest.FixtureRequest) -> str | None:
    """Return the scope of the loop that a test runs in; None if the test is synchronous."""
    if not pytest_asyncio.is_async_test(request.node):
        return None
    marker = request.node.get_closest_marker("asyncio")
    given = marker.kwargs if marker is not None else {}
    default = request.config.getini("asyncio_default_test_loop_scope")
    return str(given.get("loop_scope") or given.get("scope") or default or "function")


def _check_fixtures(request: pytest.FixtureRequest, scope: str | None) -> None:
    """Fail if a fixture would wait for the server in a loop that the server does not run in."""
    if scope is None:
        return
    default = request.config.getini("asyncio_default_fixture_loop_scope")
    definitions = getattr(request.node, "_fixtureinfo", None)
    for name, found in getattr(definitions, "name2fixturedefs", {}).items():
        fixture = found[-1]
        if "tiro_server" not in fixture.argnames or not _is_async(fixture.func):
            continue
        its = getattr(fixture.func, "_loop_scope", None) or default or fixture.scope
        if its != scope:
            pytest.fail(
                f"the fixture {name!r} uses tiro_server in a loop of scope {its!r}, but the test "
                f'runs in one of scope {scope!r}: set loop_scope="{scope}" for the fixture',
                pytrace=False,
            )


def _is_async(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


@contextmanager
def _in_thread(options: dict[str, Any]) -> Iterator[TiroServer]:
    # First: what options it does not take is raised before there is a thread to end.
    server = TiroServer(**options)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="tiro.testing.server")
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(server.start(), loop).result()
        try:
            yield server
        finally:
            asyncio.run_coroutine_threadsafe(server.aclose(), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _in_loop(scope: _LoopScope) -> Any:
    """Return a fixture that runs a server in the loop of a scope."""

    async def run(tiro_server_options: dict[str, Any]) -> AsyncIterator[TiroServer]:
        async with TiroServer(**{"api_key": "test", **tiro_server_options}) as server:
            yield server

    return pytest_asyncio.fixture(loop_scope=scope, name=f"_tiro_server_in_{scope}_loop")(run)


_tiro_server_in_function_loop = _in_loop("function")
_tiro_server_in_class_loop = _in_loop("class")
_tiro_server_in_module_loop = _in_loop("module")
_tiro_server_in_package_loop = _in_loop("package")
_tiro_server_in_session_loop = _in_loop("session")
