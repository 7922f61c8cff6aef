"""What a person at a terminal sees while a file is being heard."""

from __future__ import annotations

import io
import re
import time

import pytest
from rich.console import Console

from livekit.plugins.tiro.cli.screen import Screen


class Terminal(io.StringIO):
    """A file that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


class Gone(Terminal):
    """A terminal that was closed."""

    def write(self, text: str) -> int:
        raise OSError(5, "Input/output error")


def shown(view: Screen, width: int = 80) -> str:
    terminal = io.StringIO()
    Console(file=terminal, width=width, force_terminal=True, color_system=None).print(view)
    return terminal.getvalue()


def test_the_screen_shows_the_words_so_far_and_a_bar_for_a_long_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    view = Screen(None, 3600.0)
    assert "0:00 / 1:00:00 0.0x" in shown(view)
    now = 110.0
    view.heard(125.0)
    view.show("góðan daginn")
    words, bar = shown(view).splitlines()
    assert words == "góðan daginn"
    assert "━" in bar
    assert "2:05 / 1:00:00 12.5x" in bar


def test_the_screen_shows_no_bar_for_a_short_file() -> None:
    view = Screen(None, 5.0)
    assert shown(view).strip() == ""
    view.show("já")
    assert shown(view) == "já\n"


def test_the_screen_shows_how_much_is_done_of_a_file_of_unknown_length() -> None:
    view = Screen(None, None)
    view.heard(61.0)
    assert re.search(r"1:01 +\d+\.\dx", shown(view))


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (14, "… fjórir fimm"),
        (5, "… imm"),
        (4, "… mm"),
        (3, "… m"),
        (2, "mm"),
        (1, "m"),
    ],
)
def test_a_long_hypothesis_shows_its_newest_words_on_one_line(width: int, line: str) -> None:
    view = Screen(None, 5.0)
    view.show("einn tveir þrír fjórir fimm")
    assert shown(view, width) == f"{line}\n"


def test_a_letter_that_is_wider_than_the_terminal_is_left_out() -> None:
    view = Screen(None, 5.0)
    view.show("日本")
    assert shown(view, 1).strip() == ""


def test_the_terminal_shows_what_changes_at_once() -> None:
    terminal = Terminal()
    console = Console(file=terminal, force_terminal=True, width=80, color_system=None)
    with Screen(console, 60.0) as view:
        view.show("góðan d")
        assert "góðan d" in terminal.getvalue()
        view.heard(30.0)
        assert "0:30 / 1:00" in terminal.getvalue()


def test_the_screen_leaves_nothing_behind() -> None:
    terminal = Terminal()
    console = Console(file=terminal, force_terminal=True, width=40)
    with Screen(console, 5.0) as view:
        view.show("já")
    _, after = terminal.getvalue().rsplit("já", 1)
    assert after.endswith("\x1b[2K")


def test_a_remark_stands_above_what_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal()
    console = Console(file=terminal, force_terminal=True, width=40)
    with Screen(console, 5.0) as view:
        view.show("já")
        view.note("odd")
        assert capsys.readouterr().err == "note: odd\n"
        _, cleared, again = terminal.getvalue().rpartition("\x1b[1A\x1b[2K")
        assert cleared and "já" in again


def test_a_terminal_that_was_closed_is_no_reason_to_end() -> None:
    console = Console(file=Gone(), force_terminal=True, width=40)
    for _ in range(2):
        with Screen(console, 60.0) as view:
            view.show("já")
            view.note("odd")
            view.heard(5.0)


def test_a_terminal_that_is_closed_meanwhile_is_no_reason_to_end() -> None:
    terminal = Terminal()
    console = Console(file=terminal, force_terminal=True, width=40)
    with Screen(console, 60.0) as view:
        view.show("já")
        console.file = Gone()


def test_without_a_terminal_nothing_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with Screen(None, 60.0) as view:
        view.show("já")
        view.heard(5.0)
    assert capsys.readouterr() == ("", "")
