"""Runs and their figures: contestants take turns, and medians are what counts."""

import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TypeAlias

Run: TypeAlias = Callable[[], float]
"""Prepares, does the work, and returns the seconds that the work alone took."""


class Failed(Exception):
    """A contestant did not do its work: the probe ends, the others go on."""


class Took(float):
    """Seconds that a run took, and how many of them the process of the drive worked."""

    cpu_s: float | None = None

    @classmethod
    def with_cpu(cls, seconds: float, cpu_s: float) -> "Took":
        """Return seconds that know what the drive did meanwhile."""
        took = cls(seconds)
        took.cpu_s = cpu_s
        return took


@dataclass(slots=True)
class Figure:
    """What one contestant needed for one probe, in every round; seconds unless `unit` says else."""

    probe: str
    contestant: str
    values: list[float]
    unit: str = "s"
    work: float = 0.0
    """How much there was to do, in units of `per`: MB, files."""
    per: str = ""
    cpu_s: list[float] = field(default_factory=list)
    """What the process of a drive worked in each round: less hurt than `values` by what else the machine does."""

    @property
    def median(self) -> float:
        """The figure."""
        return statistics.median(self.values)

    @property
    def spread(self) -> float:
        """How far apart the rounds are, as a part of the median."""
        return (max(self.values) - min(self.values)) / self.median if self.median else 0.0

    @property
    def rate(self) -> float | None:
        """How much was done in a second."""
        return self.work / self.median if self.work and self.median and self.unit == "s" else None


@dataclass(slots=True)
class Results:
    """Everything that was measured in one run of the benchmark."""

    machine: dict[str, object]
    sizes: dict[str, object]
    rounds: int
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, figure: Figure) -> Figure:
        """Keep a figure."""
        self.figures.append(figure)
        return figure

    def find(self, probe: str, contestant: str) -> Figure | None:
        """Return the figure of a contestant."""
        for figure in self.figures:
            if (figure.probe, figure.contestant) == (probe, contestant):
                return figure
        return None

    def note(self, text: str) -> None:
        """Keep a remark that belongs to the figures."""
        if text not in self.notes:
            self.notes.append(text)
            say(text)

    def encode(self) -> str:
        """Return everything as JSON."""
        shown = asdict(self)
        for held, figure in zip(shown["figures"], self.figures, strict=True):
            held.update(median=figure.median, spread=round(figure.spread, 3), rate=figure.rate)
        return json.dumps(shown, indent=1, ensure_ascii=False)

    @classmethod
    def decode(cls, text: str) -> "Results":
        """Read what `encode` wrote."""
        held = json.loads(text)
        names = Figure.__slots__
        figures = [Figure(**{name: figure[name] for name in names if name in figure}) for figure in held["figures"]]
        return cls(held["machine"], held["sizes"], held["rounds"], figures, held["notes"])


def say(text: str) -> None:
    """Tell whoever waits, beside the results."""
    print(text, file=sys.stderr, flush=True)


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that something takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def take_turns(contestants: Mapping[str, Run], rounds: int, *, warm_up: bool = True) -> dict[str, list[float]]:
    """Let each contestant run once a round, another one first each time; the warm-up is not counted."""
    names = list(contestants)
    values: dict[str, list[float]] = {name: [] for name in names}
    for number in range(-1 if warm_up else 0, rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            gc.collect()
            took = contestants[name]()
            if number >= 0:
                values[name].append(took)
    return values


def compete(
    results: Results,
    probe: str,
    contestants: Mapping[str, Run],
    rounds: int,
    *,
    work: float = 0.0,
    per: str = "",
    warm_up: bool = True,
) -> None:
    """Run a probe and keep the figures; a single round is not warmed up for."""
    say(f"{probe}: {', '.join(contestants)}")
    for name, values in take_turns(contestants, rounds, warm_up=warm_up and rounds > 1).items():
        cpu_s = [value.cpu_s for value in values if isinstance(value, Took) and value.cpu_s is not None]
        figure = results.add(Figure(probe, name, values, work=work, per=per, cpu_s=cpu_s))
        rate = "" if figure.rate is None else f", {figure.rate:,.0f} {per}/s"
        say(f"  {name:16} {figure.median:9.4f} s ± {figure.spread / 2:.0%}{rate}")
