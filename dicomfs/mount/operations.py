"""Requests of the kernel answered from a tree: translation, and nothing else.

Metadata is answered between two awaits, so no handler sees a half changed tree and none costs a
switch of tasks. What is handed to libfuse is reused: libfuse copies it before the next handler
runs. A handler may raise nothing but FUSEError, or the whole drive ends.
"""
# ruff: noqa: ARG002, BLE001 - the signatures are pyfuse3's; a handler turns every error into what the kernel knows

import errno
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Final, Never, TypeVar

import pyfuse3
import trio
from pyfuse3 import EntryAttributes, FUSEError

from dicomfs.errors import Damaged, DicomfsError, NotFound
from dicomfs.mount.look import FRAGMENT, Look, negative, set_times
from dicomfs.mount.options import DAY_S, MountOptions
from dicomfs.mount.place import place
from dicomfs.mount.read_only import ReadOnly
from dicomfs.mount.upcoming import LONG, Upcoming
from dicomfs.mount.waiting import Waiting
from dicomfs.vfs.node import PATIENCE, Attributes, Entry, INode, NotReady, OpenFile, Stale
from dicomfs.vfs.tree import NAME_MAX, Tree
from dicomfs.vfs.xattrs import REFUSED

log = logging.getLogger(__name__)

BLOCK: Final = 512
"""What st_blocks counts, whatever st_blksize says (stat(2))."""
IO_SIZE: Final = 1 << 17
_WRITING: Final = os.O_WRONLY | os.O_RDWR | os.O_TRUNC
_COOKIES: Final = 2
"""`.` and `..` have cookies 1 and 2, which no entry of a tree can be told from; theirs are moved up."""
_NOTHING: Final = (0, 0)
_BUFFERFUL: Final = 64
"""How many entries of a directory with private nodes are answered at once."""
_REPORTED: Final = 10_000
"""How many damaged files are remembered so as not to be logged twice."""

_JUNK: Final = frozenset(
    b".hidden .directory .Trash .DS_Store .localized .metadata_never_index .xdg-volume-info"
    b" desktop.ini Desktop.ini Thumbs.db thumbs.db autorun.inf AUTORUN.INF".split()
)
_JUNK_PREFIXES: Final = (b"._", b".Trash-", b".fuse_hidden")
"""What file managers look for in every directory; no tree has a name like these."""


T = TypeVar("T")


def _close(entries: Iterator[Entry]) -> None:
    """Give back what a listing holds, wherever it stopped."""
    close = getattr(entries, "close", None)
    if close is not None:
        close()


class Operations(ReadOnly):
    """One mounted drive. Belongs to the trio thread; only `OpenFile.read`, `open` and `xattr` leave it."""

    supports_dot_lookup = True
    enable_writeback_cache = False

    def __init__(self, tree: Tree, options: MountOptions, waiting: Waiting) -> None:
        super().__init__()
        self.started = trio.Event()
        """Set when the kernel has greeted."""
        look = Look.of(options)
        self._tree = tree
        self._file = look.entry(look.file_mode)
        self._directory = look.entry(look.directory_mode)
        self._private_file = look.entry(look.private_file_mode)
        self._private_directory = look.entry(look.private_directory_mode)
        self._file_look = -1, -1, -1
        self._directory_look = -1, -1
        """What the two entries say now: size, time and links; directories have no size."""
        self._listed = _NOTHING
        """The directory that was last listed to its end, and the cookie of its last entry."""
        self._info = pyfuse3.FileInfo(keep_cache=True)
        self._absent = negative(look.negative_timeout_s)
        self._absent_for_long = negative(DAY_S)
        self._xattr = options.xattr
        self._open: dict[int, tuple[INode, OpenFile]] = {}
        self._next_handle = 1
        self._in_thread = waiting.in_thread
        self._have_made = waiting.made
        self._until = waiting.until
        self._upcoming = Upcoming(tree.open_ready)
        self._reported: set[int] = set()

    def init(self) -> None:
        """Hear that the kernel is ready."""
        self.started.set()

    # Metadata

    async def lookup(self, parent_inode: int, name: bytes, ctx: object = None) -> EntryAttributes:
        """Find a name; what is not there is told with a time for which that may be believed."""
        try:
            found = self._tree.lookup(parent_inode, name)
        except NotReady as missing:
            found = await self._made(missing, parent_inode, partial(self._tree.lookup, parent_inode, name))
        except Exception as error:
            self._fail(error, parent_inode)
        if found is None:
            if name in (b".", b".."):
                raise FUSEError(errno.ESTALE)
            return self._absent_for_long if name in _JUNK or name.startswith(_JUNK_PREFIXES) else self._absent
        return self._entry(found)

    async def getattr(self, inode: int, ctx: object = None) -> EntryAttributes:
        """Tell a node's attributes."""
        try:
            found = self._tree.attributes(inode)
        except NotReady as missing:
            found = await self._made(missing, inode, partial(self._tree.attributes, inode))
        except Exception as error:
            self._fail(error, inode)
        if found is None:
            raise FUSEError(errno.ESTALE)
        return self._entry(found)

    async def _made(self, missing: NotReady, inode: INode, ask: Callable[[], T]) -> T:
        """Have what is missing made by a thread, as often as it takes to get an answer."""
        try:
            for _ in range(PATIENCE):
                await self._have_made(missing.make)
                try:
                    return ask()
                except NotReady as more:
                    missing = more
        except Exception as error:
            self._fail(error, inode)
        log.error("inode %d: what it needs changes faster than it is made", inode)
        raise FUSEError(errno.EAGAIN)

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """Keep nothing for what the kernel looked up, so forget nothing: inode numbers say it all."""

    async def opendir(self, inode: int, ctx: object = None) -> int:
        """Open a directory: its handle is its inode number, listings go on by cookie."""
        return inode

    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        """List a directory with all attributes, from one scan, until the kernel's buffer is full."""
        try:
            self._list(fh, start_id, token)
        except NotReady as missing:
            await self._made(missing, fh, partial(self._list, fh, start_id, token))
        except Exception as error:
            self._fail(error, fh)

    def _list(self, inode: int, start: int, token: pyfuse3.ReaddirToken) -> None:
        if self._listed == (inode, start):
            # The kernel asks once more after the last entry, to hear that there is none.
            self._listed = _NOTHING
            return
        next_start = max(start, _COOKIES)
        entries = self._tree.entries(inode, next_start - _COOKIES)  # first of all, as it may not be ready
        each = self._each(entries) if self._tree.has_private(inode) else None
        if start < _COOKIES and not self._list_dots(inode, start, token):
            return
        if each is not None:
            self._list_each(inode, next_start, each, token)
            return
        reply = pyfuse3.readdir_reply
        file, directory = self._file, self._directory
        file_size, file_time, file_links = self._file_look
        directory_time, directory_links = self._directory_look
        try:
            # Most of what a series' files have to tell is the same for all, so it is set when it changes.
            for name, ino, is_directory, size, mtime_ns, nlink, cookie in entries:
                if is_directory:
                    entry = directory
                    if nlink != directory_links:
                        directory.st_nlink = directory_links = nlink
                    if mtime_ns != directory_time:
                        directory_time = mtime_ns
                        set_times(directory, mtime_ns)
                else:
                    entry = file
                    if size != file_size:
                        file.st_size = file_size = size
                        file.st_blocks = (size + 511) >> 9
                    if mtime_ns != file_time:
                        file_time = mtime_ns
                        set_times(file, mtime_ns)
                    if nlink != file_links:
                        file.st_nlink = file_links = nlink
                entry.st_ino = ino
                if not reply(token, name, entry, cookie + _COOKIES):
                    return
                next_start = cookie + _COOKIES
            self._listed = inode, next_start
        finally:
            self._file_look = file_size, file_time, file_links
            self._directory_look = directory_time, directory_links
            _close(entries)

    def _each(self, entries: Iterator[Entry]) -> list[tuple[Entry, Attributes | None]]:
        """Return some entries of a directory with private nodes, which an entry does not say: each is asked for."""
        some = list(islice(entries, _BUFFERFUL))
        _close(entries)
        return [(entry, self._tree.attributes(entry[1])) for entry in some]

    def _list_each(
        self, inode: int, start: int, each: list[tuple[Entry, Attributes | None]], token: pyfuse3.ReaddirToken
    ) -> None:
        for (name, *_, cookie), found in each:
            if found is not None and not pyfuse3.readdir_reply(token, name, self._entry(found), cookie + _COOKIES):
                return
            start = cookie + _COOKIES
        if len(each) < _BUFFERFUL:
            self._listed = inode, start

    def _list_dots(self, inode: int, start: int, token: pyfuse3.ReaddirToken) -> bool:
        # The kernel takes no reference on these two, so their attributes are of no account.
        entry = self._directory
        if start < 1:
            entry.st_ino = inode
            if not pyfuse3.readdir_reply(token, b".", entry, 1):
                return False
        entry.st_ino = self._tree.parent(inode) or inode
        return pyfuse3.readdir_reply(token, b"..", entry, 2)

    async def releasedir(self, fh: int) -> None:
        """Hold nothing for an open directory."""

    async def access(self, inode: int, mode: int, ctx: object = None) -> bool:
        """Refuse writing; the rest the kernel decides by mode and owner."""
        if mode & os.W_OK:
            raise FUSEError(errno.EROFS)
        return True

    async def statfs(self, ctx: object = None) -> pyfuse3.StatvfsData:
        """Tell the size of all files as they are shown, and that there is no room."""
        try:
            files, size = self._tree.statistics()
        except NotReady as missing:
            files, size = await self._made(missing, pyfuse3.ROOT_INODE, self._tree.statistics)
        except Exception as error:
            self._fail(error, pyfuse3.ROOT_INODE)
        told = pyfuse3.StatvfsData()
        told.f_bsize = IO_SIZE
        told.f_frsize = FRAGMENT
        told.f_blocks = -(-size // FRAGMENT)
        told.f_files = files
        told.f_namemax = NAME_MAX
        return told

    # Extended attributes

    async def listxattr(self, inode: int, ctx: object = None) -> Sequence[bytes]:
        """List the few that copies should carry."""
        if not self._xattr:
            raise FUSEError(errno.ENOSYS)  # the kernel asks once and never again
        try:
            return self._tree.xattr_names(inode)
        except Exception as error:
            self._fail(error, inode)

    async def getxattr(self, inode: int, name: bytes, ctx: object = None) -> bytes:
        """Tell an extended attribute, listed or not."""
        if not self._xattr:
            raise FUSEError(errno.ENOSYS)
        if name.startswith(REFUSED):
            raise FUSEError(errno.EOPNOTSUPP)  # `ls` then asks for no other entry
        try:
            if self._tree.xattr_is_quick(inode, name):
                value = self._tree.xattr(inode, name)
            else:
                value = await self._in_thread(self._tree.xattr, inode, name)
        except Exception as error:
            self._fail(error, inode)
        if value is None:
            raise FUSEError(errno.ENODATA)
        return value

    # Files

    async def open(self, inode: int, flags: int, ctx: object = None) -> pyfuse3.FileInfo:
        """Open a file to read; what the kernel has of it stays valid, for its bytes never change."""
        if flags & _WRITING:
            raise FUSEError(errno.EROFS)
        try:
            file = self._upcoming.take(inode) or self._tree.open_ready(inode)
        except NotReady as missing:
            file = await self._made(missing, inode, partial(self._tree.open_ready, inode))
        except Exception as error:
            self._fail(error, inode)
        if file is None:
            try:
                file = await self._in_thread(self._tree.open, inode)
            except Exception as error:
                self._fail(error, inode)
        handle = self._next_handle
        self._next_handle += 1
        self._open[handle] = inode, file
        info = self._info
        info.fh = handle
        return info

    async def read(  # type: ignore[override] # pyfuse3 takes any buffer
        self, fh: int, off: int, size: int
    ) -> bytes | memoryview:
        """Read at once what memory has, in a thread what must be waited for."""
        inode, file = self._open[fh]
        try:
            data = file.read_ready(off, size)
            if data is None and (coming := file.coming(off, size)) is not None:
                await self._until(coming)
                data = file.read_ready(off, size)
            if data is None:
                data = await self._in_thread(file.read, off, size)
            if size >= LONG:
                self._upcoming.note(inode, off, off + len(data), file.size)
            return data
        except Exception as error:
            self._fail(error, inode)

    async def flush(self, fh: int) -> None:
        """Have nothing to flush: the kernel asks once and never again."""
        raise FUSEError(errno.ENOSYS)

    async def fsync(self, fh: int, datasync: bool) -> None:
        """Have nothing to sync."""

    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        """Have nothing to sync."""

    async def release(self, fh: int) -> None:
        """Close a file."""
        inode, file = self._open.pop(fh)
        try:
            file.close()
        except Exception as error:
            self._fail(error, inode)

    async def readlink(self, inode: int, ctx: object = None) -> bytes:
        """Have no symbolic links."""
        raise FUSEError(errno.EINVAL)

    # Entries and errors

    def _entry(self, found: Attributes) -> EntryAttributes:
        ino, is_directory, size, mtime_ns, nlink, private = found
        if private:
            entry = self._private_directory if is_directory else self._private_file
            entry.st_size = size
            entry.st_blocks = (size + 511) >> 9
            entry.st_nlink = nlink
            set_times(entry, mtime_ns)
        elif is_directory:
            entry = self._directory
            if (mtime_ns, nlink) != self._directory_look:
                self._directory_look = mtime_ns, nlink
                entry.st_nlink = nlink
                set_times(entry, mtime_ns)
        else:
            entry = self._file
            if (size, mtime_ns, nlink) != self._file_look:
                self._file_look = size, mtime_ns, nlink
                entry.st_size = size
                entry.st_blocks = (size + 511) >> 9
                entry.st_nlink = nlink
                set_times(entry, mtime_ns)
        entry.st_ino = ino
        return entry

    def _fail(self, error: Exception, inode: int) -> Never:
        """Turn any error into what the kernel understands; tell the log what a person must know."""
        if isinstance(error, FUSEError):
            raise error
        if isinstance(error, Stale):
            raise FUSEError(errno.ESTALE) from error  # who came by a name is sent to look it up again
        if isinstance(error, NotFound):
            raise FUSEError(errno.ENOENT) from error
        if isinstance(error, Damaged):
            if inode not in self._reported and len(self._reported) < _REPORTED:
                self._reported.add(inode)
                log.error("inode %d cannot be read: %s; run 'dicomfs check --verify-files'", inode, error)
        elif isinstance(error, DicomfsError):
            log.error("inode %d: %s", inode, error)
        else:
            log.error("inode %d: internal error: %s", inode, place(error))
        raise FUSEError(errno.EIO) from error
