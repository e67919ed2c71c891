"""What -o may say, and what it is told otherwise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dicomfs.errors import UsageError
from dicomfs.mount.options import MountOptions, parse
from dicomfs.vfs.views import chosen

ACCEPTED = {
    "nothing": ([], {}),
    "empty": ([""], {}),
    "mount_8": (["ro,defaults,auto,_netdev,nofail,x-systemd.automount,comment=a"], {}),
    "mount_fuse3": (["ro,dev,suid"], {}),
    "several": (["ro", "allow_other,noexec"], {"allow_other": True, "noexec": True}),
    "allow_root": (["allow_root"], {"allow_root": True}),
    "owner": (["uid=12,gid=34"], {"uid": 12, "gid": 34}),
    "owner_by_name": (["uid=root,gid=root"], {"uid": 0, "gid": 0}),
    "umask": (["umask=027"], {"file_mask": 0o027, "directory_mask": 0o027}),
    "masks": (["umask=027,fmask=0133"], {"file_mask": 0o133, "directory_mask": 0o027}),
    "views": (["views=patients:quarantine"], {"views": ("patients", "quarantine")}),
    "noxattr": (["noxattr"], {"xattr": False}),
    "readahead": (["readahead=0"], {"read_ahead_kib": 0}),
    "timeouts": (
        ["attr_timeout=1,entry_timeout=2.5,negative_timeout=0"],
        {"attr_timeout_s": 1.0, "entry_timeout_s": 2.5, "negative_timeout_s": 0.0},
    ),
    "as_of": (["as_of=1970-01-01T00:00:02.5+00:00"], {"as_of_ns": 2_500_000_000}),
    "nonempty": (["nonempty"], {"nonempty": True}),
    "one_project": (["views=projects/DeID_a_20240101-000000"], {"views": ("projects/DeID_a_20240101-000000",)}),
    "private_tables": (["private_tables"], {"private_tables": True}),
}
REFUSED = {
    "unknown": ("layout=x", "unknown mount option 'layout'"),
    "rw": ("rw", "read-only"),
    "as_of": ("as_of=2024-01-32", "not a time"),
    "remount": ("remount", "dicomfs umount"),
    "no_value": ("uid", "needs a value"),
    "a_value": ("noxattr=1", "takes no value"),
    "no_user": ("uid=nobody-of-that-name", "no user"),
    "no_group": ("gid=nobody-of-that-name", "no group"),
    "umask": ("umask=9", "octal"),
    "umask_too_large": ("umask=7777", "octal"),
    "readahead": ("readahead=-1", "KiB"),
    "timeout": ("attr_timeout=soon", "seconds"),
    "timeout_nan": ("attr_timeout=nan", "seconds"),
    "no_views": ("views=", "needs names"),
    "empty_views": ("views=:", "needs names"),
}


@pytest.mark.parametrize(("strings", "settings"), ACCEPTED.values(), ids=ACCEPTED)
def test_accepted(strings: list[str], settings: dict[str, object]) -> None:
    assert parse(strings) == MountOptions(**settings)


@pytest.mark.parametrize(("string", "said"), REFUSED.values(), ids=REFUSED)
def test_refused(string: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse([string])


def test_views_of_their_own_option_come_before_those_of_o() -> None:
    assert parse(["views=quarantine"], views="patients,quarantine").views == ("patients", "quarantine")
    with pytest.raises(UsageError, match="needs names"):
        parse([], views="")


def test_mount_8_adds_rw_by_itself() -> None:
    assert parse(["rw,dev,suid"], helper=True) == MountOptions()


def test_quarantine_is_for_the_owner_unless_named() -> None:
    def shown(options: MountOptions) -> tuple[str, ...]:
        return chosen(options.views, ["icore"], private=options.private)

    assert shown(parse([])) == ("patients", "dicomweb", "quarantine", "icore")
    assert shown(parse(["allow_other"])) == ("patients", "dicomweb", "icore")
    assert shown(parse(["allow_other,views=quarantine:patients"])) == ("quarantine", "patients")
    assert shown(parse(["views=patients:icore"])) == ("patients", "icore")


def test_what_the_command_line_loads_does_not_load_pyfuse3() -> None:
    heavy = {"pyfuse3", "trio", "pydicom", "lmdb"}
    script = f"import sys, dicomfs.mount.session, dicomfs.mount.options; print({heavy} & {{*sys.modules}})"
    checkout = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=checkout, timeout=60)
    assert done.stdout.strip() == "set()"
