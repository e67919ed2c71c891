"""Drives of now and of earlier states go on while `gc` merges packs and forgets versions below them."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from dicomfs.archive.archive import Archive
from dicomfs.archive.check import check
from dicomfs.archive.moments import time_text
from dicomfs.store.earlier import known
from tests.builders import make_instance, write_study
from tests.mount.conftest import TIMEOUT_S, environment, import_into
from tests.mount.test_as_of import dicomfs, digests, shown
from tests.mount.test_gc import COPY, LOOP, piece

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.mount.conftest import Drive

pytestmark = [pytest.mark.mounted, pytest.mark.slow]

ROUNDS = 3
VIEWS = "views=patients:dicomweb"


class Looked(NamedTuple):
    """A drive, what it showed, and who reads in it all the time."""

    drive: Drive
    shown: dict[str, tuple[int, ...]]
    digests: dict[str, str]
    contents: dict[int, bytes]
    """What files hold, by descriptors that are open."""
    readers: list[subprocess.Popen[str]]


def last_ns(path: Path) -> int:
    """Return when the last commit was made."""
    with Archive.open(path) as archive:
        return known(archive.store.index)[-1].place.time_ns


def look(drive: Drive, done: Path) -> Looked:
    directory = done.parent
    files = list(drive.files().values())
    files += [path for path in (drive.path / "dicomweb").rglob("frames/*") if path.is_file()][:6]
    contents = {os.open(path, os.O_RDONLY): path.read_bytes() for path in files}
    readers = [
        subprocess.Popen(
            ["sh", "-c", script, "sh", str(done), str(directory / f"{drive.path.name}{number}")],
            cwd=drive.patients,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        for number, script in enumerate((LOOP, COPY))
    ]
    return Looked(drive, shown(drive.path), digests(drive.path), contents, readers)


def gc(path: Path, *words: str) -> dict[str, int]:
    done = dicomfs("gc", "-a", path, "--json", *words)
    assert (done.returncode, done.stderr) == (0, "")
    told: dict[str, int] = json.loads(done.stdout)
    return told


@pytest.mark.parametrize("codec", ["none", "fast"])
def test_drives_go_on(tmp_path: Path, mount_drive: Callable[..., Drive], codec: str) -> None:
    path = tmp_path / "archive"
    Archive.init(path, codec=codec)
    times: list[int] = []
    done = tmp_path / "done"
    for step in range(3):
        source = tmp_path / f"source{step}"
        write_study(source / "own", instances=3, study=step, rows=256, columns=256, frames=2)
        # The first file of a series, which the headers of the others are based on, is replaced each time.
        (source / "same").write_bytes(make_instance(number=1, study="same", seed=str(step), rows=256, columns=256))
        (source / f"other{step}").write_bytes(make_instance(number=2 + step, study="same", rows=64, columns=64))
        import_into(path, source, on_conflict="replace")
        times.append(last_ns(path))
    second = time_text(times[1])
    early = mount_drive(path, f"as_of={time_text(times[0])},{VIEWS}")
    first = (shown(early.path), digests(early.path))
    live = look(mount_drive(path, VIEWS), done)
    then = look(mount_drive(path, f"as_of={second},{VIEWS}"), done)

    def told() -> list[str]:
        asked = (["query", "--level", "instance", "--json"], ["list", "--format", "table"], ["stats", "--json"])
        answers = [dicomfs(*words, "-a", path, "--as-of", second) for words in asked]
        assert [answer.returncode for answer in answers] == [0, 0, 0]
        return [answer.stdout for answer in answers[:2]]

    said = told()
    pick = random.Random(codec)

    def read_pieces() -> None:
        for found in (live, then):
            for fd, content in found.contents.items():
                for _ in range(3):
                    offset, length = pick.randrange(len(content)), pick.choice((100, 5000, 300_000))
                    assert piece(fd, offset, length) == content[offset : offset + length]

    def merge(number: int) -> None:
        source = tmp_path / f"more{number}"
        write_study(source, instances=2, rows=32, columns=32, study=100 + number)
        import_into(path, source)
        assert gc(path)["packs_after"] == 1
        read_pieces()
        assert shown(then.drive.path) == then.shown

    try:
        for number in range(ROUNDS):
            merge(number)
        # A drive shows what is to be forgotten.
        refused = dicomfs("gc", "-a", path, "--forget-older-than", second)
        assert refused.returncode == 1
        assert f"before {second} is in use" in refused.stderr
        assert (shown(early.path), digests(early.path)) == first
        early.end()
        used = [entry for entry in (path / "cache" / "as-of").iterdir() if entry.name.startswith("2-")]
        assert len(used) == 1
        assert gc(path, "--forget-older-than", second)["versions"] == 1
        read_pieces()
        assert shown(then.drive.path) == then.shown
        merge(ROUNDS)
        deadline = time.monotonic() + 30
        while used[0].exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        kept = [entry.name for entry in (path / "cache" / "as-of").iterdir()]
        assert len(kept) == 1
        assert kept != [used[0].name]
        merge(ROUNDS + 1)
    finally:
        done.touch()
    for found in (live, then):
        for reader in found.readers:
            _, errors = reader.communicate(timeout=TIMEOUT_S)
            assert (reader.returncode, errors) == (0, "")
        for fd, content in found.contents.items():
            assert os.pread(fd, len(content), 0) == content
            os.close(fd)
    copied = {
        hashlib.sha256(file.read_bytes()).hexdigest() for file in (tmp_path / f"{then.drive.path.name}1").rglob("*.dcm")
    }
    assert copied == {digest for name, digest in then.digests.items() if name.startswith("patients/")}
    assert digests(then.drive.path) == then.digests
    stay = {one for one in live.digests.items() if one[0].startswith("patients/") or "/series/" in one[0]}
    assert stay <= digests(live.drive.path).items()

    assert told() == said
    place = tmp_path / "place"
    place.mkdir()
    mounted = dicomfs("mount", "--as-of", time_text(times[0]), path, place)
    assert mounted.returncode == 1
    assert "was forgotten" in mounted.stderr
    output = tmp_path / "output"
    assert dicomfs("export", "-a", path, "--as-of", second, "--all", "-o", output).returncode == 0
    assert {f"patients/{name}": digest for name, digest in digests(output).items()} == {
        name: digest for name, digest in then.digests.items() if name.startswith("patients/")
    }
    for found in (live, then):
        log = found.drive.log.read_text()
        assert "damaged" not in log
        assert "WARNING" not in log
        found.drive.end()
    assert check(path, verify_files=True).problems == []
