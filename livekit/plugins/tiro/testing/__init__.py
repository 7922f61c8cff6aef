"""A local Tiro server for tests and demos: no key, no network, the same frames."""

from __future__ import annotations

from .hooks import Drop, HandshakeRefusal, Hooks
from .recognizer import (
    DEFAULT_SCRIPT,
    Hypothesis,
    Recognition,
    RecognizerFactory,
    Script,
    ScriptedRecognizer,
    Word,
)
from .server import TiroServer
from .session import Session
from .sphinx import SphinxRecognizer
from .wire import SpeechConfig, StatusError

__all__ = [
    "DEFAULT_SCRIPT",
    "Drop",
    "HandshakeRefusal",
    "Hooks",
    "Hypothesis",
    "Recognition",
    "RecognizerFactory",
    "Script",
    "ScriptedRecognizer",
    "Session",
    "SpeechConfig",
    "SphinxRecognizer",
    "StatusError",
    "TiroServer",
    "Word",
]
