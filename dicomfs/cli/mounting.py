"""`dicomfs mount` and `dicomfs umount`: show an archive as a drive, and stop that."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

import click

from dicomfs.cli.options import PATH, named_archive
from dicomfs.cli.progress import progress_bar
from dicomfs.cli.terminal import note

if TYPE_CHECKING:
    from pathlib import Path

HELPER = "dicomfs.cli.mounting.helper"
"""In a context's meta: mount(8) calls us, by way of mount.fuse3."""


@click.command("mount")
@click.argument("archive", type=PATH, callback=named_archive)
@click.argument("mountpoint", type=PATH)
@click.option("-o", "options", multiple=True, metavar="OPTIONS", help="Mount options, parted by commas; see below.")
@click.option("--views", metavar="NAMES", help="The trees to show, parted by commas; the same as -o views=A:B.")
@click.option("--as-of", metavar="TIME", help="Show an earlier state of the archive; the same as -o as_of=TIME.")
@click.option("--private-tables", is_flag=True, help="The same as -o private_tables.")
@click.option("--foreground", "-f", is_flag=True, help="Stay, and end when the drive is unmounted.")
@click.option("--debug", "-d", is_flag=True, help="Stay, and tell of every request; paths may hold patient data.")
@click.option("--log", type=PATH, metavar="FILE", help="Write messages to a file.")
@click.pass_context
def mount_command(
    context: click.Context,
    /,
    *,
    archive: Path,
    mountpoint: Path,
    options: tuple[str, ...],
    views: str | None,
    as_of: str | None,
    private_tables: bool,
    foreground: bool,
    debug: bool,
    log: Path | None,
) -> None:
    """Show ARCHIVE as a drive in the directory MOUNTPOINT.

    Ends when the drive is ready, or fails and says why; the drive stays until it is unmounted. The
    drive is read-only. patients/ holds every file, by patient, study and series; what is imported
    later appears within a second. A drive that died is recovered by mounting it again.
    quarantine/ holds what imports refused, each file beside its reason. With allow_other it is shown
    only if named: views=patients:quarantine. projects/ holds what `dicomfs project` made; one project,
    and nothing else of the archive, is views=projects/DIRECTORY. Every other directory is a layout of
    `dicomfs layout`: the same files, as hard links, under other names.

    --as-of shows the archive as it was at a TIME: after the last commit that was made by then. Such a drive never
    changes; one of the future stays as the archive is now. A TIME is written as in RFC 3339, 2026-01-31T12:00:00Z or
    2026-01-31T12:00:00.123456789+01:00; without an offset it is in the local time zone of this machine, and a date
    alone means its first instant. quarantine/ has no earlier states and is not shown. The first mount of a state
    takes some time in a large archive.

    \b
    Options for -o:
      allow_other        let other users in (also allow_root); by default the drive is yours alone.
                         As an ordinary user this needs user_allow_other in /etc/fuse.conf
      uid=, gid=         whose files they are, by name or number
      umask=             permission bits to take away; fmask= for files, dmask= for directories
      views=A:B          the trees to show: patients, dicomweb, quarantine, projects,
                         projects/DIRECTORY, and layouts that are on. By default all are, and
                         layouts and projects that come later
      as_of=TIME         show the archive as it was at that time; it is then frozen
      private_tables     show, with allow_other, what de-identified projects keep private:
                         linker.xlsx and others that tell who is who, and quarantine/. Its modes
                         let the owner alone read it
      noxattr            no extended attributes
      nonempty           mount over a directory that holds files
      readahead=KIB      how far to read ahead; takes root
      entry_timeout=, attr_timeout=, negative_timeout=   how long the kernel remembers, in seconds
      ro, nodev, nosuid, _netdev, nofail, x-… and others of mount(8) are accepted

    \b
    Examples:
      dicomfs mount /srv/archive /mnt/dicom
      dicomfs mount -o allow_other,umask=027 /srv/archive /mnt/dicom
      dicomfs mount -o allow_other --views projects/DeID_heads_20240131101500 /srv/archive /mnt/heads
      dicomfs mount --as-of 2026-01-31 /srv/archive /mnt/january
      dicomfs /srv/archive /mnt/dicom -o ro

    \b
    In /etc/fstab, where `dicomfs` must be in a directory of the system such as /usr/local/bin:
      /srv/archive /mnt/dicom fuse.dicomfs ro,allow_other,gid=radiology,umask=027,nofail 0 0
      /srv/archive /mnt/january fuse.dicomfs ro,as_of=2026-01-31T00:00:00Z,nofail 0 0
    """
    from dicomfs.mount.options import READ_AHEAD_KIB, parse
    from dicomfs.mount.session import mount

    helper = HELPER in context.meta
    parsed = parse(options, views=views, as_of=as_of, private_tables=private_tables, log=log, helper=helper)
    if parsed.read_ahead_kib != READ_AHEAD_KIB and os.geteuid():
        note("readahead= has no effect: only root may set how far the kernel reads ahead")
    progress = partial(progress_bar, "earlier state")
    mount(archive, mountpoint, parsed, foreground=foreground, debug=debug, progress=progress)


@click.command("umount")
@click.argument("mountpoint", type=PATH)
def umount_command(*, mountpoint: Path) -> None:
    """Unmount the drive in the directory MOUNTPOINT.

    Fails while a program uses the drive, and says so. Also clears away a drive that died.

    \b
    Example:
      dicomfs umount /mnt/dicom
    """
    from dicomfs.mount.session import unmount

    unmount(mountpoint)
