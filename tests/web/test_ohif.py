"""OHIF in a real browser, on nginx over a drive of the corpus: its lists, and the pixels on its canvas."""

from __future__ import annotations

import io
import json
import os
import shutil
import time
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pydicom
import pytest
from playwright.sync_api import sync_playwright

from tests.builders import uid
from tests.web.conftest import CT_NAME, SLICES, Stocked, ct_slice

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page, Request, Route

pytestmark = [pytest.mark.mounted, pytest.mark.corpus, pytest.mark.filterwarnings("ignore:::pydicom")]

TIMEOUT_MS = 30_000
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-extensions", "--disable-dev-shm-usage",
]  # fmt: skip
# What the first viewport shows: its image as decoded, and the canvas as drawn.
SHOWN = """() => {
    const element = window.cornerstone?.getEnabledElements()[0];
    const id = element?.viewport.getCurrentImageId?.();
    const image = id && window.cornerstone.cache.getImage(id);
    if (!image || element.viewport.viewportStatus !== 'rendered') return null;
    const pixels = image.voxelManager ? image.voxelManager.getScalarData() : image.getPixelData();
    let sum = 0;
    for (const pixel of pixels) sum += pixel;
    const canvas = element.viewport.canvas;
    const drawn = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
    const greys = new Set();
    let lit = 0, total = 0;
    for (let at = 0; at < drawn.length; at += 4) {
        greys.add(drawn[at]);
        lit += drawn[at] + drawn[at + 1] + drawn[at + 2] > 30;
        total += drawn[at];
    }
    return { image: id, index: element.viewport.getCurrentImageIdIndex(), images: element.viewport.getImageIds().length,
             rows: image.rows, columns: image.columns, values: pixels.length, sum: sum,
             greys: greys.size, lit: lit / (drawn.length / 4), total: total };
}"""


class Shown(NamedTuple):
    """What the viewport shows."""

    image: str
    index: int
    images: int
    rows: int
    columns: int
    values: int
    sum: float
    greys: int
    lit: float
    total: int


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert program, "no chromium: scripts/setup dev installs it"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, tmp_path: Path) -> Iterator[Page]:
    """Return a page whose every request stays on this machine and succeeds; its last look is kept as a picture."""
    page = browser.new_page(viewport={"width": 1600, "height": 900})
    page.set_default_timeout(TIMEOUT_MS)
    # It is not our first time: no tour stands before the pictures.
    page.add_init_script("localStorage.setItem('shownTours', JSON.stringify(['basicViewerTour']))")
    outside: list[str] = []
    failed: list[str] = []

    def stay(route: Route, request: Request) -> None:
        if request.url.startswith(("http://127.0.0.1:", "blob:", "data:")):
            route.continue_()
        else:
            outside.append(request.url)
            route.abort()

    page.route("**/*", stay)
    page.on("pageerror", lambda error: failed.append(str(error)))
    page.on("console", lambda said: failed.append(said.text) if "Content Security Policy" in said.text else None)
    page.on("response", lambda answer: failed.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None)
    yield page
    page.screenshot(path=tmp_path / "page.png")
    page.close()
    assert outside == []
    assert failed == []


def shown(page: Page, index: int = 0) -> Shown:
    """Wait until the first viewport shows its image number `index` (from 0)."""
    deadline = time.monotonic() + TIMEOUT_MS / 1000
    while time.monotonic() < deadline:
        found = page.evaluate(SHOWN)
        if found is not None and found["index"] == index:
            return Shown(**found)
        page.wait_for_timeout(50)
    raise AssertionError(f"nothing is shown: {page.evaluate('document.body.innerText')[:300]}")


def view(page: Page, stocked: Stocked, study: str, series: str) -> Shown:
    page.goto(
        f"{stocked.serving.url}/viewer?StudyInstanceUIDs={study}&SeriesInstanceUIDs={series}",
        wait_until="domcontentloaded",
    )
    return shown(page)


def scrolled(page: Page, index: int) -> Shown:
    """Turn the wheel over the first viewport by one, and wait until it shows its image number `index`."""
    canvas = page.locator("canvas.cornerstone-canvas").first.bounding_box()
    assert canvas is not None
    page.mouse.move(canvas["x"] + canvas["width"] / 2, canvas["y"] + canvas["height"] / 2)
    page.mouse.wheel(0, 100)
    return shown(page, index)


def values(source: pydicom.Dataset, frame: int) -> np.ndarray:
    """Return the pixels of a frame (from 0) as the modality means them."""
    pixels = source.pixel_array.reshape(-1, source.Rows, source.Columns)[frame]
    return pixels * float(source.get("RescaleSlope", 1)) + float(source.get("RescaleIntercept", 0))


def as_ohif(name: str) -> str:
    """Return the alphabetic group of a name as OHIF writes it."""
    return name.split("=")[0].replace("^", ", ", 1).replace("^", " ").strip()


@pytest.mark.timeout(90)
def test_the_study_list(page: Page, stocked: Stocked) -> None:
    page.goto(f"{stocked.serving.url}/?resultsPerPage=1000", wait_until="domcontentloaded")
    page.get_by_text(as_ohif(CT_NAME)).wait_for()
    rows = page.eval_on_selector_all(
        "tbody tr", "rows => rows.map(row => [...row.cells].map(cell => cell.innerText.trim()))"
    )
    # The first column is the patient's name; the last, before a menu, the number of images.
    listed = Counter((row[0], row[-2]) for row in rows if row[-2].isdigit())
    studies = json.loads(stocked.serving.get("dicomweb/studies").body)
    expected = Counter()
    for study in studies:
        name = study["00100010"].get("Value", [{}])[0].get("Alphabetic", "")
        expected[" ".join(as_ohif(name).split()), str(study["00201208"]["Value"][0])] += 1
    assert listed == expected
    assert listed[as_ohif(CT_NAME), str(SLICES)] == 1
    for path in ("chrJapMulti.dcm", "chrKoreanMulti.dcm", "chrRuss.dcm", "chrH32.dcm", "chrArab.dcm"):
        source = pydicom.dcmread(stocked.file(f"pydicom+pydicom/src/pydicom/data/charset_files/{path}"))
        name = str(source.PatientName)
        assert not name.isascii()
        assert as_ohif(name) in {found for found, _ in listed}, path


@pytest.mark.timeout(90)
def test_a_series_to_its_last_slice(page: Page, stocked: Stocked) -> None:
    first = view(page, stocked, uid("DFS-WEB", 1), uid("DFS-WEB", 1, 1))
    assert first.images == SLICES
    seen = [first, *(scrolled(page, index) for index in range(1, SLICES))]
    # OHIF goes along the axis of the scan, from its far end.
    for number, one in zip(range(SLICES, 0, -1), seen, strict=True):
        source = pydicom.dcmread(io.BytesIO(ct_slice(number)))
        assert one.image.endswith(f"/instances/{source.SOPInstanceUID}/frames/1")
        assert one.sum == values(source, 0).sum()
        assert one.greys > 20
    assert len({one.total for one in seen}) == SLICES
    if wanted := os.environ.get("DICOMFS_SCREENSHOT"):
        draw_for_the_readme(page, stocked, wanted)


def draw_for_the_readme(page: Page, stocked: Stocked, path: str) -> None:
    page.set_viewport_size({"width": 1280, "height": 720})
    view(page, stocked, uid("DFS-WEB", 1), uid("DFS-WEB", 1, 1))
    for index in range(1, SLICES // 2):
        scrolled(page, index)
    page.mouse.move(140, 600)
    page.wait_for_timeout(2000)  # the thumbnails come last
    page.screenshot(path=path)


@pytest.mark.timeout(90)
@pytest.mark.parametrize(
    ("path", "frame"),
    [
        pytest.param("fo-dicom+fo-dicom/Tests/FO-DICOM.Tests/Test Data/mr_brucker.dcm", 4, id="enhanced multi-frame"),
        pytest.param("neurolabusc+dcm_qa_ts/In/9.dcm", 1, id="JPEG 2000"),
        pytest.param("neurolabusc+dcm_qa_ts/In/7.dcm", 1, id="JPEG-LS"),
        pytest.param("neurolabusc+dcm_qa_ts/In/4.dcm", 1, id="RLE"),
    ],
)
def test_draws(page: Page, stocked: Stocked, path: str, frame: int) -> None:
    source = pydicom.dcmread(stocked.file(path))
    view(page, stocked, source.StudyInstanceUID, source.SeriesInstanceUID)
    wanted = f"/instances/{source.SOPInstanceUID}/frames/{frame}"
    index = page.evaluate(
        f"window.cornerstone.getEnabledElements()[0].viewport.getImageIds().findIndex(id => id.endsWith('{wanted}'))"
    )
    found = shown(page, 0)
    for step in range(1, index + 1):
        found = scrolled(page, step)
    assert found.image.endswith(wanted)
    assert (found.rows, found.columns) == (source.Rows, source.Columns)
    assert found.sum == values(source, frame - 1).sum()
    assert found.greys > 50
    assert found.lit > 0.05
