"""An extra of pyproject.toml brings all that its function imports: no image lacks a package.

Nothing is installed for it: an interpreter that refuses all that the extra does not bring stands
for the image.
"""

import json
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from scripts.tidy import required_by_extra

ROOT = Path(__file__).parent.parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
FUNCTIONS = sorted(path.parent.name for path in ROOT.glob("functions/*/main.py"))

IMPORT_REFUSING = """
import importlib.util, json, sys

refused = frozenset(json.loads(sys.argv[1]))

class Refusal:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in refused:
            raise ModuleNotFoundError(f"No module named {name!r} in this image", name=name)

sys.meta_path.insert(0, Refusal())
spec = importlib.util.spec_from_file_location("main", sys.argv[2])
spec.loader.exec_module(importlib.util.module_from_spec(spec))
"""


def distributions_brought_by(requirements: list[Requirement]) -> frozenset[str]:
    """Follows requirements through the installed packages; one that is not installed is a leaf."""
    brought: set[tuple[str, str]] = set()
    waiting = [(it.name, extra) for it in requirements for extra in ("", *it.extras)]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in brought:
            continue
        brought.add((name, extra))
        try:
            texts = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        for needed in map(Requirement, texts):
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                waiting += [(needed.name, more) for more in ("", *needed.extras)]
    return frozenset(canonicalize_name(name) for name, _ in brought)


def import_with_extra(extra: str, path: Path) -> subprocess.CompletedProcess[str]:
    brought = distributions_brought_by(required_by_extra(PROJECT, extra)) | {"tollgate"}
    refused = [
        module
        for module, distributions in metadata.packages_distributions().items()
        if brought.isdisjoint(map(canonicalize_name, distributions))
    ]
    return subprocess.run(
        [sys.executable, "-c", IMPORT_REFUSING, json.dumps(refused), str(path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_imports_only_what_its_extra_brings(function: str) -> None:
    done = import_with_extra(function, ROOT / "functions" / function / "main.py")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("imported", "error"),
    [
        ("uvicorn", None),
        ("starlette", None),  # through functions-framework
        ("msgspec", None),
        ("numpy", "No module named 'numpy' in this image"),
        ("pytest", "No module named 'pytest' in this image"),
    ],
)
def test_an_import_beyond_the_extra_is_refused(
    tmp_path: Path, imported: str, error: str | None
) -> None:
    path = tmp_path / "main.py"
    path.write_text(f"import {imported}\n", encoding="utf-8")
    done = import_with_extra("ingest", path)
    assert (done.returncode == 0) == (error is None), done.stderr
    assert (error or "") in done.stderr
