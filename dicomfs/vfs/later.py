"""A file that is put together when it is first read: mostly the kernel has its bytes already, and nobody reads it."""

from collections.abc import Callable
from concurrent.futures import Future

from dicomfs.vfs.node import OpenFile


class LaterFile:
    """One file, opened when somebody reads. May be shared by threads (`read_ready` and `coming` by one)."""

    def __init__(self, open_ready: Callable[[], OpenFile | None], open_file: Callable[[], OpenFile]) -> None:
        """`open_ready` opens it if nothing has to be waited for, `open_file` waits."""
        self._open_ready = open_ready
        self._open_file = open_file
        self._file: OpenFile | None = None

    @property
    def size(self) -> int:
        """The length of the whole file."""
        return self._opened().size

    def _opened(self) -> OpenFile:
        file = self._file
        if file is None:
            file = self._file = self._open_file()
        return file

    def read(self, offset: int, size: int) -> bytes | memoryview:
        """Return up to `size` bytes at `offset`, wait as long as it takes."""
        return self._opened().read(offset, size)

    def read_ready(self, offset: int, size: int) -> bytes | memoryview | None:
        """Return the same if nothing has to be waited for, else None."""
        if self._file is None:
            self._file = self._open_ready()
        return None if self._file is None else self._file.read_ready(offset, size)

    def coming(self, offset: int, size: int) -> Future[memoryview] | None:
        """Return what is being made already and will make `read_ready` answer, if anything is."""
        return None if self._file is None else self._file.coming(offset, size)

    def prefetch(self) -> None:
        """Begin to make what a reader of the whole file asks for first."""
        if self._file is not None:
            self._file.prefetch()

    def close(self) -> None:
        """Close what was opened."""
        if self._file is not None:
            self._file.close()
