"""What a user installs: the wheel's contents, its metadata, and the direction of the imports inside it."""

from __future__ import annotations

import ast
import configparser
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {
    "lorentz": ROOT / "lorentz",
    "relsim": ROOT / "relsim",
    "lorentz_kernels": ROOT / "kernels" / "lorentz_kernels",
}
# Each package may import what stands before it, never what stands after it.
LAYERS = ("lorentz_kernels", "lorentz", "relsim", "examples", "tests")

pytestmark = pytest.mark.xdist_group("wheel")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the sources by an interpreter that cannot import torch."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    for path in PACKAGES.values():
        shutil.copytree(path, source / path.relative_to(ROOT), ignore=shutil.ignore_patterns("__pycache__"))
    build = (
        "import sys; sys.modules['torch'] = None\n"
        "from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    )
    done = subprocess.run([sys.executable, "-c", build, target], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = target.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def contents(wheel: Path) -> set[str]:
    """The files in the wheel, without its metadata folder."""
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    return Parser().parsestr(read_metadata(wheel, "METADATA"))


@pytest.fixture(scope="module")
def requirements(metadata: Message) -> list[Requirement]:
    return [Requirement(line) for line in metadata.get_all("Requires-Dist", [])]


def read_metadata(wheel: Path, name: str) -> str:
    with zipfile.ZipFile(wheel) as archive:
        (path,) = (path for path in archive.namelist() if path.endswith(f".dist-info/{name}"))
        return archive.read(path).decode()


def sources(package: str) -> Iterator[tuple[str, Path]]:
    """Every file of a package: its path in the wheel and its path on disk."""
    folder = PACKAGES[package]
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield f"{package}/{path.relative_to(folder).as_posix()}", path


def imported(path: Path) -> set[str]:
    """The top-level names that a file imports absolutely, at any depth of its code."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def test_wheel_top_level_names_are_exactly_the_three_packages(contents: set[str]) -> None:
    assert {name.split("/")[0] for name in contents} == set(PACKAGES)


def test_wheel_holds_every_file_of_the_packages_and_no_other(contents: set[str]) -> None:
    assert contents == {name for package in PACKAGES for name, _ in sources(package)}


@pytest.mark.parametrize("package", PACKAGES)
def test_package_is_typed_and_has_a_docstring(package: str, contents: set[str]) -> None:
    assert f"{package}/py.typed" in contents
    assert ast.get_docstring(ast.parse((PACKAGES[package] / "__init__.py").read_text(encoding="utf-8")))


def test_listed_packages_are_the_folders_with_modules() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    listed = config["options"]["packages"].split()
    on_disk = {
        ".".join(Path(name).parent.parts)
        for package in PACKAGES
        for name, _ in sources(package)
        if name.endswith(".py")
    }
    assert listed == sorted(on_disk), "setup.cfg lists the packages by hand, in order: bring it up to date"


@pytest.mark.parametrize("package", PACKAGES)
def test_every_folder_with_modules_is_a_regular_package(package: str) -> None:
    folders = {path.parent for name, path in sources(package) if name.endswith(".py")}
    assert folders
    assert {folder for folder in folders if not (folder / "__init__.py").is_file()} == set()


def test_version_is_one_literal(metadata: Message) -> None:
    literals = [
        node.value.value
        for package in PACKAGES
        for name, path in sources(package)
        if name.endswith(".py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__version__"]
        if isinstance(node.value, ast.Constant)
    ]
    assert literals == [metadata["Version"]]


def test_importing_the_installed_packages_leaves_no_module_called_kernels(wheel: Path, tmp_path: Path) -> None:
    installed, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import lorentz, relsim, lorentz_kernels\n"
        "assert 'kernels' not in sys.modules\n"
        "print(*(module.__file__ for module in (lorentz, relsim, lorentz_kernels)), sep='\\n')\n"
    )
    done = subprocess.run([sys.executable, "-I", "-c", script, installed], cwd=empty, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = [installed / package / "__init__.py" for package in ("lorentz", "relsim", "lorentz_kernels")]
    assert [Path(line) for line in done.stdout.splitlines()] == expected


def test_command_is_the_function_that_the_entry_point_names(wheel: Path) -> None:
    entry_points = configparser.ConfigParser()
    entry_points.read_string(read_metadata(wheel, "entry_points.txt"))
    assert dict(entry_points["console_scripts"]) == {"relsim": "relsim.cli:main"}
    defined = ast.parse((PACKAGES["relsim"] / "cli.py").read_text(encoding="utf-8")).body
    assert "main" in {node.name for node in defined if isinstance(node, ast.FunctionDef)}


def test_triton_and_matplotlib_are_extras_and_torch_is_not_capped(requirements: list[Requirement]) -> None:
    core = {requirement.name: requirement for requirement in requirements if requirement.marker is None}
    assert not {"triton", "matplotlib", "pyoxigraph"} & set(core)
    operators = {specifier.operator for requirement in core.values() for specifier in requirement.specifier}
    assert operators == {">="}, f"a library sets lower bounds only, got {operators}"


def test_python_floor_is_that_of_the_tools(metadata: Message) -> None:
    settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert metadata["Requires-Python"] == ">=3.10"
    assert re.findall(r'^(?:target-version|python_version) = "(.*)"', settings, re.MULTILINE) == ["py310", "3.10"]


def test_constraints_pin_every_requirement_of_the_tests(requirements: list[Requirement]) -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    assert all(len(pin.specifier) == 1 and str(pin.specifier).startswith("==") for pin in pins)
    needed = {requirement.name for requirement in requirements} - {"lorentz-relsim"}
    assert {name for name in needed if name not in {pin.name for pin in pins}} == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_dependencies_point_one_way(package: str) -> None:
    forbidden = {*LAYERS[LAYERS.index(package) + 1 :], "kernels"}
    modules = [path for name, path in sources(package) if name.endswith(".py")]
    assert modules
    faults = {str(path.relative_to(ROOT)): imported(path) & forbidden for path in modules}
    assert {path: names for path, names in faults.items() if names} == {}
