"""Work in blocks on disk: each is written whole, with its hash, and found again after a crash."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from relsim.errors import RelsimError
from relsim.lock import alone
from relsim.storage import atomic_file, read_json, refuse_links, sha256, write_json

MANIFEST = "blocks.json"
Tensors = dict[str, Tensor]


@contextmanager
def tidy(path: Path) -> Iterator[Path]:
    """Yield the path of a folder of blocks, and remove the folder if work there ends before the first block."""
    try:
        yield path
    except BaseException:
        ours = path.is_dir() and ((path / MANIFEST).is_file() or not any(path.iterdir()))
        if ours and not any(path.glob("*.block.json")):
            shutil.rmtree(path, ignore_errors=True)
        raise


class BlockFolder:
    """Named blocks of tensors of one piece of work; `settings` say which work, and nothing else may use the folder.

    Raises:
        RelsimError: the folder is something else, is damaged, or holds other work.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path = path
        self._verified: set[str] = set()
        path.mkdir(parents=True, exist_ok=True)
        manifest = path / MANIFEST
        if not manifest.is_file():
            if any(file.suffix == ".safetensors" for file in path.iterdir()):
                raise RelsimError(f"{path}: stands where blocks go and holds no {MANIFEST}: move it, or remove it")
            with atomic_file(manifest) as scratch:
                write_json(scratch, {"kind": "relsim-blocks", "format": 1, "settings": dict(settings)})
        held = self.settings(path)
        if differing := [key for key in {*held, *settings} if held.get(key) != settings.get(key)]:
            raise RelsimError(
                f"{path}: holds unfinished work with other {', '.join(sorted(differing))}: use the same, or remove it"
            )

    @staticmethod
    def settings(path: Path) -> dict[str, Any]:
        """Return the settings of the work in a folder.

        Raises:
            RelsimError: it holds none.
        """
        manifest = read_json(path / MANIFEST, "blocks")
        settings = manifest.get("settings")
        if manifest.get("kind") != "relsim-blocks" or not isinstance(settings, dict):
            raise RelsimError(f"{path / MANIFEST}: damaged: remove {path} and start again")
        return settings

    def missing(self, names: Sequence[str]) -> list[str]:
        """Return which of the blocks are not there, or not as they were written."""
        return [name for name in names if not self._sound(name)]

    def make(self, name: str, work: Callable[[], Tensors]) -> None:
        """Write a block, by `work`, where it is not there."""
        if not self._sound(name):
            start = time.process_time()
            tensors = work()
            self.write(name, tensors, time.process_time() - start)

    def make_once(self, name: str, work: Callable[[], Tensors]) -> None:
        """The same for a block that several processes need: one makes it, the others wait."""
        with alone(self.path / name, wait=True):
            self.make(name, work)

    def read(self, name: str) -> Tensors:
        """Return a block that is there."""
        refuse_links(self._file(name))
        return load_file(self._file(name))

    def seconds(self) -> float:
        """Return the CPU seconds that all blocks took."""
        return float(sum(read_json(file, "blocks")["cpu_seconds"] for file in self.path.glob("*.block.json")))

    def write(self, name: str, tensors: Tensors, seconds: float) -> None:
        """Write a block, and that it took so many CPU seconds."""
        with atomic_file(self._file(name)) as scratch:
            save_file({key: value.contiguous() for key, value in tensors.items()}, scratch)
            digest = sha256(scratch)
        with atomic_file(self._seal(name)) as scratch:
            write_json(scratch, {"sha256": digest, "cpu_seconds": seconds})

    def _sound(self, name: str) -> bool:
        """Whether a block and its seal are there and agree; the hash is computed once."""
        if name in self._verified:
            return True
        file, seal = self._file(name), self._seal(name)
        refuse_links(file)
        if not (file.is_file() and seal.is_file()):
            return False
        if read_json(seal, "blocks").get("sha256") != sha256(file):
            return False
        self._verified.add(name)
        return True

    def _file(self, name: str) -> Path:
        return self.path / f"{name}.safetensors"

    def _seal(self, name: str) -> Path:
        return self.path / f"{name}.block.json"
