"""The JSON model of data sets built in tests, parsed as strictly as any reader may."""

import json
from typing import Any

from dicomfs.dicom import part10
from dicomfs.dicom.describe import describe
from dicomfs.dicom.encoding import Data
from dicomfs.dicom.model import Model, model
from dicomfs.dicom.split import LITERAL
from tests.dicom.build import EXPLICIT, Writer
from tests.dicom.build import part10 as file_of

SERVED = "1.2.840.10008.1.2.1"
PREFIX = "series/2.25.12/instances/2.25.13/"


def model_of(data: Data, transfer_syntax: str = SERVED) -> Model:
    file = part10.locate(data)
    assert file is not None
    made = model(data, file, transfer_syntax)
    assert sorted(made.fields) == list(made.fields)
    return made


def parsed(made: Model) -> dict[str, Any]:
    """Parse strictly, as no reader of JSON would be stricter."""
    text = PREFIX.join(made.pieces)
    assert text.encode("utf-8").decode("utf-8") == text

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in found]
        assert len(set(keys)) == len(keys), keys
        if keys and len(keys[0]) == 8:
            assert keys == sorted(keys)
        return dict(found)

    def constant(token: str) -> None:
        raise AssertionError(token)

    parsed: dict[str, Any] = json.loads(text, object_pairs_hook=pairs, parse_constant=constant)
    return parsed


def shown(data_set: bytes, writer: Writer = EXPLICIT) -> dict[str, Any]:
    """Return the JSON of a data set without what every instance has."""
    read = parsed(model_of(file_of(writer.identity() + data_set, writer.transfer_syntax)))
    for tag in ("00080016", "00080018", "0020000D", "0020000E"):
        assert read.pop(tag)["vr"] == "UI"
    assert read.pop("00083002") == {"vr": "UI", "Value": [SERVED]}
    return read


def one(tag: int, vr: str, value: Any, writer: Writer = EXPLICIT) -> dict[str, Any]:
    read = shown(writer.element(tag, vr, value), writer)
    found: dict[str, Any] = read.pop(f"{tag:08X}")
    read.pop("00080005", None)
    assert read == {}
    return found


def assert_valid(data: bytes) -> None:
    file = part10.locate(data)
    if file is None:
        return
    made = model(data, file, SERVED)
    read = parsed(made)
    names = [bulk.name for bulk in made.bulk]
    assert len(made.pieces) == len(names) + 1
    assert len(set(names)) == len(names)
    for bulk, piece in zip(made.bulk, made.pieces[1:], strict=True):
        assert piece.startswith(f'bulkdata/{bulk.name}"')
        assert 0 <= bulk.start < bulk.end <= len(data)
    for tag, text in made.fields.items():
        assert json.loads(text) == read[f"{tag:08X}"]


def skeleton(data: bytes) -> bytes:
    bare = bytearray(data)
    for span in describe(data).spans:
        if span.kind != LITERAL:
            bare[span.start : span.end] = bytes(span.end - span.start)
    return bytes(bare)
