"""Edits of files that are broken: refused, or all that could be read before can be read afterwards."""

import random
import tracemalloc
from pathlib import Path
from struct import pack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomfs.dicom.describe import Verdict, describe
from dicomfs.dicom.edit import Changes, Refused, edit
from dicomfs.dicom.encoding import Data
from dicomfs.dicom.model_elements import DataSet, Elements
from dicomfs.dicom.part10 import locate
from tests.dicom.build import EXPLICIT, SOP, UNDEFINED, WRITERS, Writer
from tests.dicom.edit_files import Edited, changes, edited
from tests.dicom.test_edit import CODES, NAME, REFERENCED, UID, simple
from tests.dicom.test_edit_corpus import paths

Tree = dict[int, object]
CHARACTER_SET, HISTORY = 0x00080005, 0x04000561
NAMED = changes({NAME: ("Müller^Änne",), 0x00080050: ("4711",)}, remove=(0x00081030,))
REFERRED = changes(uids={SOP: "2.25.5555555"})
ASKED = frozenset((NAME, 0x00080050, 0x00081030, HISTORY, CHARACTER_SET, 0x00080018))


def tree(data: Data, found: DataSet, left_out: frozenset[int] = frozenset()) -> Tree:
    """Return what a file says, without text, which may be converted, and UIDs."""
    return {
        tag: [tree(data, item) for item in items] if items is not None else shown(vr, bytes(data[start:end]))
        for tag, (vr, start, end, _, items) in found.elements.items()
        if tag not in left_out and tag & 0xFFFF and tag != CHARACTER_SET
    }


def shown(vr: str, value: bytes) -> object:
    if vr in ("LO", "LT", "PN", "SH", "ST", "UC", "UT"):
        return value.isascii() and b"\x1b" not in value and value.rstrip(b" \0")
    return vr if vr == "UI" else (vr, value)


def survives(file: bytes, asked: Changes) -> bool:
    """Edit a file; False if that is refused."""
    verdict = describe(file).verdict
    try:
        result = edited(file, asked)
    except Refused:
        return False
    if result is None:
        return True
    assert verdict != Verdict.DICOM or describe(result.data).verdict == Verdict.DICOM
    before, after = (
        tree(data, Elements(data, place.start, len(data), place.encoding).data_set, ASKED.union(asked.remove))
        for data in (file, result.data)
        if (place := locate(data)) is not None
    )
    assert before == after
    return True


def nested(writer: Writer, depth: int, *, undefined: bool) -> bytes:
    made = writer.element(UID, "UI", SOP)
    for _ in range(depth):
        made = writer.sequence(REFERENCED, [writer.item(made, undefined=undefined)], undefined=undefined)
    return made


def rich(writer: Writer) -> bytes:
    """Return a file that has some of everything."""
    code = writer.element(0x00080100, "SH", "T-1") + writer.element(UID, "UI", SOP)
    extra = (
        writer.element(0x00280000, "UL", 24)
        + writer.element(0x00280010, "US", 4)
        + writer.sequence(CODES, [writer.item(code), writer.item(code, undefined=True), writer.item()])
        + writer.sequence(0x00400275, [writer.item(nested(writer, 3, undefined=True))], undefined=True)
        + nested(writer, 3, undefined=False)
        + writer.element(0x7FE00010, "OW", bytes(range(256)) * 5)
    )
    return simple(extra, writer=writer, before=writer.element(CHARACTER_SET, "CS", "ISO_IR 100"), name=b"M\xfcller^J")


@settings(max_examples=400)
@given(
    st.sampled_from(WRITERS),
    st.lists(st.tuples(st.integers(min_value=132, max_value=1400), st.integers(0, 255)), min_size=1, max_size=6),
    st.integers(min_value=0, max_value=4),
)
def test_wrong_bytes_are_survived(writer: Writer, wrong: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(rich(writer))
    for position, byte in wrong:
        data[position % len(data)] = byte
    file = bytes(data[: len(data) - cut * 100])
    if locate(file) is not None:
        for asked in (NAMED, REFERRED):
            survives(file, asked)


@pytest.mark.corpus
@pytest.mark.slow
def test_hurt_files_are_survived(corpus: Path) -> None:
    """Real files with wrong bytes: the same ones every time."""
    chance = random.Random(21)
    done = 0
    for path in paths(corpus):
        file = path.read_bytes()
        if len(file) > 60_000:
            continue
        for asked in (NAMED, REFERRED, changes(remove=(0x00081140, 0x00081030, 0x00100010))):
            wrong = bytearray(file)
            for _ in range(chance.randrange(1, 6)):
                wrong[chance.randrange(132, len(file))] = chance.choice((0, 0xFF, chance.randrange(256)))
            place = locate(bytes(wrong))
            if place is not None and not place.deflated:
                done += survives(bytes(wrong), asked)
    assert done > 200


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.name)
def test_everything_at_once_survives(writer: Writer) -> None:
    for asked in (NAMED, REFERRED):
        assert survives(rich(writer), asked)
    result = edited(rich(writer), REFERRED)
    assert result is not None
    assert result.data.count(b"2.25.5555555") == 5  # 2 codes, 2 nests, and its own


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.name)
def test_deep_nests_are_followed(writer: Writer, undefined: bool) -> None:
    file = simple(nested(writer, 3000, undefined=undefined), writer=writer)
    result = edited(file, REFERRED)
    assert result is not None
    assert describe(result.data).verdict == Verdict.DICOM
    back = edited(result.data, changes(uids={"2.25.5555555": SOP}))
    assert back is not None
    assert nested(writer, 3000, undefined=undefined) in back.data


def test_lengths_that_lie_are_refused() -> None:
    broken = [
        simple(EXPLICIT.header(0x00204000, "UT", 0x7FFFFFFF)),
        simple(EXPLICIT.header(REFERENCED, "SQ", 0xFFFFFF00) + EXPLICIT.item()),
        simple(EXPLICIT.header(REFERENCED, "SQ", UNDEFINED) + EXPLICIT.item(length=0xFFFFFF00)),
        simple(EXPLICIT.header(REFERENCED, "SQ", UNDEFINED) + EXPLICIT.tag(0xFFFEE000) + pack("<I", UNDEFINED)),
    ]
    for file in broken:
        with pytest.raises(Refused):
            edited(file, NAMED)


def test_references_that_cannot_be_read_are_refused() -> None:
    rubbish = EXPLICIT.header(REFERENCED, "SQ", 40) + EXPLICIT.item() + b"?" * 12 + SOP.encode() + b"?" * 13
    file = simple(rubbish + EXPLICIT.element(0x7FE00010, "OW", bytes(2000)))
    with pytest.raises(Refused, match="refer"):
        edited(file, REFERRED)
    with pytest.raises(Refused, match="text"):
        edited(file, NAMED)
    result = edited(file, changes({NAME: ("ROE^JANE",)}))
    assert result is not None
    assert rubbish in result.data


def test_a_history_that_is_none_is_refused() -> None:
    for element in (EXPLICIT.element(HISTORY, "LO", b"text"), EXPLICIT.element(HISTORY, "UN", b"text" * 4)):
        with pytest.raises(Refused, match="Original"):
            edited(simple(element), changes({NAME: ("ROE^JANE",)}))


def test_large_values_are_neither_read_nor_copied() -> None:
    size = 64 << 20
    file = simple(EXPLICIT.header(0x7FE00010, "OW", size)) + bytes(size)
    place = locate(file)
    assert place is not None
    tracemalloc.start()
    try:
        pieces = edit(file, place, lambda start, end: pytest.fail(f"{end - start} bytes are read"), NAMED)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert pieces is not None
    assert most < 1 << 20


def test_large_texts_are_read_to_be_converted_and_kept_as_ranges() -> None:
    text = b"M\xfcller " * 200_000
    before = EXPLICIT.element(CHARACTER_SET, "CS", "ISO_IR 100")
    file = simple(EXPLICIT.element(0x0040A160, "UT", text), before=before)
    result = edited(file, changes({NAME: ("山田^太郎",)}))
    assert result is not None
    assert text.decode("latin_1").encode() in result.data
    removed = edited(file, changes(remove=(0x0040A160,)))
    assert isinstance(removed, Edited)
    assert text in removed.ranges
