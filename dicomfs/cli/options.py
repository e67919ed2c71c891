"""Options that several commands share, each described once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

ARCHIVE = "dicomfs.cli.options.archive"
"""In a context's meta: the archive that the command is about."""

Function = TypeVar("Function", bound=Callable[..., object])

PATH = click.Path(path_type=Path, readable=False)
"""Any path. What it leads to is for the command to say: a drive may keep out even the user that mounted it."""


def named_archive(context: click.Context, _: click.Parameter, archive: Path) -> Path:
    """Remember which archive the command is about: an error may suggest another command for it."""
    context.meta[ARCHIVE] = archive
    return archive


def archive_option(function: Function) -> Function:
    """Add --archive/-a, required, with DICOMFS_ARCHIVE as its default."""
    return click.option(
        "--archive",
        "-a",
        envvar="DICOMFS_ARCHIVE",
        required=True,
        type=PATH,
        metavar="ARCHIVE",
        callback=named_archive,
        help="The archive's directory (default: DICOMFS_ARCHIVE).",
    )(function)


def as_of_option(function: Function) -> Function:
    """Add --as-of: the archive as it was."""
    return click.option(
        "--as-of",
        metavar="TIME",
        help="Take the archive as it was then: 2026-01-31T12:00:00Z, 2026-01-31T12:00:00+01:00. Without an offset it "
        "is local time, and a date alone means its first instant.",
    )(function)


def json_option(function: Function) -> Function:
    """Add --json: machine-readable output, and nothing else on stdout."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, and nothing else on stdout.")(function)


def format_option(default: str, *others: str) -> Callable[[Function], Function]:
    """Add --format/-f with its choices."""
    return click.option(
        "--format",
        "-f",
        "output_format",
        type=click.Choice([default, *others]),
        default=default,
        show_default=True,
        help="The form of the output.",
    )


def wait_option(function: Function) -> Function:
    """Add --wait: how long to wait for another writer."""
    return click.option(
        "--wait",
        "wait_s",
        type=click.FloatRange(min=0),
        default=0.0,
        metavar="SECONDS",
        help="How long to wait while another process writes to the archive (default: not at all).",
    )(function)
