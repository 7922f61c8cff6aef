"""What the help and the errors of the command line look like, where typer's own look is odd."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup

from .exits import told, writing

FLAG = ""
"""The metavar of an option without a value; typer calls it `<bool>`."""

# What pydantic puts before the text of a ValueError.
_PYDANTIC = "Value error, "


class Command(TyperCommand):
    """A command whose help names values by what they are, and whose errors are plain English."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for parameter in self.params:
            if isinstance(parameter, TyperArgument):
                # The name and the help of an argument say what it is; typer adds `<list[str]>`.
                vars(parameter).update(display_type_rich=_no_type)

    def get_help_option(self, ctx: Any) -> Any:
        """Return the option --help."""
        return _as_flag(super().get_help_option(ctx))

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the parts of the usage line: `FILE...` as it is, not `{FILE...}...`."""
        return [_without_braces(piece) for piece in super().collect_usage_pieces(ctx)]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take the command line apart.

        Raises:
            typer.BadParameter: A value is not valid.
        """
        with _plain_errors():
            return super().parse_args(ctx, args)


class Group(TyperGroup):
    """The command line as a whole; if its help cannot be written, that has its exit code too."""

    def make_context(self, *args: Any, **options: Any) -> Any:
        """Take the command line apart, up to the command."""
        with told(), writing():
            return super().make_context(*args, **options)

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        with told(), writing():
            return super().invoke(ctx)

    def get_help_option(self, ctx: Any) -> Any:
        """Return the option --help."""
        return _as_flag(super().get_help_option(ctx))


def _no_type(ctx: Any) -> None:
    return None


def _as_flag(option: Any) -> Any:
    if option is not None:
        option.metavar = FLAG
    return option


def _without_braces(piece: str) -> str:
    return piece[1:].partition("}")[0] if piece.startswith("{") else piece


@contextmanager
def _plain_errors() -> Iterator[None]:
    try:
        yield
    except typer.BadParameter as error:
        error.message = error.message.removeprefix(_PYDANTIC)
        raise
