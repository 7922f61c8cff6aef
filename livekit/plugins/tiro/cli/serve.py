"""The `serve` command: the local server in the foreground, for trying out an agent offline."""

from __future__ import annotations

import asyncio
import shlex
import signal
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from .exits import CliError, Exit, exits, note

_Host = Annotated[
    str, typer.Option("--host", help="The address to listen at; 0.0.0.0 lets other machines in.")
]
_Port = Annotated[
    int, typer.Option("--port", "-p", min=0, max=65535, help="The port; 0 takes any free one.")
]
_Key = Annotated[
    str, typer.Option("--api-key", help="The key that clients must give; not one of Tiro's.")
]
_Script = Annotated[
    Path | None,
    typer.Option(
        "--script", help="UTF-8 text to say for Icelandic speech, a sentence on each line."
    ),
]


def serve(
    host: _Host = "127.0.0.1",
    port: _Port = 8765,
    api_key: _Key = "local",
    script: _Script = None,
) -> None:
    """Run a local server that speaks Tiro's protocol, until Ctrl-C.

    It prints the two settings that point an agent, or transcribe, at it.

    English (en-US) is recognised, which needs the extra 'local'.

    For Icelandic (is-IS) it says the words of a script while it hears speech.
    """
    with exits():
        sentences = None if script is None else _sentences(script)
        asyncio.run(_serve(host, port, api_key, sentences))


async def _serve(host: str, port: int, api_key: str, sentences: list[str] | None) -> None:
    from ..testing import TiroServer

    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        # Windows has no such handlers; there Ctrl-C raises KeyboardInterrupt.
        with suppress(NotImplementedError):
            loop.add_signal_handler(number, stopped.set)
    try:
        async with TiroServer(host=host, port=port, api_key=api_key, script=sentences) as server:
            print(f"export TIRO_BASE_URL={shlex.quote(server.base_url)}")
            print(f"export TIRO_API_KEY={shlex.quote(api_key)}", flush=True)
            note("listening; Ctrl-C stops")
            await stopped.wait()
    except OSError as error:
        raise CliError(Exit.ADDRESS, f"cannot listen at {host}:{port}: {error.strerror}") from None


def _sentences(script: Path) -> list[str]:
    try:
        lines = script.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise CliError(Exit.NO_FILE, f"{script}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CliError(Exit.USAGE, f"{script}: is not UTF-8 text") from None
    sentences = [line.strip() for line in lines if line.strip()]
    if not sentences:
        raise CliError(Exit.USAGE, f"{script}: there is no sentence in it")
    return sentences
