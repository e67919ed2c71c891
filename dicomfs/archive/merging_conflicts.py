"""What a merge leaves to a person: which versions are in conflict, who made them, when, and in what they differ."""

from collections.abc import Iterator
from typing import NamedTuple

from dicomfs.archive.archive import Archive
from dicomfs.archive.merging_facts import DELETED, Change, Facts, Sha
from dicomfs.archive.merging_planning import Plan
from dicomfs.archive.merging_resolution import Clash
from dicomfs.dicom.dictionary import dictionary_keyword


class Version(NamedTuple):
    """One of the versions that are in conflict."""

    sha256: Sha
    status: str
    """'current', 'shown' or 'deleted'."""
    time_ns: int
    op: str
    by: str
    reason: str


class Difference(NamedTuple):
    """What was changed differently: the keyword of an attribute, or a UID."""

    what: str
    values: tuple[tuple[str, ...], ...]
    """Of each version, what was done and the values: ("set", "DOE^JANE")."""


class Conflict(NamedTuple):
    """Versions of which a person is to choose; all of them are kept."""

    kind: str
    """As Clash says it."""
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    versions: tuple[Version, ...]
    differences: tuple[Difference, ...]
    reason: str


class Conflicts:
    """Tells of the conflicts of plans."""

    def __init__(self, mine: Archive, other: Archive, known: Facts, told: Facts, facts: Facts) -> None:
        self._archives = (mine, other)
        self._known, self._told, self._facts = known, told, facts

    def of(self, plan: Plan) -> Iterator[Conflict]:
        """Yield the conflicts of a group, but for files of one SOP Instance UID that both archives have."""
        for clash in plan.resolved.clashes:
            both = self._known.sop.keys() & self._told.sop.keys()
            if clash.kind != "files" or not all(sha in both for sha in clash.versions):
                yield self._conflict(plan, clash)

    def _conflict(self, plan: Plan, clash: Clash) -> Conflict:
        study, series = self._uids(clash.versions)
        return Conflict(
            clash.kind,
            self._facts.sop[clash.versions[0]],
            series,
            study,
            tuple(self._version(plan, sha) for sha in clash.versions),
            tuple(Difference(_named(key), values) for key, values in clash.effects),
            clash.reason,
        )

    def _version(self, plan: Plan, sha: Sha) -> Version:
        resolved, facts = plan.resolved, self._facts
        came = facts.came.get(sha)
        change = facts.changes.get(came.change) if came is not None else None
        status = "current" if resolved.current.get(facts.sop[sha]) == sha else "shown"
        if sha not in resolved.heads:
            status = "deleted"
            named = {hide.change for hide in facts.hides(sha) if hide.by == DELETED} & facts.changes.keys()
            change = max((facts.changes[name] for name in named), key=_when, default=change)
        if change is None:
            return Version(sha, status, 0, "", "", "")
        return Version(sha, status, change.time_ns, change.op, change.by, change.reason)

    def _uids(self, versions: tuple[Sha, ...]) -> tuple[str, str]:
        """Return Study and Series Instance UID of the first version that an archive has."""
        for sha in versions:
            for archive in self._archives:
                with archive.view() as view:
                    ino = view.ino_of_file(bytes.fromhex(sha))
                    if ino is None:
                        continue
                    series = view.series(view.instance_inode(ino).series)
                    study = view.study(series.study)
                    return (
                        str(study.attributes.get("StudyInstanceUID", "")),
                        str(series.attributes.get("SeriesInstanceUID", "")),
                    )
        return "", ""


def _when(change: Change) -> tuple[int, str]:
    return change.time_ns, change.id


def _named(key: str) -> str:
    """Return how a person knows what was changed."""
    if key.startswith("uid "):
        return key[4:]
    tag = int(key, 16)
    keyword = "" if tag >> 16 & 1 else dictionary_keyword(tag)
    return keyword or f"({key[:4]},{key[4:]})"
