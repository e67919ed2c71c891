"""What a random step does: a command, drawn from what is there, and what the model makes of it."""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicomfs.archive import layouts
from dicomfs.archive.archive import Archive
from dicomfs.archive.built_in_layouts import built_in
from tests.archive.history_model import Model, Unlike, Version, grouped, tag
from tests.builders import make_instance, uid

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

HAS_GC = importlib.util.find_spec("dicomfs.archive.gc") is not None
HAS_MERGE = importlib.util.find_spec("dicomfs.archive.merging") is not None
PATIENTS = ("DFS-1", "DFS-2")
_VALUES = {
    "PatientName": ("Doe^Jane", "Roe^Richard", "Müller^Änne", ""),
    "PatientSex": ("F", "M", ""),
    "PatientBirthDate": ("19700101", "19800202", ""),
    "PatientComments": ("seen", "", None),
    "AccessionNumber": ("A1", "A2", ""),
    "StudyDescription": ("Knee", "Study 1", "", None),
    "StudyDate": ("20240131", "20230101"),
    "SeriesDescription": ("Scout", "", None),
    "InstanceNumber": ("1", "2", "7"),
}


@dataclass(slots=True)
class Command:
    """A command, and what the model makes of it."""

    kind: str
    op: str
    told: dict[str, Any]
    apply: Callable[[Model, Any], object]
    """Do it to a model; return what `count` is to return then."""
    count: Callable[[Any], object]
    sure: bool = True
    """Whether it cannot be refused."""
    repeatable: bool = True
    """Whether all that it does is known before its result."""

    def __str__(self) -> str:
        return f"{self.kind}: {self.op} {self.told}"


def switch_on(path: Path, name: str, template: str = "") -> None:
    """Switch a layout on."""
    layouts.switch_on(path, name, template or built_in()[name])


def switch_off(path: Path, name: str) -> None:
    """Take a layout off."""
    layouts.switch_off(path, name)


def make(word: str, rng: random.Random, model: Model, archive: Path, sources: Path) -> Command | None:
    """Return a command, None where there is nothing to do it with."""
    if word == "import":
        return _import(rng, model, archive, sources)
    if word == "gc":
        nothing = {"forget_before_ns": None}
        return Command("gc", "gc", nothing, lambda _model, _result: 0, lambda done: done.versions) if HAS_GC else None
    if word == "replace":
        return _replace(rng, model, sources)
    return {"edit": _edit, "delete": _delete, "restore": _restore, "undo": _undo}[word](rng, model)


# Files --------------------------------------------------------------------------------------------


def _file(rng: random.Random) -> bytes:
    patient, study, series, number = rng.choice(PATIENTS), rng.randint(1, 2), rng.randint(1, 2), rng.randint(1, 3)
    attributes: dict[str, object] = {}
    if rng.random() < 0.4:
        item = Dataset()
        item.ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
        item.ReferencedSOPInstanceUID = uid(patient, study, rng.randint(1, 2), rng.randint(1, 3))
        attributes["ReferencedImageSequence"] = Sequence([item])
    if rng.random() < 0.2:
        attributes["PatientComments"] = rng.choice(("seen", "not seen"))
    if rng.random() < 0.2:
        attributes["StudyDescription"] = "another"
    return make_instance(
        patient=patient, study=study, series=series, number=number, rows=8, columns=8,
        seed=rng.choice((None, None, "x", "y")), patient_name=rng.choice(("Doe^Jane", "Doe^Jane", "Doe^J")),
        transfer_syntax=rng.choice((ExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian)),
        attributes=attributes,
    )  # fmt: skip


def _import(rng: random.Random, model: Model, archive: Path, sources: Path) -> Command:
    contents: dict[str, bytes] = {}
    known = sorted((one for one in model.versions() if one.sha256), key=lambda one: one.ino)
    for _ in range(rng.randint(1, 5)):
        if known and rng.random() < 0.3:
            one = rng.choice(known)
            with Archive.open(archive) as opened:
                file = opened.open_instance(one.ino)
                contents.setdefault(one.sop, bytes(file.read(0, file.size)))
                file.close()
        else:
            data = _file(rng)
            contents.setdefault(str(hash_of(data)), data)
    directory = _fresh(sources, "import")
    for number, data in enumerate(contents.values()):
        (directory / f"{number:04d}").write_bytes(data)
    on_conflict, back = rng.choice(("keep", "replace", "replace", "skip")), rng.random() < 0.3
    told = {"path": str(directory), "on_conflict": on_conflict, "restore_deleted": back}

    def apply(model: Model, _: Any) -> list[str]:
        return [model.import_file(data, on_conflict, restore_deleted=back) for data in contents.values()]

    return Command(
        "import", "import", told, apply, lambda results: [str(one.outcome) for one in results], repeatable=not back
    )


def hash_of(data: bytes) -> str:
    """Return the SOP Instance UID of a file, so that each is imported once by a command."""
    from tests.archive.history_model import seen, text

    return text(seen(data)[0], "SOPInstanceUID")


def _fresh(sources: Path, name: str) -> Path:
    directory = sources / name
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    return directory


def _replace(rng: random.Random, model: Model, sources: Path) -> Command | None:
    alone = [held[0] for held in grouped(model.shown(), lambda one: one.sop).values() if len(held) == 1]
    if not alone:
        return None
    one = rng.choice(alone)
    data = make_instance(
        patient=one.patient, rows=8, columns=8, seed=str(rng.random()), attributes={
            "StudyInstanceUID": one.study, "SeriesInstanceUID": one.series, "SOPInstanceUID": one.sop,
        },
    )  # fmt: skip
    path = _fresh(sources, "replace") / "file.dcm"
    path.write_bytes(data)

    def apply(model: Model, _: Any) -> int:
        current = model.current(one.sop)
        assert current is not None
        model.replace(current, data)
        return 1

    told = {"chosen": {"instances": [one.sop]}, "path": str(path)}
    return Command("replace", "replace", told, apply, lambda done: done.edited)


# Deletes and restores -----------------------------------------------------------------------------


def _named(rng: random.Random, versions: list[Version]) -> tuple[dict[str, list[str]], Callable[[Version], bool]]:
    """Choose by study, series or instances; return a selection, and whether a version is in it."""
    one = rng.choice(versions)
    which = rng.choice(("studies", "series", "series", "instances", "instances", "instances"))
    if which == "studies":
        return {which: [one.study]}, lambda other: other.study == one.study
    if which == "series":
        return {which: [one.series]}, lambda other: other.series == one.series
    sops = sorted({other.sop for other in rng.sample(versions, min(len(versions), rng.randint(1, 3)))})
    return {which: sops}, lambda other: other.sop in sops


def _delete(rng: random.Random, model: Model) -> Command | None:
    shown = model.shown()
    if not shown:
        return None
    chosen, is_named = _named(rng, shown)

    def apply(model: Model, _: Any) -> int:
        named = [one for one in model.shown() if is_named(one)]
        model.delete(named)
        return len(named)

    return Command("delete", "delete", {"chosen": chosen}, apply, lambda done: done.instances)


def _restore(rng: random.Random, model: Model) -> Command | None:
    past = sorted((one for one in model.versions() if not one.shown), key=lambda one: one.ino)
    if not past:
        return None
    if rng.random() < 0.5:
        return _restore_version(rng.choice(past), model)
    chosen, is_named = _named(rng, past)
    if not model.restorable([one for one in model.versions() if is_named(one)]):
        return _restore_version(rng.choice(past), model)

    def apply(model: Model, _: Any) -> int:
        back = model.restorable([one for one in model.versions() if is_named(one)])
        model.restore(back)
        return len(back)

    return Command("restore", "restore", {"chosen": chosen, "version": ""}, apply, lambda done: done.instances)


def _restore_version(one: Version, model: Model) -> Command:
    numbers = sorted(other.ino for other in model.sops[one.sop] if not other.forgotten)

    def apply(model: Model, _: Any) -> int:
        model.restore_version(next(other for other in model.versions() if other.ino == one.ino))
        return 1

    told = {"chosen": {"instances": [one.sop]}, "version": str(numbers.index(one.ino) + 1)}
    return Command("restore a version", "restore", told, apply, lambda done: done.instances)


def _undo(rng: random.Random, model: Model) -> Command | None:
    commits = sorted({one.out for one in model.versions() if one.out})
    if not commits:
        return None
    seq = rng.choice(commits)

    def apply(model: Model, _: Any) -> int:
        back = model.undoable([one for one in model.versions() if one.out == seq], seq)
        model.restore(back)
        return len(back)

    return Command("undo", "undo", {"seq": seq}, apply, lambda done: done.instances)


# Edits --------------------------------------------------------------------------------------------


def _edit(rng: random.Random, model: Model) -> Command | None:
    shown = model.shown()
    if not shown:
        return None
    one = rng.choice(shown)
    kinds = (_values, _values, _values, _move, _move_to_unknown, _join_patients, _new_uid, _new_uid, _split, _join)
    return rng.choice(kinds)(rng, model, one)


def _asked(values: dict[str, str | None], **others: Any) -> dict[str, Any]:
    return {
        "set": {int(tag(keyword), 16): [value] for keyword, value in values.items() if value},
        "empty": [int(tag(keyword), 16) for keyword, value in values.items() if value == ""],
        "remove": [int(tag(keyword), 16) for keyword, value in values.items() if value is None],
        **others,
    }


def _command(
    kind: str,
    chosen: dict[str, Any],
    asked: dict[str, Any],
    is_chosen: Callable[[Version], bool],
    edit: Callable[[Model, list[Version]], tuple[int, int]],
    *,
    sure: bool = False,
) -> Command:
    def apply(model: Model, _: Any) -> tuple[int, int]:
        return edit(model, [one for one in model.shown() if is_chosen(one)])

    told = {"chosen": chosen, "asked": asked, "reason": "wrong"}
    return Command(f"edit: {kind}", "edit", told, apply, lambda done: (done.edited, done.references), sure=sure)


def _values(rng: random.Random, model: Model, one: Version) -> Command:
    values = {keyword: rng.choice(_VALUES[keyword]) for keyword in rng.sample(sorted(_VALUES), rng.randint(1, 2))}
    chosen: dict[str, Any]
    if rng.random() < 0.2:
        chosen, is_chosen = {"patient_id": one.patient}, lambda other: other.patient == one.patient
    else:
        chosen, is_chosen = _named(rng, model.shown())
    return _command(
        "values", chosen, _asked(values), is_chosen, lambda model, members: model.edit(members, values), sure=True
    )


def _is_of(study: str) -> Callable[[Version], bool]:
    return lambda other: other.study == study


def _move(rng: random.Random, model: Model, one: Version) -> Command | None:
    others = sorted({other.patient for other in model.shown()} - {one.patient})
    if not others:
        return None
    target = rng.choice(others)
    return _command(
        "move a study", {"studies": [one.study]}, _asked({}, to_patient=target), _is_of(one.study),
        lambda model, members: model.edit(members, {}, taken=model.taken_from_patient(target)), sure=True,
    )  # fmt: skip


def _move_to_unknown(rng: random.Random, model: Model, one: Version) -> Command | None:
    target = f"NEW-{rng.randint(1, 3)}"
    if any(other.patient == target for other in model.shown()):
        return None
    values: dict[str, str | None] = {"PatientName": "New^One", "PatientBirthDate": "", "PatientSex": "O"}
    made = {**values, "PatientID": target, "PatientComments": None}
    return _command(
        "move to a new patient", {"studies": [one.study]}, _asked(values, to_patient=target), _is_of(one.study),
        lambda model, members: model.edit(members, made), sure=True,
    )  # fmt: skip


def _join_patients(rng: random.Random, model: Model, one: Version) -> Command | None:
    others = sorted({other.patient for other in model.shown()} - {one.patient})
    if not others:
        return None
    target = rng.choice(others)
    mixed = any(len({other.patient for other in held}) > 1 for held in model.studies().values())
    return _command(
        "join patients", {"patient_id": one.patient}, _asked({}, to_patient=target),
        lambda other: other.patient == one.patient,
        lambda model, members: model.edit(members, {}, taken=model.taken_from_patient(target)), sure=not mixed,
    )  # fmt: skip


def _patients_of(model: Model, members: list[Version]) -> set[str]:
    studies = model.studies()
    return {one.patient for study in {one.study for one in members} for one in studies[study]}


def _new_uid(rng: random.Random, model: Model, one: Version) -> Command:
    new = uid("new", rng.random())
    which, chosen, old, is_chosen = rng.choice(
        (
            ("new_study", {"studies": [one.study]}, one.study, _is_of(one.study)),
            ("new_series", {"series": [one.series]}, one.series, lambda other: other.series == one.series),
            ("new_sop", {"instances": [one.sop]}, one.sop, lambda other: other.sop == one.sop),
        )
    )

    def edit(model: Model, members: list[Version]) -> tuple[int, int]:
        return model.edit(members, {}, {old: new}, patients=_patients_of(model, members))

    return _command(which, chosen, _asked({}, **{which: new}), is_chosen, edit, sure=True)


def _whole(model: Model, members: list[Version], key: Callable[[Version], str], new: str) -> dict[str, str]:
    """Return the UIDs of which nothing is left when these go."""
    held, chosen = grouped(model.shown(), key), grouped(members, key)
    return {old: new for old, some in chosen.items() if len(some) == len(held[old]) and old != new}


def _split(rng: random.Random, model: Model, one: Version) -> Command:
    new = uid("split", rng.random())
    if rng.random() < 0.5:
        values: dict[str, str | None] = {"StudyDescription": "apart"} if rng.random() < 0.5 else {}

        def into_study(model: Model, members: list[Version]) -> tuple[int, int]:
            uids = _whole(model, members, lambda other: other.study, new)
            return model.edit(members, {**values, "StudyInstanceUID": new}, uids, patients=_patients_of(model, members))

        return _command(
            "split a study", {"series": [one.series]}, _asked(values, into_study=new),
            lambda other: other.series == one.series, into_study,
        )  # fmt: skip
    chosen, is_chosen = _named(rng, [other for other in model.shown() if other.series == one.series])

    def into_series(model: Model, members: list[Version]) -> tuple[int, int]:
        uids = _whole(model, members, lambda other: other.series, new)
        return model.edit(members, {"SeriesInstanceUID": new}, uids, patients=_patients_of(model, members))

    return _command("split a series", chosen, _asked({}, into_series=new), is_chosen, into_series)


def _join(rng: random.Random, model: Model, one: Version) -> Command | None:
    others = [other for other in model.shown() if other.series != one.series]
    if not others:
        return None
    target = rng.choice(others)
    sops = {other.sop for other in rng.sample([o for o in model.shown() if o.series == one.series], 1)}

    def edit(model: Model, members: list[Version]) -> tuple[int, int]:
        uids = _whole(model, members, lambda other: other.series, target.series)
        uids |= _whole(model, members, lambda other: other.study, target.study)
        patients = _patients_of(model, members) | {other.patient for other in model.studies()[target.study]}
        values = {"SeriesInstanceUID": target.series, "StudyInstanceUID": target.study}
        return model.edit(members, values, uids, taken=model.taken_from_series(target.series), patients=patients)

    return _command(
        "join series", {"instances": sorted(sops)}, _asked({}, into_series=target.series),
        lambda other: other.sop in sops, edit,
    )  # fmt: skip


# Merges -------------------------------------------------------------------------------------------


def require_joined(ancestor: Model, mine: Model, theirs: Model, merged: Model) -> None:
    """Raise Unlike where a merge lost something, or did not take over what one side alone had changed."""
    files = {one.sha256 for model in (mine, theirs) for one in model.versions()}
    lost = files - {one.sha256 for one in merged.versions()}
    if lost:
        raise Unlike(f"versions were lost: {sorted(lost)}")
    for group in _groups(ancestor, mine, theirs, merged):
        before, here, there, found = (_state(model, group) for model in (ancestor, mine, theirs, merged))
        if here == there or there == before:
            expected = here
        elif here == before:
            expected = there
        else:
            if here and there and not found:
                raise Unlike(f"of {sorted(group)} nothing is shown any more")
            continue
        if found != expected:
            raise Unlike(f"of {sorted(group)} {found} is shown, and {expected} should be")


def _state(model: Model, group: set[str]) -> set[tuple[str, str]]:
    return {(one.sop, one.sha256) for one in model.shown() if one.sop in group}


def _groups(*models: Model) -> list[set[str]]:
    """Return SOP Instance UIDs by what has to do with each other."""
    group = {sop: {sop} for model in models for sop in model.sops}
    for model in models:
        for one in model.versions():
            if one.by is not None and group[one.sop] is not group[one.by.sop]:
                joined = group[one.sop] | group[one.by.sop]
                group.update(dict.fromkeys(joined, joined))
    return list({id(held): held for held in group.values()}.values())
