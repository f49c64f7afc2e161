"""The documents: their Python runs, and the files, tests and modules that they name exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import lorentz.nn as lnn

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def run(page: Path) -> None:
    """Run the Python blocks of a page one after another; errors name the line of the page."""
    text = page.read_text(encoding="utf-8")
    names: dict[str, object] = {"__name__": page.stem}
    torch.manual_seed(0)
    for block in BLOCK.finditer(text):
        above = text.count("\n", 0, block.start(1))
        exec(compile("\n" * above + block[1], page, "exec"), names)


RUNNABLE = [page for page in PAGES if page.parent.name == "docs" and BLOCK.search(page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: page.stem)
def test_python_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(page)


@pytest.mark.slow
@pytest.mark.data
def test_python_of_the_readme_runs(shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "codex-s").symlink_to(shared_data / "codex-s")
    monkeypatch.chdir(tmp_path)
    run(ROOT / "README.md")
    assert (tmp_path / "report.html").is_file()


@every_page
def test_links_and_paths_of_a_page_lead_to_files(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]
    paths = re.findall(r"`((?:docs|examples|kernels|lorentz|relsim|tests)/[\w./-]+)`", text)
    missing = [name for name in links if not (page.parent / name).exists()]
    assert not missing + [name for name in paths if not (ROOT / name).exists()]


def test_the_geometry_page_lists_every_module() -> None:
    text = (ROOT / "docs" / "geometry.md").read_text(encoding="utf-8")
    layers = text[text.index("## The layers") :]
    assert not [name for name in lnn.__all__ if not re.search(rf"\b{name}\b", layers)]


def test_the_tests_that_the_numerics_page_promises_exist() -> None:
    text = (ROOT / "docs" / "numerics.md").read_text(encoding="utf-8")
    promised = re.findall(r"`(test_\w+)::(test_\w+)`", text)
    assert promised
    for file, name in promised:
        (path,) = (ROOT / "tests").rglob(f"{file}.py")
        assert f"def {name}(" in path.read_text(encoding="utf-8"), name
