"""The layouts that come with dicomfs, and the files that layouts are written in.

A file holds one template, in as many lines as it likes: they are joined. Lines that begin with # are comments, and
the first of them says what the layout is.
"""

from functools import cache
from pathlib import Path
from typing import Final

from dicomfs.archive.layout import PATIENTS
from dicomfs.errors import UsageError

_DIRECTORY: Final = Path(__file__).with_name("built_in")
_LONGEST_FILE: Final = 1 << 16


def template_of(text: str) -> str:
    """Return the template that a file holds."""
    return "".join(line.strip() for line in text.splitlines() if not line.lstrip().startswith("#"))


def read(path: Path) -> str:
    """Return the template in a user's file."""
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(_LONGEST_FILE)
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: is no text in UTF-8") from error
    return template_of(text)


@cache
def built_in() -> dict[str, str]:
    """Return the templates that come with dicomfs, by name."""
    files = sorted(_DIRECTORY.glob("*.layout"))
    return {"patients": PATIENTS.text} | {path.stem: template_of(path.read_text(encoding="utf-8")) for path in files}
