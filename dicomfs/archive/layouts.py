"""Switch layouts on and off, and give instances their places in them.

What a layout lacks is found by the numbers of instances: all up to `through` are in it. Instances are taken series by
series, each in the order of slices, in commits of bounded size. Whoever is stopped goes on where it was, for what has
a place is passed by. Of the longest series memory holds the numbers.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dicomfs.archive import tables
from dicomfs.archive.archive import Archive
from dicomfs.archive.by_layout import LayoutState
from dicomfs.archive.catalog import View
from dicomfs.archive.committing import Committing, Opened, writing
from dicomfs.archive.lacking import Lacking, in_order
from dicomfs.archive.layout import Layout
from dicomfs.archive.outcome import OnProgress, Progress
from dicomfs.archive.placing import parsed
from dicomfs.errors import UsageError

COMMIT_LINKS: Final = 4096
MAX_LAYOUTS: Final = 32
RESERVED: Final = frozenset(
    {"patients", "dicomweb", "quarantine", "projects", "incoming", "readme.txt", "layouts", "all"}
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}").fullmatch


@dataclass(frozen=True, slots=True)
class Applied:
    """What applying a layout did."""

    name: str
    root: int
    instances: int
    """How many got a place."""


def require_name(name: str) -> None:
    """Raise UsageError for what cannot be a layout's name."""
    if not _NAME(name):
        raise UsageError(f"'{name}' cannot be the name of a layout: use up to 32 letters, digits, '-' and '_'")
    if name.lower() in RESERVED:
        raise UsageError(f"'{name}' cannot be the name of a layout: the drive has something else of this name")


def switch_on(
    archive_path: Path, name: str, template: str, progress: OnProgress | None = None, *, wait_s: float = 0.0
) -> Applied:
    """Switch a layout on and apply it to all that the archive holds; go on where an earlier call was stopped."""
    require_name(name)
    layout = Layout.parse(template)
    with writing(archive_path, "dicomfs layout add", wait_s) as opened:
        applying = _Applying(opened)
        known = {state.name.lower(): state for state in applying.states() if state.on or state.template == template}
        state = known.get(name.lower())
        if state is not None and state.on and (state.template, state.name) != (template, name):
            raise UsageError(
                f"the layout '{state.name}' is there already, with another template; "
                f"take it off with 'dicomfs layout remove {state.name}', or choose another name"
            )
        if state is None or not state.on:
            if sum(1 for one in applying.states() if one.on) >= MAX_LAYOUTS:
                raise UsageError(f"an archive can have {MAX_LAYOUTS} layouts; take one off first")
            root = applying.fold.next if state is None else state.root
            applying.records.layouts.append((root, name, template))
            applying.fold.layout(root, name, template)
            applying.commit()
            state = LayoutState(root, name, template, on=True, through=0)
        placed = applying.apply(state, layout, 0, progress)
    return Applied(name, state.root, placed)


def switch_off(archive_path: Path, name: str, *, wait_s: float = 0.0) -> LayoutState:
    """Take a layout off; its names stay in the catalog, and are the same if it is switched on again."""
    if name.lower() == "patients":
        raise UsageError("'patients' is always on; 'dicomfs mount -o views=...' says what a drive shows")
    with writing(archive_path, "dicomfs layout remove", wait_s) as opened:
        applying = _Applying(opened)
        state = next((one for one in applying.states() if one.on and one.name.lower() == name.lower()), None)
        if state is None:
            raise UsageError(f"no layout '{name}' is on; see 'dicomfs layout list'")
        applying.records.layouts_off.append(state.root)
        applying.fold.layouts.layout_off(state.root)
        applying.commit()
    return state


def catch_up(opened: Opened) -> None:
    """Place what an import brought in layouts that count, and finish those whose application was stopped."""
    applying = _Applying(opened)
    for state in applying.states():
        layout = parsed(state.template)
        if state.on and layout is not None and (layout.counts or not state.through):
            applying.apply(state, layout, state.through)


class _Applying(Committing):
    """Commits of places in layouts."""

    def __init__(self, opened: Opened) -> None:
        super().__init__(opened, "layout")

    def states(self) -> list[LayoutState]:
        """Return the layouts as they are now."""
        return self.view.layouts()

    def apply(self, state: LayoutState, layout: Layout, after: int, progress: OnProgress | None = None) -> int:
        """Place every instance past a number that has no place in a layout yet; return how many."""
        through = self.fold.next - 1
        series, total = self._lacking(state.root, after)
        done = 0
        lacks = self._lacks(state.root)
        for number in sorted(series):
            for one in in_order(lambda: self.view, number, after, layout, lacks):
                self._place(state.root, layout, one)
                done += 1
                if len(self.records.links) >= COMMIT_LINKS:
                    self.commit()
                if progress is not None and done % 256 == 0:
                    progress(Progress(done, total, 0, 0))
        if done or not state.through:
            self.records.placed.append((state.root, through))
            self.fold.placed(state.root, through)
            self.commit()
        return done

    def _lacking(self, root: int, after: int) -> tuple[set[int], int]:
        """Return the series of what has no place yet, and how many instances that are."""
        view = self.view
        series: set[int] = set()
        total = 0
        for ino, inode in view.not_replaced(after):
            if not view.is_linked(ino, root):
                series.add(inode.series)
                total += 1
        return series, total

    def _lacks(self, root: int) -> Callable[[View, int], bool]:
        def lacks(view: View, ino: int) -> bool:
            return view.instance_inode(ino).parent != tables.NOWHERE and not view.is_linked(ino, root)

        return lacks

    def _place(self, root: int, layout: Layout, one: Lacking) -> None:
        ino, current = one.instance.ino, one.instance.current
        self.placing.place(ino, root, layout, one.attributes, one.identity, plain=current, before={})


def layouts_of(archive: Archive) -> list[LayoutState]:
    """Return the layouts of an archive, those that are off too."""
    with archive.view() as view:
        return view.layouts()
