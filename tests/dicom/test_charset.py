"""Character sets: the Standard's examples, what pydicom makes of them, and what careless writers do."""

import pytest
from pydicom.charset import convert_encodings, decode_bytes

from dicomfs.dicom.charset import character_set

ESC = "\x1b"

# PS3.5 annexes H, I, J, K: (Specific Character Set, bytes, text)
STANDARD = {
    "H.3.1": (
        b"\\ISO 2022 IR 87",
        b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
        "Yamada^Tarou=山田^太郎=やまだ^たろう",
    ),
    "H.3.2": (
        b"ISO 2022 IR 13\\ISO 2022 IR 87",
        b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J=\x1b$B$d$^$@\x1b(J^\x1b$B$?$m$&\x1b(J",
        "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう",
    ),
    "I.2": (
        b"\\ISO 2022 IR 149",
        b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
        "Hong^Gildong=洪^吉洞=홍^길동",
    ),
    "J.1": (
        b"ISO_IR 192",
        b"Wang^XiaoDong=\xe7\x8e\x8b^\xe5\xb0\x8f\xe6\x9d\xb1",
        "Wang^XiaoDong=王^小東",
    ),
    "J.3": (b"GB18030", b"Wang^XiaoDong=\xcd\xf5^\xd0\xa1\xb6\xab", "Wang^XiaoDong=王^小东"),
    "J.4": (b"GBK", b"Wang^XiaoDong=\xcd\xf5^\xd0\xa1\xb6\xab", "Wang^XiaoDong=王^小东"),
    "K.2": (
        b"\\ISO 2022 IR 58",
        b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab",
        "Zhang^XiaoDong=张^小东",
    ),
    "JIS X 0212": (b"\\ISO 2022 IR 87\\ISO 2022 IR 159", b"a=\x1b$B;3\x1b$(D;3\x1b(B^b", "a=山岦^b"),
    "Latin 1 and Greek": (
        b"ISO 2022 IR 100\\ISO 2022 IR 126",
        b"Dionysios=\x1b-F\xc4\xe9\xef\xed\xf5\xf3\xe9\xef\xf2^M\xfcller",
        "Dionysios=Διονυσιος^Müller",
    ),
}

SINGLE_BYTE = {
    b"ISO_IR 100": "Äneas^Rüdiger", b"ISO_IR 101": "Łukasz^Żółw", b"ISO_IR 109": "Ħaż^Ĉu", b"ISO_IR 110": "Āķis^Ģirts",
    b"ISO_IR 144": "Жданов", b"ISO_IR 127": "قباني^لنزار", b"ISO_IR 126": "Διονυσιος", b"ISO_IR 138": "שרון^דבורה",
    b"ISO_IR 148": "Çavuşoğlu", b"ISO_IR 166": "นามสกุล", b"ISO_IR 13": "ﾔﾏﾀﾞ^ﾀﾛｳ",
}  # fmt: skip


@pytest.mark.parametrize(("declared", "value", "text"), STANDARD.values(), ids=STANDARD.keys())
def test_the_examples_of_the_standard(declared: bytes, value: bytes, text: str) -> None:
    assert character_set(declared).decode(value, is_name=True) == text


@pytest.mark.parametrize(("declared", "text"), SINGLE_BYTE.items(), ids=str)
def test_single_byte_sets_agree_with_pydicom(declared: bytes, text: str) -> None:
    encodings = convert_encodings(declared.decode())
    value = text.encode(encodings[0])
    assert decode_bytes(value, encodings, set()) == text
    assert character_set(declared).decode(value) == text
    extended = declared.replace(b"ISO_IR", b"ISO 2022 IR")
    assert character_set(extended).decode(value) == text


@pytest.mark.parametrize(
    ("declared", "codec"),
    [
        (b"ISO-IR 100", "latin_1"), (b"ISO_IR_100", "latin_1"), (b"ISO IR 100 ", "latin_1"), (b"iso_ir 100", "latin_1"),
        (b"ISO_IR100", "latin_1"), (b"ISO 2022 IR 100", "latin_1"), (b"ISO_2022_IR_100", "latin_1"),
        (b"ISO 2022-IR 100", "latin_1"), (b"ISO8859-1", "latin_1"), (b"ISO-8859-1", "latin_1"), (b"latin1", "latin_1"),
        (b"UTF-8", "utf_8"), (b"utf8\0", "utf_8"), (b"ISO_IR 192", "utf_8"), (b"ISO_IR 144\\", "iso8859_5"),
        (b"ISO 2022 58", "gb18030"), (b"ISO 2022 GBK", "gbk"), (b"", "latin_1"), (b"\\", "latin_1"),
        (b"NOT A CHARACTER SET", "latin_1"), (b"\xff\xfe", "latin_1"), (b"ISO_IR 6", "latin_1"),
    ],
)  # fmt: skip
def test_terms_are_recognised_however_they_are_spelt(declared: bytes, codec: str) -> None:
    text = {"iso8859_5": "Люк", "gb18030": "张", "gbk": "张"}.get(codec, "Müller")
    assert character_set(declared).decode(text.encode(codec)) == text


def test_bytes_that_are_wrong_for_the_set_are_still_text() -> None:
    assert character_set(b"ISO_IR 192").decode(b"M\xfcller") == "Müller"
    assert character_set(b"ISO_IR 138").decode("Müller".encode()) == "Müller"
    assert character_set(b"").decode("Müller".encode()) == "Müller"
    assert character_set(b"").decode(b"M\xfcller") == "Müller"


def test_missing_and_unknown_escape_sequences() -> None:
    korean = character_set(b"\\ISO 2022 IR 149")
    assert korean.decode(b"\xc8\xab^\xb1\xe6\xb5\xbf", is_name=True) == "홍^길동"
    assert korean.decode(b"\x1b$)C\xc8\xab^\xb1\xe6\xb5\xbf", is_name=True) == "홍^길동"
    assert character_set(b"").decode(b"\x1b$)C\xc8\xab", is_name=True) == "홍", "not declared, but switched to"
    assert character_set(b"").decode(b"a\x1b%Gb") == "a\x1b%Gb"
    assert character_set(b"").decode(b"a\x1b") == "a\x1b"
    assert character_set(b"\\ISO 2022 IR 87").decode(b"\x1b$B;") == "�"


def test_ascii_is_ascii_in_every_set() -> None:
    for declared in [*SINGLE_BYTE, *(declared for declared, _, _ in STANDARD.values())]:
        text = "".join(map(chr, range(32, 127)))
        assert character_set(declared).decode(text.encode()) == text


@pytest.mark.parametrize("declared", [declared for declared, _, _ in STANDARD.values()])
def test_any_bytes_are_some_text(declared: bytes) -> None:
    every_pair = bytes(byte for first in range(256) for byte in (first, 0x1B, first, 0x24, 0x28, 0x41))
    character_set(declared).decode(every_pair)
    character_set(declared).decode(every_pair, is_name=True)
