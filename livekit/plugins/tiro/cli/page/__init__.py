"""A transcript as a page for a browser: sound, waveform and words in one file that needs no other.

`Recording` keeps the sound while a file is read; `render_page` makes the page of it.
"""

from .recording import Recording, Sound
from .render import render_page

__all__ = ["Recording", "Sound", "render_page"]
