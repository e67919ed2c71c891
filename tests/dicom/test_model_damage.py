"""Whatever is done to a file: its JSON model is valid, nothing raises, and nothing that is bulk is read."""

import random
from mmap import mmap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomfs.dicom import model_elements, part10
from dicomfs.dicom.model import model
from tests.dicom.build import BIG, EXPLICIT, IMPLICIT, Writer
from tests.dicom.build import part10 as file_of
from tests.dicom.model_shown import SERVED, assert_valid, model_of, parsed, shown, skeleton
from tests.dicom.test_damage import EXAMPLES, files


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    # With these, data that hypothesis can draw reaches the code that large values and sequences reach.
    for module in ("stride", "walk", "split", "model", "model_elements"):
        monkeypatch.setattr(f"dicomfs.dicom.{module}.LARGE", 100)
    for name, limit in (("INLINE", 60), ("LUT_INLINE", 90), ("SHORT", 40)):
        monkeypatch.setattr(f"dicomfs.dicom.model.{name}", limit)


def nested(depth: int, *, undefined: bool, writer: Writer = EXPLICIT) -> bytes:
    if undefined:
        opened = (writer.header(0x00081140, "SQ", 0xFFFFFFFF) + writer.tag(0xFFFEE000) + writer.u32(0xFFFFFFFF)) * depth
        return opened + (writer.tag(0xFFFEE00D) + writer.u32(0) + writer.end()) * depth
    content = b""
    for _ in range(depth):
        content = writer.sequence(0x00081140, [writer.item(content)])
    return content


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("depth", [1, 63, 64, 65, 1000])
def test_deep_nesting_is_cut(depth: int, undefined: bool) -> None:
    read = shown(nested(depth, undefined=undefined) + EXPLICIT.element(0x00100020, "LO", "after"))
    assert read.pop("00100020") == {"vr": "LO", "Value": ["after"]}
    found = 0
    while read:
        assert read.keys() == {"00081140"}
        (read,) = read["00081140"]["Value"]
        found += 1
    assert found == min(depth, 64)


def test_delimiters_may_be_missing() -> None:
    reference = EXPLICIT.element(0x00081155, "UI", "1.2")
    header = EXPLICIT.header(0x00081140, "SQ", 0xFFFFFFFF)
    open_item = EXPLICIT.tag(0xFFFEE000) + EXPLICIT.u32(0xFFFFFFFF)
    after = EXPLICIT.element(0x00100020, "LO", "after")
    items = [{"00081155": {"vr": "UI", "Value": ["1.2"]}}] * 2
    no_item_ends = header + (open_item + reference) * 2 + EXPLICIT.end() + after
    no_sequence_end = header + EXPLICIT.item(reference) * 2 + after
    for data_set in (no_item_ends, no_sequence_end):
        assert shown(data_set) == {
            "00081140": {"vr": "SQ", "Value": items},
            "00100020": {"vr": "LO", "Value": ["after"]},
        }


@pytest.mark.usefixtures("small_limits")
@EXAMPLES
@given(files(), st.data())
def test_nothing_raises_and_all_is_valid(data: bytes, more: st.DataObject) -> None:
    assert_valid(data)
    wrong = bytearray(data[: more.draw(st.integers(0, len(data)))])
    for at in more.draw(st.lists(st.integers(0, max(0, len(wrong) - 1)), max_size=6)):
        if wrong:
            wrong[at] = more.draw(st.integers(0, 255))
    assert_valid(bytes(wrong))


@pytest.mark.usefixtures("small_limits")
@EXAMPLES
@given(st.binary(max_size=300), st.sampled_from([EXPLICIT, IMPLICIT, BIG]))
def test_noise_is_valid_too(noise: bytes, writer: Writer) -> None:
    assert_valid(file_of(writer.identity() + noise, writer.transfer_syntax))


@pytest.mark.usefixtures("small_limits")
@EXAMPLES
@given(files())
def test_nothing_that_is_bulk_is_read(data: bytes) -> None:
    """So it is for whole files; of damaged ones see the corpus. There, what a header means may depend on bulk."""
    file = part10.locate(data)
    if file is None or file.deflated or part10.locate(skeleton(data)) != file:
        return
    assert model(skeleton(data), file, SERVED) == model(data, file, SERVED)


def test_what_is_taken_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_elements, "MOST_ELEMENTS", 100)
    monkeypatch.setattr(model_elements, "ROUND", 64)
    flat = b"".join(EXPLICIT.element(0x00290010 + number, "LO", "") for number in range(200))
    unknown = b"".join(EXPLICIT.element(0x00291010 + number, "UN", "") for number in range(200))
    assert 90 <= len(shown(flat)) < 110
    assert 90 <= len(shown(unknown)) < 110
    for item in (EXPLICIT.item(), EXPLICIT.item(EXPLICIT.element(0x00080060, "CS", "CT"))):
        data = file_of(EXPLICIT.identity() + EXPLICIT.sequence(0x00081140, [item] * 200))
        read = parsed(model_of(data))
        assert read["00080018"]["Value"] == ["2.25.13"]
        assert 40 <= len(read["00081140"]["Value"]) <= 200


@pytest.mark.parametrize("writer", [EXPLICIT, IMPLICIT, BIG], ids=lambda writer: writer.name)
def test_any_kind_of_buffer_will_do(writer: Writer) -> None:
    item = writer.item(writer.element(0x00080104, "LO", "meaning"))
    data_set = writer.identity() + writer.sequence(0x00400260, [item]) + writer.element(0x7FE00010, "OW", bytes(8))
    data = file_of(data_set, writer.transfer_syntax)
    with mmap(-1, len(data)) as mapped:
        mapped[:] = data
        assert model_of(mapped) == model_of(memoryview(data)) == model_of(data)


def test_many_items_and_elements_take_linear_time() -> None:
    """Would take minutes if anything were quadratic."""
    chance = random.Random(1)
    items = EXPLICIT.item() * 100_000
    values = b"".join(
        EXPLICIT.element(tag, "LO", f"{chance.random()}") for tag in range(0x00111000, 0x00111000 + 30_000)
    )
    read = shown(values + EXPLICIT.sequence(0x00121001, [items]))
    assert len(read["00121001"]["Value"]) == 100_000
    assert len(read) == 30_001
    assert_valid(file_of(EXPLICIT.identity() + nested(50_000, undefined=True)))
