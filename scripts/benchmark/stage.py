"""What probes work on: data, archives and mountpoints below one directory, made when first needed."""

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import dicomfs
from benchmark import catalog, cohort, drives, machine, scans
from benchmark.catalog import SeriesPlan
from benchmark.drives import Drive
from benchmark.measure import Results, say, timed
from dicomfs.archive.built_in_layouts import built_in


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much there is of everything."""

    ct_studies: int = 2
    ct_slices: int = 1000
    """Of each study."""
    mr_files: int = 20_000
    giant_frames: int = 2048
    """Of 0.5 MiB each."""
    opened: int = 1000
    growth: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    """Instances of the catalogs whose cost is compared; the last is the large one."""
    listed: int = 100_000
    """Instances that `find` and `ls -lR` walk: one of `growth`."""
    patients: int = 100_000
    """Of the wide directory."""
    series: tuple[int, ...] = (100, 1_000, 20_000)
    """Instances of the series whose listings are compared."""
    cohort_slices: int = 32
    """Of each series of the cohort that Orthanc gets, too."""
    cohort_frames: int = 400
    """Of its multi-frame object."""

    @classmethod
    def of(cls, told: Mapping[str, object]) -> "Sizes":
        """Return the sizes that are told with results, where other things are told, too."""
        held: dict[str, Any] = {name: told[name] for name in cls.__slots__ if name in told}
        held = {name: tuple(value) if isinstance(value, list) else value for name, value in held.items()}
        return cls(**held)


FULL = Sizes()
QUICK = Sizes(
    ct_slices=100, mr_files=1000, giant_frames=256, opened=200, growth=(1000, 5000, 20_000), listed=20_000,
    patients=5000, series=(100, 500, 2000), cohort_slices=8, cohort_frames=100,
)  # fmt: skip
TINY = Sizes(
    ct_slices=3, mr_files=6, giant_frames=4, opened=3, growth=(100, 200), listed=200, patients=30, series=(5, 20),
    cohort_slices=1, cohort_frames=4,
)  # fmt: skip


class Stage:
    """The work directory. Everything in it can be deleted; what is there already is used again."""

    def __init__(self, work: Path, sizes: Sizes, results: Results) -> None:
        self.work = work
        self.sizes = sizes
        self.results = results
        self.rounds = results.rounds
        self._mounts = 0
        work.mkdir(parents=True, exist_ok=True)

    # Sources

    @property
    def ct(self) -> Path:
        """CT studies, a directory for each."""
        studies, slices = self.sizes.ct_studies, self.sizes.ct_slices
        return self._source("ct", lambda place: scans.write_ct(place, studies, slices), studies=studies, slices=slices)

    @property
    def ct_study(self) -> Path:
        """The first CT study."""
        return self.ct / "CT001"

    @property
    def ct_long(self) -> Path:
        """One CT study of as many slices as the others together."""
        slices = self.sizes.ct_studies * self.sizes.ct_slices
        return self._source("ct-long", lambda place: scans.write_ct(place, 1, slices), slices=slices)

    @property
    def mr(self) -> Path:
        """Small MR files."""
        files = self.sizes.mr_files
        return self._source("mr", lambda place: scans.write_mr(place, files), files=files)

    @property
    def giant(self) -> Path:
        """One multi-frame object: the file."""
        frames = self.sizes.giant_frames
        return self._source("giant", lambda place: scans.write_giant(place, frames), frames=frames) / "giant.dcm"

    @property
    def cohort(self) -> Path:
        """The small cohort that Orthanc gets, too: a directory for each patient."""
        slices, frames = self.sizes.cohort_slices, self.sizes.cohort_frames
        return self._source("cohort", lambda place: cohort.write(place, slices, frames), slices=slices, frames=frames)

    def _source(self, name: str, make: "scans.Make", **parameters: object) -> Path:
        place = self.work / "source" / name
        return scans.made(place, partial(self._told, f"making {name}", make), **parameters)

    def _told(self, what: str, make: "scans.Make", where: Path) -> None:
        say(f"{what} …")
        say(f"  {timed(lambda: make(where)):.1f} s")

    # Archives

    def archive(self, codec: str) -> Path:
        """Return an archive of the first CT study and the multi-frame object."""
        study, giant = self.ct_study, self.giant
        parameters = {"slices": self.sizes.ct_slices, "frames": self.sizes.giant_frames}

        def make(place: Path) -> None:
            drives.dicomfs("init", "--codec", codec, place)
            drives.dicomfs("import", "-a", place, study, giant)

        return self._archive(f"scans-{codec}", make, **parameters)

    def scattered(self, codec: str) -> Path:
        """Return an archive with a pack for each of the CT studies."""
        source = self.ct
        parameters = {"studies": self.sizes.ct_studies, "slices": self.sizes.ct_slices}

        def make(place: Path) -> None:
            drives.dicomfs("init", "--codec", codec, place)
            for study in sorted(source.glob("CT*")):
                drives.dicomfs("import", "-a", place, study)

        return self._archive(f"scattered-{codec}", make, **parameters)

    @property
    def cohort_archive(self) -> Path:
        """An archive of the cohort, with the default codec."""
        source = self.cohort

        def make(place: Path) -> None:
            drives.dicomfs("init", place)
            drives.dicomfs("import", "-a", place, source)

        parameters = {"slices": self.sizes.cohort_slices, "frames": self.sizes.cohort_frames}
        return self._archive("cohort", make, **parameters)

    def catalog(self, instances: int) -> Path:
        """Return an archive with a catalog like a clinic's."""
        return self._planned(f"catalog-{instances}", catalog.clinic(instances), instances=instances)

    @property
    def layouts(self) -> Path:
        """The catalog that is listed, with every layout that comes with dicomfs."""
        source, known = self.catalog(self.sizes.listed), layouts()

        def make(place: Path) -> None:
            shutil.copytree(source, place)
            for name in known:
                drives.dicomfs("layout", "add", name, "-a", place)

        return self._archive(f"layouts-{self.sizes.listed}", make, instances=self.sizes.listed, layouts=known)

    @property
    def project(self) -> Path | None:
        """An archive of the CT study with a de-identified project of it; None where dicomfs makes none."""
        if subprocess.run(
            [*drives.DICOMFS, "project", "create", "--help"], capture_output=True, check=False
        ).returncode:
            return None
        study = self.ct_study

        def make(place: Path) -> None:
            drives.dicomfs("init", place)
            drives.dicomfs("import", "-a", place, study)
            drives.dicomfs("project", "create", "bench", "-a", place, "--where", "Modality=CT", "--deid", "basic")

        return self._archive("project", make, slices=self.sizes.ct_slices)

    @property
    def wide(self) -> Path:
        """An archive of many patients with one instance each."""
        return self._planned("wide", catalog.wide(self.sizes.patients), patients=self.sizes.patients)

    @property
    def long(self) -> Path:
        """An archive of one study with a very long series."""
        return self._planned("long", catalog.long(*self.sizes.series), series=self.sizes.series)

    def _planned(self, name: str, plans: Iterable[SeriesPlan], **parameters: object) -> Path:
        return self._archive(name, lambda place: catalog.build(place, plans), **parameters)

    def _archive(self, name: str, make: "scans.Make", **parameters: object) -> Path:
        place = self.work / "archives" / name
        make_it = partial(self._told, f"making the archive {name}", make)
        return scans.made(place, make_it, code=_code(), **parameters)

    # Drives

    def mountpoint(self, name: str) -> Path:
        """Return a directory that nothing else is mounted on."""
        self._mounts += 1
        return self.work / "drives" / f"{self._mounts}-{name}"

    def dicomfs(self, archive: Path, name: str = "dicomfs", view: str = "patients") -> Drive:
        """Return an archive's drive, not mounted yet."""
        return drives.dicomfs_drive(archive, self.mountpoint(name), name=name, view=view)

    def cfs(self, archive: Path, name: str = "cfs", *, threads: int = 0) -> Drive:
        """Return the C filesystem over an archive, not mounted yet."""
        return drives.cfs_drive(self.work, archive, self.mountpoint(name), name=name, threads=threads)

    def fresh(self, name: str) -> Path:
        """Return a place where nothing is, for a copy or an archive."""
        place = self.work / "output" / name
        shutil.rmtree(place, ignore_errors=True)
        place.parent.mkdir(parents=True, exist_ok=True)
        return place

    def clear(self, name: str) -> None:
        """Remove an output, and have that over with before anything is measured."""
        self.fresh(name)
        os.sync()

    def describe(self) -> dict[str, object]:
        """Return the sizes, with bytes where the data have been made."""
        sources = self.work / "source"
        held: dict[str, object] = json.loads(json.dumps(asdict(self.sizes)))
        for name in ("ct", "mr", "giant", "cohort"):
            if (sources / name).is_dir():
                held[f"{name}_bytes"] = sum(path.stat().st_size for path in machine.files_below(sources / name))
        return held


@cache
def _code() -> str:
    """Return a digest of the code that fills archives: what older code made is made anew."""
    package = Path(dicomfs.__file__).parent
    digest = hashlib.sha256()
    for path in machine.files_below(package / "archive", package / "dicom", package / "store"):
        if path.suffix == ".py":
            digest.update(path.read_bytes())
    return digest.hexdigest()


def layouts() -> dict[str, str]:
    """Return the templates of the layouts that come with dicomfs, but that of `patients`."""
    return {name: template for name, template in built_in().items() if name != "patients"}


def names(root: Path) -> list[str]:
    """Return the paths of all files below a directory, from there."""
    return [os.path.relpath(path, root) for path in machine.files_below(root)]
