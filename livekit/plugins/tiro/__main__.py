"""Makes `python -m livekit.plugins.tiro` the command line."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

# SIGHUP, SIGINT, SIGTERM: 128 and the signal's number.
_SIGNALLED = (129, 130, 143)


def main() -> None:
    """Run the command line; an interrupt while its commands still load is quiet too.

    An earlier interrupt, while the package loads (which takes longer), is left to Python.
    """
    # This is also installed as the command `tiro`: messages name it as it was called.
    called = Path(sys.argv[0]).stem
    try:
        from .cli import app

        app(prog_name="tiro" if called == "tiro" else "python -m livekit.plugins.tiro")
    except KeyboardInterrupt:
        _end(130)
    except SystemExit as end:
        if end.code not in _SIGNALLED:
            raise
        _end(end.code)


def _end(code: int) -> None:
    """End at once: clearing up the interpreter can take longer than anybody wants to wait."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, AttributeError):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
