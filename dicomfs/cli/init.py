"""`dicomfs init`: make an empty archive."""

from __future__ import annotations

from pathlib import Path

import click

from dicomfs.cli.options import PATH
from dicomfs.cli.terminal import note, quoted


@click.command("init")
@click.argument("directory", required=False, type=PATH)
@click.option("--path", "-p", "option_path", type=PATH, help="The same as DIRECTORY.")
@click.option("--force", is_flag=True, help="Also in a directory that is not empty; nothing in it is removed.")
@click.option(
    "--codec",
    type=click.Choice(["fast", "none"]),
    default="fast",
    show_default=True,
    help="How pixel data is kept: `fast` compresses native pixels without loss, `none` keeps them plain.",
)
def init_command(*, directory: Path | None, option_path: Path | None, force: bool, codec: str) -> None:
    """Make an empty archive in DIRECTORY.

    The directory is made if it is missing. An archive that is there already is never overwritten.
    Already compressed images are kept as they are, whatever the codec.

    \b
    Examples:
      dicomfs init /srv/archive
      dicomfs init --path /srv/archive --codec none
    """
    if (directory is None) == (option_path is None):
        raise click.UsageError("name one directory: as DIRECTORY or with --path")
    from dicomfs.archive.archive import Archive

    path = directory or option_path
    assert path is not None
    Archive.init(path, codec=codec, force=force)
    note(f"{path}: a new archive; fill it with: dicomfs import -a {quoted(path)} FILES…")
