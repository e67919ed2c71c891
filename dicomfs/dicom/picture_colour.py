"""Colours become 8 bits of red, green and blue: true colour of any depth, YCbCr, and palettes (PS3.3 C.7.6.3)."""

from typing import TYPE_CHECKING, Final

from dicomfs.dicom.picture_window import Table, make_table

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from pydicom.dataset import Dataset

    from dicomfs.dicom.picture_decode import Decoded

    Pixels = npt.NDArray[np.number]
    Bytes = npt.NDArray[np.uint8]

PALETTE: Final = "PALETTE COLOR"
_NAMES: Final = ("Red", "Green", "Blue")


def is_colour(samples_per_pixel: int, photometric_interpretation: str) -> bool:
    """Say whether a picture of such pixels has three samples: they have themselves, or there is a palette."""
    return samples_per_pixel >= 3 or photometric_interpretation.strip() == PALETTE


def true_colour(decoded: "Decoded", bits_stored: int) -> "Bytes":
    """Return red, green and blue of 8 bits: of deeper samples the upper bits, of shallower ones the whole range."""
    import numpy as np

    pixels = decoded.pixels
    if bits_stored > 8:
        pixels = np.right_shift(pixels, bits_stored - 8)
    elif bits_stored < 8 and not decoded.ybr:
        pixels = pixels.astype(np.uint16) * 255 // ((1 << bits_stored) - 1)
    rgb = np.clip(pixels, 0, 255).astype(np.uint8)
    if decoded.ybr:
        from pydicom.pixels.processing import convert_color_space

        return convert_color_space(rgb, "YBR_FULL", "RGB")
    return rgb


def palette_colour(values: "Pixels", rules: "Dataset") -> "Bytes":
    """Return red, green and blue of 8 bits as the palette has them; raise ValueError where there is no palette."""
    import numpy as np

    tables = _segmented(rules) if "SegmentedRedPaletteColorLookupTableData" in rules else _plain(rules, values)
    out = np.empty((*values.shape, 3), np.uint8)
    # Entries of 16 bits whose upper byte is not used at all are of 8 bits: encoders forget to say so.
    narrow = all(int(table.entries.max()) < 256 for table in tables)
    for channel, table in enumerate(tables):
        entries = table.of(values)
        out[..., channel] = entries if table.bits <= 8 or narrow else entries >> (table.bits - 8)
    return out


def _plain(rules: "Dataset", values: "Pixels") -> list[Table]:
    little = rules.original_encoding[1] is not False
    signed = bool(values.size) and bool(values.min() < 0)
    found = []
    for name in _NAMES:
        descriptor = rules[f"{name}PaletteColorLookupTableDescriptor"].value
        data = rules[f"{name}PaletteColorLookupTableData"].value
        table = make_table(descriptor, data, little=little, signed=signed)
        if table is None:
            raise ValueError("a palette is empty")
        found.append(table)
    return found


def _segmented(rules: "Dataset") -> list[Table]:
    """Return the tables that segments stand for (PS3.3 C.7.9.2), which pydicom writes out."""
    import numpy as np
    from pydicom.pixels.processing import apply_color_lut

    count, first, bits = (int(one) for one in rules["RedPaletteColorLookupTableDescriptor"].value)
    count = count % (1 << 16) or 1 << 16
    written_out = apply_color_lut(np.arange(first, first + count, dtype=np.int32), rules)
    return [Table(first, written_out[:, channel].astype(np.uint16), bits) for channel in range(3)]
