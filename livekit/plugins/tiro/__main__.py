"""Makes `python -m livekit.plugins.tiro` the command line."""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    """Run the command line; an interrupt while it still loads is quiet too."""
    # Also installed as a command of its own, which messages should name as it was called.
    called = Path(sys.argv[0]).stem
    try:
        from .cli import app
    except KeyboardInterrupt:
        sys.exit(130)
    app(prog_name="tiro" if called == "tiro" else "python -m livekit.plugins.tiro")


if __name__ == "__main__":
    main()
