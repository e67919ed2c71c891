"""An archive as it was: its state is found or made, and made again where the packs that it leads to were rewritten."""

import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from dicomfs.archive import settings, states, tables
from dicomfs.archive.as_of import AsOf, last_by, refuse_forgotten
from dicomfs.archive.outcome import OnProgress, Progress
from dicomfs.archive.states import State
from dicomfs.errors import ArchiveMissing, Damaged, Refused
from dicomfs.store import earlier
from dicomfs.store.index import Index
from dicomfs.store.store import TABLES, Store

_ATTEMPTS: Final = 3
_AGAIN_S: Final = 60.0
"""After how long a state that could not be made is tried again."""


def prepare(archive_path: Path, time_ns: int, on_progress: OnProgress | None = None) -> AsOf:
    """Have the state of a moment made, for a process that is about to open it; raise what `Earlier.open` does.

    A directory that it names is the caller's to discard, unless that process opens it.
    """
    settings.read(archive_path)
    found, store = Earlier.open(archive_path, AsOf(time_ns), on_progress)
    store.close()
    private = found.state.directory if found.state.private else None
    found.state.release(keep=True)
    return AsOf(time_ns, found.seq, private)


class Earlier:
    """Which earlier state of an archive is open. Belongs to one thread, but for what makes the state anew."""

    def __init__(self, archive_path: Path, as_of: AsOf, seq: int, state: State, *, follows: bool) -> None:
        """`follows` says that the state is made anew where that is necessary: else somebody else sees to it."""
        self.as_of = as_of
        self.seq = seq
        self.state = state
        self._path = archive_path
        self._follows = follows
        self._stale = False
        self._looked_at: Index | None = None
        """The index of now that the state was last compared with."""
        self._again_s = 0.0
        self._making: Future[State] | None = None
        self._closed = threading.Event()

    @classmethod
    def open(cls, archive_path: Path, as_of: AsOf, on_progress: OnProgress | None = None) -> tuple[Self, Store]:
        """Find the state of a moment, or make it, and open it.

        Raises Refused where it was forgotten, Damaged where commits cannot be read, ArchiveMissing, StorageFull.
        """
        refuse_forgotten(archive_path, as_of.time_ns)
        for attempt in range(_ATTEMPTS):
            live = Index(archive_path / "index", TABLES, writable=False)
            try:
                seq, state = _found(archive_path, live, as_of, on_progress)
            except Damaged:
                if not live.replaced() or attempt + 1 == _ATTEMPTS:
                    raise
                continue  # the packs were rewritten meanwhile
            finally:
                live.close()
            try:
                with states.gate(archive_path):  # who is in is safe
                    refuse_forgotten(archive_path, as_of.time_ns)
                return cls(archive_path, as_of, seq, state, follows=True), _store(archive_path, state)
            except Refused:
                state.release()
                raise
            except (Damaged, ArchiveMissing):
                state.release()
                if attempt + 1 == _ATTEMPTS:
                    raise
                states.remove(state.directory)  # cut off by a power failure: it is made anew
                as_of = AsOf(as_of.time_ns, seq)
        raise AssertionError  # the last attempt returns or raises

    @classmethod
    def given(cls, archive_path: Path, directory: Path) -> tuple[Self, Store]:
        """Open a state that another process uses, for which this one works."""
        state = State(directory, directory.name, None)
        store = _store(archive_path, state)
        with store.index.reading() as txn:
            seq = store.seq(txn)
        return cls(archive_path, AsOf(0, seq), seq, state, follows=False), store

    def refresh(self, store: Store) -> Store | None:
        """Return the state opened anew, if it had to be made anew and that is done, else None.

        It is made by a thread, and this raises what that met with. The old one serves meanwhile: what it shows is
        read by the index of now.
        """
        if not self._follows:
            return None
        if self._making is not None:
            return self._take(store)
        if store.live is not self._looked_at or not self.state.is_there:
            self._stale, self._looked_at = not self._is_true(store.live, self.state), store.live
        if self._stale and time.monotonic() > self._again_s:
            self._begin(store.live)
        return None

    def _is_true(self, live: Index, state: State) -> bool:
        return state.is_there and state.name == states.name_of(earlier.known(live), self.seq)

    def _begin(self, live: Index) -> None:
        making = self._making = Future[State]()

        def on_progress(_: Progress) -> None:
            if self._closed.is_set():
                raise Refused("the archive was closed")

        def make() -> None:
            try:
                wanted = AsOf(self.as_of.time_ns, self.seq)
                making.set_result(_found(self._path, live, wanted, on_progress)[1])
            except BaseException as error:  # noqa: BLE001 - whoever waits is told of it
                making.set_exception(error)

        threading.Thread(target=make, name="earlier state", daemon=True).start()

    def _take(self, store: Store) -> Store | None:
        """Take up the state that was made anew, if it is made."""
        assert self._making is not None
        if not self._making.done():
            return None
        making, self._making = self._making, None
        moved = store.live is not self._looked_at or store.live.replaced()
        self._again_s = 0.0 if moved else time.monotonic() + _AGAIN_S
        try:
            state = making.result()
        except Damaged:
            if not moved:
                raise
            return None  # the packs were rewritten again
        if not self._is_true(store.live, state):
            state.release()
            return None
        found = Store(self._path, tables.TABLES, earlier=state.directory, live=store.live)
        former, self.state, self._stale = self.state, state, False
        former.release()
        if former.directory != state.directory:
            states.remove(former.directory)
        return found

    def release(self) -> None:
        """Let the state be removed. Files that are open stay so."""
        self._closed.set()
        if self._making is not None:
            with suppress(BaseException):
                self._making.result().release()
        self.state.release()


def _found(archive_path: Path, live: Index, as_of: AsOf, on_progress: OnProgress | None) -> tuple[int, State]:
    commits = earlier.known(live)
    seq = last_by(commits, as_of.time_ns) if as_of.seq is None else as_of.seq
    if as_of.directory is not None:
        return seq, states.adopt(as_of.directory, commits, seq)
    return seq, states.use(archive_path, commits, seq, on_progress)


def _store(archive_path: Path, state: State) -> Store:
    return Store(archive_path, tables.TABLES, earlier=state.directory)
