"""How audio is cut into messages, so that the first sound of an utterance arrives whole. No I/O.

Tiro's published server opens its decoder by a voice gate that looks at one message at a time, and
throws away every message before the one that opened it; the gate is closed again after every final.
So while the service has nothing to decode, quiet audio is gathered and the last of it held back:
the first loud audio goes out together with what was before it, as one message. Then messages go at
once. Steady noise opens the gate by itself, so that holding it back does no harm, and where there
is no such gate it costs the first sound of an utterance 0.1 s.
"""

from __future__ import annotations

# s; quiet audio goes in messages of this length, of which the gate looks at all, and so much is
# held back: the onset of a word can be too quiet to be told from noise.
_HELD_BACK = 0.15
# s of audio behind the first loud frame that go in the same message: enough voice for the gate.
_WITH_FIRST_SOUND = 0.1

DECIDED_AFTER = 2.5
"""Seconds behind the last loud audio by which the last of the endpointer's rules has decided."""

STILL_TALKING = 0.3
"""Seconds behind the last loud audio for which somebody may be in the middle of a sentence."""


class Onset:
    """Says how long the messages of one connection are while the service has nothing to decode.

    Positions are samples of the caller's audio from its start.
    """

    def __init__(self, *, gathering: bool = True) -> None:
        """Start with a closed gate.

        Args:
            gathering: Whether to gather quiet audio at all.
        """
        self.is_gathering = gathering
        """Whether the service has nothing to decode, as far as is known."""
        self._may_gather = gathering

    def gather(self) -> None:
        """Note that the service has nothing to decode: the gate is closed."""
        self.is_gathering = self._may_gather

    def next_message(
        self, start: int, stop: int, loud: int | None, *, chunk: int, sample_rate: int
    ) -> int:
        """Return the samples of the next message, 0 to wait for more audio.

        Args:
            start: The position from which audio is to be sent.
            stop: The position up to which there is any.
            loud: The position of the first loud audio between them, None if there is none.
            chunk: The samples that messages are multiples of.
            sample_rate: Hz.
        """
        held = _held(chunk, sample_rate)
        quiet_to = (stop if loud is None else loud) - held
        if quiet_to - start >= held:
            return held
        if loud is None:
            return 0
        size = -(-(loud + round(_WITH_FIRST_SOUND * sample_rate) - start) // chunk) * chunk
        if start + size > stop:
            return 0
        self.is_gathering = False
        return size

    def held(self, ready: int, is_loud: bool, *, chunk: int, sample_rate: int) -> int:
        """Return the samples of the next message when nothing is to be held back any more.

        Args:
            ready: The samples that are held back.
            is_loud: Whether any of it is loud: then all of it is one message.
            chunk: The samples that messages are multiples of.
            sample_rate: Hz.
        """
        most = ready if is_loud else min(ready, _held(chunk, sample_rate))
        return most // chunk * chunk


def _held(chunk: int, sample_rate: int) -> int:
    return max(1, round(_HELD_BACK * sample_rate / chunk)) * chunk
