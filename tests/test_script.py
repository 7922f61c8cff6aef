"""Scripts as text: sentences, or utterances with their times."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from livekit.plugins.tiro.testing import (
    At,
    Script,
    parse_script,
    read_script,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

TIMED = """\
# A caller who is in a hurry.
1.2 Góðan daginn.   # the agent has greeted

4 2: Já,\ttakk.
60.25 Klukkan er 2: nei, 3.
"""


@pytest.mark.parametrize(
    ("text", "script"),
    [
        (
            TIMED,
            [
                At(1.2, "Góðan daginn."),
                At(4.0, "Já,\ttakk.", speaker=2),
                At(60.25, "Klukkan er 2: nei, 3."),
            ],
        ),
        ("Þetta er fyrsta.\n\n  Og önnur.  \n", ["Þetta er fyrsta.", "Og önnur."]),
        ("# ekki sagt\nHalló. # né þetta\n3 epli, takk.\n", ["Halló.", "3 epli, takk."]),
        ("17. júní er á morgun.", ["17. júní er á morgun."]),
        ("2: já takk", ["2: já takk"]),
        ("4x4 er jeppi", ["4x4 er jeppi"]),
    ],
)
def test_scripts_as_text(text: str, script: Script | Sequence[At]) -> None:
    assert parse_script(text) == script


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1.2 já\n\n# hér:\nnei", "line 4: 'nei' is not a time"),
        ("1.2 já\n2,5 nei", "line 2: '2,5 nei' is not a time"),
        ("-1 já", "line 1: '-1 já' is not a time"),
        ("1,2 já", "line 1: '1,2 já' is not a time"),
        ("1:02 já", "line 1: '1:02 já' is not a time"),
        ("1.2s já", "line 1: '1.2s já' is not a time"),
        ("1.2", "line 1: '1.2' is not a time"),
        ("1.2 # já", "line 1: '1.2' is not a time"),
        ("1.2 já\n3 ...", "line 2: there are no words"),
        ("1.2 já\n" + "9" * 400 + " já", "line 2: inf is no time"),
        ("# aðeins athugasemd\n \n", "there is no sentence"),
        ("...\n", "there is no sentence"),
        ("", "there is no sentence"),
    ],
)
def test_a_bad_line_is_named(text: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_script(text)
    assert str(caught.value).startswith(message)


def test_script_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "script.txt"
    # As Windows writes it.
    file.write_bytes("\ufeff1.2 Já.\r\n2.5 Ó.\r\n".encode())
    assert read_script(file) == [At(1.2, "Já."), At(2.5, "Ó.")]
    file.write_bytes("Ó.".encode("latin-1"))
    with pytest.raises(ValueError, match=r"script\.txt: not UTF-8 text; save it"):
        read_script(str(file))
    file.write_text("1.2 Já.\nnei", encoding="utf-8")
    with pytest.raises(ValueError, match=r"script\.txt: line 2: 'nei' is not a time"):
        read_script(file)
    with pytest.raises(OSError):
        read_script(tmp_path / "none.txt")
