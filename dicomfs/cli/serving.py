"""`dicomfs serve` and `dicomfs nginx-conf`: show an archive to web browsers, by nginx over its DICOMweb tree."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from dicomfs.cli.options import PATH, archive_option
from dicomfs.cli.terminal import note, write

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import TypeVar

    Function = TypeVar("Function", bound=Callable[..., object])

_PORT = 8090


def _site_options(function: Function) -> Function:
    origin = click.option(
        "--allow-origin",
        "origin",
        metavar="ORIGIN",
        help="Let the web pages of another server read, too: https://viewer.example.org, or * for all.",
    )
    ohif = click.option("--ohif", type=PATH, metavar="DIR", help="Serve OHIF too: the directory of its index.html.")
    return ohif(origin(function))


@click.command("serve")
@archive_option
@click.option("--port", type=click.IntRange(0, 65535), default=_PORT, show_default=True, help="0: any that is free.")
@click.option("--tree", type=PATH, metavar="DIR", help="Mount nothing: DIR is the dicomweb of a drive or an export.")
@_site_options
def serve_command(*, archive: Path, port: int, tree: Path | None, ohif: Path | None, origin: str | None) -> None:
    """Serve an archive by DICOMweb until Ctrl-C, to programs on this machine.

    Mounts the archive where nobody else gets in, and starts nginx over it, on 127.0.0.1 alone. DICOMweb
    (QIDO-RS and WADO-RS, as far as plain files can) is below /dicomweb; with --ohif the viewer OHIF
    is at /. Drive and server end with the command, and leave nothing behind.

    Every user of this machine can connect to 127.0.0.1, whoever may read the archive. To serve a
    network, put TLS and a login before it.

    \b
    Examples:
      dicomfs serve -a /srv/archive
      dicomfs serve --port 0 --tree /mnt/dicom/dicomweb --ohif ohif/dist
    """
    from dicomfs.archive.settings import read
    from dicomfs.cli.nginx import Site, free_port, program
    from dicomfs.cli.server import serve

    boundary = read(archive).boundary
    _require_ohif(ohif)
    if tree is not None and not os.path.isdir(tree / "studies"):
        raise click.UsageError(f"{tree} holds no studies/: name the directory dicomweb of a drive or of an export")
    nginx = program()
    port = free_port(port)

    def ready() -> None:
        address = f"http://127.0.0.1:{port}"
        write(f"DICOMweb: {address}/dicomweb")
        if ohif is not None:
            write(f"OHIF: {address}/")
        sys.stdout.flush()
        note("Ctrl-C ends it")

    serve(archive, tree, nginx, lambda served: Site(served, boundary, port, ohif, origin), ready)


@click.command("nginx-conf")
@archive_option
@click.argument("tree", type=PATH)
@click.option("--port", type=click.IntRange(1, 65535), default=_PORT, show_default=True, help="Where to listen.")
@click.option("--site", "site_only", is_flag=True, help="The servers alone, for an nginx that runs already.")
@_site_options
def nginx_conf_command(
    *, archive: Path, tree: Path, port: int, site_only: bool, ohif: Path | None, origin: str | None
) -> None:
    """Print nginx's configuration for TREE, the directory dicomweb of a drive or of an export.

    It listens on 127.0.0.1 alone. nginx works as the user that runs this command, and so gets into a
    drive that is that user's alone. With --site it is a file for /etc/nginx/sites-enabled;
    nginx is another user then, and the drive needs -o allow_other,gid=www-data,umask=027.

    \b
    Examples:
      dicomfs nginx-conf -a /srv/archive /mnt/dicom/dicomweb
      dicomfs nginx-conf -a /srv/archive --site --ohif /srv/ohif /mnt/dicom/dicomweb
    """
    from dicomfs.archive.settings import read
    from dicomfs.cli.nginx import Site, configuration, site_configuration

    _require_ohif(ohif)
    site = Site(tree, read(archive).boundary, port, ohif, origin)
    sys.stdout.write(site_configuration(site) if site_only else configuration(site))


def _require_ohif(ohif: Path | None) -> None:
    if ohif is not None and not os.path.isfile(ohif / "index.html"):
        raise click.UsageError(f"{ohif} holds no index.html: name the directory dist of the package @ohif/app")
