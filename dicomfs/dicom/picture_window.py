"""Grey values become what a screen shows: modality LUT, VOI LUT or window, and which end is black (PS3.4 N.2).

    stored values ── modality LUT, or slope and intercept ─▶ VOI LUT, or first window, or smallest to largest ─▶ 0..255

Of several VOI LUTs and windows the first one counts, a VOI LUT before a window. Tables are looked up here:
pydicom's functions wrap where a table has more entries than its entries have values. The VOI functions are pydicom's.
"""

import math
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from pydicom.dataset import Dataset

    Values = npt.NDArray[np.number]
    Bytes = npt.NDArray[np.uint8]

_WHITE: Final = 255
_TABLE_SPAN: Final = 1 << 16
_STRIP: Final = 1 << 20
"""How many values at a time go through floating point numbers, where there are too many different ones for a table."""


class Table(NamedTuple):
    """A lookup table (PS3.3 C.11.1.1): what lies before `first` has its first entry, what lies past it its last."""

    first: int
    entries: "npt.NDArray[np.uint16]"
    bits: int

    def of(self, values: "Values") -> "npt.NDArray[np.uint16]":
        """Look up values."""
        import numpy as np

        nearest = np.floor(values.astype(np.float64) + 0.5) - self.first
        found: npt.NDArray[np.uint16] = self.entries[np.clip(nearest, 0, len(self.entries) - 1).astype(np.int64)]
        return found


def shown(values: "Values", rules: "Dataset", stored_bits: int) -> "Bytes":
    """Return the grey of each value of one frame; `rules` hold the attributes that apply to the frame."""
    import numpy as np

    window = _Window(values, rules, stored_bits)
    if values.dtype.kind in "iu" and values.size:
        low, high = int(values.min()), int(values.max())
        if high - low < _TABLE_SPAN:
            greys = window.greys(np.arange(low, high + 1, dtype=np.int64))
            return greys[values.astype(np.int64) - low] if low else greys[values]
    out = np.empty(values.shape, np.uint8)
    flat, into = values.reshape(-1), out.reshape(-1)
    for start in range(0, flat.size, _STRIP):
        into[start : start + _STRIP] = window.greys(flat[start : start + _STRIP])
    return out


class _Window:
    """How one frame's stored values become greys."""

    def __init__(self, values: "Values", rules: "Dataset", stored_bits: int) -> None:
        self._inverted = str(rules.get("PhotometricInterpretation", "")).strip() == "MONOCHROME1"
        self._modality = table_of(rules, "ModalityLUTSequence", values)
        slope, intercept = number(rules, "RescaleSlope"), number(rules, "RescaleIntercept")
        self._rescale = None if not slope or intercept is None or self._modality else (slope, intercept)
        self._voi = table_of(rules, "VOILUTSequence", values)
        self._window = None if self._voi else _window(rules)
        self._low, self._high = 0.0, 1.0
        if self._voi is None and self._window is None and not (stored_bits == 1 and values.dtype.kind in "iu"):
            self._low, self._high = self._range(values, rules)

    def greys(self, values: "Values") -> "Bytes":
        import numpy as np

        meant = self._meant(values)
        shades: Values
        if self._voi is not None:
            shades = self._voi.of(meant).astype(np.float64) * _WHITE / ((1 << self._voi.bits) - 1)
        elif self._window is not None:
            shades = _windowed(meant, *self._window)
        elif self._high > self._low:
            shades = (meant - self._low) / (self._high - self._low) * _WHITE
        else:
            shades = np.zeros(meant.shape)
        # Not a number: where there is no value there is nothing to see.
        shades = np.nan_to_num(shades, nan=0, posinf=_WHITE, neginf=0)
        greys: Bytes = np.clip(np.floor(shades + 0.5), 0, _WHITE).astype(np.uint8)
        return _WHITE - greys if self._inverted else greys

    def _meant(self, values: "Values") -> "npt.NDArray[np.float64]":
        import numpy as np

        if self._modality is not None:
            return self._modality.of(values).astype(np.float64)
        meant = values.astype(np.float64)
        if self._rescale is not None:
            meant *= self._rescale[0]
            meant += self._rescale[1]
        return meant

    def _range(self, values: "Values", rules: "Dataset") -> tuple[float, float]:
        """Return the smallest and the largest value that is no padding (PS3.3 C.7.5.1.1.2)."""
        import numpy as np

        counted = np.isfinite(values) if values.dtype.kind == "f" else None
        padding = _signed(number(rules, "PixelPaddingValue"), values)
        if padding is not None:
            limit = _signed(number(rules, "PixelPaddingRangeLimit"), values)
            low, high = sorted((padding, padding if limit is None else limit))
            real = (values < low) | (values > high)
            counted = real if counted is None else counted & real
        kept = values if counted is None else values[counted]
        if not kept.size:
            return 0.0, 0.0
        ends = self._meant(np.array([kept.min(), kept.max()]))
        if self._modality is not None:
            ends = self._meant(np.unique(kept))
        return float(ends.min()), float(ends.max())


def _signed(value: float | None, values: "Values") -> float | None:
    """Return a number that is one of the values: signed as those are, though its VR often says otherwise."""
    return value - _TABLE_SPAN if value is not None and value > 0x7FFF and values.dtype.kind == "i" else value


def _window(rules: "Dataset") -> tuple[float, float, str] | None:
    """Return (centre, width, VOI LUT function) of the first window, None where there is none that could be."""
    centre, width = number(rules, "WindowCenter"), number(rules, "WindowWidth")
    if centre is None or width is None:
        return None
    if width <= 0:
        return None  # which is what is written where nobody chose a window
    function = str(first(rules, "VOILUTFunction") or "LINEAR").strip().upper()
    if function not in ("LINEAR_EXACT", "SIGMOID"):
        # By PS3.3 C.11.2.1.2.1 a width is at least 1 here; RT images with slopes far below 1 have narrower ones.
        function = "LINEAR" if width >= 1 else "LINEAR_EXACT"
    return centre, width, function


def _windowed(meant: "npt.NDArray[np.float64]", centre: float, width: float, function: str) -> "Values":
    """Return the greys, not rounded, that a VOI LUT function gives."""
    import numpy as np
    from pydicom.dataset import Dataset
    from pydicom.pixels.processing import apply_windowing

    rules = Dataset()
    rules.PhotometricInterpretation = "MONOCHROME2"
    rules.BitsStored = 8  # which together with unsigned makes the range of what comes out 0 to 255
    rules.PixelRepresentation = 0
    rules.VOILUTFunction = function
    rules.WindowCenter = centre
    rules.WindowWidth = width
    with np.errstate(over="ignore"):
        return apply_windowing(meant, rules)


def table_of(rules: "Dataset", keyword: str, values: "Values") -> Table | None:
    """Return the table in the first item of a sequence, None where there is none or it is empty."""
    sequence = rules.get(keyword)
    if not sequence:
        return None
    item = sequence[0]
    descriptor, data = item.get("LUTDescriptor"), item.get("LUTData")
    if data is None or descriptor is None or len(descriptor) != 3:
        return None
    signed = bool(values.size) and bool(values.min() < 0)
    return make_table(descriptor, data, little=rules.original_encoding[1] is not False, signed=signed)


def make_table(descriptor: "list[int]", data: "bytes | int | list[int]", *, little: bool, signed: bool) -> Table | None:
    """Return a table from a LUT Descriptor (PS3.3 C.11.1.1) and LUT Data; None where it has no entries.

    The second number of a descriptor is signed where the `values` are, but its VR often says otherwise.
    """
    import numpy as np

    count, start, bits = (int(one) for one in descriptor)
    count = count % _TABLE_SPAN or _TABLE_SPAN
    if signed and start > 0x7FFF:
        start -= _TABLE_SPAN
    if isinstance(data, bytes):
        # Entries of 8 bits are packed, or take 16 bits each.
        packed = bits <= 8 and len(data) < 2 * count
        kind = "u1" if packed else "<u2" if little else ">u2"
        if packed and not little:
            data = np.frombuffer(data[: len(data) // 2 * 2], "u2").byteswap().tobytes()
        entries = np.frombuffer(data[: len(data) // np.dtype(kind).itemsize * np.dtype(kind).itemsize], kind)
    else:
        entries = np.atleast_1d(np.asarray(data, dtype=np.int64)) & 0xFFFF
    entries = entries[:count].astype(np.uint16)
    if not entries.size:
        return None
    # A table whose entries do not fit the bits it names has as many as they need.
    bits = max(min(bits, 16), int(entries.max()).bit_length(), 1)
    return Table(start, entries, bits)


def first(rules: "Dataset", keyword: str) -> object:
    """Return the first value of an attribute, None where there is none or it cannot be read."""
    from pydicom.multival import MultiValue

    try:
        value = rules.get(keyword)
    except Exception:  # noqa: BLE001 - converting what is no number raises whatever it likes
        return None
    if isinstance(value, MultiValue):
        return value[0] if len(value) else None
    return None if value == "" else value


def number(rules: "Dataset", keyword: str) -> float | None:
    """Return the first value of an attribute as a number, None where it is none."""
    value = first(rules, keyword)
    try:
        found = float(str(value).strip())
    except ValueError:
        return None
    return found if math.isfinite(found) else None
