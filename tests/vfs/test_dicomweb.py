"""The DICOMweb tree: where things stand, what has which name, and that hostile values stay values."""

from __future__ import annotations

import gc
import gzip
import json
import warnings
import weakref
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urljoin

import numpy as np
import pytest
from pydicom.uid import MPEG4HP41, DeflatedExplicitVRLittleEndian, JPEG2000Lossless

from dicomfs.archive.archive import Archive
from dicomfs.archive.bundle import Cards
from dicomfs.archive.pictures import THUMBNAIL_BYTES
from dicomfs.errors import Damaged, NotFound
from dicomfs.vfs import shelf
from dicomfs.vfs import web_numbers as web
from dicomfs.vfs.composed import MANY
from dicomfs.vfs.node import DICOMWEB, DICOMWEB_STUDIES, PATIENCE, ROOT, NotReady, waited
from tests.builders import make_instance, uid, write_study
from tests.vfs.conftest import PatientTree, add

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

BASE = "http://localhost/"
SOP = uid("DFS-1", 1, 1, 1)


class Web:
    """The tree of an archive, by paths below `dicomweb/`."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.tree = PatientTree(archive, ["dicomweb"])

    def find(self, path: str) -> int | None:
        ino = DICOMWEB
        for name in filter(None, path.split("/")):
            found = self.tree.lookup(ino, name.encode())
            if found is None:
                return None
            ino = found.ino
        return ino

    def read(self, path: str) -> bytes:
        ino = self.find(path)
        assert ino is not None, path
        file = self.tree.open(ino)
        try:
            found = self.tree.attributes(ino)
            assert found is not None
            data = bytes(file.read(0, file.size + 1))
            assert len(data) == file.size == found.size
            return data
        finally:
            file.close()

    def json(self, path: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(gzip.decompress(self.read(path)))
        return found

    def names(self, path: str) -> list[str]:
        ino = self.find(path)
        assert ino is not None, path
        return [entry[0].decode() for entry in self.tree.entries(ino)]


@pytest.fixture
def grow(archive_path: Path, tmp_path: Path) -> Iterator[Callable[..., Web]]:
    """Return what imports files and shows the tree."""
    grown: list[Web] = []

    def make(*contents: bytes, on_conflict: str = "keep") -> Web:
        source = tmp_path / f"source{len(grown)}"
        source.mkdir()
        for number, content in enumerate(contents):
            (source / f"{number:03d}").write_bytes(content)
        if grown:
            grown[-1].tree.close()
            grown[-1].archive.close()
        add(archive_path, source, on_conflict=on_conflict)
        grown.append(Web(Archive.open(archive_path)))
        return grown[-1]

    yield make
    grown[-1].tree.close()
    grown[-1].archive.close()


def place(*, study: object = 1, series: object = 1, number: int = 1) -> str:
    study_uid, series_uid = uid("DFS-1", study), uid("DFS-1", study, series)
    return f"studies/{study_uid}/series/{series_uid}/instances/{uid('DFS-1', study, series, number)}"


def payload(message: bytes) -> tuple[str, bytes]:
    """Return the media type and the bytes of the one part of a multipart message."""
    boundary, _, rest = message.partition(b"\r\n")
    head, _, body = rest.partition(b"\r\n\r\n")
    end = b"\r\n" + boundary + b"--\r\n"
    assert body.endswith(end)
    return head.decode().partition(": ")[2], body.removesuffix(end)


def test_what_is_listed(grow: Callable[..., Web]) -> None:
    made = grow(make_instance(frames=3), make_instance("SR", series=2))
    study = f"studies/{uid('DFS-1', 1)}"
    assert made.names("") == ["studies"]
    assert made.names("studies") == ["index.json.gz", uid("DFS-1", 1)]
    assert sorted(made.names(study)) == sorted(
        [
            "index.json.gz",
            "studies.gz",
            "series.gz",
            "metadata.gz",
            "deduplicated.gz",
            "thumbnail",
            "series",
            "deduplicated",
            "bulkdata",
        ]
    )
    series = f"{study}/series/{uid('DFS-1', 1, 1)}"
    assert made.names(series) == ["metadata.gz", "instances.gz", "thumbnail", "instances"]
    assert made.names(place()) == ["metadata.gz", "thumbnail", "frames", "rendered", "bulkdata"]
    assert made.names(f"{place()}/frames") == made.names(f"{place()}/rendered") == ["1", "2", "3"]
    assert made.names(f"{place()}/bulkdata") == ["7FE00010"]
    assert made.names(place(series=2)) == ["metadata.gz", "thumbnail"]


def test_frames_are_those_of_the_file(grow: Callable[..., Web]) -> None:
    content = make_instance(frames=3)
    made = grow(content)
    frames = [payload(made.read(f"{place()}/frames/{number}")) for number in (1, 2, 3)]
    assert {kind for kind, _ in frames} == {"application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1"}
    joined = b"".join(frame for _, frame in frames)
    assert joined in content
    assert made.read(f"{place()}/bulkdata/7FE00010") == joined
    kind, whole = payload(made.read(f"{place()}/index.mht"))
    assert kind.startswith("application/dicom")
    assert whole == content


def test_encapsulated_frames_and_video(grow: Callable[..., Web]) -> None:
    made = grow(
        make_instance("US", frames=2, transfer_syntax=JPEG2000Lossless),
        make_instance("US", number=2, frames=2, transfer_syntax=MPEG4HP41),
    )
    assert payload(made.read(f"{place()}/frames/2"))[0] == f"image/jp2; transfer-syntax={JPEG2000Lossless}"
    video = place(number=2)
    assert "pixeldata" in made.names(video)
    assert payload(made.read(f"{video}/frames/1"))[1] == made.read(f"{video}/pixeldata")
    assert made.find(f"{video}/frames/2") is None


def test_big_endian_pixels_are_served_in_little_endian(grow: Callable[..., Web]) -> None:
    made = grow(make_instance(transfer_syntax="1.2.840.10008.1.2.2", seed="same"))
    kind, frame = payload(made.read(f"{place()}/frames/1"))
    assert kind == "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1"
    little = make_instance(seed="same")
    assert np.frombuffer(frame, "<u2").max() < 5000
    assert frame in little
    (found,) = made.json(f"{place()}/metadata.gz")
    assert found["00083002"]["Value"] == ["1.2.840.10008.1.2.1"]
    assert made.read(f"{place()}/{found['7FE00010']['BulkDataURI']}") == frame


def test_sixteen_bits_of_colour_are_not_taken_for_eight(grow: Callable[..., Web]) -> None:
    samples = np.random.default_rng(7).integers(0, 65536, (8, 8, 3), np.uint16)
    attributes = {
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "Rows": 8,
        "Columns": 8,
        "PixelData": samples.tobytes(),
    }
    made = grow(make_instance("US", attributes=attributes))
    assert payload(made.read(f"{place()}/frames/1"))[1] == samples.tobytes()
    assert made.names(f"{place()}/frames") == ["1"]


def test_windows_that_differ_in_order_alone_stay_apart(grow: Callable[..., Web]) -> None:
    windows = [["40", "300"], ["300", "40"]]
    made = grow(
        *(
            make_instance(number=number, attributes={"WindowCenter": window, "WindowWidth": ["400", "1500"]})
            for number, window in enumerate(windows, 1)
        )
    )
    study = f"studies/{uid('DFS-1', 1)}"
    for path in (f"{study}/metadata.gz", f"{study}/series/{uid('DFS-1', 1, 1)}/metadata.gz"):
        assert [one["00281050"]["Value"] for one in made.json(path)] == [[40, 300], [300, 40]]
    assert any(one.get("00281050", {}).get("Value") == [40, 300] for one in made.json(f"{study}/deduplicated.gz"))
    assert any(one.get("00281050", {}).get("Value") == [300, 40] for one in made.json(f"{study}/deduplicated.gz"))


@pytest.mark.parametrize("name", ["山田^太郎", "김^희중", "Иванов^Иван", "Äneas^Rüdiger"])
def test_names_in_other_scripts(grow: Callable[..., Web], name: str) -> None:
    made = grow(make_instance(patient_name=name))
    for path in ("studies/index.json.gz", f"{place()}/metadata.gz"):
        (found,) = made.json(path)
        assert found["00100010"]["Value"] == [{"Alphabetic": name}]
        assert found["00080005"]["Value"] == ["ISO_IR 192"]


@pytest.mark.parametrize(
    "hostile",
    ["..", "../../etc/passwd", "a/b", "1.2.3 ", "-rf", "1.2%2F3", "index.json.gz", "1.2\\3", "1" * 63, "1." * 40 + "1",
     "x" * 4000, "<script>"],
)  # fmt: skip
def test_uids_that_are_none_are_names_all_the_same(grow: Callable[..., Web], hostile: str) -> None:
    attributes = {"SOPInstanceUID": hostile, "SeriesInstanceUID": f"{hostile}.1", "StudyInstanceUID": f"{hostile}.2"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as pydicom says what it thinks of them
        content = make_instance(attributes=attributes)
    made = grow(content)
    (study,) = (name for name in made.names("studies") if name != "index.json.gz")
    (series,) = (name for name in made.names(f"studies/{study}/series") if name != "index.json.gz")
    above = f"studies/{study}/series/{series}/instances"
    (instance,) = (name for name in made.names(above) if name != "index.json.gz")
    for name in (study, series, instance):
        assert "/" not in name
        assert name not in (".", "..")
        assert len(name.encode()) <= 120
    assert payload(made.read(f"{above}/{instance}/index.mht"))[1] == content
    for path in (f"studies/{study}/metadata.gz", f"studies/{study}/series/{series}/metadata.gz"):
        (found,) = made.json(path)
        target = urljoin(
            BASE + "/".join(map(quote, path.removesuffix(".gz").split("/"))), found["7FE00010"]["BulkDataURI"]
        )
        names = [unquote(name) for name in target.removeprefix(BASE).split("/")]
        assert names == [*f"{above}/{instance}/bulkdata/7FE00010".split("/")]


def test_one_of_two_files_of_a_uid_is_shown(grow: Callable[..., Web]) -> None:
    first, second = make_instance(seed="first"), make_instance(seed="second")
    made = grow(first, second)
    assert payload(made.read(f"{place()}/index.mht"))[1] == first
    assert made.json("studies/index.json.gz")[0]["00201208"]["Value"] == [1]
    made = grow(make_instance(seed="third"), on_conflict="replace")
    assert payload(made.read(f"{place()}/index.mht"))[1] == make_instance(seed="third")
    assert made.json("studies/index.json.gz")[0]["00201208"]["Value"] == [1]


def test_pictures_have_the_sizes_they_promise(grow: Callable[..., Web]) -> None:
    made = grow(make_instance(frames=2), make_instance("SR", number=2))
    picture = made.read(f"{place()}/thumbnail")
    assert len(picture) == THUMBNAIL_BYTES
    assert picture[:3] == b"\xff\xd8\xff"
    assert made.read(f"{place()}/rendered/2")[:8] == b"\x89PNG\r\n\x1a\n"
    study = f"studies/{uid('DFS-1', 1)}"
    series = f"{study}/series/{uid('DFS-1', 1, 1)}"
    assert made.read(f"{study}/thumbnail") == made.read(f"{series}/thumbnail")
    assert made.read(f"{series}/thumbnail") in (picture, made.read(f"{place(number=2)}/thumbnail"))


def test_inode_numbers_say_what_they_are_of() -> None:
    for family in (web.STUDY, web.SERIES, web.INSTANCE, web.ALL):
        for number in (0, 1024, (1 << 31) - 1, 1 << 39, (1 << 39) + 12345):
            for kind in range(16):
                for argument in (0, 1, web.ARGUMENTS - 1):
                    ino = web.inode(family, number, kind, argument)
                    assert web.is_web(ino)
                    assert 0 < ino < 1 << 63
                    assert web.node(ino) == (family, number, kind, argument)
    assert web.inode(web.STUDY, 1 << 31) == web.inode(web.STUDY, 5, 0, web.ARGUMENTS) == 0
    assert not web.is_web(ROOT)


def test_numbers_of_nothing(grow: Callable[..., Web]) -> None:
    made = grow(make_instance())
    for ino in (
        web.inode(family, number, kind) for family in range(1, 8) for number in (7, 99999) for kind in range(16)
    ):
        assert made.tree.attributes(ino) is None
        assert made.tree.lookup(ino, b"x") is None
        assert list(made.tree.entries(ino)) == []
        with pytest.raises(NotFound):
            made.tree.open(ino)
    assert made.tree.parent(DICOMWEB_STUDIES) == DICOMWEB
    assert made.tree.parent(DICOMWEB) == ROOT


def test_an_empty_archive(archive_path: Path) -> None:
    with Archive.open(archive_path) as archive:
        made = Web(archive)
        try:
            assert made.names("studies") == ["index.json.gz"]
            assert made.json("studies/index.json.gz") == []
        finally:
            made.tree.close()


def test_listings_go_on_from_any_cookie(grow: Callable[..., Web], tmp_path: Path) -> None:
    write_study(tmp_path / "more", series=3, instances=4)
    made = grow(*(path.read_bytes() for path in (tmp_path / "more").rglob("*") if path.is_file()))
    directories = [DICOMWEB]
    while directories:
        ino = directories.pop()
        whole = list(made.tree.entries(ino))
        for at in range(len(whole)):
            assert list(made.tree.entries(ino, whole[at][-1])) == whole[at + 1 :]
        directories += [entry[1] for entry in whole if entry[2]]


def test_a_study_of_many_series_lists_the_lists_of_all_their_instances(grow: Callable[..., Web]) -> None:
    many = PATIENCE + 4
    made = grow(*(make_instance("SR", series=number) for number in range(many)))
    lists = f"studies/{uid('DFS-1', 1)}/deduplicated/instances"
    directory = made.find(lists)
    assert directory is not None
    entries = list(made.tree.entries(directory))
    assert {entry[0].decode() for entry in entries} == {f"{uid('DFS-1', 1, n, 1)}.gz" for n in range(many)}
    for at, entry in enumerate(entries):
        assert list(made.tree.entries(directory, entry[-1])) == entries[at + 1 :]
        found = made.tree.lookup(directory, entry[0])
        assert found is not None
        assert (found.ino, found.size) == (entry[1], entry[3])


def test_a_long_listing_of_lists_is_put_together_once(
    grow: Callable[..., Web], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = grow(*(make_instance("SR", series=1 + n % 3, number=n) for n in range(30)))
    directory = made.find(f"studies/{uid('DFS-1', 1)}/deduplicated/instances")
    assert directory is not None
    assert len(list(made.tree.entries(directory))) == 30
    monkeypatch.setattr(Cards, "names", lambda _: pytest.fail("asked again"))
    for entry in list(made.tree.entries(directory)):
        list(made.tree.entries(directory, entry[-1]))


def test_names_of_lists_end_where_they_end(grow: Callable[..., Web]) -> None:
    made = grow(make_instance("SR"))
    lists = f"studies/{uid('DFS-1', 1)}/deduplicated/instances"
    (name,) = made.names(lists)
    assert made.find(f"{lists}/{name}") is not None
    for other in (f"{name}.gz", f"{name}x", name.removesuffix(".gz"), ".gz"):
        assert made.find(f"{lists}/{other}") is None


def test_a_frame_of_very_many_fragments_is_opened_by_a_thread(grow: Callable[..., Web]) -> None:
    content = make_instance(transfer_syntax=JPEG2000Lossless)
    head = content[: content.rindex(b"\xe0\x7f\x10\x00OB\0\0") + 12]
    item = b"\xfe\xff\x00\xe0"
    parts = [b"%04d" % number for number in range(MANY + 8)]
    items = b"".join(item + len(part).to_bytes(4, "little") + part for part in parts)
    made = grow(head + item + bytes(4) + items + b"\xfe\xff\xdd\xe0" + bytes(4))
    ino = made.find(f"{place()}/frames/1")
    assert ino is not None
    assert made.tree.open_ready(ino) is None
    assert payload(made.read(f"{place()}/frames/1"))[1] == b"".join(parts)


@pytest.mark.parametrize("path", ["thumbnail", "rendered/1"])
def test_who_opens_a_picture_is_told_that_it_has_to_be_made(grow: Callable[..., Web], path: str) -> None:
    made = grow(make_instance())
    ino = made.find(f"{place()}/{path}")
    assert ino is not None
    with pytest.raises(NotReady):
        made.tree.open_ready(ino)
    file = waited(lambda: made.tree.open_ready(ino))
    assert file is not None
    assert len(file.read(0, file.size + 1)) == file.size
    file.close()


def test_what_is_taken_apart_is_kept_by_its_memory(grow: Callable[..., Web], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "PARTS_MEMORY", 200_000)
    deflated = {"rows": 256, "columns": 256, "transfer_syntax": DeflatedExplicitVRLittleEndian}
    made = grow(*(make_instance(number=n, **deflated) for n in (1, 2)), *(make_instance(number=n) for n in (3, 4, 5)))
    with made.archive.view() as view:
        inos = sorted(instance.ino for series in view.series_of(next(view.studies()).key)
                      for instance in view.shown_instances(series.key))  # fmt: skip
    held = shelf.Shelf(made.archive)
    kept = [weakref.ref(held.parts(ino)) for ino in inos]
    gc.collect()
    assert [found() is not None for found in kept] == [False, True, True, True, True]
    held.close()


@pytest.mark.damaged
def test_documents_are_whole_when_a_lost_pack_is_back(archive_path: Path, tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"{number}.dcm").write_bytes(make_instance(number=number))
        add(archive_path, tmp_path / f"{number}.dcm")
    pack = sorted((archive_path / "packs").iterdir())[1]
    series = f"studies/{uid('DFS-1', 1)}/series/{uid('DFS-1', 1, 1)}"

    def instances() -> tuple[int, int]:
        with Archive.open(archive_path) as archive:
            made = Web(archive)
            try:
                study = made.json(f"studies/{uid('DFS-1', 1)}/metadata.gz")
                return len(study), len(made.json(f"{series}/metadata.gz"))
            finally:
                made.tree.close()

    pack.rename(tmp_path / "away")
    assert instances() == (1, 1)
    (tmp_path / "away").rename(pack)
    assert instances() == (2, 2)


def test_a_document_that_is_cut_off_is_an_error_and_made_anew(grow: Callable[..., Web]) -> None:
    made = grow(make_instance())
    path = f"studies/{uid('DFS-1', 1)}/metadata.gz"
    whole = made.read(path)
    ino = made.find(path)
    assert ino is not None
    file = made.tree.open(ino)
    for bundle in (made.archive.path / "cache" / "documents").rglob("study-*"):
        with bundle.open("r+b") as changed:
            changed.truncate(20)
    with pytest.raises(Damaged):
        file.read(0, file.size)
    assert file.read_ready(0, file.size) is None
    again = Web(made.archive)
    try:
        assert again.read(path) == whole
    finally:
        again.tree.close()
