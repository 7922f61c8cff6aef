"""The package's logger. It never carries keys, transcripts or payloads in a message."""

import logging

logger = logging.getLogger("livekit.plugins.tiro")
