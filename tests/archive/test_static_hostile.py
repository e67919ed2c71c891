"""Trees that are damaged, contradict themselves or were made to do harm: each instance is told of, none is lost."""

from __future__ import annotations

import gzip
import io
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
import pytest

from dicomfs.archive import static_files, static_import
from dicomfs.archive.outcome import Outcome
from tests.archive.importing import Done, contents, run
from tests.builders import make_instance, uid
from tests.static_trees import OURS, multipart, packed, put, put_json, write_list, write_v1, write_v2

if TYPE_CHECKING:
    from collections.abc import Callable

STUDY, SERIES = uid("DFS-1", 1), uid("DFS-1", 1, 1)
SMALL = {"rows": 8, "columns": 8}


def sop(number: int) -> str:
    return uid("DFS-1", 1, 1, number)


def take(archive: Path, root: Path) -> Done:
    return run(archive, root, static_dicomweb=True)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a tree of the second writer with two instances."""
    write_v2(tmp_path / "tree", [make_instance("CT", number=number, **SMALL) for number in (1, 2)])
    return tmp_path / "tree"


def instance(root: Path, number: int = 1) -> Path:
    return root / "studies" / STUDY / "series" / SERIES / "instances" / sop(number)


def change(root: Path, **elements: Any) -> None:
    path = instance(root) / "metadata.gz"
    (record,) = json.loads(gzip.decompress(path.read_bytes()))
    for tag, element in elements.items():
        record[tag.removeprefix("_")] = element
    put_json(path, [{tag: element for tag, element in record.items() if element is not None}])


def replace(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


def document(root: Path, content: bytes) -> None:
    replace(instance(root) / "metadata.gz", packed(content))


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def link(path: Path, target: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to(target)


def nested(depth: int) -> Any:
    element: Any = {"vr": "LO", "Value": ["deep"]}
    for _ in range(depth):
        element = {"vr": "SQ", "Value": [{"00081110": element}]}
    return element


def bomb(size: int) -> bytes:
    file = io.BytesIO()
    with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=1) as stream:
        for _ in range(size >> 20):
            stream.write(bytes(1 << 20))
    return file.getvalue()


def frame(root: Path, syntax: str = "1.2.840.10008.1.2.1", payload: bytes = bytes(128)) -> None:
    (instance(root) / "frames" / "1.mht.gz").unlink()
    put(instance(root) / "frames" / "1.mht", multipart(payload, f"image/x;transfer-syntax={syntax}", version=2))


def bulk(uri: str) -> dict[str, str]:
    return {"vr": "OB", "BulkDataURI": uri}


HURT: dict[str, tuple[Callable[[Path], object], str]] = {
    "URI out of the tree": (lambda root: change(root, _00420011=bulk("../../../../../../../secret")), "leads out"),
    "absolute URI": (lambda root: change(root, _00420011=bulk("/etc/passwd")), "leads out"),
    "file URI": (lambda root: change(root, _00420011=bulk("file:///etc/passwd")), "leads out"),
    "URI of another study": (lambda root: change(root, _00420011=bulk("../../../../../1.2.3/x")), "leads out"),
    "URI with NUL": (lambda root: change(root, _00420011=bulk("frames/\0")), "out of the tree, or nowhere"),
    "missing value": (lambda root: change(root, _00420011=bulk("bulkdata/aa/bb/cc.mht.gz")), "is missing"),
    "link to a frame": (lambda root: link(instance(root) / "frames" / "1.mht.gz", root.parent / "secret"), "is a link"),
    "link to frames": (lambda root: link(instance(root) / "frames", root.parent), "is a link"),
    "link to metadata": (lambda root: link(instance(root) / "metadata.gz", root.parent / "secret"), "is a link"),
    "pipe": (
        lambda root: pipe(instance(root) / "metadata.gz"),
        "no file",
    ),
    "no gzip": (lambda root: replace(instance(root) / "metadata.gz", b"\x1f\x8b\x08junk"), "cannot be unpacked"),
    "gzip cut off": (
        lambda root: replace(instance(root) / "metadata.gz", (instance(root, 2) / "metadata.gz").read_bytes()[:-20]),
        "ends too early",
    ),
    "JSON cut off": (
        lambda root: document(root, b'[{"00080018":{"vr":"UI"'),
        "its JSON",
    ),
    "JSON of something else": (
        lambda root: document(root, b"[[1]]"),
        "else than objects",
    ),
    "no UTF-8": (lambda root: document(root, b'[{"a":"\xff"}]'), "no UTF-8"),
    "empty list": (lambda root: document(root, b"[]"), "is empty"),
    "brackets": (
        lambda root: document(root, b"[" + b'{"a":[' * 100_000),
        "too deeply",
    ),
    "deep sequences": (lambda root: change(root, _00081110=nested(65)), "nested more than"),
    "huge number": (
        lambda root: document(root, b'[{"a":' + b"9" * 9999 + b"}]"),
        "its JSON",
    ),
    "JSON bomb": (lambda root: replace(instance(root) / "metadata.gz", bomb(40 << 20)), "longer than"),
    "frame bomb": (lambda root: replace(instance(root) / "frames" / "1.mht.gz", bomb(40 << 20)), "not multipart"),
    "multipart bomb": (
        lambda root: replace(
            instance(root) / "frames" / "1.mht.gz",
            packed(multipart(bytes(8 << 20), "image/x;transfer-syntax=1.2.840.10008.1.2.1", version=2)),
        ),
        "much longer than its header says",
    ),
    "no end of multipart": (
        lambda root: replace(
            instance(root) / "frames" / "1.mht.gz",
            packed(multipart(bytes(128), "image/x;transfer-syntax=1.2.840.10008.1.2.1", version=2)[:-60]),
        ),
        "multipart end is missing",
    ),
    "no tag": (lambda root: change(root, nonsense={"vr": "LO"}), "no tag"),
    "no object": (lambda root: change(root, _00081030="text"), "should be an object"),
    "no base64": (
        lambda root: change(root, _00420011={"vr": "OB", "InlineBinary": "**"}),
        "(0042,0011): an Inline",
    ),
    "no number": (lambda root: change(root, _00280010={"vr": "US", "Value": ["many"]}), "is no number"),
    "out of range": (
        lambda root: change(root, _00280010={"vr": "US", "Value": [1 << 20]}),
        "(0028,0010): a Value",
    ),
    "no frames": (lambda root: (instance(root) / "frames" / "1.mht.gz").unlink(), "its frames are missing"),
    "a frame too few": (
        lambda root: change(root, _00280008={"vr": "IS", "Value": [2]}),
        "1 frames, and its",
    ),
    "a gap": (
        lambda root: (instance(root) / "frames" / "1.mht.gz").rename(instance(root) / "frames" / "2.mht.gz"),
        "frame 1 is missing",
    ),
    "two files of a frame": (lambda root: put(instance(root) / "frames" / "1.mht", b""), "two files of frame 1"),
    "frames of no image": (lambda root: change(root, _7FE00010=None), "metadata do not tell of"),
    "short frame": (lambda root: frame(root, payload=bytes(100)), "100 bytes, and its header calls for 128"),
    "unknown transfer syntax": (lambda root: frame(root, "1.2.3"), "none that is known"),
    "no transfer syntax": (
        lambda root: (
            (instance(root) / "frames" / "1.mht.gz").unlink(),
            put(instance(root) / "frames" / "1.mht", multipart(bytes(128), "image/x", version=2)),
        ),
        "does not say its transfer syntax",
    ),
    "no metadata": (lambda root: (instance(root) / "metadata.gz").unlink(), "has no metadata"),
    "16-bit colour as JPEG": (
        lambda root: (
            change(
                root,
                _00083002={"vr": "UN", "Value": ["1.2.840.10008.1.2.4.50"]},
                _00280002={"vr": "US", "Value": [3]},
                _00090010=OURS,
            ),
            frame(root, "1.2.840.10008.1.2.4.50"),
        ),
        "destroyed them",
    ),
    "coded from big endian": (
        lambda root: (
            change(root, _00083002={"vr": "UI", "Value": ["1.2.840.10008.1.2.2"]}),
            frame(root, "1.2.840.10008.1.2.4.80"),
        ),
        "big endian",
    ),
}


def test_what_is_hurt_is_told_of(archive_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static_files, "LONGEST_DOCUMENT", 32 << 20)
    put(tmp_path / "secret", packed(b"secret" * 1000))
    files = [make_instance("CT", number=number, **SMALL) for number in (1, 2)]
    for name, (hurt, _) in HURT.items():
        write_v2(tmp_path / name, files)
        hurt(tmp_path / name)
    done = run(archive_path, *(tmp_path / name for name in HURT), static_dicomweb=True)
    failed = {
        Path(result.source).relative_to(tmp_path).parts[0]: result
        for result in done.results
        if result.outcome is Outcome.FAILED
    }
    assert failed.keys() == HURT.keys()
    for name, (_, reason) in HURT.items():
        assert reason in failed[name].reason, name
        assert sop(1) in failed[name].source
        assert str(tmp_path) not in failed[name].reason
    # The other instance of each tree is not hurt, and the same everywhere.
    assert done.report.outcomes == {Outcome.FAILED: len(HURT), Outcome.IMPORTED: 1, Outcome.PRESENT: len(HURT) - 1}
    assert not done.report.complete
    assert not (archive_path / "cache" / "static-import").exists()


def test_links_to_directories_are_told_of(root: Path, archive_path: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    write_v2(outside, [make_instance("MR", study="outside")])
    (root / "studies" / "1.2.3").symlink_to(outside / "studies" / uid("DFS-1", "outside"))
    (root / "studies" / "loop").symlink_to(root / "studies")
    done = take(archive_path, root)
    assert sorted(done.outcomes) == [Outcome.FAILED] * 2 + [Outcome.IMPORTED] * 2
    assert {Path(r.source).name for r in done.results if r.outcome is Outcome.FAILED} == {"1.2.3", "loop"}


@pytest.mark.parametrize("number", [3, 8])
def test_colour_that_became_jpeg_says_so(number: int, archive_path: Path, tmp_path: Path) -> None:
    from PIL import Image

    given = pydicom.dcmread(io.BytesIO(make_instance("US", number=number, rows=32, columns=32)))
    write_v1(tmp_path / "tree", [make_instance("US", number=number, rows=32, columns=32)])
    stream = io.BytesIO()
    Image.fromarray(given.pixel_array).save(stream, "JPEG", quality=90, subsampling=0 if number == 3 else 1)
    (directory,) = (tmp_path / "tree").rglob("frames")
    (directory / "1.mht.gz").unlink()
    put(
        directory / "1.mht",
        multipart(stream.getvalue(), "image/jpeg;transfer-syntax=1.2.840.10008.1.2.4.50", version=1),
    )
    for path in [*(tmp_path / "tree").rglob("deduplicated/*/*.gz"), *(tmp_path / "tree").rglob("deduplicated/*.gz")]:
        text = gzip.decompress(path.read_bytes()).decode()
        path.write_bytes(
            packed(
                text.replace('"00083002":{"vr":"UI","Value":["1.2.840.10008.1.2.1"]}',
                             '"00083002":{"vr":"UN","Value":["1.2.840.10008.1.2.4.50"]}').encode()
            )
        )  # fmt: skip
    done = take(archive_path, tmp_path / "tree")
    assert "which loses some of it" in done.results[0].told
    (content,) = contents(archive_path).values()
    made = pydicom.dcmread(io.BytesIO(content))
    assert made.PhotometricInterpretation == ("YBR_FULL" if number == 3 else "YBR_FULL_422")
    assert (made.LossyImageCompression, made.LossyImageCompressionMethod) == ("01", "ISO_10918_1")
    assert made.LossyImageCompressionRatio == pytest.approx(32 * 32 * 3 / len(stream.getvalue()), abs=0.01)
    assert np.abs(made.pixel_array.astype(int) - given.pixel_array).max() < 128
    assert made.file_meta.TransferSyntaxUID == pydicom.uid.JPEGBaseline8Bit


def lists(root: Path) -> list[Any]:
    found: list[Any] = json.loads(
        gzip.decompress((root / "studies" / STUDY / "deduplicated" / "index.json.gz").read_bytes())
    )
    return found


def kind(found: Any) -> str:
    return str(found["00091012"]["Value"][0])


def test_the_list_in_force_counts(archive_path: Path, tmp_path: Path) -> None:
    """A group that another took in is superseded, however new it looks; what was rejected in the newest is left out."""
    root = tmp_path / "tree"
    write_v1(root, [make_instance("CT", number=number, **SMALL) for number in (1, 2, 3)])
    _, *rest = lists(root)
    extracts = [one for one in rest if kind(one) != "instance"]
    instances = [one for one in rest if kind(one) == "instance"]
    old = next((root / "deduplicated" / STUDY).iterdir())
    changed = [{**one, "00200013": {"vr": "IS", "Value": [77]}} for one in instances]
    changed[0]["00091012"] = {"Value": ["deleted"], "vr": "LO"}
    write_list(root, STUDY, extracts, changed, [old.name[:-3]])
    os.utime(old)
    (root / "studies" / STUDY / "deduplicated" / "index.json.gz").unlink()
    (root / "deduplicated" / STUDY / ("0" * 64 + ".gz")).write_bytes(b"\x1f\x8bbroken")
    done = take(archive_path, root)
    assert sorted(done.outcomes) == [Outcome.FAILED, Outcome.IMPORTED, Outcome.IMPORTED, Outcome.SKIPPED]
    made = [pydicom.dcmread(io.BytesIO(content)) for content in contents(archive_path).values()]
    assert [int(one.InstanceNumber) for one in made] == [77, 77]


def test_extracts_that_are_missing_are_told_of(archive_path: Path, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    write_v1(root, [make_instance("CT", number=number, **SMALL) for number in (1, 2)])
    instances = [one for one in lists(root) if kind(one) == "instance"]
    for group in (root / "deduplicated" / STUDY).iterdir():
        group.unlink()
    instances[0]["00091010"]["Value"][3] = "f" * 64
    instances[1]["00091010"]["Value"].append(instances[1]["00091011"]["Value"][0])  # an object that refers to itself
    write_list(root, STUDY, [], instances)
    done = take(archive_path, root)
    assert sorted(done.outcomes) == [Outcome.FAILED, Outcome.FAILED]
    assert all("is missing" in result.reason for result in done.results)


def test_originals_are_imported_as_they_are(root: Path, archive_path: Path) -> None:
    whole = make_instance("CT", number=1, **SMALL)
    put(instance(root) / "index.mht.gz", packed(multipart(whole, "application/dicom", version=1)))
    put(instance(root, 2) / "index.mht.gz", b"\x1f\x8bbroken")
    done = take(archive_path, root)
    assert done.outcomes == [Outcome.IMPORTED] * 2
    assert whole in contents(archive_path).values()
    assert done.report.remarks == {"rebuilt": 1, "the original beside it is damaged": 1}


def test_a_full_disk_ends_the_run_and_every_instance_is_told_of(
    root: Path, archive_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = static_import.build

    def full(tree: Any, found: Any, file: Any) -> tuple[str, ...]:
        if sop(2) in found.directory:
            raise OSError(28, "No space left on device")
        return built(tree, found, file)

    write_v2(root, [make_instance("CT", study="z", number=number, **SMALL) for number in range(9)])
    monkeypatch.setattr(static_import, "build", full)
    done = take(archive_path, root)
    assert "No space left" in done.report.stopped
    assert len(done.results) == 11
    assert {result.outcome for result in done.results} == {Outcome.FAILED}
    assert all("/studies/" in result.source for result in done.results)
