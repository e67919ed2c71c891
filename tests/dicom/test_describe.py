"""Verdicts: what is an instance, what is cut off, what lacks its UIDs, what is no DICOM at all."""

import gzip
import mmap
import random
import zlib

import pytest

from dicomfs.dicom.describe import Verdict, describe
from tests.dicom.build import (
    BIG,
    BIG_UID,
    DEFLATED_UID,
    EXPLICIT,
    EXPLICIT_UID,
    IMPLICIT,
    IMPLICIT_UID,
    JPEG_UID,
    SERIES,
    SOP,
    STUDY,
    UNDEFINED,
    WRITERS,
    Writer,
    deflated,
    meta,
    part10,
)
from tests.dicom.tiles import assert_tiles

INSTANCE = EXPLICIT.identity()
TEXT = EXPLICIT.element(0x00204000, "LT", "x" * 40)
PIXELS = EXPLICIT.element(0x7FE00010, "OW", b"\1\2" * 600)
ICON = EXPLICIT.sequence(0x00880200, [EXPLICIT.item(EXPLICIT.element(0x00280010, "US", 8))], undefined=True)


def reads_as(verdict: Verdict, data: bytes) -> None:
    described = describe(data)
    assert_tiles(described.spans, data)
    assert (described.verdict, bool(described.reason)) == (verdict, verdict != Verdict.DICOM), described.reason
    if verdict == Verdict.DICOM:
        assert described.attributes is not None
        assert described.attributes.study["StudyInstanceUID"] == STUDY
        assert described.attributes.series["SeriesInstanceUID"] == SERIES
        assert described.attributes.instance["SOPInstanceUID"] == SOP


INSTANCES = {
    **{f"{writer.name}": part10(writer.identity(), writer.transfer_syntax) for writer in WRITERS},
    **{f"{writer.name}, no meta": writer.identity() for writer in WRITERS},
    "implicit big endian, no meta": Writer("", "", implicit=True, big=True).identity(),
    "deflated": part10(deflated(INSTANCE), DEFLATED_UID),
    "deflated, followed by padding": part10(deflated(INSTANCE) + b"\0", DEFLATED_UID),
    "deflated, with a zlib head": part10(zlib.compress(INSTANCE), DEFLATED_UID),
    "deflated, with a gzip head": part10(gzip.compress(INSTANCE), DEFLATED_UID),
    "says deflated, is not": part10(INSTANCE + PIXELS, DEFLATED_UID),
    "says implicit, is explicit": part10(INSTANCE + PIXELS, IMPLICIT_UID),
    "says explicit, is implicit": part10(IMPLICIT.identity(), EXPLICIT_UID),
    "says big endian, is little": part10(INSTANCE, BIG_UID),
    "says little endian, is big": part10(BIG.identity(), EXPLICIT_UID),
    "says JPEG, is implicit": part10(IMPLICIT.identity(), JPEG_UID),
    "no transfer syntax": part10(IMPLICIT.identity(), None),
    "DICM at the start": b"DICM" + meta(EXPLICIT_UID) + INSTANCE,
    "meta at the start": meta(EXPLICIT_UID) + INSTANCE,
    "DICM and no meta": b"\0" * 128 + b"DICM" + INSTANCE,
    "meta length too small": b"\0" * 128 + b"DICM" + meta(EXPLICIT_UID, group_length=4) + INSTANCE,
    "meta length too large": b"\0" * 128 + b"DICM" + meta(EXPLICIT_UID, group_length=4000) + INSTANCE,
    "preamble of a TIFF": part10(INSTANCE, preamble=b"II*\0".ljust(128, b"\1")),
    "line end after it": part10(INSTANCE + b"\r\n"),
    "zeros after it": part10(INSTANCE + bytes(5000)),
    "zeros after it, implicit": part10(IMPLICIT.identity() + bytes(5000), IMPLICIT_UID),
    "seven zeros after it": part10(INSTANCE + bytes(7)),
    "trailing padding element": part10(INSTANCE + PIXELS + EXPLICIT.element(0xFFFCFFFC, "OB", bytes(300))),
    "text after the pixels": part10(INSTANCE + PIXELS + b"<!-- served by a gateway -->\n"),
    "noise after the pixels": part10(INSTANCE + PIXELS + bytes(range(200, 256))),
    "noise after the pixels, implicit": part10(
        IMPLICIT.identity() + IMPLICIT.element(0x7FE00010, "OW", b"ab" * 20) + b"\1\0\2\0\xff\xff\0\0rest", IMPLICIT_UID
    ),
    "sequence of undefined length": part10(INSTANCE + ICON),
    "stray delimiters": part10(EXPLICIT.end() + INSTANCE + EXPLICIT.end() + PIXELS),
    "item delimiter missing": part10(
        INSTANCE + EXPLICIT.header(0x00880200, "SQ", UNDEFINED) + EXPLICIT.tag(0xFFFEE000) + EXPLICIT.u32(UNDEFINED)
        + EXPLICIT.element(0x00280010, "US", 8) + EXPLICIT.end() + PIXELS
    ),
    "sequence delimiter missing": part10(
        EXPLICIT.header(0x00080006, "SQ", UNDEFINED) + EXPLICIT.item(b"", undefined=True) + INSTANCE
    ),
    "odd lengths": part10(EXPLICIT.element(0x00080005, "CS", b"ISO_IR 192") + EXPLICIT.identity(STUDY, SERIES, SOP)
                          + EXPLICIT.element(0x00204000, "LT", b"odd") + PIXELS),
    "unknown VR, short": part10(EXPLICIT.element(0x00080008, "QQ", b"abcd") + INSTANCE),
    "blank VR": part10(EXPLICIT.element(0x00080008, "  ", b"abcd") + INSTANCE),
    "VR of a later edition": part10(
        EXPLICIT.tag(0x00080008) + b"ZZ\0\0" + EXPLICIT.u32(4) + b"abcd" + INSTANCE
    ),
    "one implicit element": part10(
        EXPLICIT.element(0x00080005, "CS", "ISO_IR 192") + IMPLICIT.element(0x00080008, "CS", b"abcd") + INSTANCE
    ),
    "empty text and numbers": part10(INSTANCE + EXPLICIT.element(0x00280010, "US", b"")),
    "offset table": part10(INSTANCE + EXPLICIT.encapsulated([b"a" * 300], EXPLICIT.u32(0)), JPEG_UID),
    "a fragment's pad is not counted": part10(
        INSTANCE + EXPLICIT.header(0x7FE00010, "OB", UNDEFINED) + EXPLICIT.item() + EXPLICIT.item(b"a" * 301) + b"\0"
        + EXPLICIT.item(b"b" * 300) + EXPLICIT.end(), JPEG_UID
    ),
    "fragments not closed, more elements": part10(
        INSTANCE + EXPLICIT.encapsulated([b"a" * 300], closed=False) + EXPLICIT.element(0xFFFCFFFC, "OB", b"\0\0"),
        JPEG_UID,
    ),
}  # fmt: skip

LONG_TEXT = EXPLICIT.element(0x00204000, "LT", b"", 400)
CUT = {
    "in the meta information": part10(b"")[:-3],
    "in a value": part10(INSTANCE + TEXT)[:-1],
    "in a value, implicit": part10(IMPLICIT.identity() + IMPLICIT.element(0x00204000, "LT", "x"), IMPLICIT_UID)[:-1],
    "in a value, big endian": part10(BIG.identity() + BIG.element(0x00204000, "LT", "x" * 9), BIG_UID)[:-1],
    "before a value": part10(INSTANCE + LONG_TEXT),
    "in the UIDs": part10(INSTANCE)[:-2],
    "in the pixel data": part10(INSTANCE + PIXELS)[:-2],
    "in a header": part10(INSTANCE + TEXT)[: -len(TEXT) + 6],
    "in a long header": part10(INSTANCE + PIXELS)[: -len(PIXELS) + 10],
    "in padding after the pixels": part10(INSTANCE + PIXELS + EXPLICIT.element(0xFFFCFFFC, "OB", bytes(9)))[:-1],
    "before an item": part10(INSTANCE + EXPLICIT.header(0x00880200, "SQ", UNDEFINED)),
    "in an item": part10(INSTANCE + ICON)[:-16],
    "before a sequence delimiter": part10(INSTANCE + ICON)[:-8],
    "within a sequence delimiter": part10(INSTANCE + ICON)[:-3],
    "in a fragment": part10(INSTANCE + EXPLICIT.encapsulated([b"a" * 300]), JPEG_UID)[:-9],
    "between fragments": part10(INSTANCE + EXPLICIT.encapsulated([b"a" * 300]), JPEG_UID)[:-8],
    "and zeros follow": part10(INSTANCE + EXPLICIT.encapsulated([b"a" * 300], closed=False) + bytes(512), JPEG_UID),
    "in a deflated stream": part10(deflated(INSTANCE + TEXT + PIXELS), DEFLATED_UID)[:-4],
    "damage in a deflated stream": part10(deflated(INSTANCE + TEXT + bytes(range(256)) * 300)[:-90] + b"\xff" * 90,
                                          DEFLATED_UID),
    "in what was deflated": part10(deflated((INSTANCE + TEXT)[:-2]), DEFLATED_UID),
    "a huge length": part10(INSTANCE + EXPLICIT.element(0x00090010, "UT", b"abc", 0xFFFFFFFE)),
    "a defined sequence": part10(INSTANCE + EXPLICIT.sequence(0x00880200, [EXPLICIT.item(TEXT)]))[:-1],
}  # fmt: skip

NO_UIDS = {
    "nothing after DICM": bytes(128) + b"DICM",
    "meta only": part10(b""),
    "no study": part10(EXPLICIT.element(0x00080018, "UI", SOP) + EXPLICIT.element(0x0020000E, "UI", SERIES)),
    "blank series": part10(EXPLICIT.identity(series="  ")),
    "only zeros for a SOP instance": part10(EXPLICIT.identity(sop="\0\0")),
    "noise after DICM": bytes(128) + b"DICM" + bytes(range(256)) * 9,
    "deflated noise": part10(b"\xff" * 999, DEFLATED_UID),
    "query": EXPLICIT.element(0x00080005, "CS", "ISO_IR 192") + EXPLICIT.element(0x00080052, "CS", "STUDY "),
}

NOT_DICOM = {
    "empty": b"",
    "one byte": b"\x08",
    "zeros": bytes(4000),
    "text": b"Dear reader,\n" * 60,
    "zip": b"PK\3\4\x14\0\0\0\x08\0" + bytes(range(200)),
    "png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(300),
    "elf": b"\x7fELF\2\1\1" + bytes(300),
    "starts like group 8, then text": b"\x08\0Hello, this is no DICOM." * 9,
    "starts like group 8, then noise": b"\x08\0\x05\0" + bytes(range(255, 0, -1)),
    "one header and nothing more": b"\x08\0\x05\0CS\xff\xff",
    "TGA": b"\0\0\2\0\0\0\0\0\0\0\0\0\x40\0\x40\0\x18\0" + bytes(4096),
    "cursor": b"\0\0\2\0\1\0\x20\x20\0\0\0\0\0\0\xa8\x10\0\0\x16\0\0\0" + bytes(4096),
    "1 MiB of noise": b"\xab\xcd\xef" * 400_000,
}


@pytest.mark.parametrize("data", INSTANCES.values(), ids=INSTANCES.keys())
def test_an_instance_is_recognised_however_it_is_written(data: bytes) -> None:
    reads_as(Verdict.DICOM, data)


@pytest.mark.parametrize("data", CUT.values(), ids=CUT.keys())
def test_a_file_that_ends_too_early_is_cut_off(data: bytes) -> None:
    reads_as(Verdict.CUT_OFF, data)


@pytest.mark.parametrize("data", NO_UIDS.values(), ids=NO_UIDS.keys())
def test_an_instance_needs_its_uids(data: bytes) -> None:
    reads_as(Verdict.NO_UIDS, data)


@pytest.mark.parametrize("data", NOT_DICOM.values(), ids=NOT_DICOM.keys())
def test_other_files_are_not_dicom(data: bytes) -> None:
    reads_as(Verdict.NOT_DICOM, data)
    assert describe(data).attributes is None


@pytest.mark.parametrize(
    "data",
    [
        bytes(128) + b"DICM" + meta(EXPLICIT_UID, sop_class="1.2.840.10008.1.3.10"),
        part10(EXPLICIT.element(0x00041130, "CS", "DISK") + EXPLICIT.sequence(0x00041220, [EXPLICIT.item(TEXT)])),
        part10(IMPLICIT.element(0x00041130, "CS", "DISK") + IMPLICIT.sequence(0x00041220, [], undefined=True),
               IMPLICIT_UID),
        part10(BIG.element(0x00041130, "CS", "DISK") + BIG.sequence(0x00041220, []), BIG_UID),
        part10(EXPLICIT.element(0x00041130, "CS", "DISK")
               + EXPLICIT.sequence(0x00041220, [EXPLICIT.item(TEXT)] * 20_000)),
    ],
    ids=["by its class", "by its records", "undefined length", "big endian", "large"],
)  # fmt: skip
def test_a_dicomdir_is_told_apart(data: bytes) -> None:
    reads_as(Verdict.DICOMDIR, data)


def test_the_reason_says_where_and_which_element() -> None:
    data = part10(INSTANCE + PIXELS)
    start = data.index(PIXELS)
    described = describe(data[:-200])
    assert described.reason == f"7FE0,0010 at byte {start} declares 1200 bytes, more than are left"


def test_a_damaged_deflated_stream_is_read_as_far_as_it_goes() -> None:
    stream = deflated(INSTANCE + EXPLICIT.element(0x7FE00010, "OW", random.Random(1).randbytes(400_000)))
    data = part10(stream[:200_000] + bytes([stream[200_000] ^ 1]) + stream[200_001:-9], DEFLATED_UID)
    described = describe(data)
    assert described.verdict == Verdict.CUT_OFF
    assert described.attributes is not None
    assert described.attributes.study["StudyInstanceUID"] == STUDY


def test_the_reason_names_what_is_missing() -> None:
    described = describe(part10(EXPLICIT.element(0x00080018, "UI", SOP)))
    assert described.reason == "no StudyInstanceUID and no SeriesInstanceUID"


@pytest.mark.parametrize("wrap", [bytes, memoryview, bytearray], ids=["bytes", "memoryview", "bytearray"])
def test_any_buffer_will_do(wrap: type) -> None:
    data = part10(INSTANCE + PIXELS)
    assert describe(wrap(data)) == describe(data)


@pytest.mark.parametrize("name", ["explicit", "implicit", "big", "deflated", "offset table"])
def test_a_mapped_file_will_do(name: str) -> None:
    data = INSTANCES[name]
    with mmap.mmap(-1, len(data)) as mapped:
        mapped[:] = data
        described = describe(mapped)  # and lets go of it: a mapping that is still in use cannot be closed
    assert described == describe(data)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (part10(INSTANCE), EXPLICIT_UID),
        (INSTANCE, EXPLICIT_UID),
        (IMPLICIT.identity(), IMPLICIT_UID),
        (BIG.identity(), BIG_UID),
        (part10(INSTANCE, JPEG_UID + "\0\0"), JPEG_UID),
        (part10(IMPLICIT.identity(), JPEG_UID), JPEG_UID),
    ],
    ids=["declared", "found explicit", "found implicit", "found big", "padded", "declared wrongly"],
)
def test_the_transfer_syntax_is_the_declared_one_or_the_one_found(data: bytes, expected: str) -> None:
    described = describe(data)
    assert described.transfer_syntax == expected
    assert described.attributes is not None
    assert described.attributes.instance["TransferSyntaxUID"] == expected
