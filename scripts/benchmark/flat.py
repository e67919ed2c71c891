"""Describe an archive's tree to cfs: nodes, names, and where the bytes of each file lie.

`cfs.c` says what a description looks like. Blobs are served from the packs where they lie, which takes
an archive without codec; the literal bytes of all headers are written into one file beside the description.
"""

import os
from array import array
from pathlib import Path
from struct import Struct
from typing import TypeAlias

from dicomfs.archive.archive import Archive
from dicomfs.errors import UsageError
from dicomfs.store import codec as codecs
from dicomfs.vfs.node import FIRST_CLAIMED, LAST_CLAIMED, ROOT
from dicomfs.vfs.tree import Tree

_HEAD = Struct("<8s5Q")
_NODE = Struct("<QQqQQII")
_ENTRY = Struct("<QII")
_EXTENT = Struct("<4Q")
_Waiting: TypeAlias = tuple[int, int, int, int]
"""(number of the node, inode, mtime in ns, links) of a directory"""

_HEADERS = 0
"""The first source: the file of headers; packs follow."""


class _Flat:
    def __init__(self, archive: Archive, headers: Path) -> None:
        self._archive = archive
        self._tree = Tree(archive, ("patients",))
        self.nodes: list[bytes] = []
        self.entries = bytearray()
        self.by_name = array("I")
        self.extents = bytearray()
        self.names = bytearray()
        self.sources = [os.fsencode(headers)]
        self._packs: dict[int, int] = {}
        self._headers = headers.open("wb")
        self._headers_at = 0

    def walk(self) -> None:
        """Describe the tree, one level after another."""
        root = self._tree.attributes(ROOT)
        assert root is not None
        waiting = [(0, root.ino, root.mtime_ns, root.nlink)]
        self.nodes.append(b"")
        while waiting:
            below: list[_Waiting] = []
            for number, ino, mtime_ns, links in waiting:
                self._directory(number, ino, mtime_ns, links, below)
            waiting = below
        self._headers.close()

    def _directory(self, number: int, ino: int, mtime_ns: int, links: int, below: list[_Waiting]) -> None:
        first = len(self.by_name)
        names: list[bytes] = []
        for name, child, is_directory, size, child_mtime_ns, child_links, _ in list(self._tree.entries(ino)):
            child_number = len(self.nodes)
            self.entries += _ENTRY.pack(len(self.names), len(name), child_number)
            self.names += name
            names.append(name)
            if is_directory:
                self.nodes.append(b"")
                below.append((child_number, child, child_mtime_ns, child_links))
            else:
                start = len(self.extents) // _EXTENT.size
                self._file(child)
                count = len(self.extents) // _EXTENT.size - start
                self.nodes.append(_NODE.pack(child, size, child_mtime_ns, start, count, 0, child_links))
        self.by_name.extend(sorted(range(len(names)), key=names.__getitem__))
        self.nodes[number] = _NODE.pack(ino, 0, mtime_ns, first, len(names), 1, links)

    def _file(self, ino: int) -> None:
        if not FIRST_CLAIMED <= ino <= LAST_CLAIMED:  # README.txt
            file = self._tree.open(ino)
            self._literal(0, bytes(file.read(0, file.size)))
            return
        instance = self._archive.open_instance(ino)
        recipe = instance._recipe  # noqa: SLF001 - nobody else has to know how a file is put together
        store = self._archive.store
        at = 0
        with store.index.reading() as txn:
            for length, blob in zip(recipe.lengths, recipe.blobs, strict=True):
                if blob is None:
                    self._literal(at, bytes(instance.read(at, length)))
                else:
                    where = store.locate(txn, blob)
                    if where.codec != codecs.PLAIN:
                        raise UsageError("cfs serves archives that were made with --codec none")
                    self.extents += _EXTENT.pack(at, length, where.offset, self._source(where.pack))
                at += length

    def _literal(self, at: int, data: bytes) -> None:
        self.extents += _EXTENT.pack(at, len(data), self._headers_at, _HEADERS)
        self._headers.write(data)
        self._headers_at += len(data)

    def _source(self, pack: int) -> int:
        found = self._packs.get(pack)
        if found is None:
            found = self._packs[pack] = len(self.sources)
            self.sources.append(os.fsencode(self._archive.store.packs.path(pack)))
        return found


def write(archive_path: Path, flat: Path) -> list[Path]:
    """Describe an archive in the file `flat`; return the files that cfs reads, packs apart."""
    headers = flat.with_suffix(".headers")
    with Archive.open(Path(os.path.abspath(archive_path))) as archive:
        described = _Flat(archive, headers)
        described.walk()
    entries = len(described.by_name)
    counts = (len(described.nodes), entries, len(described.extents) // _EXTENT.size)
    with flat.open("wb") as file:
        file.write(_HEAD.pack(b"CFSFLAT1", *counts, len(described.names), len(described.sources)))
        file.writelines(described.nodes)
        file.write(described.entries)
        file.write(described.by_name.tobytes())
        file.write(bytes(4 * (entries % 2)))
        file.write(described.extents)
        file.write(described.names)
        file.writelines(source + b"\0" for source in described.sources)
    return [flat, headers]
