"""The directories of earlier states: made once, kept for the next who asks, and not removed while somebody uses them.

    cache/as-of/<seq>-<mark>/
        data.mdb   the fold of the commits up to number <seq>, never written to again
        lock       held (flock, shared) by those who use it; its mtime is when the last of them came
        cache/     documents and pictures of this state, as the archive's cache/ has those of now

The mark says which commits it was folded from (store/earlier.py): where they are others, because `gc` took something
out of them or a pack was lost, the state is outdated. A state is made under a temporary name, with a dot in front; two
that make the same one at once make the same, and one of them goes. Who may not write to the archive makes one in a
temporary directory of its own, which goes when it is no longer used, and which `gc` knows nothing of.
"""

import fcntl
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import dicomfs
from dicomfs.archive import tables
from dicomfs.archive.outcome import OnProgress, Progress
from dicomfs.errors import StorageFull
from dicomfs.store import earlier
from dicomfs.store.earlier import Known
from dicomfs.store.store import Store

if TYPE_CHECKING:
    from dicomfs.store.index import Transaction

_FOLD: Final = 1
"""Rises when the fold of the same commits gives other tables."""
_VERSION: Final = " ".join([dicomfs.__version__, str(_FOLD), *tables.TABLES])
_NAME: Final = re.compile(r"(\d{1,19})-[0-9a-f]{32}", re.ASCII).fullmatch
_DATA: Final = "data.mdb"
_LOCK: Final = "lock"
_ABANDONED_S: Final = 24 * 3600.0
"""Nobody makes a state for so long."""


class State:
    """A state in use: nobody removes it before `release`."""

    def __init__(self, directory: Path, name: str, lock: int | None, *, private: bool = False) -> None:
        self.directory = directory
        self.name = name
        self.cache: Path = directory / "cache"
        self.private = private
        self._lock = lock

    @property
    def is_there(self) -> bool:
        """Whether nobody removed it all the same: the cache may be deleted at any time."""
        return (self.directory / _DATA).exists()

    def release(self, *, keep: bool = False) -> None:
        """Let it be removed, and remove it where it is nobody else's unless told to `keep` it. Files stay open."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)
        if self.private and not keep:
            discard(self.directory)


class Kept(NamedTuple):
    """A state in the cache."""

    seq: int
    in_use: bool
    mtime_ns: int
    """When somebody last began to use it."""
    directory: Path


def states(archive_path: Path) -> list[Kept]:
    """Return the states in an archive's cache, by number; those that this process may not look into are in use."""
    found = []
    for name in _names(_home(archive_path)):
        directory = _home(archive_path) / name
        with suppress(FileNotFoundError):
            status = os.stat(directory / _LOCK)
            found.append(Kept(int(name.partition("-")[0]), _in_use(directory), status.st_mtime_ns, directory))
    return sorted(found)


def outdated(archive_path: Path, commits: Sequence[Known]) -> list[Kept]:
    """Return the states that were folded from other commits than there are now; who uses one makes it anew."""
    true = _true(_home(archive_path), commits)
    return [kept for kept in states(archive_path) if kept.directory.name not in true]


@contextmanager
def gate(archive_path: Path, *, shut: bool = False) -> Iterator[None]:
    """Hold the gate to states, for a moment: who begins to use one passes it, and `gc` shuts it.

    So whoever was not in when `gc` looked who is finds out what it is about to forget.
    """
    fd = None
    try:
        try:
            fd = os.open(archive_path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(fd, fcntl.LOCK_EX if shut else fcntl.LOCK_SH)
        except OSError:
            if shut:
                raise
            # Who may not even list the archive's directory passes beside it.
        yield
    finally:
        if fd is not None:
            os.close(fd)


def remove(directory: Path) -> bool:
    """Remove a state unless somebody uses it; say whether it is gone."""
    lock = _locked(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    if lock is None:
        return not directory.exists()
    try:
        gone = Path(tempfile.mkdtemp(prefix=".gone-", dir=directory.parent))
        os.rename(directory, gone)  # over an empty one; who waits for the lock finds that it lies elsewhere
    except OSError:
        return False
    finally:
        os.close(lock)
    discard(gone)
    return True


def discard(directory: Path) -> None:
    """Remove a directory that is nobody else's."""
    shutil.rmtree(directory, ignore_errors=True)


def name_of(commits: Sequence[Known], seq: int) -> str:
    """Return the name of the state after commit `seq` (0: before the first) of those that there are."""
    # A commit that was lost with its pack since is left out, as those are that were lost before.
    last = max((commit.seq for commit in commits if commit.seq <= seq), default=0)
    return f"{seq}-{earlier.marks(_VERSION, commits, {last})[last]}"


def use(archive_path: Path, commits: Sequence[Known], seq: int, on_progress: OnProgress | None = None) -> State:
    """Return the state after commit `seq`, made if it is not there; raise Damaged or StorageFull.

    `commits` are all that the archive has. `on_progress` is told of commits, where there are some to be folded.
    """
    home = _home(archive_path)
    name = name_of(commits, seq)
    found = _use(home, name)
    if found is not None:
        return found
    private, making = _place(home)
    try:
        _make(home, making, commits, seq, on_progress)
        if not private:
            if not (home / name / _DATA).exists():
                discard(home / name)  # what is left of one that was deleted under its users
            with suppress(OSError):  # somebody else was quicker
                making.rename(home / name)
                making = home / name
            found = _use(home, name)
    except BaseException:
        discard(making)
        raise
    if found is None:
        return State(making, name, None, private=True)
    if making != found.directory:
        discard(making)
    _sweep(archive_path, commits)
    return found


def adopt(directory: Path, commits: Sequence[Known], seq: int) -> State:
    """Return a state of this process that another one made for it, to be removed when it is released."""
    return State(directory, name_of(commits, seq), None, private=True)


def _home(archive_path: Path) -> Path:
    return archive_path / "cache" / "as-of"


def _names(home: Path) -> list[str]:
    try:
        return [name for name in os.listdir(home) if _NAME(name)]
    except OSError:
        return []


def _locked(directory: Path, how: int) -> int | None:
    """Return a lock on a state; None where there is none, or it is not to be had, or the state went meanwhile."""
    path = directory / _LOCK
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, how)
        if os.path.samestat(os.fstat(fd), os.stat(path)):
            return fd
    except OSError:
        pass
    os.close(fd)
    return None


def _in_use(directory: Path) -> bool:
    lock = _locked(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    if lock is None:
        return directory.exists()
    os.close(lock)
    return False


def _use(home: Path, name: str) -> State | None:
    """Return a state that is there, if this process may read it."""
    directory = home / name
    lock = _locked(directory, fcntl.LOCK_SH)
    if lock is None:
        return None
    if not os.access(directory / _DATA, os.R_OK, effective_ids=True):
        os.close(lock)
        return None
    with suppress(OSError):
        os.utime(directory / _LOCK)
    return State(directory, name, lock)


def _place(home: Path) -> tuple[bool, Path]:
    """Return an empty directory to make a state in, and whether it is not in the archive."""
    with suppress(OSError):
        home.parent.mkdir(mode=0o700, exist_ok=True)
        mode = stat.S_IMODE(os.stat(home.parent).st_mode)
        if not home.exists():
            home.mkdir(exist_ok=True)
            home.chmod(mode)
        making = Path(tempfile.mkdtemp(prefix=".", dir=home))
        making.chmod(mode & 0o777)
        return False, making
    try:
        return True, Path(tempfile.mkdtemp(prefix="dicomfs-as-of-"))
    except OSError as error:
        raise StorageFull(f"there is no place for an earlier state: neither {home} nor a temporary one") from error


def _make(home: Path, making: Path, commits: Sequence[Known], seq: int, on_progress: OnProgress | None) -> None:
    """Fold the commits into an index in a directory: all of them, or those that the latest state before lacks."""
    from dicomfs.archive.fold import fold_meta

    try:
        begun = _begin(home, making, commits, seq)
        left = [commit for commit in commits if begun < commit.seq <= seq]
        store = Store(home.parent.parent, tables.TABLES, new_index=making)
        try:

            def fold(txn: "Transaction", of: int, time_ns: int, meta: bytes) -> None:
                fold_meta(store, txn, of, time_ns, meta)

            def on_commit(done: int) -> None:
                if on_progress is not None:
                    on_progress(Progress(done, len(left), 0, 0))

            earlier.fold_known(store, left, fold, on_commit)
            store.index.sync()
        finally:
            store.close()
        mode = 0o600 | stat.S_IMODE(os.stat(making).st_mode) & 0o666
        (making / "lock.mdb").unlink(missing_ok=True)  # readers of what nobody writes to need none
        (making / _LOCK).touch()
        for name in (_DATA, _LOCK):
            (making / name).chmod(mode)
    except OSError as error:
        raise StorageFull(f"{making.parent}: an earlier state cannot be written ({error.strerror})") from error


def _begin(home: Path, making: Path, commits: Sequence[Known], seq: int) -> int:
    """Copy the latest state before `seq` that is true still, if there is one; return its number, else 0."""
    for name in sorted(_true(home, commits), key=lambda name: -int(name.partition("-")[0])):
        before = int(name.partition("-")[0])
        if 0 < before < seq and (found := _use(home, name)) is not None:
            try:
                shutil.copyfile(found.directory / _DATA, making / _DATA)
            finally:
                found.release()
            return before
    return 0


def _true(home: Path, commits: Sequence[Known]) -> set[str]:
    """Return the names of those states that are folds of the commits as they lie now."""
    names = set(_names(home))
    marks = earlier.marks(_VERSION, commits, {int(name.partition("-")[0]) for name in names})
    return names.intersection(f"{seq}-{mark}" for seq, mark in marks.items())


def _sweep(archive_path: Path, commits: Sequence[Known]) -> None:
    """Remove what is of no use to anybody: states that are not true any more, and what was left half made."""
    for kept in outdated(archive_path, commits):
        remove(kept.directory)
    for left in _home(archive_path).glob(".*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > _ABANDONED_S:
                discard(left)
