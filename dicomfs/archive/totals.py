"""The sums that `stats` shows, kept up to date by every commit so that nobody has to scan for them."""

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dicomfs.archive.records import InstanceRow


@dataclass(slots=True)
class Share:
    """What some instances brought and what they cost; all but `instances` in bytes."""

    instances: int = 0
    bytes_in: int = 0
    literal_in: int = 0
    """Header bytes as they came; the rest of bytes_in is bulk data."""
    bulk_unique: int = 0
    """Bulk data that no earlier file had."""
    bulk_stored: int = 0
    headers_stored: int = 0

    @property
    def bytes_stored(self) -> int:
        """What bulk data and headers take in the packs."""
        return self.bulk_stored + self.headers_stored

    @property
    def saved_by_deduplication(self) -> int:
        """Bulk data that was there already."""
        return self.bytes_in - self.literal_in - self.bulk_unique

    @property
    def saved_by_compression(self) -> int:
        """What coding of frames and of headers saved."""
        return self.bulk_unique + self.literal_in - self.bytes_stored


@dataclass(slots=True)
class Totals(Share):
    """The sums over the whole archive: files with earlier versions, the rest as far as it shows anything."""

    patients: int = 0
    studies: int = 0
    series: int = 0
    earlier: int = 0
    """How many of the instances are shown nowhere any more, as they were replaced or deleted."""
    earlier_bytes: int = 0
    modalities: dict[str, Share] = field(default_factory=dict)

    @property
    def shown(self) -> int:
        """How many instances are shown."""
        return self.instances - self.earlier

    @property
    def shown_bytes(self) -> int:
        """How long the files are that are shown."""
        return self.bytes_in - self.earlier_bytes

    def count_earlier(self, instances: int, size: int) -> None:
        """Count instances, of `size` bytes, that are shown no more."""
        self.earlier += instances
        self.earlier_bytes += size

    def forget(self, modality: str, size: int) -> None:
        """Count an earlier version, of `size` bytes, no longer; what it brought is in the packs for others."""
        self.count_earlier(-1, -size)
        for counted in (self, self.modalities.get(modality, Share())):
            counted.instances -= 1
            counted.bytes_in -= size

    def add(self, modality: str, row: "InstanceRow") -> None:
        """Count an instance."""
        share = self.modalities.get(modality)
        if share is None:
            share = self.modalities[modality] = Share()
        for counted in (self, share):
            counted.instances += 1
            counted.bytes_in += row.size
            counted.literal_in += row.literal_length
            counted.bulk_unique += row.new_bulk
            counted.bulk_stored += row.new_stored
            counted.headers_stored += row.body_length + row.new_base

    def encode(self) -> bytes:
        """Return the value of the meta table."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, value: bytes | None) -> "Totals":
        """Read the value of the meta table."""
        if value is None:
            return cls()
        held = json.loads(value)
        held["modalities"] = {name: Share(**share) for name, share in held["modalities"].items()}
        return cls(**held)
