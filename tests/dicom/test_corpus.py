"""559 real files from 60 projects, read by this package and by pydicom: every difference is explained here."""

import csv
import io
import random
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.encaps import generate_fragments, parse_basic_offsets
from pydicom.multival import MultiValue
from pydicom.pixels.utils import get_expected_length

from dicomfs.dicom.attributes import TABLE
from dicomfs.dicom.describe import Described, Verdict, describe
from dicomfs.dicom.split import FRAGMENT, FRAME, VALUE
from dicomfs.dicom.values import text_of
from tests.dicom.tiles import assert_tiles

pytestmark = pytest.mark.corpus

# Every file that is not an instance. Each NO_UIDS file lacks them for pydicom as well (checked below).
CUT_OFF = {
    "emri_small_jpeg_2k_lossless_too_short.dcm",  # no sequence delimiter after the fragments
    "MR_truncated.dcm",  # 8,130 of 8,192 bytes of pixel data
    "rtplan_truncated.dcm",  # 719 of 976 bytes of a sequence
}
NO_UIDS = {
    "at_no_value.dcm", "multiframe.dcm", "GH220.dcm", "GH340.dcm", "GH626.dcm", "leadtools-8BitsJpegLossyGrayScale.dcm",
    "dataset.dcm", "NeurosurgeryPlan.dcm", "ZeissOCT-cfind-query.dcm", "HTJ2K_08_RGB.dcm", "chrSQEncoding.dcm",
    "chrSQEncoding1.dcm", "fall.dcm", "winter.dcm", "JPEGLSNearLossless_08.dcm", "JPEGLSNearLossless_16.dcm",
    "UN_sequence.dcm", "empty_charset_LEI.dcm", "meta_missing_tsyntax.dcm", "no_meta_group_length.dcm",
}  # fmt: skip

# What pydicom cannot read and this package can.
UNREADABLE = {
    "GH177_D_CLUNIE_CT1_IVRLE_BigEndian_undefined_length.dcm",  # OSError in an undefined length of big endian
    "2026-05-06-Deeply-Nested-Sequence.dcm",  # RecursionError
    "emri_small_jpeg_2k_lossless_too_short.dcm",  # gives up the data set without the delimiter
}
# Where the two read different text, and why ours is better (by file and keyword).
DIFFERENT = {
    # pydicom leaves the escape sequences of GB 2312 in the text (its codec does not take them)
    ("chrGB2312.dcm", "PatientName"): "Zhang^XiaoDong=张^小东=",
    # pydicom drops an empty last component group; PS3.5 6.2.1 allows to, ours keeps what was written
    ("chrX1.dcm", "PatientName"): "Wang^XiaoDong=王^小東=",
    ("chrX2.dcm", "PatientName"): "Wang^XiaoDong=王^小东=",
}


def files(corpus: Path) -> Iterator[tuple[str, bytes]]:
    with (corpus / "MANIFEST.tsv").open(newline="") as manifest:
        paths = [row["path"] for row in csv.DictReader(manifest, delimiter="\t")]
    assert len(paths) == 559
    for path in paths:
        yield path, (corpus / path).read_bytes()


def by_pydicom(data: bytes) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dcmread(io.BytesIO(data), force=True)


def test_every_file_is_tiled(corpus: Path) -> None:
    for path, data in files(corpus):
        assert_tiles(describe(data).spans, data), path


def test_every_kind_of_file_may_be_hurt(corpus: Path) -> None:
    """Files cut short and files with wrong bytes, ten of each: the same ones every time."""
    chance = random.Random(559)
    for path, data in files(corpus):
        if len(data) > 40_000 or "dicomdirtests" in path:
            continue
        for _ in range(10):
            cut = data[: chance.randrange(len(data))]
            assert_tiles(describe(cut).spans, cut)
            wrong = bytearray(data)
            for _ in range(chance.randrange(1, 6)):
                wrong[chance.randrange(len(data))] = chance.choice((0, 0xFF, chance.randrange(256)))
            assert_tiles(describe(bytes(wrong)).spans, wrong)


def test_every_readable_instance_is_one(corpus: Path) -> None:
    for path, data in files(corpus):
        name = Path(path).name
        verdict = describe(data).verdict
        if name.startswith("DICOMDIR"):
            assert verdict == Verdict.DICOMDIR, path
        elif name in CUT_OFF:
            assert verdict == Verdict.CUT_OFF, path
        elif name in NO_UIDS:
            assert verdict == Verdict.NO_UIDS, path
            present = by_pydicom(data)
            uids = [present.get(uid) for uid in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")]
            assert not all(uids), path
        else:
            assert verdict == Verdict.DICOM, path


def shown(value: Any) -> str | int | None:
    if isinstance(value, MultiValue):
        return "\\".join(map(str, value)) or None
    if isinstance(value, int):
        return int(value)
    return None if value is None else str(value).rstrip(" \0") or None


def ours(described: Described) -> dict[str, str | int]:
    assert described.attributes is not None
    levels = described.attributes
    return {**levels.patient, **levels.study, **levels.series, **levels.instance}


def test_attributes_are_what_pydicom_reads(corpus: Path) -> None:
    differences = {}
    character_sets = set()
    for path, data in files(corpus):
        name = Path(path).name
        described = describe(data)
        if described.verdict == Verdict.DICOMDIR or name in UNREADABLE:
            continue
        data_set = by_pydicom(data)
        character_sets.add(str(data_set.get("SpecificCharacterSet")))
        read = ours(described)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for _, _, keyword, _ in TABLE:
                theirs = shown(data_set.get(keyword))
                if read.get(keyword) != theirs:
                    differences[name, keyword] = read.get(keyword)
    expected = {key: text for key, text in DIFFERENT.items() if key[1] == "PatientName"}
    assert differences == expected
    assert len(character_sets) >= 20


def test_what_pydicom_cannot_read_is_read(corpus: Path) -> None:
    seen = set()
    for path, data in files(corpus):
        if Path(path).name in UNREADABLE:
            read = ours(describe(data))
            assert {"StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "Rows"} <= read.keys(), path
            seen.add(Path(path).name)
    assert seen == UNREADABLE


def native_frames(data_set: Dataset, pixels: bytes) -> list[bytes]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            length = get_expected_length(data_set) // int(data_set.get("NumberOfFrames") or 1)
    except (AttributeError, ValueError):  # Rows, NumberOfFrames, ... is missing or is no number
        length = 0
    if length < 1024:
        length = len(pixels)
    return [pixels[at : at + length] for at in range(0, len(pixels) // length * length, length)]


def test_frames_and_fragments_are_what_pydicom_finds(corpus: Path) -> None:
    frames = fragments = 0
    for path, data in files(corpus):
        described = describe(data)
        if Path(path).name in UNREADABLE | CUT_OFF or described.transfer_syntax == "1.2.840.10008.1.2.1.99":
            continue
        found = [data[span.start : span.end] for span in described.spans if span.kind in (FRAME, FRAGMENT)]
        data_set = by_pydicom(data)
        keyword = next((k for k in ("PixelData", "FloatPixelData", "DoubleFloatPixelData") if k in data_set), "")
        pixels: bytes = (data_set.get(keyword) if keyword else None) or b""
        if keyword and data_set[keyword].is_undefined_length:
            stream = io.BytesIO(pixels)
            parse_basic_offsets(stream)
            expected = [fragment for fragment in generate_fragments(stream) if len(fragment) >= 256]
            fragments += len(expected)
        elif len(pixels) < 1024:
            expected = []
        elif keyword == "PixelData":
            expected = native_frames(data_set, pixels)
            frames += len(expected)
        else:
            expected = [pixels]
        assert found == expected, path
    assert frames >= 500
    assert fragments >= 300


def test_only_deflated_and_large_values_are_kept_whole(corpus: Path) -> None:
    whole = {}
    for path, data in files(corpus):
        for span in describe(data).spans:
            if span.kind == VALUE:
                whole[Path(path).name] = span.end - span.start
    deflated = {name for name, length in whole.items() if length <= 1 << 20}
    assert len(deflated) >= 2, whole
    assert len(whole) - len(deflated) >= 1, whole


def readable(element: Any) -> str | None:
    value = element.value
    if value is None:
        return ""
    values = value if isinstance(value, (MultiValue, list)) else [value]
    if element.VR == "AT":
        return "\\".join(f"{int(tag):08X}" for tag in values)
    if element.VR in ("DS", "IS"):  # as it was written, not as the number
        return "\\".join(getattr(each, "original_string", None) or str(each) for each in values)
    return "\\".join(map(str, values))


def test_any_attribute_is_what_pydicom_reads(corpus: Path) -> None:
    """Every readable attribute of one file of each project, vendor and kind."""
    different = {}
    kinds = set()
    count = 0
    for path, data in files(corpus):
        name = Path(path).name
        if name in UNREADABLE:
            continue
        data_set = by_pydicom(data)
        kind = (
            path.split("/")[0],
            *(str(data_set.get(keyword)) for keyword in ("Manufacturer", "SOPClassUID", "SpecificCharacterSet")),
            str(data_set.file_meta.get("TransferSyntaxUID")),
        )
        if kind in kinds:
            continue
        kinds.add(kind)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for tag in data_set.keys():  # noqa: SIM118 (iterating a Dataset makes every element of it)
                try:
                    element = data_set[tag]
                except NotImplementedError:  # a VR that does not exist
                    continue
                text = text_of(data, f"{int(tag):08X}")
                if element.VR in ("SQ", "OB", "OW", "OF", "OD", "OL", "OV", "OB or OW"):
                    assert text is None, (path, element.tag)
                elif element.VR in ("FL", "FD"):
                    theirs = readable(element) or ""
                    assert [*map(float, (text or "0").split("\\"))] == pytest.approx(
                        [*map(float, (theirs or "0").split("\\"))], rel=1e-7, nan_ok=True
                    ), (path, element.tag)
                elif element.VR != "UN":
                    count += 1
                    if _squeezed(text) != _squeezed(readable(element)):
                        different[name, element.keyword] = text
    assert different == {
        **DIFFERENT,
        # a length of 8,240 in a file of bad VRs and lengths: not a multiple of an SS, and no text
        ("GH179B.dcm", "PixelPaddingValue"): None,
        # zeros after the data set, which pydicom reads as an element
        ("GH626.dcm", "CommandGroupLength"): None,
    }
    assert count > 10_000


def _squeezed(text: str | None) -> str:
    # pydicom keeps blanks around the values of CS and the like, which mean nothing
    return "\\".join(part.strip(" \0\n\r\t") for part in (text or "").split("\\"))
