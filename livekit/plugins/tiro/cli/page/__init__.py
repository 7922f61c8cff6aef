"""A transcript as a page for a browser: sound, waveform and words in one file that needs no other.

`Recording` keeps the sound while a file is read, `LineWatch` notes what happens on the line, and
`render_page` makes the page.
"""

from .line import LineWatch
from .recording import Recording, Sound
from .render import render_page

__all__ = ["LineWatch", "Recording", "Sound", "render_page"]
