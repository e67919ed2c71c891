"""Names are legal everywhere, whatever the value they come from."""

import unicodedata
from itertools import islice

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicomfs.archive.names import MAX_BYTES, candidates, component, cut, digest, fold, fragment

IDENTITY = "1.2.840.113619.2.1"
DEVICES = {"con", "prn", "aux", "nul", *(f"com{i}" for i in range(10)), *(f"lpt{i}" for i in range(10))}

# Text like that of hostile or broken files: any code point, with the dangerous ones made likely.
characters = './\\<>:"|?*^ ~-_=\0\x1b\n\t\x85\u2028\u202e\u200f\ufeff\u200b\u0301eßİK가ㅏ\ud800\ue000\U0010ffff'
dangerous = st.sampled_from([*characters, "..", "con", "NUL", "com¹", ".dcm"])
hostile = st.lists(dangerous | st.characters(), max_size=60).map("".join)

# The first draw of any character builds Hypothesis' table of Unicode, which takes seconds on a busy machine.
unhurried = settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)


def assert_legal(name: str) -> None:
    assert name not in ("", ".", "..")
    assert len(name.encode()) <= MAX_BYTES
    assert not set(name) & set('<>:"/\\|?*')
    assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Cn") for c in name)
    assert unicodedata.is_normalized("NFC", name)
    assert name[-1] not in ". "
    assert name[0] not in "-.~ "
    assert name.split(".")[0].rstrip().lower() not in DEVICES


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("CHEST W/O CONTRAST", "CHEST W-O CONTRAST"),
        ("../../etc/passwd", "etc-passwd"),
        ("..", ""),
        (".", ""),
        ("...", ""),
        ("", ""),
        ("   ", ""),
        ("^^^^", ""),
        ("~", ""),
        ("Doe^Jane^^Dr^PhD", "Doe_Jane_Dr_PhD"),
        ("HEAD^ROUTINE", "HEAD_ROUTINE"),
        ("Smith^Ann.", "Smith_Ann"),
        ("trail dot. ", "trail dot"),
        ("-rf", "rf"),
        (".hidden", "hidden"),
        ("~root", "root"),
        ("-.~ x", "x"),
        ("two  blanks", "two blanks"),
        ("a:b*c?d\"e<f>g|h", "a-b-c-d-e-f-g-h"),
        ("a\\b", "a-b"),
        ("tab\there", "tab-here"),
        ("line\r\nbreak", "line-break"),
        ("nul\0nul", "nul-nul"),
        ("\x1b[31mred", "[31mred"),
        ("a\x85b", "a b"),
        ("a\u2028b", "a b"),
        ("a\u00a0b", "a b"),
        ("abc\u202egnp.exe", "abcgnp.exe"),
        ("a\u200bb\ufeff", "ab"),
        ("e\u200d\u0301", "é"),
        ("Mu\u0308ller", "Müller"),
        ("\u212b", "Å"),
        ("山田^太郎", "山田_太郎"),
        ("김희중", "김희중"),
        ("\ud800x", "x"),
        ("\ue000\U0010ffffx", "x"),
        ("CON", "_CON"),
        ("con", "_con"),
        ("nul.dcm", "_nul.dcm"),
        ("aux .txt", "_aux .txt"),
        ("com1", "_com1"),
        ("LPT¹", "_LPT¹"),
        ("CONIN$", "_CONIN$"),
        ("CONTRAST", "CONTRAST"),
        ("com10", "com10"),
        ("1.2.840.10008", "1.2.840.10008"),
        ("T1 (axial) #3 100%", "T1 (axial) #3 100%"),
    ],
)  # fmt: skip
def test_component(text: str, expected: str) -> None:
    assert component(text) == expected


@unhurried
@given(hostile)
def test_component_is_legal_and_idempotent(text: str) -> None:
    name = component(text)
    assert component(name) == name
    if name:
        assert_legal(cut(name, IDENTITY))


@unhurried
@given(hostile)
def test_fragment_is_idempotent(text: str) -> None:
    assert fragment(fragment(text)) == fragment(text)


@unhurried
@given(st.text("ABC xyz019._-~()^=", max_size=30))
def test_the_quick_way_and_the_slow_way_agree(text: str) -> None:
    # A character beyond ASCII forces the slow way.
    assert fragment(text + "é") == fragment(text + "x")[:-1] + "é"


def test_short_names_are_not_cut() -> None:
    assert cut("x" * MAX_BYTES, IDENTITY) == "x" * MAX_BYTES
    assert cut("山" * 40, IDENTITY) == "山" * 40


@pytest.mark.parametrize("letter", ["x", "é", "山", "😀"])
def test_cut_on_a_code_point(letter: str) -> None:
    name = cut(letter * 200, IDENTITY)
    assert name.endswith("~" + digest(IDENTITY))
    assert set(name.removesuffix("~" + digest(IDENTITY))) == {letter}
    assert MAX_BYTES - 4 < len(name.encode()) <= MAX_BYTES


@pytest.mark.parametrize("extension", [".dcm", ".DCM"])
def test_cut_keeps_the_extension(extension: str) -> None:
    name = cut("x" * 200 + extension, IDENTITY)
    assert name.endswith("~" + digest(IDENTITY) + extension)
    assert len(name) == MAX_BYTES


def test_cut_leaves_no_blank_before_the_hash() -> None:
    assert cut("y" + " ._-" * 50, IDENTITY) == "y~" + digest(IDENTITY)
    assert_legal(cut("_" * 130, IDENTITY))


def test_cut_tells_entities_apart() -> None:
    assert cut("x" * 200, "1.2.3") != cut("x" * 200, "1.2.4")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Axial", "AXIAL"),
        ("Müller", "MÜLLER"),
        ("Mu\u0308ller", "Müller"),
        ("straße", "STRASSE"),
        ("\u03c3", "\u03c2"),
        ("\u0345\u0308", "\u0308\u03b9"),
        ("1.2.DCM", "1.2.dcm"),
    ],
)
def test_fold_clashes(one: str, other: str) -> None:
    assert fold(one) == fold(other)


def test_fold_keeps_different_names_apart() -> None:
    assert len({fold(name) for name in ("a", "b", "á", "à", "å", "山", "川", "1", "01")}) == 9


@unhurried
@given(hostile)
def test_fold_does_not_see_case_or_composition(text: str) -> None:
    name = component(text)
    assert fold(fold(name)) == fold(name)
    assert fold(unicodedata.normalize("NFD", name)) == fold(name)
    assert fold(name.casefold()) == fold(name)


def test_candidates_in_order() -> None:
    short, long = digest(IDENTITY), digest(IDENTITY, 26)
    assert list(islice(candidates("00001.dcm", IDENTITY), 5)) == [
        "00001.dcm",
        f"00001~{short}.dcm",
        f"00001~{long}.dcm",
        f"00001~{long}-2.dcm",
        f"00001~{long}-3.dcm",
    ]


def test_candidates_of_a_name_with_its_hash() -> None:
    short, long = digest(IDENTITY), digest(IDENTITY, 26)
    stand_in = f"NO-NUMBER~{short}.dcm"
    assert list(islice(candidates(stand_in, IDENTITY), 2)) == [stand_in, f"NO-NUMBER~{long}.dcm"]


@unhurried
@given(hostile)
def test_candidates_are_legal_and_distinct(text: str) -> None:
    name = cut(component(text) or "UNKNOWN", IDENTITY)
    tried = list(islice(candidates(name, IDENTITY), 6))
    assert tried[0] == name
    assert len({fold(one) for one in tried}) == 6
    for one in tried:
        assert_legal(one)
        assert component(one) == one


def test_digest_is_the_start_of_the_sha256() -> None:
    # Kept in archives for ever: base32(sha256("1.2.3")) in small letters.
    assert digest("1.2.3", 26).startswith(digest("1.2.3"))
    assert digest("1.2.3") == "yr7vwg"
