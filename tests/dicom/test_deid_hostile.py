"""Identifiers hidden where an honest file has none: they are left behind, or the instance is withheld."""

from struct import pack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomfs.dicom.deidentify import Profile, Refused, deidentify
from dicomfs.dicom.part10 import locate
from dicomfs.errors import Damaged
from tests.dicom.build import BIG, EXPLICIT, IMPLICIT, JPEG_UID, UNDEFINED, WRITERS, Writer
from tests.dicom.deid_files import PSEUDONYMS, deidentified
from tests.dicom.test_deid_rules import instance

SECRET = b"SECRET^JANE "
PROFILES = (
    "basic",
    "basic,clean-graphics,clean-structured-content,clean-descriptors,modified-dates",
    "basic,full-dates,retain-patient-characteristics,retain-device,retain-uids,retain-safe-private,retain-institution",
)
TRAILING = 0xFFFCFFFC
CODE = 0x00082228
"""A sequence that no profile takes out."""


def leaks(file: bytes, profile: str = "basic", secret: bytes = SECRET) -> bool:
    try:
        return secret.strip() in deidentified(file, profile).data
    except Refused as refused:
        return secret.strip().decode("latin_1") in refused.reason


def nested(writer: Writer, inner: bytes, *, undefined: bool = False) -> bytes:
    return writer.sequence(CODE, [writer.item(inner, undefined=undefined)], undefined=undefined)


def hidden(writer: Writer) -> dict[str, bytes]:
    """Return files of one encoding, by where the secret is."""
    element, named = writer.element, writer.element(0x00100010, "PN", SECRET)
    private = element(0x00190010, "LO", "HIDDEN") + writer.sequence(0x00191001, [writer.item(named)])
    private_unknown = element(0x00190010, "LO", "HIDDEN") + element(0x00191001, "UN", SECRET)
    return {
        "a private sequence": instance(private, writer=writer),
        "a private sequence of undefined length": instance(
            writer.sequence(0x00191001, [writer.item(named, undefined=True)], undefined=True), writer=writer),
        "private elements within items": instance(nested(writer, private_unknown), writer=writer),
        "a private creator": instance((0x00190010, "LO", SECRET), (0x00191023, "DS", "1"), writer=writer),
        "private elements of nobody": instance((0x00190001, "LO", SECRET), (0x00191099, "LO", SECRET), writer=writer),
        "an item of undefined length": instance(nested(writer, named, undefined=True), writer=writer),
        "an item of defined length": instance(nested(writer, named), writer=writer),
        "many items": instance(writer.sequence(CODE, [writer.item(named)] * 20), writer=writer),
        "trailing padding": instance((TRAILING, "OB", SECRET), writer=writer),
        "elements after the pixels": instance((0x7FE10010, "LO", "X"), (0x7FE11001, "LO", SECRET), writer=writer),
        "bytes after the data set": instance(writer=writer, after=SECRET * 3),
        "zeros and bytes after the data set": instance(writer=writer, after=b"\0" * 16 + SECRET),
        "the preamble": instance(writer=writer, preamble=SECRET.ljust(128, b"\0")),
        "a duplicate before": instance(element(0x00080070, "LO", SECRET) + element(0x00080070, "LO", "ACME"), named,
                                       writer=writer),
        "a duplicate after": instance(element(0x00081090, "LO", "ACME"), named, writer=writer,
                                      after=element(0x00081090, "LO", SECRET)),
        "names twice": instance(named + named, writer=writer),
        "the wrong order": instance(writer=writer, after=named),
        "a group of commands": instance(element(0x00001000, "UI", SECRET), writer=writer),
        "meta information within the data set": instance((0x00020016, "AE", SECRET), writer=writer),
        "an unknown element": instance((0x00081FF1, "LO", SECRET), writer=writer),
        "a number": instance((0x00280010, "US", SECRET), writer=writer),
        "a decimal": instance((0x00180050, "DS", SECRET), writer=writer),
        "an integer": instance((0x00200013, "IS", SECRET), writer=writer),
        "a code": instance((0x00180015, "CS", SECRET), writer=writer),
        "a date": instance((0x00080020, "DA", SECRET), writer=writer),
        "a time": instance((0x00080030, "TM", SECRET), writer=writer),
        "an age": instance((0x00101010, "AS", SECRET), writer=writer),
        "a UID": instance((0x00200052, "UI", SECRET), writer=writer),
        "a UID behind another": instance((0x00200052, "UI", b"1.2.3\\" + SECRET), writer=writer),
        "a UID behind a NUL": instance((0x00200052, "UI", b"1.2.3\0" + SECRET + b"\0"), writer=writer),
        "the SOP Instance UID": instance((0x00080018, "UI", SECRET), writer=writer),
        "the SOP Class UID": instance((0x00080016, "UI", b"1.2.840.10008.5.1.4.1.1.2\\" + SECRET + b"\0"),
                                      writer=writer),
        "the character set": instance((0x00080005, "CS", SECRET), writer=writer),
        "text behind a NUL": instance((0x00080070, "LO", b"ACME\0\0" + SECRET), writer=writer),
        "comments": instance((0x00204000, "LT", SECRET), writer=writer),
        "text of no rule": instance((0x00281055, "LO", SECRET), named, writer=writer),
        "an icon": instance(writer.sequence(0x00880200, [writer.item(element(0x7FE00010, "OW", SECRET))]),
                            writer=writer),
        "an ICC profile": instance((0x00282000, "OB", SECRET), writer=writer),
        "a table of text": instance((0x00281201, "LT", SECRET), writer=writer),
        "pixels within an item": instance(nested(writer, element(0x7FE00010, "OW", SECRET)), writer=writer),
        "a longer pixel data": instance(pixels=b"\1\2\3\4\5\6\7\0" + SECRET, writer=writer),
        "an overlay": instance((0x60003000, "OW", SECRET), writer=writer),
        "a curve": instance((0x50003000, "OW", SECRET), writer=writer),
        "a signature": instance(writer.sequence(0xFFFAFFFA, [writer.item(element(0x04000115, "OB", SECRET))]),
                                writer=writer),
        "original attributes": instance(writer.sequence(0x04000561, [writer.item(named)]), writer=writer),
        "an unknown VR": instance(writer.tag(0x00080070) + b"ZZ" + pack("<H", len(SECRET)) + SECRET, named,
                                   writer=writer),
        "a length that lies": instance(writer=writer, after=writer.header(0x00204000, "LT", 5000) + SECRET),
        "rubbish within a sequence": instance(writer.header(CODE, "SQ", len(SECRET)) + SECRET, writer=writer),
        "rubbish behind an item": instance(
            writer.header(CODE, "SQ", 8 + len(SECRET)) + writer.item() + SECRET, writer=writer),
        "the length of a delimiter": instance(
            writer.header(CODE, "SQ", UNDEFINED) + writer.item(undefined=True) + writer.tag(0xFFFEE0DD) + SECRET[:4],
            writer=writer),
    }  # fmt: skip


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.name)
def test_hidden_identifiers_stay_behind(writer: Writer, profile: str) -> None:
    found = {where for where, file in hidden(writer).items() if leaks(file, profile)}
    assert found == set()


def test_unknown_vrs_are_judged_by_the_tag() -> None:
    file = instance((0x00100010, "UN", SECRET), (0x00180050, "UN", b"2.5 "), (0x00081030, "UN", SECRET))
    found = deidentified(file).read()
    assert found.SliceThickness == 2.5
    assert "StudyDescription" not in found
    sequence = (
        EXPLICIT.header(CODE, "UN", UNDEFINED)
        + IMPLICIT.item(IMPLICIT.element(0x00100010, "PN", SECRET))
        + IMPLICIT.end()
    )
    assert not leaks(instance(sequence))


def test_reserved_bytes_of_headers_are_written_anew() -> None:
    table = EXPLICIT.tag(0x00281201) + b"OW" + b"JD" + pack("<I", 4) + b"\1\2\3\4"
    found = deidentified(instance(table))
    assert b"OWJD" not in found.data
    assert found.read().RedPaletteColorLookupTableData == b"\1\2\3\4"


def test_implicit_items_within_explicit_data_are_understood() -> None:
    inner = IMPLICIT.element(0x00080100, "SH", "T-1000") + IMPLICIT.element(0x00100010, "PN", SECRET)
    sequence = EXPLICIT.sequence(CODE, [EXPLICIT.item(inner)])
    assert not leaks(instance(sequence))
    assert deidentified(instance(sequence)).read().PrimaryAnatomicStructureSequence[0].CodeValue == "T-1000"


def test_unknown_sequences_in_big_endian_are_turned() -> None:
    inner = IMPLICIT.element(0x00280010, "US", b"\2\0") + IMPLICIT.element(0x00100010, "PN", SECRET)
    sequence = BIG.header(CODE, "UN", UNDEFINED) + IMPLICIT.item(inner) + IMPLICIT.end()
    file = instance(sequence, writer=BIG)
    assert not leaks(file)
    assert deidentified(file).read().PrimaryAnatomicStructureSequence[0].Rows == 2


# Compressed pixels ---------------------------------------------------------------------------------

SEGMENTS = b"\xff\xdb\0\x04ab\xff\xc0\0\x04cd"
SCAN = b"\xff\xda\0\x04ef\1\2\3\4\xff\xd9"


def jpeg(*segments: bytes, before: bytes = b"\xff\xd8", after: bytes = b"") -> bytes:
    return before + b"".join(segments) + SEGMENTS + SCAN + after


def segment(marker: int, content: bytes) -> bytes:
    return bytes((0xFF, marker)) + pack(">H", len(content) + 2) + content


def compressed(*fragments: bytes, table: bytes = b"", syntax: str = JPEG_UID, frames: int = 1) -> bytes:
    pixels = EXPLICIT.encapsulated(fragments, table)
    return instance((0x00280008, "IS", str(frames)), pixels, transfer_syntax=syntax)


JFIF = segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0")


@pytest.mark.parametrize(
    "stream",
    [
        jpeg(),
        jpeg(JFIF),
        jpeg(JFIF, segment(0xEE, b"Adobe\0\x64\0\0\0\0\0")),
        jpeg(segment(0xFE, b"LEAD Technologies Inc. V1.01\0")),
        jpeg(segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(9000))),
        jpeg(segment(0xFE, b"\0\0")),
        jpeg(after=b"\0"),
    ],
)
def test_streams_without_text_are_shown(stream: bytes) -> None:
    found = deidentified(compressed(stream))
    assert found.ranges == [stream]
    assert found.read().file_meta.TransferSyntaxUID == JPEG_UID


@pytest.mark.parametrize(
    "stream",
    [
        jpeg(segment(0xFE, SECRET)), jpeg(JFIF, segment(0xFE, SECRET)), jpeg(segment(0xE1, b"Exif\0\0" + SECRET)),
        jpeg(segment(0xED, b"Photoshop 3.0\0")), jpeg(segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\2\2" + SECRET)),
        jpeg(segment(0xE2, bytes(60000)), segment(0xFE, SECRET)), jpeg(after=SECRET), jpeg(before=SECRET + b"\xff\xd8"),
        jpeg(segment(0xFE, b"LEAD Technologies Inc. V1.01\0" + SECRET)), jpeg(before=b"\xff\xd8" + SECRET),
        jpeg(*[segment(0xE2, bytes(60000))] * 50), b"",
    ],
)  # fmt: skip
def test_streams_with_text_are_withheld(stream: bytes) -> None:
    with pytest.raises(Refused):
        deidentified(compressed(stream))


def test_comments_of_later_frames_are_found() -> None:
    good, bad = jpeg(), jpeg(segment(0xFE, SECRET))
    with pytest.raises(Refused, match="comments"):
        deidentified(compressed(good, good, bad, frames=3))
    with pytest.raises(Refused, match="follows"):
        deidentified(compressed(good + b"JANE", good, frames=2))
    for rest in (SECRET, good[2:]):
        with pytest.raises(Refused, match="not what"):
            deidentified(compressed(good, rest, frames=2))


def test_streams_of_several_fragments_are_shown() -> None:
    stream = jpeg(JFIF) + b"\0"
    parts = stream[:40], stream[40:]
    assert deidentified(compressed(*parts, *parts, frames=2)).ranges == [*parts, *parts]


def codestream(*segments: bytes) -> bytes:
    start = b"\xff\x4f" + segment(0x51, bytes(40)) + segment(0x52, bytes(8)) + b"".join(segments)
    return start + segment(0x90, bytes(8)) + b"\xff\x93" + bytes(20) + b"\xff\xd9"


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.201"])
def test_comments_of_jpeg_2000_are_found(syntax: str) -> None:
    fine = codestream(segment(0x64, b"\0\1Created by OpenJPEG version 2.5.0"))
    assert deidentified(compressed(fine, syntax=syntax)).ranges == [fine]
    for content in (b"\0\1" + SECRET, b"\0\0" + SECRET):
        with pytest.raises(Refused, match="comments"):
            deidentified(compressed(codestream(segment(0x64, content)), syntax=syntax))
    boxed = b"\0\0\0\x0cjP  \r\n\x87\n" + pack(">I", 8 + len(SECRET)) + b"uuid" + SECRET + fine
    with pytest.raises(Refused):
        deidentified(compressed(boxed, syntax=syntax))


def test_offset_tables_are_kept_if_they_are_some() -> None:
    stream = jpeg()
    table = pack("<II", 0, len(stream) + 8)
    assert table in deidentified(compressed(stream, stream, table=table, frames=2)).own
    own = deidentified(compressed(stream, stream, table=b"\0\0\0\0" + SECRET, frames=2)).own
    assert SECRET not in own
    assert deidentified(compressed(stream, stream, table=b"\0\0\0\0" + SECRET, frames=2)).ranges == [stream, stream]


def test_extended_offset_tables_are_kept_if_they_are_some() -> None:
    stream = jpeg()
    pixels = EXPLICIT.encapsulated([stream, stream])
    right = pack("<QQ", 0, len(stream) + 8), pack("<QQ", len(stream), len(stream))
    wrong = pack("<QQ", 0, len(stream) + 8), pack("<Q", len(stream)) + SECRET[:8]
    for (table, lengths), there in ((right, True), (wrong, False)):
        elements = (0x7FE00001, "OV", table), (0x7FE00002, "OV", lengths), (0x00280008, "IS", "2")
        found = deidentified(instance(*elements, pixels, transfer_syntax=JPEG_UID))
        assert ("ExtendedOffsetTable" in found.read()) is there
        assert SECRET[:8] not in found.own


@pytest.mark.parametrize(
    "syntax", ["1.2.840.10008.1.2.4.103", "1.2.840.10008.1.2.4.94", "1.2.3.4", "1.2.840.10008.1.2"]
)
def test_pixels_that_cannot_be_looked_into_are_withheld(syntax: str) -> None:
    with pytest.raises(Refused, match="TransferSyntaxUID"):
        deidentified(compressed(jpeg(), syntax=syntax))


def test_pixels_that_are_elsewhere_are_withheld() -> None:
    with pytest.raises(Refused, match="somewhere else"):
        deidentified(instance((0x00287FE0, "UR", "http://a.b/c"), transfer_syntax="1.2.840.10008.1.2.4.94"))


def test_what_cannot_be_read_is_told() -> None:
    file = compressed(jpeg())
    found = locate(file)
    assert found is not None

    def read(_start: int, _end: int) -> bytes:
        raise Damaged("a byte changed")

    with pytest.raises(Damaged):
        deidentify(file, found, read, "x", Profile.parse("basic"), PSEUDONYMS)


# Large values --------------------------------------------------------------------------------------


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.name)
def test_large_samples_are_ranges_and_large_texts_are_not_kept(writer: Writer) -> None:
    samples = bytes(range(256)) * 4100
    text = b"Jane " * 210_000
    waveform = (
        writer.element(0x54001010, "OW", samples) if not writer.implicit else writer.element(0x00281201, "OW", samples)
    )
    comment = writer.element(0x00204000, "LT" if writer.implicit else "UT", text)
    code = writer.element(0x00080119, "UC", text)
    private = writer.element(0x00190010, "LO", "Jane") + writer.element(0x00191001, "OB", text)
    file = instance(nested(writer, code + waveform), comment, private, writer=writer)
    for profile in PROFILES:
        found = deidentified(file, profile)
        assert samples in found.ranges
        assert len(found.own) < 5000
        assert b"Jane" not in found.data
        found.read()


def test_large_texts_are_not_taken_for_samples() -> None:
    text = b"Jane " * 210_000
    found = deidentified(instance((0x00281201, "UT", text), (0x00282000, "UC", text)))
    assert b"Jane" not in found.data
    assert found.read().RedPaletteColorLookupTableData is None


def test_large_sequences_are_looked_into() -> None:
    named = EXPLICIT.element(0x00080104, "LO", "x" * 60) + EXPLICIT.element(0x00100010, "PN", SECRET)
    for undefined in (False, True):
        items = [EXPLICIT.item(named, undefined=undefined)] * 12_000
        file = instance(EXPLICIT.sequence(CODE, items, undefined=undefined))
        assert not leaks(file)
        assert len(deidentified(file).read().PrimaryAnatomicStructureSequence) == 12_000


# Kinds ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sop_class", "modality"),
    [
        ("1.2.840.10008.5.1.4.1.1.7", "CT"),
        ("1.2.840.10008.5.1.4.1.1.7.2", "CT"),
        ("1.2.840.10008.5.1.4.1.1.6.1", "US"),
        ("1.2.840.10008.5.1.4.1.1.3.1", "US"),
        ("1.2.840.10008.5.1.4.1.1.77.1.4", "XC"),
        ("1.2.840.10008.5.1.4.1.1.77.1.6", "SM"),
        ("1.2.840.10008.5.1.4.1.1.77.1.1.1", "ES"),
        ("1.2.840.10008.5.1.4.1.1.2", "OT"),
        ("1.2.840.10008.5.1.4.1.1.2", "us"),
    ],
)
def test_kinds_with_text_in_the_pixels_are_withheld_unless_they_say_no(sop_class: str, modality: str) -> None:
    with pytest.raises(Refused, match="burned in"):
        deidentified(instance(sop_class=sop_class, modality=modality))
    assert deidentified(instance((0x00280301, "CS", "NO"), sop_class=sop_class, modality=modality)).ranges
    with pytest.raises(Refused, match="burned"):
        deidentified(instance((0x00280301, "CS", "YES"), sop_class=sop_class, modality=modality))


@pytest.mark.parametrize(
    "element",
    [
        (0x00280301, "CS", "YES"),
        (0x00280301, "CS", "yes"),
        (0x00280301, "CS", "MAYBE"),
        (0x00280302, "CS", "YES"),
        (0x00080008, "CS", r"DERIVED\SECONDARY\SCREEN SAVE"),
        (0x00080008, "CS", r"ORIGINAL\PRIMARY\LABEL"),
        (0x00080064, "CS", "SD"),
        (0x00080064, "CS", "WSD"),
        (0x0008103E, "LO", "Patient Protocol"),
        (0x0008103E, "LO", "Dose Report"),
        (0x60000102, "US", 12),
        (0x00080016, "UI", "1.2.840.10008.5.1.4.1.1.104.1"),
        (0x00080016, "UI", "1.2.840.10008.5.1.4.1.1.66"),
        (0x00080016, "UI", "1.2.840.10008.5.1.4.1.1.88.11"),
        (0x00080016, "UI", "1.2.840.10008.5.1.4.1.1.11.1"),
        (0x00080016, "UI", "1.2.840.10008.1.3.10"),
        (0x00080016, "UI", "1.3.12.2.1107.5.9.1"),
        (0x00080016, "UI", ""),
        (0x00280010, "US", 3),
        (0x00280100, "US", 0),
    ],
)
def test_what_may_show_who_it_is_is_withheld(element: tuple[int, str, str]) -> None:
    with pytest.raises(Refused) as refused:
        deidentified(instance(element))
    assert str(element[2]) not in refused.value.reason.split() or element[2] in ("", "YES", 3, 0)


@pytest.mark.parametrize("kind", ["9.4.1", "6", "201.1", "501.1", "8", "129", "7.5"])
def test_classes_are_withheld(kind: str) -> None:
    with pytest.raises(Refused):
        deidentified(instance(sop_class=f"1.2.840.10008.5.1.4.1.1.{kind}"))


def test_more_names_than_can_be_looked_for_are_withheld() -> None:
    names = [
        EXPLICIT.item(EXPLICIT.element(0x00100010, "PN", "Doe" + "abcdefghij"[i % 10] * (3 + i // 10)))
        for i in range(1100)
    ]
    with pytest.raises(Refused, match="looked for"):
        deidentified(instance(EXPLICIT.sequence(CODE, names)))


def test_damaged_instances_are_withheld() -> None:
    whole = instance()
    for size in range(len(whole) - 16, len(whole)):  # within the pixel data
        with pytest.raises(Refused):
            deidentified(whole[:size])


# Anywhere ------------------------------------------------------------------------------------------

REMOVABLE = (
    (0x00100010, "PN"),
    (0x00081030, "LO"),
    (0x00204000, "LT"),
    (0x00081010, "SH"),
    (0x00080090, "PN"),
    (0x00104000, "LT"),
    (0x00191001, "LO"),
    (0x00191002, "UN"),
    (0x00080020, "DA"),
    (0x00200052, "UI"),
    (0x00101040, "LO"),
    (0x00400254, "LO"),
    (0x00081FF1, "LO"),
    (0x00180050, "DS"),
    (0x00280010, "US"),
    (0xFFFCFFFC, "OB"),
    (0x60003000, "OW"),
    (0x00020013, "SH"),
    (0x00700084, "PN"),
    (0x00420011, "OB"),
    (0x00282000, "LT"),
    (0x0040A160, "UT"),
    (0x00081195, "UI"),
    (0x00321032, "PN"),
)
words = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=4, max_size=10).map("QX".__add__)  # which nothing else has
AROUND = [(b"", b""), (b"X^", b"^Y"), (b"1.2\\", b""), (b"", b"\0\0"), (b"\xff ", b" \\")]


@st.composite
def data_sets(draw: st.DrawFn, writer: Writer, secret: bytes, depth: int = 0) -> bytes:
    """Draw elements in ascending order, some of them sequences, each with the secret in it."""
    rows = {}
    for tag, vr in draw(st.lists(st.sampled_from(REMOVABLE), min_size=1, max_size=4, unique=True)):
        before, after = draw(st.sampled_from(AROUND))
        value = before + secret + after
        rows[tag] = writer.element(tag, vr, value + b" " * (len(value) & 1))
    if depth < 3:
        for tag in draw(st.lists(st.sampled_from((CODE, 0x00081115, 0x00191003, 0x00400275)), max_size=2, unique=True)):
            undefined = draw(st.booleans())
            items = [
                writer.item(draw(data_sets(writer, secret, depth + 1)), undefined=draw(st.booleans()))
                for _ in range(draw(st.integers(0, 2)))
            ]
            rows[tag] = writer.sequence(tag, items, undefined=undefined)
    return b"".join(rows[tag] for tag in sorted(rows))


@settings(max_examples=300)
@given(st.data())
def test_a_secret_never_leaks(data: st.DataObject) -> None:
    writer = data.draw(st.sampled_from(WRITERS))
    secret = data.draw(words).encode()
    profile = data.draw(st.sampled_from(PROFILES))
    inner = data.draw(data_sets(writer, secret))
    name = writer.element(0x00100010, "PN", secret + b" " * (len(secret) & 1))  # text is cleaned of what is known
    assert not leaks(instance(name, nested(writer, inner), writer=writer), profile, secret)
    assert not leaks(instance(name, writer=writer, after=inner), profile, secret)
