"""Check an archive: fast by default, to the last byte with `verify_files`.

The fast pass looks at packs and sizes, folds all commits anew into a scratch index and compares it,
table by table, with the real one, and resolves every recipe. The full pass also hashes every blob
and every rebuilt file. Nothing is changed; an archive may be checked while it is written to.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final, TypeVar

from dicomfs.archive import archive as archives
from dicomfs.archive import attachments, tables
from dicomfs.archive.archive import NO_BASE, Archive
from dicomfs.archive.comparison import compare_fold
from dicomfs.archive.outcome import OnProgress, Progress
from dicomfs.errors import ArchiveMissing, Damaged, DicomfsError, StorageFull
from dicomfs.store import commit as commits
from dicomfs.store import intent, replacing
from dicomfs.store import pack as packfile
from dicomfs.store.location import Location
from dicomfs.store.recipe import BlobId
from dicomfs.store.store import Store

_THREADS: Final = 2
_AHEAD: Final = 64
_ATTEMPTS: Final = 5
_READ: Final = 1 << 22


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is hurt: `kind` is pack, commit, index, blob, instance, derived, attachment or quarantine."""

    kind: str
    where: str
    what: str


@dataclass(slots=True)
class CheckReport:
    """What was found; `notes` are no damage."""

    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    packs: int = 0
    commits: int = 0
    blobs: int = 0
    instances: int = 0
    derived: int = 0
    """Files that were made of instances, for projects."""
    bytes_verified: int = 0

    def add(self, kind: str, where: str, what: object) -> None:
        """Note damage."""
        self.problems.append(Problem(kind, where, str(what)))


def check(archive_path: Path, *, verify_files: bool = False, progress: OnProgress | None = None) -> CheckReport:
    """Check the archive; raise only where there is none to check, or where it cannot be done."""
    archives.require(archive_path)
    for _ in range(_ATTEMPTS):
        before = _replacing(archive_path)
        report, replaced = _check(archive_path, progress, verify_files=verify_files)
        # Whoever looks at packs while others take their places may miss some that nobody needs any more.
        if not report.problems or not (replaced or _replacing(archive_path) != before):
            break
    return report


def _replacing(archive_path: Path) -> bytes:
    """Return what is said of packs that are being replaced."""
    try:
        return (archive_path / "packs" / intent.NAME).read_bytes()
    except OSError:
        return b""


def _check(archive_path: Path, progress: OnProgress | None, *, verify_files: bool) -> tuple[CheckReport, bool]:
    """Check the archive; say whether its index was replaced meanwhile."""
    report = CheckReport()
    try:
        archive = Archive.open(archive_path)
    except (ArchiveMissing, Damaged) as error:
        report.add("index", "index", error)
        return report, False
    with archive:
        checked = archive.store
        try:
            checker = _Checker(archive, report, progress)
            if checker.packs():
                checker.catalog()
            checker.layouts()
            checker.attachments(verify_files=verify_files)
            if verify_files:
                checker.entries()
            checker.recipes(verify_files=verify_files)
            if verify_files:
                checker.blobs()
        except Damaged as error:
            report.add("index", "index", error)
        if verify_files:
            _check_quarantine(archive_path, report)
        return report, checked.index.replaced()


class _Checker:
    def __init__(self, archive: Archive, report: CheckReport, progress: OnProgress | None) -> None:
        self._archive = archive
        self._store: Store = archive.store
        self._report = report
        self._progress = progress
        self._used: set[bytes] = set()
        with self._store.index.reading() as txn:
            self._seq = self._store.seq(txn)
            self._states = self._store.pack_states(txn)
            self._store.packs.left_out = replacing.left_out(self._store, set(self._states))
            held = self._store.index.tables
            self._files = sum(txn.stat(held[table])["entries"] for table in ("instance", "source"))
            self._blob_count = txn.stat(self._store.blob_table)["entries"]
        try:
            with archive.view() as view:
                self._bytes_in = view.totals().bytes_in
        except Damaged:
            self._bytes_in = 0  # which comparing the catalog names

    def packs(self) -> bool:
        """Compare the packs with what the index knows of them; say whether all are there."""
        store, report = self._store, self._report
        numbers = store.packs.numbers()
        for number, state in sorted(self._states.items()):
            name = store.packs.path(number).name
            report.packs += 1
            if number not in numbers:
                report.add("pack", name, "is missing; bring it back from a copy of the archive")
                continue
            size = os.stat(store.packs.path(number)).st_size
            if state.sealed and size != state.sealed:
                report.add("pack", name, f"is {size} bytes long, but was sealed at {state.sealed}")
            elif size < state.committed:
                report.add("pack", name, f"is {size} bytes long, but {state.committed} were committed")
            elif state.sealed and not state.committed:
                pass  # a rebuild could read no commit of it, which comparing the catalog names
            elif state.sealed and packfile.directory_start(store.packs.open(number).fd) != state.committed:
                report.add("pack", name, "its central directory is not where the index says that it is")
            elif size > state.committed and not state.sealed:
                extra = size - state.committed
                report.notes.append(f"{name}: has {extra} bytes past the last commit (healed by the next import)")
        for number in set(numbers) - set(self._states):
            name = store.packs.path(number).name
            report.notes.append(f"{name}: is not in the index yet (healed by the next import)")
        return not report.problems

    def entries(self) -> None:
        """Look at every byte of the packs that is not a blob's."""
        for number, state in sorted(self._states.items()):
            try:
                pack = self._store.packs.open(number)
            except DicomfsError:
                continue  # named above
            for fault in packfile.faults(pack.fd, state.committed, sealed=bool(state.sealed)):
                self._report.add("pack", pack.path.name, fault)

    def catalog(self) -> None:
        """Fold all commits anew and compare."""
        report = self._report

        def on_commit(done: int, total: int) -> None:
            if self._progress is not None:
                self._progress(Progress(done, total, 0, 0))

        try:
            with tempfile.TemporaryDirectory(prefix="dicomfs-check-") as scratch, self._store.index.reading() as txn:
                # One state of the index for all of it, whatever is committed meanwhile.
                report.commits = compare_fold(
                    self._store,
                    txn,
                    Path(scratch),
                    on_commit,
                    lambda what: report.add("index", "index", what),
                    report.notes.append,
                )
        except Damaged as error:
            report.add("commit", "packs", error)
        except (OSError, StorageFull) as error:
            reason = error.strerror if isinstance(error, OSError) else "the disk is full"
            raise StorageFull(
                f"{tempfile.gettempdir()}: no room for a second index to compare with ({reason}); "
                "set TMPDIR to a directory with more"
            ) from error

    def layouts(self) -> None:
        """Tell of layouts and projects that lack what was there before them."""
        with self._archive.view() as view:
            lacking = [state.name for state in view.layouts() if state.on and not state.through]
            begun = [state.directory for state in view.projects() if state.on and not state.through]
        for name in lacking:
            self._report.notes.append(f"layout {name}: was not applied to the end; run 'dicomfs layout add {name}'")
        for name in begun:
            self._report.notes.append(f"project {name}: was not made to the end; run 'dicomfs project resume {name}'")

    def attachments(self, *, verify_files: bool) -> None:
        """See that the document of every attachment, of earlier ones too, is there; read each where asked."""
        with self._archive.view() as view:
            found = [one for one in view.attachments() if one.is_there]
        for one in found:
            self._used.add(bytes.fromhex(one.blob))
            try:
                (attachments.read if verify_files else attachments.locate)(self._archive, one)
            except DicomfsError as error:
                self._report.add("attachment", f"attachment {one.number}", error)

    def recipes(self, *, verify_files: bool) -> None:
        """Resolve every recipe; rebuild and hash every file where asked."""
        with ThreadPoolExecutor(_THREADS) as pool:
            check = self._verify_instance if verify_files else self._resolve_instance
            done = bytes_done = 0
            for size in _in_order(pool, check, self._instance_inodes()):
                done += 1
                bytes_done += size
                if self._progress is not None and done % 16 == 0:
                    self._progress(Progress(done, self._files, bytes_done, self._bytes_in))
        self._report.instances = done - self._report.derived
        self._report.bytes_verified = bytes_done if verify_files else 0
        self._count_orphans()

    def _instance_inodes(self) -> Iterator[int]:
        """Walk the files in the order in which they came, a thousand for each short transaction."""
        after = tables.FIRST_CLAIMED - 1
        while True:
            with self._archive.view() as view:
                found = list(islice(view.inodes(after), 1000))
                files = [ino for ino in found if (node := view.node(ino)) is not None and not node.is_directory]
                self._report.derived += sum(view.source_of(ino) is not None for ino in files)
            if not found:
                return
            yield from files
            after = found[-1]

    def _resolve_instance(self, ino: int) -> int:
        try:
            file = self._archive.open_instance(ino)
            file.resolve()
            with self._archive.view() as view:
                inode = view.file_inode(ino)
            if inode.kind == tables.DERIVED:
                self._check_derived(ino, inode.sha256)
            if file.size != inode.size:
                self._hurt(ino, f"its recipe makes {file.size} bytes, not {inode.size}")
            self._used.update(file.blob_ids())
            if inode.base != NO_BASE:
                self._used.add(inode.base)
        except DicomfsError as error:
            self._hurt(ino, error)
            return 0
        return inode.size

    def _check_derived(self, ino: int, sha256: bytes) -> None:
        """Look at what is said of a derived file: its header is as it was made, and its source is there."""
        if hashlib.sha256(self._archive.read_header(ino)).digest() != sha256:
            self._hurt(ino, "its header is not the one that was made (SHA-256)")
        with self._archive.view() as view:
            source = view.source_of(ino)
            if source is None:
                raise Damaged("the index does not say what it was made of; run 'dicomfs reindex'")
            view.instance_inode(source[0])
            view.project(source[1])

    def _verify_instance(self, ino: int) -> int:
        size = self._resolve_instance(ino)
        if not size:
            return 0
        try:
            file = self._archive.open_instance(ino)
            sha256 = hashlib.sha256()
            for offset in range(0, file.size, _READ):
                sha256.update(file.read(offset, _READ))
            with self._archive.view() as view:
                inode = view.file_inode(ino)
            if inode.kind == tables.INSTANCE and sha256.digest() != inode.sha256:
                self._hurt(ino, "its bytes are not those that were imported (SHA-256)")
        except DicomfsError as error:
            self._hurt(ino, error)
        return size

    def _hurt(self, ino: int, what: object) -> None:
        kind, uid = "instance", "of an unknown UID"
        try:
            with self._archive.view() as view:
                source = view.source_of(ino)
                kind = "instance" if source is None else "derived"
                uid = str(view.instance(ino if source is None else source[0]).attributes["SOPInstanceUID"])
        except (DicomfsError, KeyError):
            pass
        of = "" if kind == "instance" else "file derived from "
        self._report.add(kind, f"{of}instance {uid} (inode {ino})", what)

    def _count_orphans(self) -> None:
        if self._report.problems:
            return
        orphans = self._blob_count - len(self._used)
        if orphans > 0:
            self._report.notes.append(
                f"{orphans} blobs belong to no file (left by an interrupted import); 'dicomfs gc' drops them"
            )

    def blobs(self) -> None:
        """Hash every blob, pack by pack in the order in which they lie there."""
        done = 0
        with ThreadPoolExecutor(_THREADS) as pool:
            for _ in _in_order(pool, self._verify_blob, self._blob_places()):
                done += 1
                if self._progress is not None and done % 16 == 0:
                    self._progress(Progress(done, self._blob_count, 0, 0))
        self._report.blobs = done

    def _blob_places(self) -> Iterator[tuple[BlobId, Location]]:
        """Walk the tables of blobs of all commits that the index knows, in the order of the packs."""
        seq = 0
        while True:
            with self._store.index.reading() as txn:
                seq = self._store.next_seq(txn, seq)
            if not 0 < seq <= min(self._seq, tables.LAST_CLAIMED):  # a hurt record may say anything
                return
            try:
                with self._store.index.reading() as txn:
                    place = self._store.commit_place(txn, seq)
                table = self._store.packs.open(place.pack).read(place.offset + place.head.blobs_at, place.blobs_length)
                yield from list(commits.read_blobs(table, place.pack))
            except DicomfsError as error:
                self._report.add("commit", f"commit {seq}", error)

    def _verify_blob(self, item: tuple[BlobId, Location]) -> None:
        blob, location = item
        try:
            data = self._store.blobs.whole(location)
            if hashlib.sha256(data).digest() == blob:
                return
            what = f"pack {location.pack:08d}: its bytes do not have its SHA-256"
        except Damaged as error:
            what = str(error)
        with self._store.index.reading() as txn:
            known = self._store.locate(txn, blob)
        if known == location:
            self._report.add("blob", blob.hex(), what)
        else:
            self._report.notes.append(f"{what}; a later copy has taken its place")


_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def _in_order(pool: ThreadPoolExecutor, work: Callable[[_Item], _Result], items: Iterator[_Item]) -> Iterator[_Result]:
    """Map with a bounded number of items in flight."""
    while batch := list(islice(items, _AHEAD)):
        yield from pool.map(work, batch)


def _check_quarantine(root: Path, report: CheckReport) -> None:
    directory = root / "quarantine"
    for path in sorted(directory.glob("*.dcm")) if directory.is_dir() else ():
        try:
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            report.add("quarantine", path.name, f"cannot be read: {error.strerror}")
            continue
        if sha256 != path.stem:
            report.add("quarantine", path.name, "its bytes do not have its SHA-256")
        if not path.with_suffix(".txt").exists():
            report.add("quarantine", path.name, "its reason is missing")
