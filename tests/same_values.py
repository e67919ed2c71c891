"""Whether two data sets say the same, and show the same pixels: by pydicom, which knows nothing of their making."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom.multival import MultiValue

if TYPE_CHECKING:
    from collections.abc import Container

    from pydicom.dataset import DataElement, Dataset

NOT_COMPARED = frozenset((0x00080005, 0x00083002, 0x0018A001, 0x7FE00010, 0xFFFCFFFC))
"""What is made anew, or compared otherwise; padding means nothing."""


def differences(one: Dataset, other: Dataset, but: Container[int] = (), path: str = "") -> list[str]:
    """Return what differs: tags with the reason."""
    found = []
    for tag in sorted(set(one.keys()) | set(other.keys())):
        if tag.element == 0 or tag in NOT_COMPARED or tag in but:
            continue
        name = f"{path}{tag}"
        if tag not in one or tag not in other:
            found.append(f"{name} is in one alone")
            continue
        first, second = one[tag], other[tag]
        if first.VR == second.VR == "SQ":
            if len(first.value) != len(second.value):
                found.append(f"{name} has not as many items")
            for number, (left, right) in enumerate(zip(first.value, second.value, strict=False)):
                found += differences(left, right, but, f"{name}[{number}]")
        elif values(first) != values(second):
            found.append(f"{name} {first.VR} {second.VR}: {values(first)!r:.80} {values(second)!r:.80}")
    return found


def values(element: DataElement) -> Any:
    """Return the values of an element, without padding; numbers as numbers."""
    value = element.value
    if isinstance(value, bytes):
        return value.rstrip(b"\0 ")
    if value is None:
        return []
    every = list(value) if isinstance(value, list | MultiValue) else [value]
    shown = [_shown(element.VR, one) for one in every]
    return [] if shown == [""] else shown


def _shown(vr: str, value: Any) -> Any:
    text = str(value).strip(" \0\r\n\t\f")
    if vr in ("DS", "IS", "FL", "FD"):
        try:
            number = float(text)
        except ValueError:
            return text
        return "nan" if math.isnan(number) else number
    if vr == "PN":
        return "=".join(group.rstrip("^ ") for group in text.split("=")).rstrip("=")
    return text


def same_pixels(one: Dataset, other: Dataset) -> bool:
    """Say whether two data sets show the same pixels, or have the same frames where these cannot be decoded."""
    if ("PixelData" in one) != ("PixelData" in other):
        return False
    if "PixelData" not in one:
        return True
    syntaxes = one.file_meta.TransferSyntaxUID, other.file_meta.TransferSyntaxUID
    alike = syntaxes[0] == syntaxes[1] or not (syntaxes[0].is_compressed or syntaxes[1].is_compressed)
    if alike and same_bytes(one, other):
        return True
    return bool(np.array_equal(one.pixel_array, other.pixel_array))


def same_bytes(one: Dataset, other: Dataset) -> bool:
    """Say whether two data sets have the same frames, byte by byte, but for padding."""
    from pydicom.encaps import generate_frames

    if not one.file_meta.TransferSyntaxUID.is_compressed:
        size = min(len(one.PixelData), len(other.PixelData))
        return bool(one.PixelData[:size] == other.PixelData[:size])
    number = int(one.get("NumberOfFrames") or 1)
    frames = [[*generate_frames(each.PixelData, number_of_frames=number)] for each in (one, other)]
    return [frame.rstrip(b"\0") for frame in frames[0]] == [frame.rstrip(b"\0") for frame in frames[1]]
