"""Notices the quiet in which to ask for the final: at an end, or at a breath. No I/O."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from .loudness import FRAMES_PER_SECOND
from .monologue import BREATH, MONOLOGUE

if TYPE_CHECKING:
    from .backlog import Backlog

NEXT_PAUSE = 0.2
"""Seconds of quiet that end a word. A flush in the middle of the word waits for them."""

# s without a decision, after which quiet that stands out from the noise is taken for a breath too:
# on some lines no pause is as quiet as the noise floor that was learned.
_ANY_QUIET_AFTER = 15.0


class QuietWatch:
    """Notices that somebody is done, or takes a breath in a monologue: the final can be asked for.

    Positions are samples of the caller's audio.
    """

    def __init__(self) -> None:
        """Start with no hypothesis open."""
        self.look_from = inf
        """The position from which on to look for quiet; inf while there is none to look for."""
        self.monologue_from = inf
        """The position from which on a breath is quiet enough; inf while nobody speaks."""
        self._open_from: int | None = None
        self._finals = 0
        self._wanted = self._late_from = inf
        self._breath = 0.0
        self._asked_to = 0
        self._answer_due = self._pause = 0.0
        self._postponed_from: int | None = None

    @property
    def due_from(self) -> float:
        """The position from which on a pause or a breath may ask for a final without the option."""
        return self.monologue_from if self._postponed_from is None else self.look_from

    def wait_for_pause(self, backlog: Backlog) -> None:
        """Have the final asked for in the next pause, whatever is being said."""
        self._postpone(backlog.end, backlog.sample_rate)

    @property
    def is_waiting(self) -> bool:
        """Whether somebody waits for a pause that nobody has asked in yet."""
        return self._postponed_from is not None

    @property
    def waits_from(self) -> int:
        """The position from which on somebody waits for a pause; 0 if nobody does."""
        return self._postponed_from or 0

    def take_over(self, backlog: Backlog, *, somebody_waits: bool) -> None:
        """Ask in the next pause, if somebody has waited since the previous connection."""
        if not somebody_waits:
            return
        sound = backlog.first_loud(max([backlog.start, *backlog.flushes[-1:]]), backlog.end)
        if sound is not None:
            self._postpone(sound, backlog.sample_rate)

    def _postpone(self, position: int, rate: int) -> None:
        self.look_from = self._postponed_from = position
        self._pause = NEXT_PAUSE * rate

    def quiet_from(self, backlog: Backlog) -> int | None:
        """Return where the quiet starts, or None; after the word that had begun, if one had."""
        quiet_from, word = backlog.quiet_from(), self._postponed_from
        if word is None:
            return quiet_from
        silent_from = backlog.last_loud(word, backlog.end) or word
        if backlog.is_loud(backlog.end - backlog.sample_rate // FRAMES_PER_SECOND, backlog.end):
            # What is too short to be measured yet can be the onset of a word.
            silent_from = backlog.end
        # A soft word is quiet compared with the one before it.
        return min(silent_from, quiet_from) if quiet_from and quiet_from >= word else silent_from

    def note(
        self, position: int, *, is_open: bool, finals: int, endpointing: float | None, rate: int
    ) -> None:
        """Take in what the service said, or what the options say now.

        Args:
            position: The position from which on the service has decided on nothing.
            is_open: Whether there is a hypothesis.
            finals: How many finals there were.
            endpointing: The option: seconds of quiet.
            rate: Hz.
        """
        if finals != self._finals:
            self._postponed_from = None
        if finals != self._finals or not is_open:
            self._finals, self._open_from, self._answer_due = finals, None, 0.0
        if not is_open:
            self.monologue_from = inf
            self.look_from = inf if self._postponed_from is None else self._postponed_from
            return
        if self._open_from is None:
            self._open_from = position
        self._wanted = inf if endpointing is None else endpointing * rate
        self.monologue_from = self._open_from + MONOLOGUE * rate
        self._late_from = self._open_from + _ANY_QUIET_AFTER * rate
        self._breath = min(self._wanted, BREATH * rate)
        self.look_from = self.monologue_from if endpointing is None else self._open_from
        if self._postponed_from is not None:
            self.look_from = self._postponed_from

    def asked(self, position: int, answer_due: float) -> None:
        """Note that the final of all up to a position was asked for, by whomever.

        Args:
            position: That position.
            answer_due: Monotonic seconds by which the final is there, if there is one.
        """
        self._asked_to, self._answer_due = position, answer_due
        self._postponed_from = None

    def look_again(self, quiet_from: int | None, step: float) -> None:
        """Put off the next look to when the quiet can have become long enough.

        The quiet never turns out to have begun earlier: what raises the level that it is compared
        with is a later sound.

        Args:
            quiet_from: Where the quiet starts, by the last look; None if no quiet is known.
            step: As in `is_due`.
        """
        if quiet_from is not None:
            wanted = self._breath if self._postponed_from is None else self._pause
            self.look_from = max(self.look_from, quiet_from + wanted - step / 2)

    def is_due(
        self, position: int, quiet_from: int | None, now: float, step: float, *, silent: bool
    ) -> bool:
        """Tell whether to ask for the final now: once for each quiet, one at a time.

        Args:
            position: The position up to which audio was pushed.
            quiet_from: Where the quiet starts; None if no quiet is known.
            now: Monotonic seconds.
            step: Samples by which the quiet seems to grow at a time: the length nearest to the
                wanted one is taken.
            silent: Whether nothing in it stands out from the noise: a breath, and no soft word.
        """
        if quiet_from is not None and self._postponed_from is not None:
            return position - quiet_from + min(step, self._pause) / 2 >= self._pause
        if quiet_from is None or quiet_from < self._asked_to or now < self._answer_due:
            return False
        is_breath = position >= (self.monologue_from if silent else self._late_from)
        wanted = self._breath if is_breath else self._wanted
        return position - quiet_from + min(step, wanted) / 2 >= wanted
