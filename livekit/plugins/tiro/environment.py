"""What is taken from the environment where nothing is given: the key, and the address."""

from __future__ import annotations

import os

from .options import Key, checked_key, websocket_url

KEY_VARIABLES = ("TIRO_API_KEY", "TIRO_SPEECH_KEY")
"""Where a key is looked for, first to last."""

EITHER_KEY = " or ".join(KEY_VARIABLES)
"""Both, in words."""

URL_VARIABLE = "TIRO_BASE_URL"
"""Where an address is looked for."""


def key_of_environment() -> tuple[str, Key] | None:
    """Return the name of the variable that holds a key, and the key; None if none does.

    Raises:
        ValueError: What it holds cannot be a key. The message names the variable.
    """
    for name in KEY_VARIABLES:
        if os.environ.get(name):
            try:
                return name, checked_key(Key(os.environ[name]))
            except ValueError as error:
                raise ValueError(str(error).replace("api_key", name)) from None
    return None


def url_of_environment() -> str | None:
    """Return the address, with the websocket scheme; None if there is none.

    Raises:
        ValueError: What is there is no address. The message names the variable.
    """
    url = os.environ.get(URL_VARIABLE)
    try:
        return websocket_url(url) if url else None
    except ValueError as error:
        raise ValueError(str(error).replace("base_url", URL_VARIABLE)) from None
