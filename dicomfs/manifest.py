r"""The manifest of an export: the SHA-256 of every file, as `sha256sum` writes it and `sha256sum -c` reads it.

    e3b0c442…b855  patient/study/series/00001.dcm
    \e3b0c442…b855  a\\backslash

In a line that begins with a backslash, the name has \\, \n and \r for the characters that they stand for.
"""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO, Final

from dicomfs.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME: Final = "manifest.sha256"

_LINE: Final = re.compile(rb"(\\?)[0-9a-f]{64} [ *]([^\0\n]+)\n").fullmatch
_LIMIT: Final = 16384
"""Of a line: twice what Linux takes for a path, and more."""
_ESCAPES: Final = {b"\\": b"\\\\", b"\n": b"\\n", b"\r": b"\\r"}
_MEANINGS: Final = {escape: character for character, escape in _ESCAPES.items()}


def line(path: str, sha256: bytes) -> bytes:
    """Return the line of a file."""
    # `sha256sum -c` takes a lone - for its input.
    name = b"./-" if path == "-" else os.fsencode(path)
    escaped = re.sub(rb"[\\\n\r]", lambda found: _ESCAPES[found[0]], name)
    return b"%s%s  %s\n" % (b"\\" if escaped != name else b"", sha256.hex().encode(), escaped)


def is_taken(path: str) -> bool:
    """Say whether a file of an export lies where the manifest has its place, case ignored."""
    return path.partition("/")[0].casefold() == NAME


class Manifest:
    """The manifest at the top of a directory while an export writes there; it appears when the export is over.

    What an earlier one says of files that this export does not touch stays, as long as they are there. What is kept in
    memory is linear in the length of that earlier one.
    """

    def __init__(self, output: str) -> None:
        """Read what is there already; raise UsageError where that is no such list."""
        self.path = os.path.join(output, NAME)
        self._output = output
        self._part = os.path.join(output, f".{NAME}.dicomfs-part")
        self._file: BinaryIO | None = None
        self._earlier = dict(self._read())

    def add(self, path: str, sha256: bytes) -> None:
        """Take in a file that is in the directory; raise UsageError for one that lies where the manifest has to be."""
        if is_taken(path):
            raise UsageError(f"{self.path}: a file of the archive has this name; export without --manifest")
        if self._file is None:
            self._file = open(self._part, "wb", opener=_opener)  # noqa: SIM115 - closed by `finish` or `close`
        written = line(path, sha256)
        self._file.write(written)
        self._earlier.pop(_name(written), None)

    def finish(self) -> None:
        """Have the manifest appear, whole and on the disk, unless there is nothing in it."""
        file = self._file
        if file is None:
            return
        for name, text in self._earlier.items():
            if os.path.lexists(os.path.join(os.fsencode(self._output), name)):
                file.write(text)
        file.flush()
        os.fsync(file.fileno())
        file.close()
        os.replace(self._part, self.path)
        self._file = None

    def close(self) -> None:
        """Remove what was not finished."""
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):  # what it still had to write is not wanted
                file.close()
            os.unlink(self._part)

    def _read(self) -> Iterator[tuple[bytes, bytes]]:
        try:
            file = open(self.path, "rb", opener=_reader)  # noqa: SIM115 - closed below
        except FileNotFoundError:
            return
        except OSError as error:
            raise UsageError(f"{self.path}: cannot be read ({error.strerror}); move it away") from error
        with file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise UsageError(f"{self.path}: is no file; move it away")
            while text := file.readline(_LIMIT):
                if _LINE(text) is None:
                    raise UsageError(f"{self.path}: is there already and is no list of SHA-256; move it away")
                yield _name(text), text


def _name(text: bytes) -> bytes:
    """Return the name that a line of a manifest is about."""
    found = _LINE(text)
    assert found is not None
    if not found[1]:
        return found[2]
    return re.sub(rb"\\[\\nr]", lambda escape: _MEANINGS[escape[0]], found[2])


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)


def _reader(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
