"""What must hold of the spans of any file whatever."""

from collections.abc import Sequence

from dicomfs.dicom.split import LITERAL, Span


def assert_tiles(spans: Sequence[Span], data: bytes | bytearray) -> None:
    at = 0
    previous = -1
    for span in spans:
        assert span.start == at
        assert span.end > span.start
        assert not (span.kind == previous == LITERAL), "neighbouring literals are one"
        at, previous = span.end, span.kind
    assert at == len(data)
