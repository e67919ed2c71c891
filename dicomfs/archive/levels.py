"""What an instance says itself of patient, study, series and instance, whatever the catalog says of it."""

from dicomfs.archive.archive import Archive
from dicomfs.archive.parts import Parts
from dicomfs.archive.splitting import Levels
from dicomfs.dicom.describe import describe
from dicomfs.errors import Damaged


def levels_of(archive: Archive, ino: int) -> Levels:
    """Return the attributes of an instance, level by level; raise NotFound, or Damaged."""
    parts = Parts.open(archive, ino)
    whole = parts.source is not parts.file
    data = bytes(parts.file.read(0, parts.file.size)) if whole else parts.data
    found = describe(data).attributes
    if found is None:
        raise Damaged(f"instance {ino} cannot be read any more")
    return Levels(found.patient, found.study, found.series, found.instance)
