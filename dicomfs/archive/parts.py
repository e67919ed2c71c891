"""One instance of the archive, opened to be taken apart: its header in place, its frames and bulk found."""

from functools import cached_property

from dicomfs.archive.archive import Archive, InstanceFile
from dicomfs.dicom.encoding import Data
from dicomfs.dicom.frames import Frames, find_frames
from dicomfs.dicom.part10 import Part10


class Parts:
    """One instance, opened to be taken apart. Immutable; may be shared by threads.

    `data` is as long as the instance's data, exact everywhere but within bulk, where it may be zeros.
    """

    file: InstanceFile
    data: Data
    part10: Part10

    @classmethod
    def open(cls, archive: Archive, ino: int) -> "Parts":
        """Open an instance; wait as long as it takes. Raise NotFound or Damaged."""
        raise NotImplementedError

    @classmethod
    def open_ready(cls, archive: Archive, ino: int) -> "Parts | None":
        """Return the same if nothing has to be waited for, else None. For one thread only."""
        raise NotImplementedError

    @cached_property
    def frames(self) -> Frames:
        """Where the frames lie; raise Damaged where they cannot be read to find that out."""
        return find_frames(self.data, self.part10, self.read)

    def read(self, start: int, end: int) -> bytes | memoryview:
        """Return real bytes [start, end) of the data; raise Damaged."""
        raise NotImplementedError
