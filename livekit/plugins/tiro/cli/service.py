"""The service that `transcribe` uses: Tiro's, another, or a server started for the run."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from ..environment import EITHER_KEY, KEY_VARIABLES
from ..options import wire_language
from ..stt import STT
from .exits import LOCAL_KEY, CliError, Exit, note
from .wording import in_options

_NO_KEY = (
    f"no key: set {EITHER_KEY} to the one that Tiro gave you, or try --local, which needs none"
)


@dataclass(frozen=True)
class Service:
    """Which service to use, and how."""

    language: str
    """A BCP-47 tag."""
    base_url: str | None = None
    """Where it is; None leaves it to the environment."""
    local: bool = False
    """Whether to start a server on this machine for the run."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Other arguments of `tiro.STT`, as far as they are set."""

    @asynccontextmanager
    async def open(self) -> AsyncIterator[STT]:
        """Provide an STT for the run.

        Raises:
            CliError: There is no key, a setting is not valid, or an extra is missing.
        """
        if not self.local:
            async with self._stt(self._address(self.base_url)) as engine:
                yield engine
            return
        _check_local(self.language)
        from ..testing import TiroServer

        async with TiroServer(api_key=LOCAL_KEY) as server:
            settings = {**self._address(server.base_url), "api_key": LOCAL_KEY}
            async with self._stt(settings) as engine:
                yield engine

    @staticmethod
    def _address(base_url: str | None) -> dict[str, Any]:
        return {} if base_url is None else {"base_url": base_url}

    def _stt(self, settings: Mapping[str, Any]) -> STT:
        if "api_key" not in settings and not any(map(os.environ.get, KEY_VARIABLES)):
            raise CliError(Exit.NO_KEY, _NO_KEY)
        try:
            return STT(language=self.language, **self.settings, **settings)
        except ValueError as error:
            raise CliError(Exit.USAGE, in_options(str(error))) from None


def _check_local(language: str) -> None:
    """Say what the local server does with a language; raise CliError if it can do nothing."""
    try:
        tag = wire_language(language)
    except ValueError as error:
        raise CliError(Exit.USAGE, in_options(str(error))) from None
    if not tag.startswith(("en", "is")):
        raise CliError(
            Exit.SERVICE,
            f"the local server does not know the language {tag}: it recognises en-US, and for "
            "is-IS says a script's words; leave out --local to have Tiro hear it",
        )
    if tag.startswith("en") and importlib.util.find_spec("pocketsphinx") is None:
        raise CliError(
            Exit.MISSING_EXTRA,
            "recognising English here needs PocketSphinx (the extra 'local'): "
            "pip install pocketsphinx",
        )
    if tag.startswith("is"):
        note("the local server does not know Icelandic: the words that follow are a script's")
