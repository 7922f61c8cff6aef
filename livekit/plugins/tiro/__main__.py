"""Makes `python -m livekit.plugins.tiro` the command line."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; an interrupt while it still loads is quiet too."""
    try:
        from .cli import app
    except KeyboardInterrupt:
        sys.exit(130)
    app(prog_name="python -m livekit.plugins.tiro")


if __name__ == "__main__":
    main()
