"""What nginx is told about one DICOMweb tree: the texts beside this module, filled in.

    nginx.conf.in         all that nginx needs to run by itself
    nginx-site.conf.in    its part for the tree, which fits among the sites of an nginx that runs already
    nginx-ohif.conf.in    its part for OHIF, whose settings are ohif-config.js

What no path and no name may do is end a string there: nginx has no way to write a dollar sign.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import re
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dicomfs.errors import Refused, UsageError

_HERE: Final = Path(__file__).parent
_SYSTEM_PATH: Final = "/usr/local/sbin:/usr/sbin:/sbin"
"""Where nginx is; an ordinary user's PATH does not lead there."""
_UNSPEAKABLE: Final = re.compile(r'["$\\\x00-\x1f\x7f]')
_ORIGIN: Final = re.compile(r"\*|https?://[0-9A-Za-z.:\[\]-]+")
_CORS: Final = """\

    # Pages of this origin may read, and send the headers of a DICOMweb client.
    add_header Access-Control-Allow-Origin "@origin@" always;
    add_header Access-Control-Allow-Headers "Accept, Range, If-None-Match" always;
    add_header Access-Control-Expose-Headers "Content-Length, Content-Range, ETag" always;
    add_header Cross-Origin-Resource-Policy cross-origin always;
    add_header Vary Origin always;
    if ($request_method = OPTIONS) { return 204; }
"""


@dataclass(frozen=True, slots=True)
class Site:
    """What nginx is to serve, and to whom."""

    tree: Path
    """The directory that holds `studies`."""
    boundary: str
    """The archive's: a static server names it, and every multipart file has it."""
    port: int
    ohif: Path | None = None
    """The directory of OHIF's pages."""
    origin: str | None = None
    """Whose pages may read what is served, besides its own: https://viewer.example.org, or * for all."""


def configuration(site: Site) -> str:
    """Return all of a configuration, for an nginx that works as the user that runs this."""
    user = ""
    if os.geteuid() == 0:  # its workers would be another user, whom a private drive keeps out
        user = f"user {pwd.getpwuid(0).pw_name} {grp.getgrgid(os.getegid()).gr_name};\n"
    part = "".join(f"    {line}" if line.strip() else line for line in site_configuration(site).splitlines(True))
    return _filled("nginx.conf.in", {"user": user, "site": part})


def site_configuration(site: Site) -> str:
    """Return the servers alone."""
    if site.origin is not None and not _ORIGIN.fullmatch(site.origin):
        raise UsageError(f"'{site.origin}' is not an origin; write it as https://viewer.example.org, or * for all")
    ohif = ""
    if site.ohif is not None:
        settings = _HERE / "ohif-config.js"
        ohif = _filled("nginx-ohif.conf.in", {"ohif": _spoken(site.ohif), "config": _spoken(settings)})
    return _filled(
        "nginx-site.conf.in",
        {
            "tree": _spoken(site.tree),
            "boundary": site.boundary,
            "port": str(site.port),
            "cors": _CORS.replace("@origin@", site.origin) if site.origin else "",
            "ohif": ohif,
        },
    )


def _filled(name: str, values: dict[str, str]) -> str:
    text = (_HERE / name).read_text(encoding="utf-8")
    return re.sub("@([a-z]+)@", lambda found: values[found[1]], text)


def _spoken(path: Path) -> str:
    text = os.path.abspath(path)
    if _UNSPEAKABLE.search(text):
        raise UsageError(f"{text}: nginx cannot name such a path; name a symbolic link that leads there")
    return text


def program() -> str:
    """Return where nginx is; raise Refused where it is not installed."""
    found = shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:{_SYSTEM_PATH}")
    if found is None:
        raise Refused("nginx is not installed: install the package 'nginx-light' (Debian, Ubuntu), elsewhere 'nginx'")
    return found


def free_port(wanted: int) -> int:
    """Return a port of 127.0.0.1 to listen on, for 0 any; raise Refused where it cannot be `wanted`."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as nginx does
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise Refused(f"port {wanted} is in use; name another with --port, or 0 for any") from error
            raise Refused(f"port {wanted} cannot be used ({error.strerror}); name another with --port") from error
        port = probe.getsockname()[1]
    assert isinstance(port, int)
    return port
