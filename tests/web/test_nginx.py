"""What nginx says of each resource: over a tree of plain files, and over a drive that changes."""

from __future__ import annotations

import gzip
import json
import subprocess
from typing import TYPE_CHECKING, NamedTuple

import pytest

from dicomfs.archive.archive import Archive
from dicomfs.cli.nginx import program
from tests.builders import make_instance, uid, write_study
from tests.web.conftest import Serving, dicomfs, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

JSON = "application/dicom+json"
MULTIPART = 'multipart/related; type="{}"; boundary={}'
SERIES = "studies/1.2/series/1.2.3"
INSTANCE = f"{SERIES}/instances/1.2.3.4"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("nginx") / "archive"
    Archive.init(path)
    return path


@pytest.fixture(scope="module")
def boundary(archive: Path) -> str:
    return Archive.open(archive).settings.boundary


@pytest.fixture(scope="module")
def tree(archive: Path, boundary: str) -> Path:
    """Return a small tree of plain files, under the names that dicomweb/ lists; JSON holds its own path."""
    root = archive.parent / "a tree; of {files}"
    message = f"--{boundary}\r\nContent-Type: application/octet-stream\r\n\r\nxy\r\n--{boundary}--\r\n".encode()
    documents = [
        "studies/index.json", "studies/1.2/index.json", "studies/1.2/series/index.json",
        "studies/1.2/series/1.2.3/instances/index.json", "studies/1.2/metadata", "studies/1.2/series/1.2.3/metadata",
        f"{INSTANCE}/metadata", "studies/1.2/studies", "studies/1.2/deduplicated", "studies/1.2/deduplicated/abc",
        "studies/1.2/deduplicated/instances/1.2.3.4",
    ]  # fmt: skip
    contents = {f"{name}.gz": gzip.compress(json.dumps([name]).encode(), mtime=0) for name in documents}
    contents |= {f"{INSTANCE}/{name}": message for name in ("frames/1", "index.mht")}
    contents |= {f"{place}/thumbnail": b"JPEG" for place in ("studies/1.2", "studies/1.2/series/1.2.3", INSTANCE)}
    contents |= {f"{INSTANCE}/rendered/{name}": name.encode() for name in ("1", "2")}
    contents |= {f"{SERIES}/instances/1.2.3.{name}": b"x" for name in ("5/rendered/1.pdf", "6/rendered/1.mp4")}
    contents |= {f"{INSTANCE}/{name}": b"0123456789" for name in ("pixeldata", "bulkdata/52009230.1.00280030")}
    contents["studies/1.2/bulkdata/abc/de/f.raw"] = b"raw"
    for name, content in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


@pytest.fixture(scope="module")
def plain(archive: Path, tree: Path) -> Iterator[Serving]:
    with Serving("-a", archive, "--tree", tree) as serving:
        yield serving


@pytest.mark.parametrize(
    ("resource", "document"),
    [
        ("studies", "studies/index.json"),
        ("studies/", "studies/index.json"),
        ("studies/index.json", "studies/index.json"),
        ("studies?limit=5&offset=0&PatientName=x", "studies/index.json"),
        ("studies?StudyInstanceUID=1.2&limit=101", "studies/1.2/index.json"),
        ("studies?0020000D=1.2", "studies/1.2/index.json"),
        ("studies/1.2", "studies/1.2/index.json"),
        ("studies/1.2/series", "studies/1.2/series/index.json"),
        ("studies/1.2/series?includefield=all", "studies/1.2/series/index.json"),
        ("studies/1.2/series/1.2.3/instances", "studies/1.2/series/1.2.3/instances/index.json"),
        ("studies/1.2/metadata", "studies/1.2/metadata"),
        ("studies/1.2/series/1.2.3/metadata", "studies/1.2/series/1.2.3/metadata"),
        (f"{INSTANCE}/metadata", f"{INSTANCE}/metadata"),
    ],
)
def test_documents(plain: Serving, resource: str, document: str) -> None:
    answer = plain.get(f"dicomweb/{resource}", Accept_Encoding="gzip")
    assert (answer.status, answer.type) == (200, JSON)
    assert answer.headers["content-encoding"] == "gzip"
    assert json.loads(gzip.decompress(answer.body)) == [document]
    assert answer.headers["cache-control"] == "private, no-cache"
    unpacked = plain.get(f"dicomweb/{resource}")  # says nothing of gzip
    assert "content-encoding" not in unpacked.headers
    assert json.loads(unpacked.body) == [document]


@pytest.mark.parametrize(
    ("resource", "kind"),
    [
        (f"{INSTANCE}/frames/1", MULTIPART.format("application/octet-stream", "{}")),
        (INSTANCE, MULTIPART.format("application/dicom", "{}")),
        (f"{INSTANCE}/index.mht", MULTIPART.format("application/dicom", "{}")),
        ("studies/1.2/thumbnail", "image/jpeg"),
        ("studies/1.2/series/1.2.3/thumbnail", "image/jpeg"),
        (f"{INSTANCE}/thumbnail", "image/jpeg"),
        (f"{INSTANCE}/rendered", "image/png"),
        (f"{INSTANCE}/rendered/2", "image/png"),
        (f"{INSTANCE}/frames/2/rendered", "image/png"),
        (f"{SERIES}/instances/1.2.3.5/rendered/1.pdf", "application/pdf"),
        (f"{SERIES}/instances/1.2.3.6/rendered/1.mp4", "video/mp4"),
        (f"{INSTANCE}/pixeldata", "application/octet-stream"),
        (f"{INSTANCE}/bulkdata/52009230.1.00280030", "application/octet-stream"),
        ("studies/1.2/bulkdata/abc/de/f.raw", "application/octet-stream"),
        ("studies/1.2/deduplicated", "application/json"),
        ("studies/1.2/deduplicated/abc", "application/json"),
        ("studies/1.2/deduplicated/instances/1.2.3.4", "application/json"),
        ("studies/1.2/studies", "application/json"),
        ("studies/index.json.gz", "application/gzip"),
        ("studies/1.2/deduplicated.gz", "application/gzip"),
    ],
)
def test_types(plain: Serving, tree: Path, boundary: str, resource: str, kind: str) -> None:
    answer = plain.get(f"dicomweb/{resource}")
    assert (answer.status, answer.type) == (200, kind.format(boundary))
    assert answer.headers["x-content-type-options"] == "nosniff"
    if (tree / resource).is_file():
        assert answer.body == (tree / resource).read_bytes()
        assert answer.headers["content-length"] == str(len(answer.body))


@pytest.mark.parametrize(
    ("accept", "whole"),
    [
        ('multipart/related; type="application/octet-stream"', True),
        ("multipart/related", True),
        ('multipart/related; type="image/jp2", multipart/related; type="video/mp4"', True),
        ("application/octet-stream", False),
        ("*/*", False),
        ('multipart/related; type="application/octet-stream", application/octet-stream', False),
    ],
)
def test_bulk_data_as_a_message(plain: Serving, boundary: str, accept: str, whole: bool) -> None:
    answer = plain.get(f"dicomweb/{INSTANCE}/bulkdata/52009230.1.00280030", Accept=accept)
    content = b"0123456789"
    if whole:
        assert answer.type == MULTIPART.format("application/octet-stream", boundary)
        head = f"--{boundary}\r\nContent-Type: application/octet-stream\r\n\r\n".encode()
        content = head + content + f"\r\n--{boundary}--\r\n".encode()
    assert (answer.status, answer.body) == (200, content)


def test_rendered_documents(plain: Serving) -> None:
    # What OHIF asks for when it shows a PDF or a video.
    for instance, kind in (("1.2.3.5", "application/pdf"), ("1.2.3.6", "video/mp4")):
        answer = plain.get(f"dicomweb/studies/1.2/series/1.2.3/instances/{instance}/rendered?accept={kind}")
        assert (answer.status, answer.type) == (200, kind)


def test_rendered_frames(plain: Serving) -> None:
    assert plain.get(f"dicomweb/{INSTANCE}/rendered").body == b"1"
    assert plain.get(f"dicomweb/{INSTANCE}/frames/2/rendered").body == b"2"


def test_frames_are_not_compressed(plain: Serving) -> None:
    answer = plain.get(f"dicomweb/{INSTANCE}/frames/1", Accept_Encoding="gzip")
    assert "content-encoding" not in answer.headers


@pytest.mark.parametrize("resource", ["studies", "studies/1.2/series", "studies/1.2/series/1.2.3/instances"])
def test_there_is_one_page(plain: Serving, resource: str) -> None:
    # dicomweb-client's get_remaining=True would ask for ever.
    answer = plain.get(f"dicomweb/{resource}?limit=10&offset=10")
    assert (answer.status, answer.body) == (204, b"")


def test_a_study_that_there_is_not(plain: Serving) -> None:
    assert plain.get("dicomweb/studies?StudyInstanceUID=9.9").status == 204
    assert plain.get("dicomweb/studies/9.9/metadata").status == 404


@pytest.mark.parametrize(
    "path",
    ["dicomweb", "dicomweb/", "dicomweb/studies/1.2/series/1.2.3", f"dicomweb/{INSTANCE}/frames", ""],
)
def test_directories_are_not_listed(plain: Serving, path: str) -> None:
    assert plain.get(path).status in {403, 404}


@pytest.mark.parametrize("path", ["dicomweb/../archive/dicomfs.toml", "dicomweb/%2e%2e/archive/dicomfs.toml"])
def test_nothing_beside_the_tree(plain: Serving, path: str) -> None:
    assert plain.get(path).status in {400, 404}


def test_validation(plain: Serving, tree: Path) -> None:
    first = plain.get("dicomweb/studies", Accept_Encoding="gzip")
    again = plain.get("dicomweb/studies", Accept_Encoding="gzip", If_None_Match=first.headers["etag"])
    assert (again.status, again.body) == (304, b"")
    stat = (tree / "studies/index.json.gz").stat()
    assert first.headers["etag"] == f'"{int(stat.st_mtime):x}-{stat.st_size:x}"'


def test_ranges(plain: Serving) -> None:
    answer = plain.get(f"dicomweb/{INSTANCE}/pixeldata", Range="bytes=2-4")
    assert (answer.status, answer.body) == (206, b"234")


@pytest.mark.parametrize(("host", "status"), [("localhost", 200), ("pages.example.org", 421), ("127.0.0.1.nip", 421)])
def test_other_names_for_this_machine(plain: Serving, host: str, status: int) -> None:
    # A web page whose own name leads to 127.0.0.1 would read patients' data else.
    assert plain.get("dicomweb/studies", Host=host).status == status


def test_pages_of_other_servers_may_not_read(plain: Serving) -> None:
    answer = plain.get("dicomweb/studies", Origin="https://pages.example.org")
    assert "access-control-allow-origin" not in answer.headers


def test_pages_of_one_other_server_may_read(archive: Path, tree: Path) -> None:
    origin = "https://viewer.example.org"
    with Serving("-a", archive, "--tree", tree, "--allow-origin", origin) as serving:
        for resource in ("studies", f"{INSTANCE}/frames/1", f"{INSTANCE}/thumbnail", "studies/1.2/metadata"):
            answer = serving.get(f"dicomweb/{resource}", Origin=origin)
            assert answer.headers["access-control-allow-origin"] == origin
            assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
        # The quotes in a DICOMweb client's Accept make a browser ask first.
        asked = serving.get("dicomweb/studies", method="OPTIONS", Origin=origin)
        assert asked.status == 204
        assert "Accept" in asked.headers["access-control-allow-headers"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_only_reading(plain: Serving, method: str) -> None:
    assert plain.get("dicomweb/studies", method=method).status == 405
    assert plain.get("dicomweb/studies/1.2/thumbnail", method=method).status == 405


def test_the_printed_configuration(archive: Path, tree: Path, tmp_path: Path, boundary: str) -> None:
    for options in ([], ["--site"], ["--allow-origin", "*", "--port", "8123"]):
        text = dicomfs("nginx-conf", "-a", archive, tree, *options)
        assert boundary in text
        assert "@" not in text.replace("@nothing", "")
        if "--site" in options:
            text = f"events {{ }}\nhttp {{\n{text}}}\n"
        (tmp_path / "nginx.conf").write_text(text)
        command = [program(), "-t", "-q", "-p", f"{tmp_path}/", "-c", f"{tmp_path}/nginx.conf", "-e", "stderr"]
        tried = subprocess.run([*command, "-g", f"pid {tmp_path}/pid;"] if "--site" in options else command,
                               capture_output=True, text=True, timeout=30)  # fmt: skip
        assert (tried.returncode, tried.stderr) == (0, "")


class Seen(NamedTuple):
    """What there is of one file: by the drive, and by nginx."""

    content: bytes
    size: int
    mtime_ns: int
    etag: str


def everything(drive: Path, serving: Serving) -> dict[str, Seen]:
    """Return every file of the tree by its path, read twice: nginx gives what the drive does."""
    found = {}
    for path in sorted((drive / "dicomweb").rglob("*")):
        if not path.is_file():
            continue
        name = str(path.relative_to(drive))
        content, stat = path.read_bytes(), path.stat()
        assert len(content) == stat.st_size
        answer = serving.get(name)
        assert answer.body == content, name
        found[name] = Seen(content, stat.st_size, stat.st_mtime_ns, answer.headers["etag"])
    return found


@pytest.mark.mounted
def test_one_more_instance(archive_path: Path, tmp_path: Path) -> None:
    """Within a second what it belongs to is shown with it, by the drive and by nginx; nothing else changes."""
    write_study(tmp_path / "one", series=2, instances=3)
    write_study(tmp_path / "two", instances=2, patient="DFS-2", study=2)
    dicomfs("import", "-a", archive_path, tmp_path / "one", tmp_path / "two")
    study, series = uid("DFS-1", 1), uid("DFS-1", 1, 1)
    (tmp_path / "more").write_bytes(make_instance(number=4))
    (tmp_path / "drive").mkdir()
    dicomfs("mount", archive_path, tmp_path / "drive", "-o", "views=dicomweb")
    try:
        tree = tmp_path / "drive" / "dicomweb"
        with Serving("-a", archive_path, "--tree", tree) as serving:
            instances = f"dicomweb/studies/{study}/series/{series}/instances"
            before = everything(tmp_path / "drive", serving)
            assert before == everything(tmp_path / "drive", serving)
            held = (tree.parent / f"dicomweb/studies/{study}/metadata.gz").open("rb")
            dicomfs("import", "-a", archive_path, tmp_path / "more")
            until(lambda: len(json.loads(serving.get(instances).body)) == 4, "the new instance", timeout_s=1)
            for resource in ("metadata", "series/index.json", "index.json"):
                assert len(serving.get(f"dicomweb/studies/{study}/{resource}").body) > 0
            after = everything(tmp_path / "drive", serving)
            with held:
                assert held.read() == before[f"dicomweb/studies/{study}/metadata.gz"].content
    finally:
        dicomfs("umount", tmp_path / "drive")
    changed = {name for name in before.keys() | after.keys() if content(before, name) != content(after, name)}
    new = f"{instances}/{uid('DFS-1', 1, 1, 4)}/"
    here = f"dicomweb/studies/{study}/"
    documents = {
        "dicomweb/studies/index.json.gz",
        *(here + name for name in ("index.json.gz", "studies.gz", "series.gz", "metadata.gz", "deduplicated.gz")),
        f"{here}series/index.json.gz",
        *(f"{here}series/{series}/{name}" for name in ("metadata.gz", "instances.gz", "instances/index.json.gz")),
    }
    assert documents <= changed
    pictures = {f"{here}thumbnail", f"{here}series/{series}/thumbnail"}  # of the instance in the middle
    others = {name for name in changed - documents - pictures if not name.startswith((new, f"{here}deduplicated/"))}
    assert others == set()
    # What is named by its hash, or is of another study or instance, is as it was; what changed can be told by its ETag.
    assert {name for name in changed & before.keys() & after.keys() if before[name].etag == after[name].etag} == set()


def content(seen: dict[str, Seen], name: str) -> bytes | None:
    return seen[name].content if name in seen else None
