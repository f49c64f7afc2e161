"""What the commands of the package share: the operations that they know, and refusals in one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules
from types import ModuleType
from typing import TypeVar

import click

import lorentz_kernels

T = TypeVar("T")


class Refused(click.ClickException):
    """What cannot be done here, and what would be right."""

    exit_code = 2


def modules(file: str) -> dict[str, ModuleType]:
    """Return the module of that name in the folder of every operation that has one, by the operation's name."""
    folders = sorted(module.name for module in iter_modules(lorentz_kernels.__path__) if module.ispkg)
    paths = {name: f"lorentz_kernels.{name}.{file}" for name in folders}
    return {name: import_module(path) for name, path in paths.items() if find_spec(path) is not None}


def named(ops: Sequence[str], known: Mapping[str, T], what: str) -> dict[str, T]:
    """Return the operations asked for, all where none is; `what` is what an unknown one lacks."""
    for op in ops:
        if op not in known:
            raise Refused(f"no operation {op!r} with {what}: choose from {', '.join(known)}")
    return {op: known[op] for op in ops or known}
