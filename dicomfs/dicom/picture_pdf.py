"""The first page of an encapsulated PDF (PS3.3 A.45.1), which stands for the document in a thumbnail."""

from typing import TYPE_CHECKING, Final

from dicomfs.dicom.picture_decode import CannotShow

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_SIDE: Final = 1024
"""How long and wide a page is drawn at most: the thumbnail is made of it."""


def first_page(document: bytes) -> "npt.NDArray[np.uint8]":
    """Return the first page, rows by columns by 3; raise CannotShow."""
    import pypdfium2

    try:
        pdf = pypdfium2.PdfDocument(document)
        try:
            page = pdf[0]
            bitmap = page.render(scale=_SIDE / max(page.get_size()), rev_byteorder=True)
            pixels: npt.NDArray[np.uint8] = bitmap.to_numpy().copy()
        finally:
            pdf.close()
    except MemoryError as error:
        raise CannotShow("it takes too much memory") from error
    except Exception as error:
        # Whatever PDFium does not like, and a page without a size.
        raise CannotShow("its first page cannot be shown") from error
    if pixels.ndim != 3 or pixels.shape[2] < 3:
        raise CannotShow("its first page cannot be shown")
    return pixels[..., :3]
