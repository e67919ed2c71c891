"""scripts/check holds the line: each rule fails on a violation that is planted in a copy of the tree."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent.parent
BIN = Path(sys.executable).parent


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    shutil.copytree(CHECKOUT / "dicomfs", tmp_path / "dicomfs", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(CHECKOUT / "pyproject.toml", tmp_path)
    return tmp_path


def run(tree: Path, tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([BIN / tool, *arguments], cwd=tree, capture_output=True, text=True)


CONTRACTS = {
    "layers": "Layers",
    "pydicom": "Only dicom knows pydicom",
    "lmdb": "Only store.index knows lmdb",
    "pyfuse3": "Only mount knows pyfuse3 and trio",
    "trio": "Only mount knows pyfuse3 and trio",
}


@pytest.mark.parametrize(
    ("importer", "imported", "contract"),
    [
        ("export", "dicomfs.cli", "layers"),
        ("mount", "dicomfs.cli", "layers"),
        ("mount", "dicomfs.export", "layers"),
        ("export", "dicomfs.mount", "layers"),
        ("export", "dicomfs.export_view", "layers"),
        ("export_view", "dicomfs.export_zip", "layers"),
        ("zip_file", "dicomfs.archive", "layers"),
        ("vfs", "dicomfs.mount", "layers"),
        ("vfs", "dicomfs.export", "layers"),
        ("archive", "dicomfs.vfs", "layers"),
        ("dicom", "dicomfs.archive", "layers"),
        ("store", "dicomfs.archive", "layers"),
        ("store", "dicomfs.dicom", "layers"),
        ("dicom", "dicomfs.store", "layers"),
        ("errors", "dicomfs.store", "layers"),
        ("cli", "pydicom", "pydicom"),
        ("archive", "pydicom", "pydicom"),
        ("store", "pydicom", "pydicom"),
        ("mount", "pydicom", "pydicom"),
        ("archive", "lmdb", "lmdb"),
        ("store", "lmdb", "lmdb"),
        ("vfs", "lmdb", "lmdb"),
        ("vfs", "trio", "trio"),
        ("cli", "trio", "trio"),
        ("archive", "pyfuse3", "pyfuse3"),
        ("cli", "pyfuse3", "pyfuse3"),
    ],
)
def test_import_contract(tree: Path, importer: str, imported: str, contract: str) -> None:
    home = tree / "dicomfs" / importer
    planted = home / "planted.py" if home.is_dir() else home.with_suffix(".py")
    with planted.open("a") as module:
        module.write(f"\nimport {imported}\n")

    result = run(tree, "lint-imports", "--no-cache", "--no-logo")

    verdicts = [line for line in result.stdout.splitlines() if " KEPT" in line or " BROKEN" in line]
    broken = [line for line in verdicts if " BROKEN" in line]
    assert result.returncode == 1, result.stdout
    assert len(verdicts) == len(set(CONTRACTS.values()))
    assert [line.split(" BROKEN")[0] for line in broken] == [CONTRACTS[contract]]
    assert f"dicomfs.{planted.relative_to(tree / 'dicomfs').with_suffix('')}".replace("/", ".") in result.stdout


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("def planted(value):\n    return value\n", "no-untyped-def"),
        ("def planted(value: list) -> None:\n    del value\n", "type-arg"),
        ("def planted(value: int) -> str:\n    return value\n", "return-value"),
        ("import math\nX: str = math.pi  # type: ignore\n", "ignore-without-code"),
        ("X: int = 1  # type: ignore[assignment]\n", "unused-ignore"),
    ],
    ids=lambda value: value if "\n" not in value else "",
)
def test_mypy(tree: Path, source: str, code: str) -> None:
    (tree / "dicomfs" / "planted.py").write_text(source)
    result = run(tree, "mypy", "dicomfs/planted.py")
    assert result.returncode == 1
    assert "dicomfs/planted.py" in result.stdout
    assert f"[{code}]" in result.stdout


@pytest.mark.parametrize(
    ("source", "rule"),
    [
        ("import os\n", "F401"),
        ("def planted() -> None:\n    pass\n", "D103"),
        ("X = 1\n", "D100"),
        ('"""P."""\n\nprint("debugging")\n', "T201"),
        ('"""P."""\n\ntry:\n    X = 1\nexcept Exception:\n    X = 2\n', "BLE001"),
        (
            '"""P."""\n\nfrom typing import Any\n\nX = 0\n\n\ndef f(x: Any) -> None:\n    """F."""\n    del x\n',
            "ANN401",
        ),
    ],
    ids=lambda value: value if "\n" not in value else "",
)
def test_ruff(tree: Path, source: str, rule: str) -> None:
    (tree / "dicomfs" / "planted.py").write_text(source)
    result = run(tree, "ruff", "check", "--no-cache", "--output-format=concise", "dicomfs/planted.py")
    assert result.returncode == 1
    assert f" {rule} " in result.stdout


def test_ruff_format(tree: Path) -> None:
    (tree / "dicomfs" / "planted.py").write_text("'''P.'''\nX = { 'a':1 }\n")
    result = run(tree, "ruff", "format", "--check", "--no-cache", "dicomfs/planted.py")
    assert result.returncode == 1
    assert "planted.py" in result.stdout
