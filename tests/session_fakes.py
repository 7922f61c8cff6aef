"""Names of `tests.support.session_fakes` at their former place, for scripts elsewhere."""

from __future__ import annotations

from .support.session_fakes import Call, local_server, new_stt, speech

__all__ = ["Call", "local_server", "new_stt", "speech"]
