"""The `serve` command: the local server in the foreground, for trying out an agent offline."""

from __future__ import annotations

import asyncio
import errno
import shlex
import signal
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..options import checked_key
from .exits import LOCAL_KEY, CliError, Exit, exits, note, writing

if TYPE_CHECKING:
    from ..testing import At, Hooks

_Host = Annotated[
    str,
    typer.Option(
        "--host", metavar="HOST", help="The address to listen at; 0.0.0.0 lets other machines in."
    ),
]
_Port = Annotated[
    int,
    typer.Option(
        "--port",
        "-p",
        min=0,
        max=65535,
        metavar="PORT",
        help="The port; 0 takes any free one.",
    ),
]
_Key = Annotated[
    str,
    typer.Option(
        "--api-key", metavar="KEY", help="The key that clients must give; not one of Tiro's."
    ),
]
_Script = Annotated[
    Path | None,
    typer.Option(
        "--script",
        metavar="FILE",
        help="UTF-8 text to say, a sentence on each line; or, with the second of the call, an "
        "utterance on each line, like '1.2 Góðan daginn.'",
    ),
]
_Fault = Annotated[
    list[str] | None,
    typer.Option(
        "--fault",
        metavar="SPEC",
        help="What goes wrong, such as 'disconnect:2.5@1' (after 2.5 s of audio, on the first "
        "connection); without @1 every connection has it. Can be repeated, and 'help' lists all.",
    ),
]
# Connections at the same time; more are refused, so that no client takes all of the memory.
_MOST_CONNECTIONS = 200


def serve(
    host: _Host = "127.0.0.1",
    port: _Port = 8765,
    api_key: _Key = LOCAL_KEY,
    script: _Script = None,
    fault: _Fault = None,
) -> None:
    """Run a local server that speaks Tiro's protocol, until Ctrl-C.

    It prints the two settings that point an agent, or transcribe, at it.

    English (en-US) is recognised, which needs the extra 'local'.

    For Icelandic (is-IS) it says a script: at the times in it, or else while it hears speech.
    """
    with exits():
        if fault == ["help"]:
            _list_faults()
            return
        if not host.strip():
            raise CliError(Exit.USAGE, "--host must not be empty: give an address, as 127.0.0.1")
        key = _checked(api_key)
        words = None if script is None else _read(script)
        asyncio.run(_serve(host, port, key, words, _hooks(fault or [])))


async def _serve(
    host: str, port: int, api_key: str, script: list[str] | list[At] | None, hooks: Hooks
) -> None:
    from ..testing import TiroServer

    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        # Windows has no such handlers: there Ctrl-C raises KeyboardInterrupt. A signal that the
        # program was started to ignore, as by nohup, is ignored.
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            with suppress(NotImplementedError):
                loop.add_signal_handler(number, stopped.set)
    server = TiroServer(
        host=host,
        port=port,
        api_key=api_key,
        script=script,
        hooks=hooks,
        recorded_bytes=0,
        max_connections=_MOST_CONNECTIONS,
    )
    try:
        async with server:
            with writing():
                print(f"export TIRO_BASE_URL={shlex.quote(_reachable(server.base_url))}")
                print(f"export TIRO_API_KEY={shlex.quote(api_key)}")
            if here := _here(server.base_url):
                note(f"on other machines put this one's name or address in place of {here}")
            note("listening; Ctrl-C stops")
            await stopped.wait()
    except BrokenPipeError:
        # Nobody reads the output: that is no failure to listen.
        raise
    except OSError as error:
        raise CliError(Exit.ADDRESS, _cannot_listen(host, port, error)) from None


def _cannot_listen(host: str, port: int, error: OSError) -> str:
    """Return what is wrong with an address, and which option to change."""
    address = f"[{host}]" if ":" in host else host
    of_port = error.errno in (errno.EADDRINUSE, errno.EACCES)
    advice = "choose another --port (0 takes any free one)" if of_port else "choose another --host"
    return f"cannot listen at {address}:{port}: {error.strerror or error}; {advice}"


# Addresses that stand for all of a machine and that nobody can connect to, each with the loopback
# address to print in its place.
_ANYWHERE = {"//0.0.0.0:": "//127.0.0.1:", "//[::]:": "//[::1]:"}


def _reachable(base_url: str) -> str:
    """Return an address to connect to, in place of one that stands for all of a machine."""
    for anywhere, here in _ANYWHERE.items():
        base_url = base_url.replace(anywhere, here)
    # In a URL, the % before a zone, as in fe80::1%eth0, is written %25.
    return base_url.replace("%", "%25")


def _here(base_url: str) -> str | None:
    """Return the host that is printed, if other machines may connect but not by that host."""
    found = (here for anywhere, here in _ANYWHERE.items() if anywhere in base_url)
    return next((here.strip("/:") for here in found), None)


def _checked(api_key: str) -> str:
    """Return the key as clients send it; refuse one that they could not send."""
    try:
        return checked_key(api_key)
    except ValueError as error:
        # It need not be Tiro's.
        said = str(error).replace("api_key", "--api-key").replace("give Tiro's key", "give any")
        raise CliError(Exit.USAGE, said) from None


def _read(script: Path) -> list[str] | list[At]:
    from ..testing import read_script

    try:
        return read_script(script)
    except OSError as error:
        raise CliError(Exit.NO_FILE, f"{script}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise CliError(Exit.USAGE, str(error)) from None


def _hooks(faults: list[str]) -> Hooks:
    from ..testing import parse_faults

    try:
        return parse_faults(faults)
    except ValueError as error:
        raise CliError(Exit.USAGE, str(error)) from None


def _list_faults() -> None:
    from ..testing import describe_faults

    with writing():
        print(*describe_faults(), sep="\n")
