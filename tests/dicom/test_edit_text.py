"""New values in the character set of a file, and files converted to UTF-8 where that cannot hold them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.charset import convert_encodings, decode_bytes

from dicomfs.dicom.charset import character_set
from dicomfs.dicom.edit import Refused
from dicomfs.dicom.edit_text import converted, text_bytes
from tests.dicom.build import EXPLICIT, IMPLICIT, WRITERS, Writer
from tests.dicom.deid_files import by_pydicom
from tests.dicom.edit_files import UTF_8, changes, edited
from tests.dicom.test_edit import CODES, NAME, simple

CHARACTER_SET, COMMENTS = 0x00080005, 0x00104000
JAPANESE, KOREAN, CHINESE = b"\\ISO 2022 IR 87", b"\\ISO 2022 IR 149", b"\\ISO 2022 IR 58"
SETS = [b"", b"ISO_IR 6", b"ISO_IR 13", b"ISO_IR 100", b"ISO_IR 101", b"ISO_IR 126", b"ISO_IR 144", b"ISO_IR 148",
        b"ISO_IR 166", b"ISO_IR 192", b"GB18030", b"GBK", JAPANESE, KOREAN, CHINESE, b"ISO 2022 IR 13\\ISO 2022 IR 87",
        b"ISO 2022 IR 100\\ISO 2022 IR 144", b"ISO 2022 IR 6\\ISO 2022 IR 87\\ISO 2022 IR 159", b"ISO-IR 100",
        b"nonsense"]  # fmt: skip


@pytest.mark.parametrize(
    ("declared", "text", "held"),
    [
        (b"", "DOE", True), (b"", "Doé", False), (b"ISO_IR 6", "Doé", False), (b"ISO_IR 100", "Doé^Jané", True),
        (b"ISO-IR 100", "Doé", True), (b"ISO_IR 100", "山田", False), (b"ISO_IR 144", "Иванов", True),
        (b"ISO_IR 144", "Doé", False), (b"ISO_IR 192", "山田", True), (b"GB18030", "王^小东", True),
        (b"ISO_IR 13", "ﾔﾏﾀﾞ^ﾀﾛｳ", True), (b"ISO_IR 13", "山田", False),
        (JAPANESE, "Yamada^Tarou=山田^太郎=やまだ^たろう", True), (JAPANESE, "Doé", False),
        (b"ISO 2022 IR 13\\ISO 2022 IR 87", "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎", True),
        (KOREAN, "Hong^Gildong=洪^吉洞=홍^길동", True), (KOREAN, "Иванов", True), (KOREAN, "똠방각하", False),
        (CHINESE, "Wang^XiaoDong=王^小东", True), (CHINESE, "王^𠮷", False),
        (b"ISO 2022 IR 100\\ISO 2022 IR 144", "Jané^Люк", True), (b"nonsense", "Doé", False),
        (b"nonsense", "DOE", True),
    ],
)  # fmt: skip
def test_sets_hold_what_they_can(declared: bytes, text: str, held: bool) -> None:
    made = text_bytes(declared, text, is_name=True)
    assert (made is not None) is held
    if made is not None:
        assert character_set(declared).decode(made, is_name=True) == text


@given(st.sampled_from(SETS), st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=12))
def test_what_is_written_is_read_back(declared: bytes, text: str) -> None:
    for is_name in (False, True):
        made = text_bytes(declared, text, is_name=is_name)
        if made is None:
            continue
        charset = character_set(declared)
        assert charset.decode(made, is_name=is_name) == text
        assert charset.exactly(made, is_name=is_name) == text
        plain = converted(declared, made, is_name=is_name)
        assert plain is not None
        assert plain.decode("utf_8").rstrip(" \0") == text.rstrip(" \0")
        if declared not in (b"nonsense", b"ISO-IR 100", b"ISO_IR 13", CHINESE) and not text.isascii():  # pydicom agrees
            encodings = convert_encodings(declared.decode().split("\\"))
            delimiters = {"\\", "\n", "\r", "\t", "\f", *("^=" if is_name else "")}
            assert decode_bytes(made, encodings, {ord(one) for one in delimiters}) == text


@given(st.sampled_from(SETS), st.binary(max_size=24))
def test_what_is_read_exactly_is_read_the_same_by_others(declared: bytes, value: bytes) -> None:
    charset = character_set(declared)
    for is_name in (False, True):
        exactly = charset.exactly(value, is_name=is_name)
        assert exactly is None or exactly == charset.decode(value, is_name=is_name)
        assert exactly is None or "\x1b" not in exactly


def latin(writer: Writer, *, nested: bytes = b"", declared: str = "ISO_IR 100") -> bytes:
    item = nested + writer.element(0x00080104, "LO", b"Gr\xf6\xdfe") + writer.element(0x00080100, "SH", b"T-1 ")
    extra = writer.element(0x00180015, "CS", b"HEAD") + writer.sequence(CODES, [writer.item(item)])
    before = writer.element(CHARACTER_SET, "CS", declared) + writer.element(0x00080070, "LO", b"ACME")
    comments = writer.element(COMMENTS, "LT", b"na\xefve\\x ") + extra
    return simple(comments, writer=writer, before=before, name=b"M\xfcller^J")


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.name)
def test_the_set_of_the_file_stays_if_it_can(writer: Writer) -> None:
    result = edited(latin(writer), changes({NAME: ("Doé^Jané",)}))
    assert result is not None
    assert writer.element(NAME, "PN", "Doé^Jané") in result.data
    assert writer.element(CHARACTER_SET, "CS", "ISO_IR 100") in result.data
    assert latin(writer)[-60:] in result.data


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.name)
def test_files_are_converted_as_a_whole(writer: Writer) -> None:
    nested = writer.element(CHARACTER_SET, "CS", "ISO_IR 100")
    for source in (latin(writer), latin(writer, nested=nested)):
        result = edited(source, changes({NAME: ("山田^太郎",)}))
        assert result is not None
        found = by_pydicom(result.data)
        assert (found.SpecificCharacterSet, found.PatientName) == (UTF_8, "山田^太郎")
        assert found.PatientComments == "naïve\\x"
        assert found[CODES].value[0].CodeMeaning == "Größe"
        previous = found.OriginalAttributesSequence[0].ModifiedAttributesSequence[0]
        assert [element.tag for element in previous] == [NAME]
        assert previous.PatientName == "Müller^J"
        assert (
            writer.element(0x00080070, "LO", b"ACME") + writer.element(0x00080016, "UI", found.SOPClassUID)
            in (result.ranges[1])
        )


def test_items_with_a_set_of_their_own_are_converted_from_it() -> None:
    nested = EXPLICIT.element(CHARACTER_SET, "CS", "ISO_IR 144")
    source = latin(EXPLICIT, nested=nested).replace(b"Gr\xf6\xdfe", "Люк12".encode("iso8859_5"))
    result = edited(source, changes({NAME: ("山田^太郎",)}))
    assert result is not None
    item = by_pydicom(result.data)[CODES].value[0]
    assert (item.SpecificCharacterSet, item.CodeMeaning) == (UTF_8, "Люк12")


@pytest.mark.parametrize("declared", ["", "ISO_IR 6", "ISO_IR 203203", "\\ISO 2022 IR 149"])
def test_what_is_not_cleanly_in_its_set_is_not_guessed(declared: str) -> None:
    with pytest.raises(Refused, match="guess") as raised:
        edited(latin(EXPLICIT, declared=declared), changes({NAME: ("山田^太郎",)}))
    assert "ller" not in raised.value.reason


def test_a_name_in_no_set_can_be_replaced_in_ascii() -> None:
    source = simple(name=b"M\xfcller^J")
    result = edited(source, changes({NAME: ("Mueller^J",)}))
    assert result is not None
    assert result.data.count(b"M\xfcller^J") == 1  # the earlier value, as it was
    converted_too = edited(source, changes({NAME: ("Müller^J",)}))
    assert converted_too is not None
    assert by_pydicom(converted_too.data).PatientName == "Müller^J"


def test_files_without_a_set_get_one() -> None:
    result = edited(simple(writer=IMPLICIT), changes({NAME: ("Doé",)}))
    assert result is not None
    assert IMPLICIT.element(CHARACTER_SET, "CS", UTF_8) + IMPLICIT.tag(0x00080016) in result.data
