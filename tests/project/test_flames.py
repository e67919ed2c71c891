"""Profiles as text and as a flame graph: stacks that were seen, parts of the whole, nothing that cannot be read."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from benchmark import flames

FOLDED = [
    'process 7:"python -m dicomfs";run (a.py:3);walk (a.py:10);read (b.py:1) 60\n',
    'process 7:"python -m dicomfs";run (a.py:3);walk (a.py:12);0x7f12 (libc.so.6) 30\n',
    'process 9:"python -c from worker import main; main()";run (a.py:3);a<b> (c.py:1) 10\n',
    "not a stack\n",
]


def test_parts_of_the_whole() -> None:
    told = flames.text(flames.fold(FOLDED)).splitlines()

    assert told[0] == "100 samples"
    assert "60.0%  read (b.py)" in told
    assert "30.0%  walk (a.py)" in told, "what has no name counts for its caller"
    assert "90.0%  30.0%    main process > run (a.py) > walk (a.py)" in told
    assert "10.0%  10.0%    worker process > run (a.py) > a<b> (c.py)" in told


def test_the_graph_is_svg_and_as_wide_as_time() -> None:
    drawn = ElementTree.fromstring(flames.svg(flames.fold(FOLDED), "reading & more"))
    space = "{http://www.w3.org/2000/svg}"
    boxes = {
        group.findtext(f"{space}title", ""): float(group.find(f"{space}rect").get("width", "0"))  # type: ignore[union-attr]
        for group in drawn.iter(f"{space}g")
    }

    assert boxes["read (b.py): 60.0%, itself 60.0%"] == 720.0
    assert boxes["a<b> (c.py): 10.0%, itself 10.0%"] == 120.0


def test_nothing_was_seen() -> None:
    assert flames.text(flames.fold([])) == "no samples\n"
    assert ElementTree.fromstring(flames.svg(flames.fold([]), "nothing")).tag.endswith("svg")
