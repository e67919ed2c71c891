"""Probes of listing: whole trees, a wide directory, long series, and how cost grows with the catalog."""

import os
import random
from functools import partial
from pathlib import Path

from benchmark import machine, scans
from benchmark.catalog import patient_id
from benchmark.drives import Plain
from benchmark.measure import Figure, compete, say, timed
from benchmark.reading import mounted, run
from benchmark.stage import Stage
from dicomfs.archive.archive import Archive
from dicomfs.vfs.node import ROOT, waited
from dicomfs.vfs.tree import Tree

_LOOKUPS = 1000


def find(root: Path) -> float:
    """Walk a tree as find(1) does."""
    return timed(lambda: run("find", root))


def ls(root: Path) -> float:
    """Walk a tree and tell everything, as ls(1) does."""
    return timed(lambda: run("ls", "-lR", root))


def plain_tree(stage: Stage, archive: Path, name: str, view: str = "patients") -> Path:
    """Return a tree on the disk with the same names and sizes as a view, its files without blocks."""

    def make(place: Path) -> None:
        with Archive.open(archive) as opened:
            tree = Tree(opened, (view,))
            root = tree.lookup(ROOT, view.encode())
            assert root is not None
            waiting = [(root.ino, os.fsencode(place))]
            while waiting:
                ino, path = waiting.pop()
                os.mkdir(path)
                for child, number, is_directory, size, *_ in waited(lambda ino=ino: list(tree.entries(ino))):
                    if is_directory:
                        waiting.append((number, os.path.join(path, child)))
                        continue
                    fd = os.open(os.path.join(path, child), os.O_WRONLY | os.O_CREAT, 0o444)
                    os.ftruncate(fd, size)
                    os.close(fd)
            tree.close()

    return scans.made(stage.work / "source" / name, make, archive=archive.name, view=view)


def probe_find(stage: Stage) -> None:
    """Walk the catalog with find."""
    _walk(stage, "find")


def probe_ls(stage: Stage) -> None:
    """Walk the catalog with ls -lR."""
    _walk(stage, "ls")


_WALKS = {"find": find, "ls": ls}


def _walk(stage: Stage, probe: str) -> None:
    archive = stage.catalog(stage.sizes.listed)
    plain = plain_tree(stage, archive, "tree")
    walk = _WALKS[probe]
    chosen = [stage.cfs(archive), stage.dicomfs(archive)]
    with mounted(*chosen):
        contestants = {"ext4": Plain(plain).cold(lambda: walk(plain))}
        contestants |= {drive.name: drive.cold(partial(walk, drive.path / "patients")) for drive in chosen}
        compete(stage.results, probe, contestants, stage.rounds, work=stage.sizes.listed, per="files")


def probe_wide(stage: Stage) -> None:
    """List one directory of very many patients, and look up some of them."""
    archive = stage.wide
    chosen = [stage.cfs(archive), stage.dicomfs(archive)]
    patients = stage.sizes.patients
    some = random.Random(1).sample(range(patients), min(_LOOKUPS, patients))
    wanted = [f"{patient_id(number)}_Name_of_{number:07d}" for number in some]

    def lookups(root: Path) -> float:
        paths = [root / name for name in wanted]
        return timed(lambda: [os.stat(path) for path in paths])

    with mounted(*chosen):
        contestants = {drive.name: drive.cold(partial(scan, drive.path / "patients")) for drive in chosen}
        compete(stage.results, "wide", contestants, stage.rounds, work=patients, per="entries")
        contestants = {drive.name: drive.cold(partial(lookups, drive.path / "patients")) for drive in chosen}
        compete(stage.results, "wide-lookup", contestants, stage.rounds, work=len(wanted), per="names")


def scan(directory: Path) -> float:
    """List a directory with the attributes of its entries, as `ls -l` does, without starting a program."""

    def work() -> None:
        with os.scandir(directory) as entries:
            for entry in entries:
                entry.stat(follow_symlinks=False)

    return timed(work)


def probe_series(stage: Stage) -> None:
    """List series of growing length."""
    drive = stage.dicomfs(stage.long)
    with mounted(drive):
        study = next(machine.files_below(drive.path / "patients")).parent.parent
        places = {len(os.listdir(place)): place for place in study.iterdir()}
        for length in stage.sizes.series:
            contestants = {f"{length} instances": drive.cold(partial(scan, places[length]))}
            compete(stage.results, "series", contestants, stage.rounds, work=length, per="entries")


def probe_growth(stage: Stage) -> None:
    """Walk catalogs of growing size; tell what the drive holds in memory afterwards."""
    for instances in stage.sizes.growth:
        archive = stage.catalog(instances)
        chosen = [stage.cfs(archive), stage.dicomfs(archive)]
        with mounted(*chosen):
            contestants = {
                f"{drive.name}, {instances}": drive.cold(partial(find, drive.path / "patients")) for drive in chosen
            }
            rounds = min(stage.rounds, 3)
            compete(stage.results, "growth", contestants, rounds, work=instances, per="files", warm_up=False)
            held = machine.memory_mib(chosen[1].pid)
        for name in ("RssAnon", "VmRSS"):
            figure = Figure("memory", f"{name}, {instances}", [held[name]], unit="MiB")
            stage.results.add(figure)
            say(f"  after find: {name} {held[name]:.0f} MiB")
