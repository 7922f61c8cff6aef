"""The package as users get it: what is in it, and that it works where this repository is not."""

from __future__ import annotations

import ast
import email
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from livekit.plugins import tiro

if TYPE_CHECKING:
    from email.message import Message

ROOT = Path(__file__).parent.parent
NAME = f"livekit_plugins_tiro-{tiro.__version__}"
OTHERS = ("assemblyai", "deepgram", "soniox")
"""Plugins of LiveKit's own that the package is installed beside."""


def run(*command: str | Path, cwd: Path | None = None, timeout: float = 240) -> str:
    """Run a command, away from the environment of these tests, and return what it prints."""
    environment = {n: v for n, v in os.environ.items() if n not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, encoding="utf-8", timeout=timeout
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def sources() -> set[str]:
    """Return the files of the package, as paths from the root of the repository."""
    files = (ROOT / "livekit").rglob("*")
    return {
        path.relative_to(ROOT).as_posix()
        for path in files
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the sdist, and the wheel from the sdist."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT)
    return out


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    return dist / f"{NAME}-py3-none-any.whl"


@pytest.fixture(scope="module")
def core_metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        return email.message_from_bytes(archive.read(f"{NAME}.dist-info/METADATA"))


# -- what is in it -------------------------------------------------------------------------------


def test_the_wheel_holds_the_plugin_and_nothing_else_of_livekit(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {name for name in names if ".dist-info/" not in name} == sources()
    assert all(name.startswith("livekit/plugins/tiro/") for name in sources()), "PEP 420"
    assert "livekit/plugins/tiro/py.typed" in names
    assert f"{NAME}.dist-info/licenses/LICENSE" in names


def test_the_sdist_holds_what_the_wheel_needs(dist: Path) -> None:
    with tarfile.open(dist / f"{NAME}.tar.gz") as archive:
        names = {member.name.removeprefix(f"{NAME}/") for member in archive}
    about = {"README.md", "LICENSE", "CHANGELOG.md", "PKG-INFO", "pyproject.toml", ".gitignore"}
    assert names == sources() | about


def test_both_pass_the_checks_of_the_package_index(dist: Path) -> None:
    run(sys.executable, "-m", "twine", "check", "--strict", *sorted(dist.iterdir()))


def test_one_version(core_metadata: Message) -> None:
    assert core_metadata["Version"] == tiro.__version__
    assert metadata.version("livekit-plugins-tiro") == tiro.__version__


def test_what_the_index_shows(core_metadata: Message) -> None:
    assert core_metadata["Name"] == "livekit-plugins-tiro"
    assert core_metadata["License-Expression"] == "Apache-2.0"
    assert core_metadata["Requires-Python"] == ">=3.10"
    assert core_metadata["Description-Content-Type"] == "text/markdown"
    urls = dict(url.split(", ") for url in core_metadata.get_all("Project-URL", []))
    assert urls.keys() == {"LiveKit Agents", "Tiro"}
    assert core_metadata["Author"] == "livekit-plugins-tiro developers"
    classifiers = core_metadata.get_all("Classifier", [])
    minors = [f"Programming Language :: Python :: 3.{minor}" for minor in range(10, 15)]
    assert {*minors, "Typing :: Typed", "Intended Audience :: Developers"} <= {*classifiers}


def test_every_import_of_the_plugin_is_declared(core_metadata: Message) -> None:
    """An agent needs nothing that is only there because something else brings it."""
    declared = {
        re.split(r"[^\w-]", requirement)[0].replace("-", "_")
        for requirement in core_metadata.get_all("Requires-Dist", [])
        if "extra ==" not in requirement
    }
    imported: set[str] = set()
    for path in (ROOT / "livekit/plugins/tiro").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported.update(alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                imported.add((node.module or "").partition(".")[0])
    assert imported - sys.stdlib_module_names <= declared


def test_each_module_starts_with_what_it_is() -> None:
    """Its docstring is the first thing one sees, with one line of licence above it at most."""
    first = re.compile(r'(# SPDX-License-Identifier: Apache-2\.0\n+)?"""')
    package = ROOT / "livekit/plugins/tiro"
    modules = set(package.rglob("*.py")) - {package / "stt.py", package / "stream.py"}
    assert [path for path in modules if not first.match(path.read_text(encoding="utf-8"))] == []


# -- that it works elsewhere ---------------------------------------------------------------------


def new_environment(home: Path) -> tuple[Path, tuple[str | Path, ...]]:
    """Make an environment. Return its Python, and the command that installs into it."""
    uv = (sys.executable, "-m", "uv")
    run(*uv, "venv", "--python", sys.executable, home)
    found = home / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    return found, (*uv, "pip", "install", "--python", found)


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel alone into a new environment, and return its Python.

    What it needs is that of these tests: to compile all of that once more takes 15 s.
    """
    found, install = new_environment(tmp_path_factory.mktemp("elsewhere") / "venv")
    run(*install, "--offline", "--no-deps", wheel)
    place = "import sysconfig; print(sysconfig.get_path('purelib'))"
    path = Path(run(found, "-c", place).strip()) / "needs.pth"
    path.write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    return found


@pytest.fixture(scope="module")
def crowded_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel, what it says that it needs, and other plugins, and return the Python."""
    found, install = new_environment(tmp_path_factory.mktemp("crowded") / "venv")
    probe = subprocess.run(
        [*install, "--dry-run", "--no-cache", "--no-deps", "hatchling"],
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )
    if probe.returncode:
        pytest.skip(f"no package index is reachable: {probe.stderr.strip().splitlines()[0]}")
    others = [f"livekit-plugins-{name}" for name in OTHERS]
    run(*install, f"{wheel}[local]", *others, timeout=600)
    return found


def test_the_command_runs_from_the_wheel(python: Path, tmp_path: Path) -> None:
    command = ("-m", "livekit.plugins.tiro", "transcribe", "--local", ROOT / "tests/data/is.wav")
    assert run(python, *command, cwd=tmp_path).startswith("Góðan daginn")
    look = "import importlib.util as u; print(u.find_spec('livekit.plugins.tiro').origin)"
    where = run(python, "-c", look, cwd=tmp_path)
    assert Path(where).is_relative_to(python.parent.parent)


@pytest.mark.nightly
def test_the_demo_runs_from_the_wheel(crowded_python: Path, tmp_path: Path) -> None:
    """With nothing but what the wheel says that it needs, and other plugins."""
    pytest.importorskip("pocketsphinx")
    demo = ("-m", "livekit.plugins.tiro", "transcribe", "--local", "--language", "en-US")
    text = run(crowded_python, *demo, ROOT / "tests/data/fox.wav", cwd=tmp_path)
    assert text.strip() == "the quick brown fox jumps over the lazy dog"


@pytest.mark.nightly
def test_it_stands_beside_other_plugins(crowded_python: Path, tmp_path: Path) -> None:
    code = """if True:
        import importlib, pkgutil
        import livekit.plugins
        for plugin in pkgutil.iter_modules(livekit.plugins.__path__):
            print(plugin.name, importlib.import_module(f"livekit.plugins.{plugin.name}").__file__)
        import livekit.rtc
        from importlib.metadata import version
        print("version", version("livekit-plugins-tiro"))
    """
    found = dict(
        line.split(maxsplit=1)
        for line in run(crowded_python, "-c", code, cwd=tmp_path).splitlines()
    )
    assert {"tiro", *OTHERS} <= found.keys()
    assert Path(found["tiro"]).is_relative_to(crowded_python.parent.parent)
    assert found["version"] == tiro.__version__
