"""The command line: what people type, what it prints, and the status it ends with."""

from collections.abc import Sequence

from dicomfs.cli.commands import cli

__all__ = ["cli", "main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    from dicomfs.cli.run import run

    return run(arguments)
