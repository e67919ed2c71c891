"""The pieces of a file: its spans, cut to the length of blobs, encoded, and whether pieces and recipe make the file."""

from collections.abc import Sequence
from typing import Final

from dicomfs.dicom.split import FRAGMENT, FRAME, LITERAL, Span
from dicomfs.store import codec as codecs
from dicomfs.store.codec import Coded
from dicomfs.store.recipe import MAX_BLOB, Extent, Recipe

_MAX_LITERAL: Final = 32 << 20
_MAX_SPANS: Final = 1 << 19


def cut(spans: Sequence[Span]) -> Sequence[Span]:
    """Cut bulk spans to the length of a blob; keep a file whole whose header would be too large for memory."""
    literal = longest = 0
    for kind, start, end, _ in spans:
        if kind == LITERAL:
            literal += end - start
        elif end - start > longest:
            longest = end - start
    if literal > _MAX_LITERAL or len(spans) > _MAX_SPANS:
        longest = spans[-1].end - spans[0].start
        spans = [Span(FRAME, spans[0].start, spans[-1].end, 1)]
    if longest <= MAX_BLOB:
        return spans
    pieces: list[Span] = []
    for span in spans:
        if span.kind == LITERAL:
            pieces.append(span)
            continue
        starts = range(span.start, span.end, MAX_BLOB)
        pieces += (Span(span.kind, start, min(start + MAX_BLOB, span.end), span.sample_bytes) for start in starts)
    return pieces


def encoded(data: memoryview, piece: Span, *, coded: bool) -> Coded:
    """Return a piece as it is to be stored; as it is where it is not to be `coded`, or does not come back right."""
    if not coded or piece.kind == FRAGMENT:
        return codecs.plain(data)
    found = codecs.encode(data, piece.sample_bytes if piece.kind == FRAME else 1)
    return found if found.stored is data or codecs.decodes_to(found, data) else codecs.plain(data)


def tile(pieces: Sequence[Span], size: int) -> bool:
    """Say whether each piece begins where the one before ends, and the last ends with the file."""
    at = 0
    for _, start, end, _ in pieces:
        if start != at:
            return False
        at = end
    return at == size


def replays(recipe: Recipe, extents: list[Extent]) -> bool:
    """Say whether a recipe takes the same bytes from the same places; neighbouring literals count as one."""
    joined: list[Extent] = []
    for length, blob in extents:
        if blob is None and joined and joined[-1][1] is None:
            joined[-1] = (joined[-1][0] + length, None)
        elif length:
            joined.append((length, blob))
    return joined == list(zip(recipe.lengths, recipe.blobs, strict=True))
