"""One plot for each family of probes, for the documentation: on white, so that it can be read on any page."""

from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.measure import Figure, Results, say
from benchmark.orthanc import READS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FAMILIES = {
    "reading": ("MB/s, more is better (log)", ("sequential", "parallel", "cp", "rsync")),
    "listing": ("files/s, more is better (log)", ("open", "find", "ls", "wide", "wide-lookup")),
    "importing": ("files/s, more is better (log)", ("import-ct", "import-mr", "orthanc-import")),
    "serving": ("MB/s, more is better (log)", ("web-disk", "web-all", "web-again")),
    "orthanc": ("seconds, less is better (log)", tuple(f"orthanc-{read}" for read in READS)),
}
_COLOURS = {"ext4": "#9aa0a6", "cfs": "#4c78a8", "cfs-4-threads": "#88a9cc", "dicomfs": "#d1495b",
            "dicomfs-fast": "#edae49", "pydicom": "#66a182", "davfs2": "#7b5ea7", "orthanc": "#7b5ea7",
            "orthanc, 4 connections": "#b39ddb"}  # fmt: skip
_SIZE = (7.2, 3.2)
_MANY = 6


def draw(results: Results, directory: Path) -> None:
    """Draw what was measured; needs matplotlib (the extra `bench`)."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update(
        {
            "svg.hashsalt": "dicomfs",
            "font.size": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "svg.fonttype": "none",
            "font.family": "sans-serif",
            "font.sans-serif": ["Arial", "Helvetica", "DejaVu Sans"],
        }
    )
    from matplotlib import pyplot

    directory.mkdir(parents=True, exist_ok=True)
    for name, (unit, probes) in FAMILIES.items():
        shown = [figure for figure in results.figures if figure.probe in probes and figure.contestant in _COLOURS]
        if shown:
            figure, axes = pyplot.subplots(figsize=_SIZE, layout="constrained")
            _bars(axes, shown, unit)
            figure.savefig(directory / f"{name}.svg", metadata={"Date": None})
            pyplot.close(figure)
    if results.find("growth", f"dicomfs, {_largest(results)}") is not None:
        figure, axes = pyplot.subplots(figsize=_SIZE, layout="constrained")
        _growth(axes, results)
        figure.savefig(directory / "growth.svg", metadata={"Date": None})
        pyplot.close(figure)
    say(f"plots are in {directory}")


def _bars(axes: "Axes", shown: list[Figure], unit: str) -> None:
    probes = list(dict.fromkeys(figure.probe for figure in shown))
    contestants = [name for name in _COLOURS if any(figure.contestant == name for figure in shown)]
    width = 0.8 / len(contestants)
    for place, contestant in enumerate(contestants):
        mine = [figure for figure in shown if figure.contestant == contestant]
        at = [probes.index(figure.probe) - 0.4 + (place + 0.5) * width for figure in mine]
        told = [sorted(_told(figure, value) for value in figure.values) for figure in mine]
        medians = [_told(figure, figure.median) for figure in mine]
        low = [median - values[0] for median, values in zip(medians, told, strict=True)]
        high = [values[-1] - median for median, values in zip(medians, told, strict=True)]
        axes.bar(at, medians, width, label=contestant, color=_COLOURS[contestant], yerr=[low, high], ecolor="#444444")
    axes.set_xticks(range(len(probes)), [_label(probe, len(probes)) for probe in probes])
    axes.set_yscale("log")
    axes.set_ylabel(unit)
    axes.legend(frameon=False, ncols=len(contestants), loc="lower center", bbox_to_anchor=(0.5, 1.0))


def _told(figure: Figure, value: float) -> float:
    """Return a round as it is drawn: what was done in a second, or the seconds where nothing is counted."""
    return figure.work / value if figure.work else value


def _label(probe: str, beside: int) -> str:
    """Return what stands below a group of bars, on two lines when there are many."""
    if beside < _MANY:
        return probe
    first, _, rest = probe.removeprefix("orthanc-").partition("-")
    return f"{first}\n{rest}"


def _largest(results: Results) -> int:
    sizes = results.sizes["growth"]
    assert isinstance(sizes, list)
    return int(sizes[-1])


def _growth(axes: "Axes", results: Results) -> None:
    lines = {
        "find, dicomfs": ("growth", "dicomfs, {}"),
        "find, cfs": ("growth", "cfs, {}"),
        "mount and first ls": ("start", "{}"),
        "query by PatientID": ("query", "{}"),
    }
    sizes = results.sizes["growth"]
    assert isinstance(sizes, list)
    for label, (probe, contestant) in lines.items():
        found = [(size, results.find(probe, contestant.format(size))) for size in sizes]
        points = [(size, figure.median) for size, figure in found if figure is not None]
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("instances")
    axes.set_ylabel("seconds")
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
