"""The settings of an archive: dicomfs.toml, which also tells a person how to do without dicomfs."""

import os
import secrets
import shlex
import tomllib
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from dicomfs.errors import ArchiveMissing, UsageError

FORMAT: Final = 1
CODECS: Final = ("fast", "none")
FILE: Final = "dicomfs.toml"

_TEXT: Final = """\
# This directory is a dicomfs archive.
#
# packs/*.zip are plain ZIP files and hold everything; index/ and cache/ can be rebuilt from them.
# Not in them are quarantine/, files that were refused, and projects/, the keys of pseudonyms: keep a copy of both.
# To get a file back by hand ("docs/format.md" of dicomfs has every detail, and a program of 60 lines):
#   1. unzip the packs. o/<sha256> are blobs: pixel data and other large values, named by the SHA-256 of
#      their bytes. Undo the suffix first: .zst is zstd; .p2z is zstd of the byte planes of 2-byte samples
#      (all first bytes, then all second bytes), .p4z and .p8z the same for 4 and 8 bytes.
#      h/<sha256>.zst are headers that other headers are compressed against.
#   2. c/<number>.cat are the commits, in order. Each holds a JSON document (zstd) that lists its instances,
#      and the files "derived" from them, and for each a zstd frame (with h/<base> as raw dictionary) of recipe and
#      literal bytes.
#   3. A recipe is a list of little endian 32-bit numbers: n means the next n literal bytes; n + 2**31,
#      followed by 32 bytes of SHA-256, means the n bytes of that blob. Joined in order they are the file;
#      its SHA-256 is in the JSON.

format = {format}
archive_id = "{archive_id}"
created = "{created}"
hash = "sha256"
codec = "{codec}"
boundary = "{boundary}"
"""


@dataclass(frozen=True, slots=True)
class Settings:
    """What an archive was made with."""

    format: int
    archive_id: str
    created: str
    codec: str
    boundary: str
    """Separates the parts of multipart documents: one for the archive, so that a static server can name it."""


def require_codec(codec: str) -> None:
    """Raise UsageError for a codec that there is not."""
    if codec not in CODECS:
        raise UsageError(f"unknown codec {codec!r}: use one of {', '.join(CODECS)}")


def write(root: Path, codec: str) -> None:
    """Write the settings of a new archive."""
    text = _TEXT.format(
        format=FORMAT,
        archive_id=uuid.uuid4(),
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        codec=codec,
        boundary=f"dicomfs-{secrets.token_hex(16)}",
    )
    temporary = root / f"{FILE}.new"
    with temporary.open("w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(root / FILE)


def _missing(root: Path) -> str:
    """Say what is at a path instead of an archive."""
    if not os.path.lexists(root):
        return "no such directory"
    if not root.is_dir():
        return "is not a directory, so not a dicomfs archive"
    return f"not a dicomfs archive; to make one there: dicomfs init {shlex.quote(str(root))}"


def read(root: Path) -> Settings:
    """Read the settings; raise ArchiveMissing where there is no archive that this version reads."""
    path = root / FILE
    try:
        held = tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ArchiveMissing(f"{root}: {_missing(root)}") from error
    except OSError as error:
        raise ArchiveMissing(f"{path}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ArchiveMissing(f"{path}: damaged ({error}); bring it back from a copy") from error
    try:
        settings = Settings(
            int(held["format"]),
            str(held["archive_id"]),
            str(held["created"]),
            str(held["codec"]),
            str(held["boundary"]),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise ArchiveMissing(f"{path}: lacks {error}; bring it back from a copy") from error
    if settings.format != FORMAT:
        raise ArchiveMissing(
            f"{root}: has format {settings.format}, this dicomfs reads format {FORMAT}; use a newer one"
        )
    return settings
