"""Where the bytes of an input come from: a file, a pipe, the standard input."""

from __future__ import annotations

import os
import select
import stat
import sys
import threading
from contextlib import suppress

from .exits import Exit, FileError

STDIN = "-"
"""How the standard input is named on the command line."""

# Bytes of a pipe that are kept for looking at its header.
_HEAD = 2**16


class Source:
    """The bytes of one input: `read` is for one thread, `stop` for any.

    libav reads from it, by `read` alone, or by `seek` as well if `is_file`.

    Args:
        name: A path, or `STDIN`.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._stopped = False
        # Keeps `stop` from writing to a descriptor that `close` has closed meanwhile.
        self._lock = threading.Lock()
        self._closed = False
        self._fd: int | None = None
        self._is_file = False
        self._wake_read, self._wake_write = os.pipe()
        # All bytes of a pipe so far, until `forget`; from then on only its first ones, in `_head`.
        self._kept: bytearray | None = None
        self._head = b""
        # Bytes of a pipe that are to be read again, after `rewind`.
        self._again = b""

    def open(self) -> None:
        """Open it; a named pipe waits for somebody who writes to it.

        Raises:
            FileError: It cannot be opened.
        """
        self._fd = _stdin() if self._name == STDIN else open_file(self._name)
        self._is_file = stat.S_ISREG(os.fstat(self._fd).st_mode)
        self._kept = None if self._is_file else bytearray()

    @property
    def is_file(self) -> bool:
        """Whether it can be read from any place, and ends; a pipe cannot, and may never end."""
        return self._is_file

    def readable(self) -> bool:
        """Tell libav that it can read."""
        return True

    def seekable(self) -> bool:
        """Tell libav whether it can seek."""
        return self._is_file

    def read(self, size: int) -> bytes:
        """Return what is there, at least a byte and at most `size`; nothing at the end.

        It waits for the first byte, not for all of them, and no longer than until `stop`.

        Raises:
            OSError: It cannot be read.
        """
        if self._again:
            data, self._again = self._again[:size], self._again[size:]
            return data
        data = self._read(size)
        if self._kept is not None:
            self._kept += data
        return data

    def _read(self, size: int) -> bytes:
        assert self._fd is not None
        while not self._stopped:
            if not self._is_file:
                self._wait(self._fd)
            # Somebody else may have read what was there, or `stop` may have ended the wait.
            with suppress(BlockingIOError):
                return b"" if self._stopped else os.read(self._fd, size)
        return b""

    def _wait(self, fd: int) -> None:
        """Wait until there is something to read, or nothing more will come, or `stop`."""
        if sys.platform == "win32":
            # It waits for sockets only: there a read of a pipe cannot be stopped.
            return
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        poll.poll()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place in a file, and return it; -1 if there is no such place.

        In a damaged file, libav may ask for any place; that is no fault of the disk.
        """
        assert self._fd is not None
        try:
            return os.lseek(self._fd, offset, whence)
        except (OSError, OverflowError):
            return -1

    def tell(self) -> int:
        """Return the place in a file."""
        return self.seek(0, os.SEEK_CUR)

    def read_at(self, offset: int, size: int) -> bytes:
        """Return some bytes, and stay where it is; of a pipe, if they came and are kept.

        Raises:
            OSError: It cannot be read.
        """
        if not self._is_file:
            known = self._head if self._kept is None else self._kept
            return bytes(known[offset : offset + size])
        place = self.tell()
        self.seek(offset)
        data = self._read(size)
        self.seek(place)
        return data

    @property
    def kept(self) -> int:
        """Bytes of a pipe that were read and are kept."""
        return 0 if self._kept is None else len(self._kept)

    def rewind(self) -> None:
        """Go back to the start; of a pipe, before `forget`."""
        if self._kept is None:
            self.seek(0)
        else:
            self._again = bytes(self._kept)

    def forget(self) -> None:
        """Keep no more of a pipe, because it will not be read again from its start."""
        self._head = bytes(self._kept or b"")[:_HEAD]
        self._kept = None

    def stop(self) -> None:
        """End all reading: there is nothing more from now on."""
        self._stopped = True
        with self._lock:
            if not self._closed:
                os.write(self._wake_write, b"!")
        with suppress(OSError, AttributeError):
            # A named pipe may still wait to be opened, for somebody who writes to it.
            if self._fd is None and stat.S_ISFIFO(os.stat(self._name).st_mode):
                os.close(os.open(self._name, os.O_WRONLY | os.O_NONBLOCK))

    def close(self) -> None:
        """Let go of it, in the thread that reads it, or when none does."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self._fd is not None and self._name != STDIN:
                os.close(self._fd)
            os.close(self._wake_read)
            os.close(self._wake_write)


def check_readable(name: str) -> None:
    """Raise FileError unless the input can be opened.

    A named pipe is left alone, because it opens only once.
    """
    if name == STDIN:
        _stdin()
    elif not _is_fifo(name):
        os.close(open_file(name))


def open_file(name: str) -> int:
    """Open a file for reading, and return its descriptor.

    Raises:
        FileError: It cannot be opened. The message names neither file nor directory.
    """
    try:
        fd = os.open(name, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        raise FileError(Exit.NO_FILE, "no such file") from None
    except (OSError, ValueError) as error:
        raise unreadable(error) from None
    if stat.S_ISDIR(os.fstat(fd).st_mode):
        os.close(fd)
        raise FileError(Exit.NO_FILE, "that is a directory, not a file")
    return fd


def unreadable(error: OSError | ValueError) -> FileError:
    """Return what a failure to read means for the user."""
    reason = error.strerror if isinstance(error, OSError) else None
    return FileError(Exit.NO_FILE, f"cannot be read: {reason or error}")


def _is_fifo(name: str) -> bool:
    try:
        return stat.S_ISFIFO(os.stat(name).st_mode)
    except (OSError, ValueError):
        return False


def _stdin() -> int:
    try:
        fd = sys.stdin.fileno()
    except (AttributeError, OSError, ValueError):
        raise FileError(Exit.NO_FILE, "the standard input is closed") from None
    if os.isatty(fd):
        raise FileError(Exit.USAGE, "the standard input is a terminal; pipe audio into it")
    return fd
