"""The inputs of an import from static DICOMweb trees: files built one after another, named as in the tree.

Each lies in a directory of the archive's own until a worker has read it: so many at a time as the batches in work have.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from dicomfs.archive.inputs import Input
from dicomfs.archive.outcome import Outcome
from dicomfs.archive.static_building import build
from dicomfs.archive.static_files import Tree, Unusable
from dicomfs.archive.static_study import Found, OnRefused, instances, studies
from dicomfs.errors import StorageFull

_DIRECTORY: Final = "static-import"


class StaticInputs(Iterator[Input]):
    """Inputs built of the instances of trees; a context manager that leaves no file behind. Belongs to one thread."""

    def __init__(
        self, roots: Sequence[Path], archive: Path | None, refused: OnRefused, stopped: Callable[[], bool]
    ) -> None:
        """Build below `archive`, whose lock the caller holds, or in a directory for temporary files if it is None.

        `stopped` says that what is left is to be named, and not built.
        """
        self._refused = refused
        self._stopped = stopped
        self._found = self._all(roots)
        self._number = 0
        if archive is None:
            self._directory = tempfile.mkdtemp(prefix="dicomfs-")
            return
        self._directory = str(archive / "cache" / _DIRECTORY)
        shutil.rmtree(self._directory, ignore_errors=True)  # of an import that was killed
        os.makedirs(self._directory, mode=0o700)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._found.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    def __next__(self) -> Input:
        for shown, tree, found in self._found:
            if self._stopped():
                return Input(shown, 0, explicit=False)
            path = f"{self._directory}/{self._number}.dcm"
            self._number += 1
            try:
                remarks = self._build(tree, found, path)
            except Unusable as error:
                self._refused(shown, Outcome.FAILED, str(error))
                os.unlink(path)
                continue
            except StorageFull as error:
                self._refused(shown, Outcome.FAILED, str(error))
                raise
            except Exception as error:  # noqa: BLE001 - whatever an instance does to us, the others go on
                reason = f"internal error ({type(error).__name__}): please report it"
                self._refused(shown, Outcome.FAILED, reason)
                os.unlink(path)
                continue
            return Input(path, os.path.getsize(path), explicit=False, shown=shown, remarks=remarks)
        raise StopIteration

    def _build(self, tree: Tree, found: Found, path: str) -> tuple[str, ...]:
        try:
            with open(path, "xb", opener=_for_owner) as file:
                return build(tree, found, file)
        except OSError as error:
            raise StorageFull(f"{self._directory}: {error.strerror}: files cannot be built there") from error

    def _all(self, roots: Sequence[Path]) -> Generator[tuple[str, Tree, Found]]:
        for root in roots:
            refused = _below(root, self._refused)
            with Tree(str(root)) as tree:
                for key in studies(tree, refused):
                    for found in instances(tree, key, refused):
                        yield os.path.join(root, found.directory), tree, found


def _below(root: Path, refused: OnRefused) -> OnRefused:
    return lambda path, outcome, reason: refused(os.path.join(root, path), outcome, reason)


def _for_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
