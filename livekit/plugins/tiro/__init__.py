"""Tiro plugin for LiveKit Agents: Icelandic speech recognition.

Pass `STT()` to an `AgentSession`.
"""

from livekit.agents import Plugin

from .log import logger
from .stats import Stats
from .stream import SpeechStream
from .stt import STT
from .version import __version__

__all__ = ["STT", "SpeechStream", "Stats", "__version__"]


class TiroPlugin(Plugin):
    def __init__(self) -> None:
        super().__init__(__name__, __version__, __package__ or __name__, logger)


Plugin.register_plugin(TiroPlugin())

# Cleanup docs of unexported modules
_module = dir()
NOT_IN_ALL = [m for m in _module if m not in __all__]

__pdoc__ = {}

for n in [*NOT_IN_ALL, "cli", "testing"]:
    __pdoc__[n] = False
