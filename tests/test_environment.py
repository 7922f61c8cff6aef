"""The key and the address of the environment; what is wrong with them is said of the variable."""

from __future__ import annotations

import traceback

import pytest

from livekit.plugins import tiro
from livekit.plugins.tiro.environment import key_of_environment, url_of_environment
from livekit.plugins.tiro.options import Key

KEY = "lykill-0123456789"


def test_there_may_be_nothing() -> None:
    assert key_of_environment() is None
    assert url_of_environment() is None


def test_the_key_comes_with_the_name_of_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIRO_SPEECH_KEY", f" {KEY}\n")
    assert key_of_environment() == ("TIRO_SPEECH_KEY", KEY)
    monkeypatch.setenv("TIRO_API_KEY", "")
    assert key_of_environment() == ("TIRO_SPEECH_KEY", KEY)
    monkeypatch.setenv("TIRO_API_KEY", "first")
    found = key_of_environment()
    assert found == ("TIRO_API_KEY", "first") and isinstance(found[1], Key)


@pytest.mark.parametrize(
    ("value", "url"), [("", None), ("http://host/a", "ws://host/a"), ("wss://host", "wss://host")]
)
def test_the_address(monkeypatch: pytest.MonkeyPatch, value: str, url: str | None) -> None:
    monkeypatch.setenv("TIRO_BASE_URL", value)
    assert url_of_environment() == url


@pytest.mark.parametrize("url", ["nonsense", "wss://host?token=SECRET", "wss://SECRET@host"])
def test_a_bad_address_is_named_by_its_variable(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("TIRO_BASE_URL", url)
    with pytest.raises(ValueError, match="^TIRO_BASE_URL must ") as raised:
        tiro.STT(api_key=KEY)
    assert "SECRET" not in str(raised.value)
    assert tiro.STT(api_key=KEY, base_url="ws://mine")._options.base_url == "ws://mine"


@pytest.mark.parametrize("name", ["TIRO_API_KEY", "TIRO_SPEECH_KEY"])
@pytest.mark.parametrize("value", [" ", f"{KEY}\n{KEY}"])
def test_a_bad_key_is_named_by_its_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=f"^{name} must (not be empty|be one line)") as raised:
        tiro.STT()
    assert KEY not in str(raised.value)
    for frame, _ in list(traceback.walk_tb(raised.value.__traceback__))[1:]:
        assert KEY not in repr(frame.f_locals)
    assert tiro.STT(api_key="argument")._options.key == "argument"
