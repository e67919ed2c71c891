"""Files opened for reading: without waiting where that can be, and without keeping anybody waiting."""

from __future__ import annotations

import gc
import os
import random
import threading
import weakref
from typing import TYPE_CHECKING

import pytest

from dicomfs.archive.archive import Archive, _find_header
from dicomfs.errors import Damaged
from tests.archive.importing import add, packs
from tests.builders import make_instance

if TYPE_CHECKING:
    from pathlib import Path

    from dicomfs.store.location import Location


def inodes(archive: Archive) -> list[int]:
    with archive.view() as view:
        return [ino for ino in view.inodes(1023) if (node := view.node(ino)) is not None and not node.is_directory]


@pytest.mark.timeout(60)
def test_who_waits_for_a_base_keeps_nobody_waiting(archive_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = [make_instance(patient=patient, number=1) for patient in ("DFS-1", "DFS-2")]
    add(archive_path, *contents)
    with Archive.open(archive_path) as archive:
        first, second = inodes(archive)
        archive.open_instance(first)
        waiting, disk = threading.Event(), threading.Event()
        in_time: list[bool] = []
        whole = archive.store.blobs.whole

        def slow(at: Location) -> memoryview:
            waiting.set()
            in_time.append(disk.wait(10))
            return whole(at)

        monkeypatch.setattr(archive.store.blobs, "whole", slow)
        found = []
        opening = threading.Thread(target=lambda: found.append(archive.open_instance(second)))
        opening.start()
        assert waiting.wait(30)
        file = archive.open_instance_ready(first)
        disk.set()
        opening.join()
        assert in_time == [True]
        assert file is not None
        assert [bytes(one.read(0, one.size)) for one in (file, *found)] == contents


LONG = {"zeros": bytes(300_000), "noise": random.Random(1).randbytes(300_000)}


@pytest.mark.parametrize("trailing", LONG.values(), ids=LONG)
def test_a_long_header_is_for_a_thread(archive_path: Path, trailing: bytes) -> None:
    """The event loop of a drive would stand still while it is decoded."""
    content = make_instance(trailing=trailing)
    add(archive_path, content, make_instance(patient="DFS-2"))
    with Archive.open(archive_path) as archive:
        long, short = inodes(archive)
        for pack in packs(archive_path):
            pack.read_bytes()
        assert archive.open_instance_ready(long) is None
        assert archive.open_instance_ready(short) is not None
        file = archive.open_instance(long)
        assert bytes(file.read(0, file.size)) == content
        # Another has it open, so nothing has to be read.
        assert archive.open_instance_ready(long) is file


def test_those_who_open_a_file_share_it(archive_path: Path) -> None:
    add(archive_path, make_instance())
    with Archive.open(archive_path) as archive:
        (ino,) = inodes(archive)
        held = [archive.open_instance(ino), archive.open_instance_ready(ino), archive.open_instance(ino)]
        assert len({id(file) for file in held}) == 1
        known = weakref.ref(held[0])
        held.clear()
        gc.collect()
        assert known() is None


@pytest.mark.damaged
def test_a_hurt_header_is_damage(archive_path: Path) -> None:
    add(archive_path, make_instance(modality="SR"))
    with Archive.open(archive_path) as archive:
        (ino,) = inodes(archive)
        inode, place = _find_header(archive.store, ino)
        at = place.offset + place.head.body_at + inode.body_offset
        fd = os.open(packs(archive_path)[0], os.O_RDWR)
        os.pwrite(fd, b"XXXX", at)
        os.close(fd)
        for attempt in (archive.open_instance, archive.open_instance_ready):
            with pytest.raises(Damaged, match="header"):
                attempt(ino)
