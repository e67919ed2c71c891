"""Switch layouts on and off, and give instances their places in them.

What a layout lacks is found by the numbers of instances: all up to `through` are in it. Instances are taken series by
series, each in the order of slices, in commits of bounded size. Whoever is stopped goes on where it was, for what has
a place is passed by. Of the longest series memory holds the numbers.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from dicomfs.archive import tables
from dicomfs.archive.archive import Archive
from dicomfs.archive.by_layout import LayoutState
from dicomfs.archive.catalog import Instance, Study, View
from dicomfs.archive.committing import Committing, Opened, writing
from dicomfs.archive.layout import Layout
from dicomfs.archive.layout_values import Value, patient_identity
from dicomfs.archive.outcome import Progress
from dicomfs.archive.placing import parsed
from dicomfs.archive.tables import INSTANCE, U64
from dicomfs.errors import UsageError

COMMIT_LINKS: Final = 4096
MAX_LAYOUTS: Final = 32
RESERVED: Final = frozenset(
    {"patients", "dicomweb", "quarantine", "projects", "incoming", "readme.txt", "layouts", "all"}
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}").fullmatch

OnProgress = Callable[[Progress], None]


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
        cursor = self.writer.txn.cursor(db=self.store.index.tables["inode"])
        series: set[int] = set()
        total = 0
        if not cursor.set_range(U64.pack(after + 1)):
            return series, total
        for key, value in cursor.iternext():
            if value[0] != INSTANCE:
                continue
            inode = tables.InstanceInode.parse(value)
            if inode.parent != tables.NOWHERE and not view.is_linked(U64.unpack(key)[0], root):
                series.add(inode.series)
                total += 1
        return series, total

    def _lacks(self, root: int) -> Callable[[View, int], bool]:
        def lacks(view: View, ino: int) -> bool:
            return view.instance_inode(ino).parent != tables.NOWHERE and not view.is_linked(ino, root)

        return lacks

    def _place(self, root: int, layout: Layout, one: "Lacking") -> None:
        ino, current = one.instance.ino, one.instance.current
        self.placing.place(ino, root, layout, one.attributes, one.identity, plain=current, before={})


class Lacking(NamedTuple):
    """An instance without a place, and all that it says."""

    instance: Instance
    attributes: dict[str, Value]

    @property
    def identity(self) -> str:
        """What its name's suffix is made of, should it need one."""
        instance = self.instance
        return str(instance.attributes["SOPInstanceUID"]) if instance.current else instance.sha256.hex()


def in_order(
    views: Callable[[], View], series: int, after: int, layout: Layout, wanted: Callable[[View, int], bool]
) -> Iterator[Lacking]:
    """Walk those instances of a series past a number that are wanted: by slices where the layout counts, else as they
    came. `views` gives the view to look at, which may be another one after a commit."""
    view = views()
    above = view.series(series)
    study = view.study(above.study)
    owners = Owners(view, study)
    numbers = [ino for ino in view.numbers_from(series, after) if wanted(view, ino)]
    if layout.counts:
        numbers = [ino for *_, ino in sorted(slice_order(view.instance(ino)) for ino in numbers)]
    for ino in numbers:
        view = views()
        instance = view.instance(ino)
        patient = owners.of(view, view.instance_inode(ino).parent)
        said = patient | study.attributes | above.attributes | instance.attributes
        yield Lacking(instance, {key: value for key, value in said.items() if value != ""})


def slice_order(instance: Instance) -> tuple[bool, int, str, int]:
    """Return what puts the instances of a series in order."""
    number = instance.attributes.get("InstanceNumber")
    when = f"{instance.attributes.get('ContentDate', '')}{instance.attributes.get('ContentTime', '')}"
    known = isinstance(number, int)
    return not known, number if isinstance(number, int) else 0, when, instance.ino


class Owners:
    """Whose the instances of a study are: its files may disagree, and each patient has a directory in `patients/`."""

    def __init__(self, view: View, study: Study) -> None:
        self._patients = [view.patient(key).attributes for key in study.patients]
        self._by_directory: dict[int, dict[str, Value]] = {}
        for attributes in self._patients if len(self._patients) > 1 else ():
            text = patient_identity(attributes, str(study.attributes.get("StudyInstanceUID", "")))
            directory = view.directory_identified(tables.ROOT_PATIENTS, text)
            self._by_directory[directory] = attributes

    def of(self, view: View, series_directory: int) -> dict[str, Value]:
        """Return what the patient says whose directory holds this one of a series."""
        if len(self._patients) == 1:
            return self._patients[0]
        study = view.node(series_directory)
        patient = None if study is None else view.node(study.parent)
        return self._by_directory.get(0 if patient is None else patient.parent, self._patients[0])


def layouts_of(archive: Archive) -> list[LayoutState]:
    """Return the layouts of an archive, those that are off too."""
    with archive.view() as view:
        return view.layouts()
