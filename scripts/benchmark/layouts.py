"""Probes of layouts: giving an archive's instances names in another tree, what the names take, and listing them."""

import os
import shutil
from functools import partial
from pathlib import Path

import lmdb

from benchmark import drives, machine
from benchmark.drives import Plain
from benchmark.listing import find, ls, plain_tree
from benchmark.measure import Figure, Run, compete, say, timed
from benchmark.reading import mounted, run
from benchmark.stage import Stage, layouts

_TABLES = 64
"""More than an index has."""


def _linked(stage: Stage, source: Path) -> Run:
    """Return a run that makes a hard link of every file of a tree, on the disk."""

    def one() -> float:
        target = stage.fresh("links")
        os.sync()
        machine.warm([source])

        def work() -> None:
            run("cp", "-al", source, target)
            run("sync", "-f", target)

        took = timed(work)
        stage.clear("links")
        return took

    return one


def _added(stage: Stage, source: Path, layout: str) -> Run:
    """Return a run that switches a layout on in a fresh copy of an archive."""

    def one() -> float:
        copy = _copy(stage, source)
        took = timed(lambda: drives.dicomfs("layout", "add", layout, "-a", copy))
        stage.clear("layout")
        return took

    return one


def _copy(stage: Stage, source: Path) -> Path:
    copy = stage.fresh("layout")
    shutil.copytree(source, copy)
    os.sync()
    machine.warm([copy])
    return copy


def probe_layout(stage: Stage) -> None:
    """Give every instance of a catalog a name in a layout; hard links on ext4 are the bar."""
    archive = stage.catalog(stage.sizes.listed)
    contestants = {"ext4": _linked(stage, plain_tree(stage, archive, "tree"))}
    contestants |= {layout: _added(stage, archive, layout) for layout in layouts()}
    compete(stage.results, "layout", contestants, min(stage.rounds, 3), work=stage.sizes.listed, per="files")
    links = stage.results.find("layout", "ext4")
    for layout in layouts():
        figure = stage.results.find("layout", layout)
        assert links is not None
        assert figure is not None
        stage.results.note(f"layout {layout}: {figure.median / links.median:.2f} of the time of hard links on ext4")
        copy = _copy(stage, archive)
        before = _index_bytes(copy), _pack_bytes(copy)
        drives.dicomfs("layout", "add", layout, "-a", copy)
        grown = _index_bytes(copy) - before[0], _pack_bytes(copy) - before[1]
        for place, size in zip(("index", "packs"), grown, strict=True):
            figure = Figure("layout-stored", f"{layout}, {place}", [size / stage.sizes.listed], unit="B an instance")
            stage.results.add(figure)
            say(f"  {layout}: {figure.median:.0f} B an instance in the {place}")
        stage.clear("layout")


def _index_bytes(archive: Path) -> int:
    """Return the bytes of all pages in use by tables; the file is larger by those that are free."""
    with lmdb.open(str(archive / "index"), readonly=True, lock=False, max_dbs=_TABLES) as index:
        with index.begin() as reading, reading.cursor() as cursor:
            names = [bytes(name) for name in cursor.iternext(values=False)]
        tables = [index.open_db(name, create=False) for name in names]
        with index.begin() as reading:
            found = [reading.stat(table) for table in tables]
    kinds = ("branch_pages", "leaf_pages", "overflow_pages")
    return sum(one["psize"] * sum(one[kind] for kind in kinds) for one in found)


def _pack_bytes(archive: Path) -> int:
    return sum(path.stat().st_size for path in machine.files_below(archive / "packs"))


def probe_layout_list(stage: Stage) -> None:
    """Walk layouts with find and ls -lR, beside the same trees on ext4."""
    archive = stage.layouts
    plain = {layout: plain_tree(stage, archive, f"tree-{layout}", layout) for layout in layouts()}
    shown = {layout: stage.dicomfs(archive, view=layout) for layout in layouts()}
    with mounted(*shown.values()):
        for probe, walk in (("layout-find", find), ("layout-ls", ls)):
            contestants: dict[str, Run] = {}
            for layout, drive in shown.items():
                contestants[f"ext4, {layout}"] = Plain(plain[layout]).cold(partial(walk, plain[layout]))
                contestants[f"dicomfs, {layout}"] = drive.cold(partial(walk, drive.path / layout))
            compete(stage.results, probe, contestants, stage.rounds, work=stage.sizes.listed, per="files")
