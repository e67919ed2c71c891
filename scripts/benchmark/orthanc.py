"""Probe against Orthanc and its WebDAV drive: the same files, imported and read by both."""

import hashlib
import os
import random
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

from benchmark import cohort, davfs, drives, machine
from benchmark.drives import Drive
from benchmark.measure import Failed, Figure, Run, compete, say, timed
from benchmark.reading import run
from benchmark.stage import Stage

READS = ("find", "ls-lR", "cp-study", "first-4k-of-big", "seq-read-big", "rand-200x4k-big", "sniff-132B",
         "pydicom-headers")  # fmt: skip
_MIB = 1 << 20
_PAGE = 4096
_RANDOM_READS = 200
_PREAMBLE = 132
"""With the prefix DICM in its end (PS3.10 7.1)."""
_IMPORT_ROUNDS = 3


class Renewed(Protocol):
    """A drive that can begin anew: fresh mount, nothing cached, its files out of the page cache."""

    name: str
    path: Path

    def renew(self) -> None: ...
    def unmount(self) -> None: ...


class _Disk:
    """The files themselves."""

    name = "ext4"

    def __init__(self, path: Path) -> None:
        self.path = path

    def renew(self) -> None:
        machine.forget_pages([self.path])

    def unmount(self) -> None:
        pass


class _Archive:
    """An archive's drive."""

    def __init__(self, drive: Drive) -> None:
        self._drive = drive
        self.name = drive.name
        self.path = drive.path

    def renew(self) -> None:
        self._drive.unmount()
        machine.forget_pages(self._drive.backing)
        self._drive.mount()

    def unmount(self) -> None:
        self._drive.unmount()


class _Place(NamedTuple):
    """Where a contestant has what is read."""

    drive: Renewed
    root: Path
    study: Path
    giant: Path


def _instances(directory: Path) -> list[Path]:
    return [path for path in machine.files_below(directory) if path.suffix == ".dcm"]


def _places(stage: Stage, disk: _Disk, archive: _Archive, dav: davfs.DavDrive) -> list[_Place]:
    study = cohort.study_uid(2, 1)
    of_giant = cohort.giant_uids()
    plain = disk.path
    giant = plain / cohort.GIANT_PATIENT / of_giant[0] / of_giant[1] / f"{of_giant[2]}.dcm"
    views = dav.path / "by-uids"
    archive.renew()
    try:
        # The first of the two studies is the older one, and is called by its date.
        patients = archive.path / "patients"
        of = {path.name[: len(cohort.GIANT_PATIENT)]: path for path in patients.iterdir()}
        shown_giant = _instances(of[cohort.GIANT_PATIENT])[0]
        shown_study = _instances(of[cohort.STUDY_PATIENT])[0].parent.parent
        slices = len(_instances(shown_study))
    finally:
        archive.unmount()
    if slices != cohort.SERIES * stage.sizes.cohort_slices:
        raise Failed(f"{archive.name}: the study has {slices} files")
    return [
        _Place(disk, plain, plain / cohort.STUDY_PATIENT / study, giant),
        _Place(archive, patients, shown_study, shown_giant),
        _Place(dav, views, views / study, views / of_giant[0] / of_giant[1] / f"{of_giant[2]}.dcm"),
    ]


def _sequential(path: Path, size: int) -> None:
    buffer = bytearray(_MIB)
    fd = os.open(path, os.O_RDONLY)
    try:
        total = 0
        while got := os.readv(fd, [buffer]):
            total += got
    finally:
        os.close(fd)
    if total != size:
        raise Failed(f"{path}: {total} bytes")


def _pieces(path: Path, offsets: Sequence[int], size: int) -> list[bytes]:
    fd = os.open(path, os.O_RDONLY)
    try:
        return [os.pread(fd, size, offset) for offset in offsets]
    finally:
        os.close(fd)


def _expect(path: Path, offsets: Sequence[int], expected: list[bytes]) -> None:
    if _pieces(path, offsets, _PAGE) != expected:
        raise Failed(f"{path}: other bytes than in the original")


def _sniff(files: list[Path]) -> None:
    if any(_pieces(path, [0], _PREAMBLE)[0][-4:] != b"DICM" for path in files):
        raise Failed("a file is no DICOM")


def _headers(files: list[Path]) -> None:
    import pydicom

    if len({pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in files}) != len(files):
        raise Failed("two files have one SOP Instance UID")


class _Jobs:
    """What is done with each drive. Names are looked up beforehand where that is not the question."""

    def __init__(self, stage: Stage, giant: Path) -> None:
        self._stage = stage
        self._size = giant.stat().st_size
        chance = random.Random(7)
        self._offsets = [chance.randrange(self._size - _PAGE) for _ in range(_RANDOM_READS)]
        self._expected = _pieces(giant, self._offsets, _PAGE)
        self._first = _pieces(giant, [0], _PAGE)
        self._copies = 0

    def prepare(self, read: str, place: _Place) -> Callable[[], object]:
        """Return what is to be timed."""
        if read == "find":
            return partial(run, "find", place.root, "-type", "f")
        if read == "ls-lR":
            return partial(run, "ls", "-lR", place.root)
        if read.endswith("-big"):
            os.stat(place.giant)
            return {
                "first-4k-of-big": partial(_expect, place.giant, [0], self._first),
                "seq-read-big": partial(_sequential, place.giant, self._size),
                "rand-200x4k-big": partial(_expect, place.giant, self._offsets, self._expected),
            }[read]
        files = _instances(place.study)
        if read == "cp-study":
            target = self._stage.fresh("copies")
            target.mkdir()
            return partial(self._copy, place.study, target)
        return partial(_sniff if read == "sniff-132B" else _headers, files)

    def _copy(self, study: Path, target: Path) -> None:
        self._copies += 1
        run("cp", "-r", study, target / str(self._copies))


def _cold_and_warm(place: _Place, prepare: Callable[[], Callable[[], object]], again: list[float]) -> Run:
    """Return a run from nothing; what the same took once more goes to `again`."""

    def one() -> float:
        place.drive.renew()
        work = prepare()
        took = timed(work)
        again.append(timed(work))
        place.drive.unmount()
        return took

    return one


def _read(stage: Stage, places: list[_Place]) -> None:
    _headers(_instances(places[0].study)[:1])  # so that nobody's time is that of importing pydicom
    machine.warm_programs()
    jobs = _Jobs(stage, places[0].giant)
    for read in READS:
        warm: dict[str, list[float]] = {place.drive.name: [] for place in places}
        contestants = {
            place.drive.name: _cold_and_warm(place, partial(jobs.prepare, read, place), warm[place.drive.name])
            for place in places
        }
        compete(stage.results, f"orthanc-{read}", contestants, stage.rounds)
        for name, values in warm.items():
            stage.results.add(Figure(f"orthanc-{read}", f"{name}, warm", values[-stage.rounds :]))
    stage.clear("copies")


def _digests(root: Path) -> "Counter[bytes]":
    found: Counter[bytes] = Counter()
    for path in _instances(root):
        try:
            found[hashlib.sha256(path.read_bytes()).digest()] += 1
        except OSError as error:
            say(f"  {path.name}: {error.strerror}")
    return found


def _compare(stage: Stage, places: list[_Place]) -> None:
    """Count the files that a drive does not show as they are."""
    wanted = _digests(places[0].root)
    for place in places[1:]:
        place.drive.renew()
        missing = (wanted - _digests(place.root)).total()
        place.drive.unmount()
        stage.results.add(Figure("orthanc-different", place.drive.name, [missing], unit="files"))
        stage.results.note(f"{place.drive.name}: {wanted.total() - missing} of {wanted.total()} files identical")


def _disk_usage(*paths: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in machine.files_below(*paths))


def _imports(stage: Stage, source: Path) -> None:
    """Have both take in all files, each time from memory into nothing."""
    files = sum(1 for _ in machine.files_below(source))
    came = sum(path.stat().st_size for path in machine.files_below(source))
    stored: dict[str, int] = {}

    def uploaded(name: str, connections: int) -> float:
        place = stage.fresh("orthanc")
        with davfs.Orthanc(place) as server:
            os.sync()
            machine.warm([source])
            took = server.upload(source, connections=connections)
        stored[name] = _disk_usage(server.storage)
        stage.clear("orthanc")
        return took

    def imported() -> float:
        target = stage.fresh("import")
        drives.dicomfs("init", target)
        os.sync()
        machine.warm([source])
        took = timed(lambda: drives.dicomfs("import", "-a", target, source))
        stored["dicomfs-fast"] = _disk_usage(target)
        stage.clear("import")
        return took

    contestants: dict[str, Run] = {
        "orthanc": partial(uploaded, "orthanc", 1),
        "orthanc, 4 connections": partial(uploaded, "orthanc", 4),
        "dicomfs-fast": imported,
    }
    rounds = min(stage.rounds, _IMPORT_ROUNDS)
    compete(stage.results, "orthanc-import", contestants, rounds, work=files, per="files", warm_up=False)
    for name, taken in stored.items():
        stage.results.add(Figure("orthanc-stored", name, [taken / came], unit="of input"))


def probe_orthanc(stage: Stage) -> None:
    """Import and read a small cohort, and do the same with Orthanc's WebDAV drive."""
    hindrance = davfs.hindrance()
    if hindrance:
        stage.results.note(f"orthanc was not measured: {hindrance}")
        return
    source, archive = stage.cohort, stage.cohort_archive
    disk = _Disk(source)
    shown = _Archive(stage.dicomfs(archive, "dicomfs-fast"))
    with davfs.Orthanc(stage.fresh("orthanc")) as server:
        server.upload(source, connections=4)
        dav = davfs.DavDrive(server, stage.mountpoint("davfs2"))
        places = _places(stage, disk, shown, dav)
        try:
            _read(stage, places)
            _compare(stage, places)
        finally:
            shown.unmount()
            dav.close()
    stage.clear("orthanc")
    _imports(stage, source)
