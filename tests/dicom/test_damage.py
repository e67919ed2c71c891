"""Whatever is done to a file: no exception, no endless walk, and the spans still tile it."""

import sys
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicomfs.dicom import stride
from dicomfs.dicom import walk as walk_module
from dicomfs.dicom.describe import Described, Verdict, describe
from dicomfs.dicom.split import FRAGMENT, FRAME, LITERAL, VALUE
from dicomfs.dicom.values import text_of
from tests.dicom.build import DEFLATED_UID, EXPLICIT, IMPLICIT, UNDEFINED, WRITERS, Writer, deflated, part10
from tests.dicom.tiles import assert_tiles

# Data sets -----------------------------------------------------------------------------------------------

TEXT_VRS = ["AE", "CS", "DA", "DS", "IS", "LO", "LT", "PN", "SH", "TM", "UC", "UI", "UT", "OB", "UN"]


@st.composite
def data_sets(draw: st.DrawFn, writer: Writer, depth: int = 0) -> bytes:
    """Draw elements in ascending order, with sequences of all four kinds, pixels and large values."""
    elements = []
    for tag in sorted(draw(st.sets(st.integers(0x00090010, 0x7FDFFFFF), max_size=5))):
        if depth < 4 and draw(st.booleans()):
            items = draw(st.lists(data_sets(writer, depth + 1), max_size=3))
            undefined = draw(st.booleans())
            vr = draw(st.sampled_from(["SQ", "UN"])) if undefined and writer.implicit else "SQ"
            wrapped = [writer.item(item, undefined=draw(st.booleans())) for item in items]
            elements.append(writer.sequence(tag, wrapped, undefined=undefined, vr=vr))
        else:
            value = draw(st.binary(max_size=40)) * draw(st.sampled_from([1, 1, 1, 40]))
            elements.append(writer.element(tag, draw(st.sampled_from(TEXT_VRS)), value))
    return b"".join(elements)


@st.composite
def files(draw: st.DrawFn) -> bytes:
    writer = draw(st.sampled_from(WRITERS))
    head = writer.identity() if draw(st.booleans()) else b""
    pixels = draw(
        st.sampled_from(
            [
                b"",
                writer.image(32, 32, bits=8, frames=3) + writer.element(0x7FE00010, "OW", bytes(3 * 1024)),
                writer.encapsulated([b"f" * 300, b"", b"g" * 1000], b"\0" * 8),
            ]
        )
    )
    data_set = draw(data_sets(writer)) + head + pixels + draw(st.sampled_from([b"", b"\0", bytes(300), b"\r\n"]))
    if writer is EXPLICIT and draw(st.booleans()):
        return part10(deflated(data_set), DEFLATED_UID)
    return part10(data_set, writer.transfer_syntax) if draw(st.booleans()) else data_set


@pytest.fixture(autouse=True)
def _small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    # With these, data that hypothesis can draw reaches the code that large values and sequences reach.
    for module in (walk_module, stride):
        monkeypatch.setattr(module, "LARGE", 100)
    monkeypatch.setattr("dicomfs.dicom.split.LARGE", 100)


def described(data: bytes) -> Described:
    result = describe(data)
    assert_tiles(result.spans, data)
    assert "\n" not in result.reason
    for keyword in ("PatientName", "7FE00010", "00091010"):
        text_of(data, keyword)
    return result


EXAMPLES = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@EXAMPLES
@given(files())
def test_spans_tile_every_file(data: bytes) -> None:
    assert described(data).verdict in (Verdict.DICOM, Verdict.NO_UIDS, Verdict.NOT_DICOM)


@EXAMPLES
@given(st.sampled_from(WRITERS).flatmap(lambda writer: st.tuples(st.just(writer), data_sets(writer))))
def test_the_walk_reaches_what_follows_any_data_set(drawn: tuple[Writer, bytes]) -> None:
    writer, before = drawn
    pixels = writer.image(32, 32, bits=8) + writer.element(0x7FE00010, "OW", b"p" * 4096)
    result = described(part10(before + writer.identity() + pixels, writer.transfer_syntax))
    assert result.verdict == Verdict.DICOM
    assert [span.end - span.start for span in result.spans if span.kind == FRAME] == [1024] * 4
    assert result.spans[-1].kind == FRAME


@EXAMPLES
@given(files(), st.data())
def test_a_file_may_end_anywhere(data: bytes, draw: st.DataObject) -> None:
    described(data[: draw.draw(st.integers(0, len(data)))])


@EXAMPLES
@given(files(), st.data())
def test_any_bytes_may_be_wrong(data: bytes, draw: st.DataObject) -> None:
    wrong = bytearray(data or b"\0")
    for _ in range(draw.draw(st.integers(1, 4))):
        wrong[draw.draw(st.integers(0, len(wrong) - 1))] = draw.draw(st.sampled_from([0, 0xFF, 0x80, 0x41, 0xFE]))
    described(bytes(wrong))


@EXAMPLES
@given(files(), st.binary(min_size=1, max_size=30), st.data())
def test_bytes_may_be_missing_or_too_many(data: bytes, extra: bytes, draw: st.DataObject) -> None:
    at = draw.draw(st.integers(0, len(data)))
    gap = draw.draw(st.integers(0, 30))
    described(data[:at] + extra + data[at:])
    described(data[:at] + data[at + gap :])


@EXAMPLES
@given(st.binary(max_size=600))
def test_noise_is_tiled(noise: bytes) -> None:
    described(noise)
    described(bytes(128) + b"DICM" + noise)
    described(part10(noise))
    described(part10(noise, "1.2.840.10008.1.2"))


SAMPLE = part10(
    EXPLICIT.element(0x00080005, "CS", "ISO_IR 192")
    + EXPLICIT.sequence(
        0x00081140, [EXPLICIT.item(EXPLICIT.element(0x00081150, "UI", "1.2"), undefined=True)], undefined=True
    )
    + EXPLICIT.identity()
    + EXPLICIT.sequence(0x00400275, [EXPLICIT.item(EXPLICIT.element(0x00400007, "LO", "text"))])
    + EXPLICIT.encapsulated([b"a" * 300, b"b" * 300])
)  # fmt: skip


@pytest.mark.parametrize("value", [0x00, 0x01, 0x80, 0xFF])
def test_each_single_byte_may_be_wrong(value: int) -> None:
    for at in range(len(SAMPLE)):
        described(SAMPLE[:at] + bytes([SAMPLE[at] ^ value or 0x55]) + SAMPLE[at + 1 :])


def test_it_may_end_at_each_byte() -> None:
    header = len(SAMPLE) - 8 - 308 * 2  # as far as the fragments
    for at in range(len(SAMPLE)):
        verdict = described(SAMPLE[:at]).verdict
        if at > header:
            assert verdict == Verdict.CUT_OFF, at


def test_what_was_cut_off_still_shares_its_first_fragments() -> None:
    assert [span.kind for span in described(SAMPLE[:-20]).spans][:3] == [LITERAL, FRAGMENT, VALUE]


# Depth and length ----------------------------------------------------------------------------------------


def nested(writer: Writer, depth: int, *, undefined: bool) -> bytes:
    if undefined:
        opened = writer.header(0x00081140, "SQ", UNDEFINED) + writer.tag(0xFFFEE000) + writer.u32(UNDEFINED)
        closed = writer.tag(0xFFFEE00D) + writer.u32(0) + writer.end()
        return opened * depth + closed * depth
    # from the inside out, without building every level anew
    head = len(writer.header(0x00081140, "SQ", 0)) + 8
    return b"".join(
        writer.header(0x00081140, "SQ", head * (depth - level) - head + 8)
        + writer.tag(0xFFFEE000) + writer.u32(head * (depth - level) - head)
        for level in range(depth)
    )  # fmt: skip


def calls_to_describe(data: bytes) -> int:
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        result = describe(data)
    finally:
        sys.setprofile(None)
    assert result.verdict == Verdict.DICOM, result.reason
    assert_tiles(result.spans, data)
    return calls


@pytest.mark.parametrize("undefined", [True, False], ids=["undefined", "defined"])
@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.name)
def test_depth_costs_in_proportion(writer: Writer, undefined: bool) -> None:
    identity = writer.identity()
    calls = [
        calls_to_describe(part10(nested(writer, depth, undefined=undefined) + identity, writer.transfer_syntax))
        for depth in (1_500, 10_000, 100_000)
    ]
    assert calls[2] < 10.5 * calls[1]
    assert all(less < more for less, more in pairwise(calls))


def test_a_depth_that_is_never_closed_costs_in_proportion() -> None:
    data = part10(EXPLICIT.identity() + nested(EXPLICIT, 100_000, undefined=True)[: 100_000 * 20])
    assert described(data).verdict == Verdict.CUT_OFF


@pytest.mark.parametrize(
    "data",
    [
        part10(IMPLICIT.identity() + IMPLICIT.end() * 200_000, IMPLICIT.transfer_syntax),
        part10(EXPLICIT.identity() + EXPLICIT.item() * 200_000),
        part10(EXPLICIT.identity() + bytes(3_000_000)),
        part10(IMPLICIT.identity() + bytes(3_000_000), IMPLICIT.transfer_syntax),
        part10(EXPLICIT.sequence(0x00081140, [EXPLICIT.end()] * 200_000, undefined=True) + EXPLICIT.identity()),
        part10(EXPLICIT.identity() + EXPLICIT.element(0x00204000, "LT", "") * 200_000),
        part10(EXPLICIT.identity() + EXPLICIT.element(0x00204000, "QQ", "") * 50_000),
    ],
    ids=["delimiters", "items", "zeros", "zeros, implicit", "delimiters in a sequence", "repeats", "unknown VRs"],
)
def test_a_long_file_of_nonsense_is_not_a_long_walk(data: bytes) -> None:
    described(data)


def test_a_deflated_bomb_is_not_inflated_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = deflated(EXPLICIT.identity() + EXPLICIT.element(0x7FE00010, "OB", bytes(40_000_000)))
    bomb = part10(stream[:-5], DEFLATED_UID)
    assert described(bomb).verdict == Verdict.CUT_OFF
    monkeypatch.setattr("dicomfs.dicom.part10.INFLATED_AT_MOST", 30_000_000)
    assert described(bomb).verdict == Verdict.DICOM, "its end was looked at"
