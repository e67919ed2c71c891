"""The names of the commands, and how `dicomfs ARCHIVE DIRECTORY` comes to mean `dicomfs mount`.

A command's module is imported when it is named or listed; what it works with, when it runs.
"""

from __future__ import annotations

import importlib
import os
import re

import click

import dicomfs
from dicomfs.cli.options import ARCHIVE
from dicomfs.cli.terminal import quoted
from dicomfs.errors import DicomfsError

# In the order in which one meets them; the module that holds each, and its name there.
_COMMANDS = {
    "init": "init",
    "import": "importing",
    "mount": "mounting",
    "umount": "mounting",
    "list": "listing",
    "query": "querying",
    "export": "exporting",
    "delete": "deleting",
    "restore": "deleting",
    "history": "past",
    "edit": "editing",
    "check": "checking",
    "stats": "statistics",
    "reindex": "reindexing",
    "gc": "collecting",
    "layout": "layouts",
    "project": "projects",
    "merge": "merging",
    "attach": "attaching",
    "attachments": "attaching",
    "render": "rendering",
    "serve": "serving",
    "nginx-conf": "serving",
}


_SUGGESTED = re.compile(r"'(dicomfs (?:reindex|check)[a-z -]*)'")
"""A command that an error of the archive suggests: it does not know what the archive was called here."""


class NobodyReads(Exception):
    """Stdout is a pipe that was closed; click would end the program for a BrokenPipeError by itself."""


class _Commands(click.Group):
    """A group that imports its commands when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"dicomfs.cli.{_COMMANDS[cmd_name]}")
        found = getattr(module, f"{cmd_name.replace('-', '_')}_command")
        assert isinstance(found, click.Command)
        return found

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise NobodyReads from error
        except DicomfsError as error:
            if archive := ctx.meta.get(ARCHIVE):
                error.args = (_SUGGESTED.sub(lambda found: f"{found[1]} -a {quoted(archive)}", str(error)),)
            raise

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; a directory in its place is what mount(8) says."""
        # mount.fuse3 runs `dicomfs ARCHIVE DIRECTORY -o options` for an fstab line of type fuse.dicomfs.
        if args[0] not in _COMMANDS and (os.sep in args[0] or os.path.isdir(args[0])):
            from dicomfs.cli.mounting import HELPER

            ctx.meta[HELPER] = True
            return "mount", self.get_command(ctx, "mount"), args
        if args[0] not in _COMMANDS and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(args[0].lower(), _COMMANDS, 1)
            meant = f"; did you mean '{near[0]}'?" if near else ""
            ctx.fail(f"No such command '{args[0]}'{meant}")
        return super().resolve_command(ctx, args)


@click.group(
    "dicomfs",
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=(
        "ARCHIVE is taken from --archive, else from the environment variable DICOMFS_ARCHIVE. "
        "`dicomfs COMMAND --help` tells everything about one command."
    ),
)
@click.version_option(dicomfs.__version__, "-V", "--version", prog_name="dicomfs", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, help="Show a traceback with an error; it may hold patient data.")
def cli(*, debug: bool) -> None:
    """Keep DICOM files in an archive that you mount as a drive.

    Files go in once: equal bytes are kept once, compressed and checksummed. A mounted archive shows
    them as a readable tree of patients, studies and series, each file bit for bit as it came in.

    \b
    A first archive:
      dicomfs init /srv/archive
      dicomfs import -a /srv/archive /media/cdrom
      dicomfs mount /srv/archive /mnt/dicom
      ls /mnt/dicom/patients
      dicomfs umount /mnt/dicom

    \b
    Exit status:
      0  all that was asked was done
      1  a part of it was refused or failed
      2  the request itself is wrong
      3  the archive is damaged, or there is none
    """
    if debug:
        os.environ["DICOMFS_DEBUG"] = "1"
