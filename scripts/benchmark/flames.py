"""Profiles to look at: stacks and how often each was seen, as a tree in text and as a flame graph.

Stacks come folded, `outermost;…;innermost count` on a line, as py-spy and others write them. What is less than
a small part of the whole is left out, so that both can be kept beside the documentation.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from html import escape

_LEAST_TEXT, _LEAST_DRAWN = 0.01, 0.004
_FLAT = 25
_PASSED_ON = 0.98
"""A call that hands this much of its time to one other is told on one line with it."""
_WIDTH, _ROW, _LETTER = 1200.0, 17, 6.3
_SAYS_NOTHING = re.compile(r"0x[0-9a-f]+ |.*<frozen importlib|_*Py[A-Z_x]|method_vectorcall")
"""Addresses without a name, and how Python and Cython call and import."""
_PROCESS = re.compile(r'process \d+:"[^"]*"')
"""With its command line, which may hold semicolons."""
_LINE_NUMBER = re.compile(r":\d+\)$")
_OPEN = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {:.0f} {}" font-family="sans-serif" font-size="11">"""
_OURS, _LOOP, _OTHERS = "#e8837a", "#8fb3de", "#e6c46c"
_LOOPS = ("pyfuse3", "trio", "asyncio", "click", "runpy", "concurrent", "multiprocessing", "threading", "selectors")


@dataclass(slots=True)
class Call:
    """A function as it was called from one place, and all that it called."""

    name: str
    seen: int = 0
    """In how many samples, callees included."""
    calls: "dict[str, Call]" = field(default_factory=dict)

    @property
    def own(self) -> int:
        """In how many samples it was the innermost."""
        return self.seen - sum(call.seen for call in self.calls.values())

    def largest(self) -> "list[Call]":
        """Return what it called, the costliest first."""
        return sorted(self.calls.values(), key=lambda call: (-call.seen, call.name))


def fold(lines: Iterable[str]) -> Call:
    """Return the tree of folded stacks; lines of one function count as one."""
    top = Call("all")
    for line in lines:
        stack, _, count = line.rstrip().rpartition(" ")
        if not count.isdecimal():
            continue
        top.seen += int(count)
        at = top
        for frame in _PROCESS.sub(_role, stack).split(";"):
            if _SAYS_NOTHING.match(frame):
                continue
            name = _LINE_NUMBER.sub(")", frame)
            at = at.calls.setdefault(name, Call(name))
            at.seen += int(count)
    return top


def _role(process: re.Match[str]) -> str:
    return "worker process" if "worker" in process[0] else "main process"


def text(top: Call) -> str:
    """Return the costliest functions, then the tree: parts of all samples, with and without what was called."""
    if not top.seen:
        return "no samples\n"
    own: Counter[str] = Counter()
    for call in _everything(top):
        own[call.name] += call.own
    lines = [f"{top.seen} samples", "", "  own  function"]
    lines += [f"{count / top.seen:5.1%}  {name}" for name, count in own.most_common(_FLAT) if count]
    lines += ["", "  all    own  call"]
    lines += _tree(top, top.seen, 0)
    return "\n".join(lines) + "\n"


def _everything(call: Call) -> Iterator[Call]:
    yield call
    for callee in call.calls.values():
        yield from _everything(callee)


def _tree(call: Call, total: int, depth: int) -> Iterator[str]:
    names = [call.name]
    while (below := call.largest()) and below[0].seen >= _PASSED_ON * call.seen:
        call = below[0]
        names.append(call.name)
    # Of a long way down the ends tell enough.
    shown = names if len(names) < 4 else [names[0], "…", *names[-2:]]
    yield f"{call.seen / total:5.1%} {call.own / total:6.1%}  {'  ' * depth}{' > '.join(shown)}"
    for callee in call.largest():
        if callee.seen >= _LEAST_TEXT * total:
            yield from _tree(callee, total, depth + 1)


def svg(top: Call, title: str) -> str:
    """Return the flame graph: callers below, as wide as they took long."""
    boxes = list(_boxes(top, top.seen, 0.0, 0)) if top.seen else []
    rows = 1 + max((row for _, _, row, _ in boxes), default=0)
    height = (rows + 2) * _ROW
    lines = [
        _OPEN.format(_WIDTH, height),
        '<rect width="100%" height="100%" fill="#fff"/>',
        f'<text x="6" y="{_ROW - 4}" font-size="13">{escape(title)}, {top.seen} samples</text>',
    ]
    for call, left, row, wide in boxes:
        y = height - (row + 1) * _ROW - 4
        told = escape(f"{call.name}: {call.seen / top.seen:.1%}, itself {call.own / top.seen:.1%}")
        box = f'<rect x="{left:.1f}" y="{y}" width="{wide:.1f}" height="{_ROW - 1}" fill="{_colour(call.name)}"/>'
        letters = int((wide - 6) / _LETTER)
        label = f'<text x="{left + 3:.1f}" y="{y + 12}">{escape(call.name[:letters])}</text>' if letters > 2 else ""
        lines.append(f"<g><title>{told}</title>{box}{label}</g>")
    return "\n".join([*lines, "</svg>\n"])


def _boxes(call: Call, total: int, left: float, row: int) -> Iterator[tuple[Call, float, int, float]]:
    yield call, left, row, call.seen / total * _WIDTH
    for callee in sorted(call.calls.values(), key=lambda callee: callee.name):
        if callee.seen >= _LEAST_DRAWN * total:
            yield from _boxes(callee, total, left, row + 1)
            left += callee.seen / total * _WIDTH


def _colour(name: str) -> str:
    if "dicomfs" in name:
        return _OURS
    return _LOOP if any(loop in name for loop in _LOOPS) else _OTHERS
