"""Edits of files that a test builds: what comes back is what the same builder makes of the other values."""

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomfs.dicom.describe import Verdict, describe
from dicomfs.dicom.edit import Changes, Refused, Sought, affected
from dicomfs.dicom.part10 import locate
from tests.dicom.build import (
    BIG,
    DEFLATED_UID,
    EXPLICIT,
    IMPLICIT,
    JPEG_UID,
    SERIES,
    SOP,
    STUDY,
    WRITERS,
    Writer,
    deflated,
    part10,
)
from tests.dicom.deid_files import by_pydicom
from tests.dicom.edit_files import changes, edited

NAME, PATIENT_ID, COMMENTS, CHARACTER_SET = 0x00100010, 0x00100020, 0x00104000, 0x00080005
REFERENCED, CODES, UID = 0x00081140, 0x00400260, 0x00081155
NEW = {STUDY: "2.25.1111111", SERIES: "2.25.2", SOP: "2.25.3333"}
DATE_TIME = b"20260131123456.789+0000"
OLD_NAME = b"DOE^JOHN"


# A tree, and what is written of it -----------------------------------------------------------------


@dataclass(frozen=True)
class Node:
    tag: int
    vr: str
    value: bytes = b""
    items: "tuple[tuple[tuple[Node, ...], bool], ...]" = ()
    undefined: bool = False


def written(writer: Writer, nodes: tuple[Node, ...], *, group_lengths: bool) -> bytes:
    made: dict[int, bytes] = {}
    for node in nodes:
        if node.vr == "SQ":
            items = [
                writer.item(written(writer, item, group_lengths=group_lengths), undefined=undefined)
                for item, undefined in node.items
            ]
            one = writer.sequence(node.tag, items, undefined=node.undefined)
        else:
            one = writer.element(node.tag, node.vr, node.value)
        made[node.tag >> 16] = made.get(node.tag >> 16, b"") + one
    return b"".join(
        (writer.element(group << 16, "UL", len(content)) if group_lengths else b"") + content
        for group, content in made.items()
    )


def mapped(nodes: tuple[Node, ...], uids: dict[str, str]) -> tuple[Node, ...]:
    return tuple(
        replace(
            node,
            value=uid(node.value, uids) if node.vr == "UI" else node.value,
            items=tuple((mapped(item, uids), undefined) for item, undefined in node.items),
        )
        for node in nodes
    )


def uid(value: bytes, uids: dict[str, str]) -> bytes:
    parts = [part.decode() for part in value.split(b"\\")]
    new = [uids.get(part.strip("\0 "), part) for part in parts]
    return even("\\".join(new).rstrip("\0 ")) if new != parts else value


def even(text: str) -> bytes:
    return text.encode() + b"\0" * (len(text) & 1)


uid_values = st.sampled_from(
    [b"2.25.11\0", b"2.25.12\0", b"2.25.13\0", b"2.25.13\\2.25.11", b"2.25.130", b"2.25.13 ", b"1.2.3\0\\2.25.12", b""]
)
plain_elements = st.tuples(
    st.sampled_from([(0x00080100, "SH"), (0x00080104, "LO"), (0x00204000, "LT"), (0x00280010, "US")]),
    st.sampled_from([b"", b"ab", b"2.25.13\0", b"x" * 300]),
).map(lambda one: Node(*one[0], one[1]))
uid_elements = st.tuples(st.sampled_from([UID, 0x00200052, 0x0020000E]), uid_values).map(
    lambda one: Node(one[0], "UI", one[1])
)


def data_sets(inner: "st.SearchStrategy[Node]") -> "st.SearchStrategy[tuple[Node, ...]]":
    return st.lists(inner, max_size=4, unique_by=lambda node: node.tag).map(
        lambda nodes: tuple(sorted(nodes, key=lambda node: node.tag))
    )


elements = st.recursive(
    plain_elements | uid_elements,
    lambda inner: st.tuples(
        st.sampled_from([REFERENCED, CODES, 0x00089215, 0x300A00B0]),
        st.lists(st.tuples(data_sets(inner), st.booleans()), max_size=3).map(tuple),
        st.booleans(),
    ).map(lambda one: Node(one[0], "SQ", items=one[1], undefined=one[2])),
    max_leaves=12,
)
sequences = elements.filter(lambda node: node.vr == "SQ")


def whole(inside: tuple[Node, ...], *, name: bytes = OLD_NAME) -> tuple[Node, ...]:
    nodes = [
        Node(0x00080016, "UI", b"1.2.840.10008.5.1.4.1.1.7\0"), Node(0x00080018, "UI", b"2.25.13\0"),
        Node(NAME, "PN", name), Node(0x0020000D, "UI", b"2.25.11\0"), Node(0x0020000E, "UI", b"2.25.12\0"), *inside,
        Node(0x7FE00010, "OW", bytes(2000)),
    ]  # fmt: skip
    return tuple(sorted({node.tag: node for node in nodes}.values(), key=lambda node: node.tag))


def file(writer: Writer, nodes: tuple[Node, ...], *, group_lengths: bool = False, after: bytes = b"") -> bytes:
    return part10(written(writer, nodes, group_lengths=group_lengths) + after, writer.transfer_syntax)


def history(*modified: Node, before: Node | None = None) -> Node:
    item = (
        Node(0x04000550, "SQ", items=((modified, False),)), Node(0x04000562, "DT", DATE_TIME + b" "),
        Node(0x04000563, "LO", b"dicomfs "), Node(0x04000564, "LO"), Node(0x04000565, "CS", b"CORRECT "),
    )  # fmt: skip
    earlier = before.items if before else ()
    return Node(0x04000561, "SQ", items=(*earlier, (item, False)), undefined=bool(before and before.undefined))


writers = st.sampled_from(WRITERS)


@given(writers, data_sets(sequences), st.booleans(), st.sampled_from([b"", b"\0" * 20]))
def test_references_are_rewritten_and_every_length_is_right(
    writer: Writer, inside: tuple[Node, ...], group_lengths: bool, after: bytes
) -> None:
    uids = {"2.25.13": NEW[SOP], "2.25.12": NEW[SERIES]}
    before, others = whole(inside), tuple(node for node in whole(inside) if node.vr == "SQ")
    source = file(writer, before, group_lengths=group_lengths, after=after)
    result = edited(source, changes(uids=uids))
    changed = (Node(0x00080018, "UI", b"2.25.13\0"), Node(0x0020000E, "UI", b"2.25.12\0"))
    expected = whole((*mapped(others, uids), history(*changed), *mapped(changed, uids)))
    assert result is not None
    assert result.data == file(writer, expected, group_lengths=group_lengths, after=after) or group_lengths
    if group_lengths:  # those of what is new have none
        rest = [node for node in expected if node.tag >> 16 != 0x0400]
        data = written(writer, tuple(rest), group_lengths=True) + after
        one = written(writer, (history(*changed),), group_lengths=False)
        assert result.data.replace(one, b"") == part10(data, writer.transfer_syntax)
    assert affected(source, locate(source), lambda start, end: source[start:end], Sought(uids))  # type: ignore[arg-type]
    assert edited(result.data, changes(uids=uids)) is None
    only_nested = edited(source, changes(uids={"2.25.130": "1.2.3"}))
    if only_nested is not None:
        assert only_nested.data == file(
            writer, mapped(before, {"2.25.130": "1.2.3"}), group_lengths=group_lengths, after=after
        )


@given(writers, data_sets(elements), st.text(alphabet="ABC^ é", min_size=1, max_size=40).filter(str.strip))
def test_attributes_are_set_in_their_places(writer: Writer, inside: tuple[Node, ...], text: str) -> None:
    inside = tuple(node for node in inside if node.tag != NAME)
    name = text.strip().replace("^^^^^", "")[:30].strip()
    if name.count("^") > 4 or not name or name.encode() == OLD_NAME:
        return
    source = file(writer, whole(inside))
    result = edited(source, changes({NAME: (name,), PATIENT_ID: ("4711",)}))
    assert result is not None
    encoded = name.encode() + b" " * (len(name.encode()) & 1)
    utf_8 = () if name.isascii() else (Node(CHARACTER_SET, "CS", b"ISO_IR 192"),)
    expected = whole(
        (*inside, *utf_8, Node(PATIENT_ID, "LO", b"4711"), history(Node(NAME, "PN", OLD_NAME))), name=encoded
    )
    assert result.data == file(writer, expected)
    assert b"".join(result.ranges) in source or len(result.ranges) > 1
    assert edited(result.data, changes({NAME: (name,), PATIENT_ID: ("4711",)})) is None


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.name)
def test_earlier_edits_are_kept(writer: Writer, undefined: bool) -> None:
    first = replace(history(Node(NAME, "PN", b"ROE^JANE")), undefined=undefined)
    result = edited(file(writer, whole((first,))), changes({NAME: ("DOE^JANE",)}, uids={"2.25.13": "2.25.14"}))
    assert result is not None
    second = history(Node(0x00080018, "UI", b"2.25.13\0"), Node(NAME, "PN", OLD_NAME), before=first)
    expected = whole((second, Node(0x00080018, "UI", b"2.25.14\0")), name=b"DOE^JANE")
    assert result.data == file(writer, expected)


def test_history_is_not_rewritten() -> None:
    kept = history(Node(0x0020000D, "UI", b"2.25.99\0"))
    source = file(EXPLICIT, whole((kept,)))
    assert edited(source, changes(uids={"2.25.99": "2.25.1"})) is None


# One at a time -------------------------------------------------------------------------------------


def simple(extra: bytes = b"", *, writer: Writer = EXPLICIT, before: bytes = b"", name: bytes = OLD_NAME) -> bytes:
    patient = writer.element(NAME, "PN", name)
    uids = writer.element(0x0020000D, "UI", STUDY) + writer.element(0x0020000E, "UI", SERIES)
    first = writer.element(0x00080016, "UI", "1.2.840.10008.5.1.4.1.1.7") + writer.element(0x00080018, "UI", SOP)
    return part10(before + first + patient + uids + extra, writer.transfer_syntax)


def after(source: bytes, asked: Changes) -> bytes:
    result = edited(source, asked)
    assert result is not None
    assert describe(result.data).verdict == Verdict.DICOM
    assert edited(result.data, asked) is None
    return result.data


def test_what_is_odd_stays_as_it_is() -> None:
    odd = EXPLICIT.element(0x00200013, "IS", b"1  ") + EXPLICIT.element(0x00281050, "DS", b"x") * 2
    odd += EXPLICIT.element(0x00180050, "DS", b"1 ")
    rest = EXPLICIT.element(0x7FE00010, "OB", b"\1\2\3") + b"\xff\xff\n"
    kept = written(EXPLICIT, (history(Node(NAME, "PN", OLD_NAME)),), group_lengths=False)
    assert after(simple(odd + rest), changes({NAME: ("ROE^JANE",)})) == simple(odd + kept + rest, name=b"ROE^JANE")


def test_duplicates_of_what_is_set_are_one_afterwards() -> None:
    source = simple(before=b"", extra=EXPLICIT.element(NAME, "PN", b"ROE^JANE"))
    data = after(source, changes({NAME: ("ROE^JANE",)}))
    assert data.count(EXPLICIT.element(NAME, "PN", b"ROE^JANE")) == 2  # one of them is the earlier value
    assert OLD_NAME not in data


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.name)
def test_sequences_are_removed_and_emptied(writer: Writer) -> None:
    inner = writer.element(UID, "UI", SOP)
    for undefined in (False, True):
        sequence = writer.sequence(CODES, [writer.item(inner, undefined=undefined)], undefined=undefined)
        source = simple(sequence, writer=writer)
        removed = after(source, changes(remove=(CODES,)))
        assert removed.count(sequence) == 1  # as an earlier value
        assert CODES not in by_pydicom(removed)
        emptied = by_pydicom(after(source, changes(empty=(CODES,), uids={SOP: "2.25.5"})))
        assert len(emptied[CODES].value) == 0
        kept = emptied.OriginalAttributesSequence[0].ModifiedAttributesSequence[0]
        assert kept[CODES].value[0].ReferencedSOPInstanceUID == SOP
        assert kept.SOPInstanceUID == SOP


def test_nothing_to_keep_makes_no_history() -> None:
    data = after(simple(), changes({PATIENT_ID: ("1",)}, empty=(0x00080050,)))
    assert "OriginalAttributesSequence" not in by_pydicom(data)
    assert by_pydicom(data).AccessionNumber == ""


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.name)
def test_numbers_are_set(writer: Writer) -> None:
    asked = changes(
        {
            0x00280106: ("-5",),
            0x00280009: ("00181063", "00181065"),
            0x00189087: ("-1e3",),
            0x00200013: ("7",),
            0x00280030: ("0.5", "0.25"),
        }
    )
    signed = writer.element(0x00280103, "US", b"\0\1" if writer.big else b"\1\0")
    found = by_pydicom(after(simple(signed, writer=writer), asked))
    assert found.SmallestImagePixelValue == -5
    assert found.FrameIncrementPointer == [0x00181063, 0x00181065]
    assert found.DiffusionBValue == -1000
    assert (found.InstanceNumber, found.PixelSpacing) == (7, [0.5, 0.25])


def test_the_vr_of_the_file_stays_if_it_is_legal() -> None:
    source = simple(EXPLICIT.element(0x00280106, "SS", b"\1\0") + EXPLICIT.element(PATIENT_ID, "UN", b"12"))
    found = by_pydicom(after(source, changes({0x00280106: ("-5",), PATIENT_ID: ("4711",)})))
    assert found["SmallestImagePixelValue"].VR == "SS"
    assert (found["PatientID"].VR, found.PatientID) == ("LO", "4711")


def test_private_attributes_need_an_owner() -> None:
    owner = EXPLICIT.element(0x00190010, "LO", b"SIEMENS MR HEADER ")
    known = changes({0x0019100A: ("4",)})
    assert by_pydicom(after(simple(before=b"", extra=owner), known))[0x0019100A].value == 4
    own = owner + EXPLICIT.element(0x001910FE, "LO", b"old ")
    kept = by_pydicom(after(simple(own), changes({0x001910FE: ("new",)})))
    assert kept[0x001910FE].value == "new"
    previous = kept.OriginalAttributesSequence[0].ModifiedAttributesSequence[0]
    assert (previous[0x00190010].value, previous[0x001910FE].value) == ("SIEMENS MR HEADER", "old")
    for source in (simple(), simple(owner)):
        with pytest.raises(Refused):
            edited(source, changes({0x001910FE: ("new",)}))
        assert edited(source, changes(remove=(0x001910FE,))) is None
    with pytest.raises(Refused, match="VR"):
        edited(simple(owner + EXPLICIT.element(0x001910FE, "OB", b"\1\2")), changes({0x001910FE: ("new",)}))


def test_files_without_meta_information_are_edited() -> None:
    for writer in WRITERS:
        source = simple(writer=writer)
        bare = source[source.index(writer.element(0x00080016, "UI", "1.2.840.10008.5.1.4.1.1.7")) :]
        data = after(bare, changes({NAME: ("DOE^JANE",)}, uids=NEW))
        assert data.startswith(writer.tag(0x00080016))
        assert b"2.25.3333" in data


def test_deflated_data_sets_are_deflated_again() -> None:
    plain = simple()
    data_set = plain[plain.index(EXPLICIT.element(0x00080016, "UI", "1.2.840.10008.5.1.4.1.1.7")) :]
    source = part10(deflated(data_set), DEFLATED_UID)
    asked = changes({NAME: ("Doé^Jane",)}, uids=NEW)
    data = after(source, asked)
    found = by_pydicom(data)
    assert (found.PatientName, found.SOPInstanceUID) == ("Doé^Jane", NEW[SOP])
    assert found.file_meta.TransferSyntaxUID == DEFLATED_UID
    place = locate(source)
    assert place is not None
    assert affected(source, place, lambda start, end: source[start:end], Sought(NEW))
    assert not affected(source, place, lambda start, end: source[start:end], Sought(["2.25.77"]))


def test_fragments_stay_whole() -> None:
    fragments = [bytes([number]) * 400 for number in range(4)]
    plain = simple()
    source = part10(plain[plain.index(EXPLICIT.tag(0x00080016)) :], JPEG_UID)
    result = edited(source + EXPLICIT.encapsulated(fragments), changes({NAME: ("DOE^JANE",)}))
    assert result is not None
    assert result.ranges[-1].endswith(EXPLICIT.encapsulated(fragments))
    assert len(result.ranges) == 3


def test_uids_are_found_wherever_a_digit_comes_before() -> None:
    long = "2.25." + "1" * 43
    for writer in WRITERS:
        source = simple(writer.element(0x00200052, "UI", long), writer=writer)
        place = locate(source)
        assert place is not None
        assert affected(source, place, lambda start, end, source=source: source[start:end], Sought([long]))
        assert not affected(
            source, place, lambda start, end, source=source: source[start:end], Sought([long[:-1], "2.25.1"])
        )
        assert after(source, changes(uids={long: "2.25.5"}))


@pytest.mark.parametrize("writer", [IMPLICIT, BIG], ids=lambda writer: writer.name)
def test_unknown_sequences_in_explicit_data_keep_their_encoding(writer: Writer) -> None:
    outer = BIG if writer is BIG else EXPLICIT
    inner = IMPLICIT.element(UID, "UI", SOP) + IMPLICIT.element(NAME, "PN", b"A^B ")
    sequence = outer.header(REFERENCED, "UN", 0xFFFFFFFF) + IMPLICIT.item(inner) + IMPLICIT.end()
    data = after(simple(sequence, writer=outer), changes(uids={SOP: "2.25.55555"}))
    inner = IMPLICIT.element(UID, "UI", "2.25.55555") + IMPLICIT.element(NAME, "PN", b"A^B ")
    assert outer.header(REFERENCED, "UN", 0xFFFFFFFF) + IMPLICIT.item(inner) + IMPLICIT.end() in data
