"""Pictures that say in words why there is none: what kind of object it is, and what is wrong."""

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL.ImageFont import FreeTypeFont, ImageFont

GREY: Final = 72
"""What a label is drawn on: dark enough for a black screen, and not what a frame that failed would be."""
_WORDS: Final = 235
_MARGIN: Final = 12
_SIZE: Final = 18


def labelled(rows: int, columns: int, title: str, reason: str, *, colour: bool = False) -> "npt.NDArray[np.uint8]":
    """Return a picture of this size with words on it; what does not fit there is cut off."""
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    # Words of one size: in a large picture they are enlarged with it.
    scale = max(1, min(rows, columns) // 256)
    image = Image.new("L", (-(-columns // scale), -(-rows // scale)), GREY)
    font = ImageFont.load_default(_SIZE)
    draw = ImageDraw.Draw(image)
    text = "\n".join(_wrapped([*title.splitlines(), *([reason] if reason else [])], font, image.width - 2 * _MARGIN))
    draw.multiline_text((_MARGIN, _MARGIN), text, fill=_WORDS, font=font, spacing=6)
    grey = np.asarray(image).repeat(scale, 0).repeat(scale, 1)[:rows, :columns]
    return np.stack([grey] * 3, axis=-1) if colour else grey


def _wrapped(lines: list[str], font: "FreeTypeFont | ImageFont", width: int) -> list[str]:
    """Break lines between words where they would be too long."""
    found: list[str] = []
    for line in lines:
        held = ""
        for word in line.split():
            longer = f"{held} {word}" if held else word
            if held and font.getlength(longer) > width:
                found.append(held)
                longer = word
            held = longer
        found.append(held)
    return found


def title(modality: str, sop_class_uid: str) -> str:
    """Return what kind of object it is, in up to two lines: no more than what the Standard has names for."""
    from pydicom.config import IGNORE
    from pydicom.uid import UID

    # A modality is a code (PS3.3 C.7.3.1.1.1): what else was written there might be a name.
    is_code = 1 < len(modality) <= 9 and modality.isascii() and modality.isalnum() and modality.isupper()
    sop_class = UID(sop_class_uid, IGNORE)
    lines = [modality] if is_code else []
    if sop_class.type == "SOP Class":
        lines.append(sop_class.name.removesuffix(" Storage"))
    return "\n".join(lines) or "DICOM object"
