"""The documentation builds from the docstrings, without a warning."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

MODULES = (
    "livekit.plugins.tiro",
    "livekit.plugins.tiro.testing",
    "livekit.plugins.tiro.testing.pytest_plugin",
)


@pytest.mark.nightly
def test_the_documentation_builds_without_a_warning(tmp_path: Path) -> None:
    pdoc = (sys.executable, "-W", "error::UserWarning", "-m", "pdoc", "--docformat", "google")
    done = subprocess.run(
        [*pdoc, "--output-directory", tmp_path, *MODULES],
        capture_output=True,
        encoding="utf-8",
        timeout=240,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    page = (tmp_path / "livekit/plugins/tiro.html").read_text(encoding="utf-8")
    assert 'id="STT"' in page and 'id="SpeechStream"' in page
    page = (tmp_path / "livekit/plugins/tiro/testing/pytest_plugin.html").read_text("utf-8")
    assert "A running <code>TiroServer</code>" in page
