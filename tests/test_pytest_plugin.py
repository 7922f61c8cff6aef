"""The pytest plugin, as a user's own test suite sees it: each test here runs a small suite."""

from __future__ import annotations

import re
import runpy
import sys
import textwrap
import threading
from pathlib import Path

import pytest

# Loaded before, so that it stays loaded when a small suite is over and its modules are dropped.
import livekit.plugins.tiro.testing as local

pytest_plugins = ["pytester"]

ASK = 'pytest_plugins = ["livekit.plugins.tiro.testing.pytest_plugin"]'
HEAD = """
    import os
    import numpy as np
    import pytest
    from livekit import rtc
    from livekit.agents import APIError
    from livekit.plugins import tiro

    async def hear():
        noise = np.random.default_rng(0).integers(-8000, 8000, 16000, np.int16)
        async with tiro.STT() as stt:
            event = await stt.recognize(rtc.AudioFrame(noise.tobytes(), 16000, 1, 16000))
        return event.alternatives[0].text
"""


def run(pytester: pytest.Pytester, suite: str, *arguments: str) -> pytest.RunResult:
    """Run a suite with every warning an error, and settings of its own."""
    pytester.makepyfile(textwrap.dedent(HEAD) + textwrap.dedent(suite))
    scope = "asyncio_default_fixture_loop_scope=function"
    return pytester.runpytest_inprocess("-p", "no:randomly", "-W", "error", "-o", scope, *arguments)


def test_an_agents_own_stt_finds_the_server(pytester: pytest.Pytester) -> None:
    """In pytest-asyncio's strict mode too, and the environment is as before afterwards."""
    pytester.makeconftest(ASK)
    suite = """
        @pytest.mark.asyncio
        async def test_hears(tiro_server):
            assert await hear() == "Góðan daginn"
            assert tiro_server.connections[0].seconds > 1
            assert os.environ["TIRO_BASE_URL"] == tiro_server.base_url

        @pytest.mark.asyncio
        async def test_after_it():
            assert "TIRO_BASE_URL" not in os.environ
            assert "TIRO_API_KEY" not in os.environ
    """
    run(pytester, suite).assert_outcomes(passed=2)


def test_options_of_the_server(pytester: pytest.Pytester) -> None:
    """They come from a fixture that a module, a class or one test can override."""
    suite = f"""
        {ASK}

        @pytest.fixture
        def tiro_server_options():
            return {{"script": "Halló."}}

        async def test_of_the_module(tiro_server):
            assert "Halló" in await hear()

        @pytest.mark.parametrize("tiro_server_options", [{{"script": "Bless.", "api_key": None}}])
        async def test_of_its_own(tiro_server):
            assert "Bless" in await hear()

        @pytest.mark.parametrize("tiro_server_options", [{{"api_key": "another"}}])
        async def test_key(tiro_server):
            assert os.environ["TIRO_API_KEY"] == "another"
            assert await hear()
            os.environ["TIRO_API_KEY"] = "wrong"
            with pytest.raises(APIError):
                await hear()
    """
    run(pytester, suite, "-o", "asyncio_mode=auto").assert_outcomes(passed=3)


SCOPES = ["function", "class", "module", "package", "session"]


def test_every_loop_scope_on_the_test_and_none(pytester: pytest.Pytester) -> None:
    """In a loop that was there before the server, and in one of a fixture with the same scope."""
    suite = f"""
        import asyncio
        import pytest_asyncio
        {ASK}

        for scope in {SCOPES}:
            @pytest.mark.asyncio(loop_scope=scope)
            async def test_hears(tiro_server):
                assert "Góðan" in await hear()
                await asyncio.wait_for(tiro_server.wait_for_connection(), 5)

            globals()[f"test_in_{{scope}}"] = test_hears
        del test_hears

        @pytest_asyncio.fixture(loop_scope="session")
        async def heard(tiro_server):
            return await hear()

        @pytest.mark.asyncio(loop_scope="session")
        async def test_by_a_fixture(heard):
            assert "Góðan" in heard

        def test_without_a_loop(tiro_server):
            assert "Góðan" in asyncio.run(hear())
            assert tiro_server.connections[0].seconds > 1
    """
    pytester.makepyfile(__init__="")
    run(pytester, suite).assert_outcomes(passed=7)


def test_the_loop_scope_of_the_settings(pytester: pytest.Pytester) -> None:
    suite = f"""
        {ASK}

        @pytest.mark.asyncio
        async def test_hears(tiro_server):
            assert await hear()
    """
    scope = "asyncio_default_test_loop_scope=session"
    run(pytester, suite, "-o", scope).assert_outcomes(passed=1)


def test_a_fixture_in_another_loop_is_told_what_to_set(pytester: pytest.Pytester) -> None:
    """Instead of waiting for an answer that cannot come."""
    suite = f"""
        import pytest_asyncio
        {ASK}

        @pytest_asyncio.fixture
        async def heard(tiro_server):
            return await hear()

        @pytest.mark.asyncio(loop_scope="module")
        async def test_hears(heard):
            assert heard
    """
    outcome = run(pytester, suite)
    outcome.assert_outcomes(errors=1)
    outcome.stdout.fnmatch_lines(["*'heard' uses tiro_server*set loop_scope=\"module\"*"])


def test_options_that_it_does_not_take_leave_nothing_that_runs_on(
    pytester: pytest.Pytester,
) -> None:
    """A thread would keep the run from ending."""
    pytester.makeconftest(ASK)
    suite = """
        wrong = [{"scrip": "Halló."}, {"script": ""}, {"port": 99999}]

        @pytest.mark.parametrize("tiro_server_options", wrong)
        def test_nothing(tiro_server):
            pass

        @pytest.mark.parametrize("tiro_server_options", wrong)
        async def test_nothing_either(tiro_server):
            pass
    """
    before = set(threading.enumerate())
    run(pytester, suite, "-o", "asyncio_mode=auto", "--tb=no").assert_outcomes(errors=6)
    assert set(threading.enumerate()) <= before


def test_the_example_of_the_readme(pytester: pytest.Pytester) -> None:
    readme = Path(__file__).parent.parent / "README.md"
    blocks = re.findall(r"```python\n(.*?)```", readme.read_text(), re.DOTALL)
    (example,) = [block for block in blocks if "pytest_plugins" in block]
    pytester.makepyfile(example)
    scope = "asyncio_default_fixture_loop_scope=function"
    pytester.runpytest_inprocess("-W", "error", "-o", scope).assert_outcomes(passed=1)


def test_it_is_loaded_only_when_asked_for(pytester: pytest.Pytester) -> None:
    suite = """
        async def test_hears(tiro_server):
            assert await hear()
    """
    without = run(pytester, suite, "-o", "asyncio_mode=auto")
    without.assert_outcomes(errors=1)
    without.stdout.fnmatch_lines(["*fixture 'tiro_server' not found*"])
    plugin = "livekit.plugins.tiro.testing.pytest_plugin"
    run(pytester, suite, "-o", "asyncio_mode=auto", "-p", plugin).assert_outcomes(passed=1)


def test_without_pytest_asyncio_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = local.__path__
    monkeypatch.setitem(sys.modules, "pytest_asyncio", None)
    with pytest.raises(ModuleNotFoundError, match="need pytest-asyncio: .* extra 'testing'$"):
        runpy.run_path(f"{path}/pytest_plugin.py")
