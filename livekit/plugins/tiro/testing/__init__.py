"""A local Tiro server for tests and demos: no key, no network, the same frames."""

from __future__ import annotations

from .fault_specs import describe_faults, parse_faults
from .hooks import Drop, HandshakeRefusal, Hooks
from .recognizer import (
    DEFAULT_SCRIPT,
    Attentive,
    Ending,
    Hypothesis,
    Judging,
    Recognition,
    RecognizerFactory,
    Script,
    ScriptedRecognizer,
    Word,
)
from .record import ConnectionRecord
from .script import parse_script, read_script
from .server import TiroServer
from .sphinx import SphinxRecognizer
from .timed import At, TimedRecognizer
from .wire import SpeechConfig, StatusError

__all__ = [
    "DEFAULT_SCRIPT",
    "At",
    "Attentive",
    "Drop",
    "Ending",
    "HandshakeRefusal",
    "Hooks",
    "Hypothesis",
    "Judging",
    "Recognition",
    "RecognizerFactory",
    "Script",
    "ScriptedRecognizer",
    "ConnectionRecord",
    "SpeechConfig",
    "SphinxRecognizer",
    "StatusError",
    "TimedRecognizer",
    "TiroServer",
    "Word",
    "describe_faults",
    "parse_faults",
    "parse_script",
    "read_script",
]
