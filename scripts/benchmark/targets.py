"""What the figures have to reach: ratios between contestants of one run, and a few limits."""

from dataclasses import dataclass
from typing import Literal

from benchmark.measure import Figure, Results
from benchmark.orthanc import READS
from benchmark.stage import Sizes

_TEN_TIMES = {"first-4k-of-big", "rand-200x4k-big"}


@dataclass(frozen=True, slots=True)
class Target:
    """A demand on one figure; `against` is the contestant that it is a ratio to, '' for an absolute limit."""

    probe: str
    contestant: str
    against: str
    kind: Literal["speed at least", "time at most", "at most"]
    bound: float
    factor: float = 1.0
    """How much more the contestant had to do than the one it is compared with."""

    def ratio(self, results: Results) -> float | None:
        """Return what is compared with the bound, None where it was not measured."""
        figure = results.find(self.probe, self.contestant)
        if not self.against:
            return None if figure is None else figure.median
        other = results.find(self.probe, self.against)
        if figure is None or other is None or not figure.median or not other.median:
            return None
        if self.kind == "speed at least":
            return other.median / figure.median
        return figure.median / other.median / self.factor

    def met(self, ratio: float) -> bool:
        """Say whether the demand is met."""
        return ratio >= self.bound if self.kind == "speed at least" else ratio <= self.bound

    def figure(self, results: Results) -> Figure | None:
        """Return the figure that is judged."""
        return results.find(self.probe, self.contestant)


def targets(sizes: Sizes) -> list[Target]:
    """Return all demands, in the order of the table."""
    largest = sizes.growth[-1]
    short, long = sizes.series[-2], sizes.series[-1]
    return [
        Target("sequential", "dicomfs", "cfs", "speed at least", 0.85),
        Target("sequential", "dicomfs", "cfs, 128 KiB", "speed at least", 1.0),
        Target("sequential", "dicomfs-fast", "dicomfs", "speed at least", 0.5),
        Target("parallel", "dicomfs", "cfs", "speed at least", 0.85),
        Target("cp", "dicomfs", "cfs", "speed at least", 0.8),
        Target("cp", "dicomfs-fast", "dicomfs", "speed at least", 0.5),
        Target("rsync", "dicomfs", "cfs", "speed at least", 0.8),
        Target("open", "dicomfs", "cfs", "time at most", 2.5),
        Target("find", "dicomfs", "cfs", "time at most", 1.5),
        Target("ls", "dicomfs", "cfs", "time at most", 1.3),
        Target("import-ct", "dicomfs-fast", "ext4", "time at most", 3.0),
        Target("import-mr", "dicomfs-fast", "ext4", "time at most", 1.5),
        Target("stored", "CT", "", "at most", 0.45),
        Target("stored", "MR", "", "at most", 0.45),
        Target("stored", "corpus", "", "at most", 0.6),
        Target("start", f"{largest}", "", "at most", 1.0),
        Target("start", f"{largest}, cold disk", "", "at most", 1.0),
        Target("memory", f"RssAnon, {largest}", "", "at most", 150),
        Target("memory", f"VmRSS, {largest}", "", "at most", 150),
        Target("query", f"{largest}", "", "at most", 0.020),
        Target("series", f"{long} instances", f"{short} instances", "time at most", 1.25, long / short),
        Target("web-all", "dicomfs", "ext4", "speed at least", 0.5),
        Target("web-all", "dicomfs-fast", "ext4", "speed at least", 0.5),
        Target("web-disk", "dicomfs", "ext4", "speed at least", 0.5),
        Target("web-disk", "dicomfs-fast", "ext4", "speed at least", 0.5),
        Target("web-again", "dicomfs", "ext4", "speed at least", 0.5),
        Target("web-again", "dicomfs-fast", "ext4", "speed at least", 0.5),
        Target("deid", "de-identified", "identified", "speed at least", 0.8),
        Target("edit", "dicomfs", "", "at most", 10.0),
        Target("edit-grown", "packs", "", "at most", 0.01),
        *_beside_orthanc("orthanc", "dicomfs-fast"),
        Target("orthanc-import", "dicomfs-fast", "orthanc, 4 connections", "speed at least", 1.0),
        *_beside_orthanc("script", "dicomfs"),
    ]


def _beside_orthanc(probe: str, contestant: str) -> list[Target]:
    """Return the demands of one of the two probes that look at Orthanc."""
    drive = {name: 10.0 if name in _TEN_TIMES else 1.0 for name in READS}
    return [
        *(Target(f"{probe}-{name}", contestant, "davfs2", "speed at least", bound) for name, bound in drive.items()),
        Target(f"{probe}-import", contestant, "orthanc", "speed at least", 4.0),
        Target(f"{probe}-stored", contestant, "", "at most", 0.5),
        Target(f"{probe}-different", contestant, "", "at most", 0),
    ]
