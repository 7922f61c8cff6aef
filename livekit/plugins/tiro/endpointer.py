"""What the plugin assumes of the service's endpointer, in seconds of audio. No I/O.

The endpointer ends a segment after 0.5, 1.0 or 2.0 s of silence, by how complete the words look.
"""

from __future__ import annotations

SHORTEST_PAUSE = 0.5
"""Seconds after the last loud audio before which no rule of the endpointer decides."""

DECIDED_AFTER = 2.5
"""Seconds after the last loud audio by which the last of the endpointer's rules has decided."""

EMPTY_SEGMENT = 5.0
"""Seconds of audio without a word, after which the endpointer says that it heard nothing."""

FLUSH_SILENCE = 2.5
"""Seconds of zeros after a flush: the last of the endpointer's rules needs 2.0 s of silence, and
the acoustic model looks 0.3 s ahead."""

STILL_TALKING = 0.3
"""Seconds after the last loud audio for which somebody may be in the middle of a sentence."""
