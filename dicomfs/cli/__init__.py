"""The command line: what people type, what it prints, and the status it ends with."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    # Whoever presses Ctrl-C at once is answered in one line, so nothing is loaded before this.
    try:
        from dicomfs.cli.run import run

        return run(arguments)
    except KeyboardInterrupt:
        import sys

        sys.stderr.write("dicomfs: interrupted\n")
        return _INTERRUPTED
