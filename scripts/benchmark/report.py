"""The table of a run: every figure once, with the demands on it."""

import json
import statistics
from dataclasses import asdict

from benchmark.measure import Figure, Results
from benchmark.stage import Sizes
from benchmark.targets import Target, targets

_HEAD = ("probe", "contestant", "median", "spread", "rate", "drive's CPU", "ratio", "target", "verdict")


def document(results: Results) -> str:
    """Return the results as JSON, with the demands and what became of them."""
    held = json.loads(results.encode())
    held["targets"] = [
        {**asdict(demand), "ratio": ratio, "verdict": _judged(demand, ratio)}
        for demand in targets(Sizes.of(results.sizes))
        for ratio in (demand.ratio(results),)
        if demand.figure(results) is not None
    ]
    return json.dumps(held, indent=1, ensure_ascii=False)


def table(results: Results) -> str:
    """Return the results as a Markdown table, which is readable as it is."""
    demands = targets(Sizes.of(results.sizes))
    rows: list[tuple[str, ...]] = []
    for figure in results.figures:
        mine = [demand for demand in demands if demand.figure(results) is figure]
        rows.append((*_figure(figure), *_verdict(results, mine[0] if mine else None)))
        rows += [(*("",) * 6, *_verdict(results, demand)) for demand in mine[1:]]
    widths = [max(map(len, column)) for column in zip(_HEAD, *rows, strict=True)]
    lines = [_line(_HEAD, widths), _line(tuple("-" * width for width in widths), widths)]
    lines += [_line(row, widths) for row in rows]
    return "\n".join([*_conditions(results), "", *lines, "", *(f"- {note}" for note in results.notes)])


def _conditions(results: Results) -> list[str]:
    machine = results.machine
    sizes = ", ".join(f"{name} {value}" for name, value in results.sizes.items())
    hardware = f"{machine['cores']} cores ({machine['processor']}), {machine['memory_mib']} MiB"
    system = f"Linux {machine['kernel']}, {machine['filesystem']}, Python {machine['python']}"
    touched = f"; {machine['memory']}" if "memory" in machine else ""
    return [
        f"{hardware}, {system}; {machine['date']}, load {machine['load']}{touched}",
        f"{results.rounds} rounds, medians; sizes: {sizes}",
    ]


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    return "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"


def _figure(figure: Figure) -> tuple[str, ...]:
    spread = f"±{figure.spread / 2:.0%}" if len(figure.values) > 1 else ""
    rate = "" if figure.rate is None else f"{figure.rate:,.0f} {figure.per}/s"
    cpu = f"{statistics.median(figure.cpu_s) * 1e3:.0f} ms" if figure.cpu_s else ""
    return figure.probe, figure.contestant, quantity(figure), spread, rate, cpu


def quantity(figure: Figure) -> str:
    """Return the median with its unit."""
    value = figure.median
    if figure.unit == "s":
        return f"{value:.3f} s" if value >= 1 else f"{value * 1e3:.1f} ms" if value >= 1e-3 else f"{value * 1e6:.0f} µs"
    return f"{value:.3g} {figure.unit}"


def _verdict(results: Results, demand: Target | None) -> tuple[str, str, str]:
    if demand is None:
        return "", "", ""
    ratio = demand.ratio(results)
    shown = f"{ratio:.2f}" if ratio is not None and demand.against else ""
    return shown, _demand(demand), _judged(demand, ratio)


def _judged(demand: Target, ratio: float | None) -> str:
    if ratio is None:
        return "not measured"
    return "met" if demand.met(ratio) else "MISSED"


def _demand(demand: Target) -> str:
    of = f" of {demand.against}" if demand.against else ""
    each = " for each" if demand.factor != 1 else ""
    return f"{demand.kind} {demand.bound:g}{of}{each}"
