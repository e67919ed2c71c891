"""Whatever is done to a file: its JSON model is valid, nothing raises, and nothing that is bulk is read."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomfs.dicom import part10
from dicomfs.dicom.model import model
from tests.dicom.build import BIG, EXPLICIT, IMPLICIT, Writer
from tests.dicom.build import part10 as file_of
from tests.dicom.model_shown import SERVED, assert_valid, shown, skeleton
from tests.dicom.test_damage import files


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


@given(files(), st.data())
def test_nothing_raises_and_all_is_valid(data: bytes, more: st.DataObject) -> None:
    assert_valid(data)
    wrong = bytearray(data[: more.draw(st.integers(0, len(data)))])
    for at in more.draw(st.lists(st.integers(0, max(0, len(wrong) - 1)), max_size=6)):
        if wrong:
            wrong[at] = more.draw(st.integers(0, 255))
    assert_valid(bytes(wrong))


@given(st.binary(max_size=300), st.sampled_from([EXPLICIT, IMPLICIT, BIG]))
def test_noise_is_valid_too(noise: bytes, writer: Writer) -> None:
    assert_valid(file_of(writer.identity() + noise, writer.transfer_syntax))


@given(files())
def test_nothing_that_is_bulk_is_read(data: bytes) -> None:
    file = part10.locate(data)
    if file is None or file.deflated:
        return
    assert model(skeleton(data), file, SERVED) == model(data, file, SERVED)


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
