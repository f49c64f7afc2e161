"""A comparison in blocks on disk, by one process or by many: what was done survives a crash, and is done once.

First the design, then the rows of every block of relations, which are nearly all of the work, then the pairs of every
few blocks. Each block depends on the model, the estimator and its own number only, so the result does not depend on
who computed it, in what order, or after how many interruptions.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from relsim.blocks import BlockFolder, Tensors, tidy
from relsim.crew import Crew
from relsim.design import Design
from relsim.distribution import FactDistribution
from relsim.divergence import MANIFEST, Divergence
from relsim.errors import RelsimError
from relsim.estimators import DesignEstimator
from relsim.heads import moderated
from relsim.lock import alone, together
from relsim.models import fingerprint
from relsim.neural import NeuralDistribution
from relsim.similar import save_comparison
from relsim.storage import check_target
from relsim.tails import BLOCK, HELD, TailRows, TailSums, blocks, tail_rows

ALONE = Crew()
TOGETHER = 4  # blocks of relations whose pairs are computed at once: each reads the rows of all relations


@dataclass(frozen=True)
class Shard:
    """Part `index` of `count`, counted from 0, of the blocks of a comparison."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read `3/16`, counted from 1.

        Raises:
            ValueError: it is no such thing.
        """
        index, _, count = text.partition("/")
        if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
            raise ValueError(f"expected a shard such as 3/16, got {text!r}")
        return cls(int(index) - 1, int(count))

    def of(self, names: Sequence[str]) -> Sequence[str]:
        """Return the shard's part of the blocks."""
        return names[self.index :: self.count]


def scratch_of(target: str | Path) -> Path:
    """Return the folder where the blocks of a comparison go until it is whole."""
    return Path(target).with_name(Path(target).name + ".blocks")


@dataclass(frozen=True)
class Comparison:
    """The blocks of a comparison of all relations of a model, in `folder`, and what they are made of."""

    folder: BlockFolder
    relations: list[str]
    step: int

    @property
    def rows(self) -> dict[str, slice]:
        """The blocks of rows by name, with their relations."""
        return {f"rows-{i:05d}": part for i, part in enumerate(blocks(len(self.relations), self.step))}

    @property
    def pairs(self) -> dict[str, slice]:
        """The blocks of pairs by name, with the relations that are their sources."""
        parts = blocks(len(self.relations), self.step * TOGETHER)
        return {f"pairs-{i:05d}": part for i, part in enumerate(parts)}

    def design(self) -> Design:
        """Return the design, which is there."""
        return Design.of_tensors(self.folder.read("design"))

    def make_rows(self, model: FactDistribution, shard: Shard, crew: Crew, progress: bool | None) -> None:
        """Make the shard's blocks of rows; of a crew all compute each block, and the leader writes it."""
        design = self.design()
        names = shard.of(list(self.rows))
        todo = crew.chosen(names, self.folder.missing(names) if crew.leads else [])
        for name in tqdm(todo, disable=_hidden(progress, crew), unit="block"):
            part = self.rows[name]
            start = time.process_time()
            active = design.sample.active[:, part]
            rows = tail_rows(model, design.sample.heads, design.relations[part], active)
            if crew.leads:
                self.folder.write(name, rows._asdict(), time.process_time() - start)
        crew.meet()

    def make_pairs(self, shard: Shard, crew: Crew, progress: bool | None) -> None:
        """Make the shard's blocks of pairs, for which all rows have to be there; a crew shares them out."""
        design = self.design()
        names = shard.of(list(self.pairs))[crew.rank :: crew.size]
        for name in tqdm(self.folder.missing(names), disable=_hidden(progress, crew), unit="block"):
            start = time.process_time()
            pairs = self._pairs(design, self.pairs[name])
            self.folder.write(name, pairs, time.process_time() - start)
        crew.meet()

    def _pairs(self, design: Design, sources: slice) -> Tensors:
        sample = design.sample.part(sources=sources)
        of_sources = [
            self._read(name) for name, part in self.rows.items() if sources.start <= part.start < sources.stop
        ]
        a = TailRows(*(torch.cat(fields, dim=1) for fields in zip(*of_sources, strict=True)))
        mean, variance = [], []
        for name in self.rows:
            b = self._read(name)
            sums = TailSums.zeros(a.partition.shape[1], b.partition.shape[1], sample.features.shape[1], a.mean.device)
            sums.add(sample, a, b)
            mean.append(sums.mean())
            variance.append(sums.variance(sample))
        return {
            "head": design.head_part(sources),
            "tail": torch.cat(mean, dim=1),
            "variance": torch.cat(variance, dim=1),
        }

    def _read(self, name: str) -> TailRows:
        return TailRows(**self.folder.read(name))

    def divergence(self, support: Tensor, meta: dict[str, Any]) -> Divergence:
        """Put the blocks together, all of which have to be there."""
        sample = self.design().sample
        blocks_ = [self.folder.read(name) for name in self.pairs]
        head, tail, variance = (torch.cat([block[key] for block in blocks_]) for key in ("head", "tail", "variance"))
        stderr = moderated(variance, tail, sample.freedom).sqrt()
        for part in (head, tail, stderr):
            part.fill_diagonal_(0)
        details = {"heads": len(sample.heads), "cpu_seconds": round(self.folder.seconds(), 2)}
        arrays = ((head + tail).numpy(), stderr.numpy(), head.numpy(), tail.numpy(), support.numpy())
        return Divergence(self.relations, *arrays, {**meta, **details})


@torch.no_grad()
def compare(
    model: FactDistribution,
    target: str | Path,
    estimator: DesignEstimator,
    *,
    shard: Shard | None = None,
    crew: Crew = ALONE,
    progress: bool | None = None,
) -> Divergence | None:
    """Compare all relations of a model into the folder `target`, in blocks beside it that a later call goes on with.

    With a shard, make the shard's blocks only, and leave the rest to other processes and `merge`; returns none. With a
    crew, the processes of which all see the folder and hold a part of the model (`relsim.sharded`) each, only the
    leader returns the result.

    Raises:
        RelsimError: another process is at work there, or `target` holds something else, or unfinished other work.
    """
    check_target(target, MANIFEST)
    if not isinstance(model, NeuralDistribution):  # rows as wide as the entities are many: cheap to make, not to keep
        if shard is not None:
            raise RelsimError(f"a {model.kind} model is compared in one piece: leave out the shard")
        with alone(target):
            div = estimator.divergence(model, progress=progress)
            save_comparison(div, target)
        return div
    with _held(target, shard, crew), tidy(scratch_of(target)) as folder:
        work = _begin(model.eval(), folder, estimator, crew)
        work.make_rows(model, shard or Shard(0, 1), crew, progress)
        if shard is None:
            work.make_pairs(Shard(0, 1), crew, progress)
            return _finish(work, target) if crew.leads else None
        if not work.folder.missing(list(work.rows)):
            work.make_pairs(shard, crew, progress)
        return None


@torch.no_grad()
def merge(target: str | Path, *, progress: bool | None = None) -> Divergence:
    """Put together the blocks that shards made for the folder `target`; the model is not needed.

    Where that is done already, return what is there.

    Raises:
        RelsimError: there are none, some are missing, or another process is at work there.
    """
    check_target(target, MANIFEST)
    folder = scratch_of(target)
    with alone(target):
        if not folder.exists() and (Path(target) / MANIFEST).is_file():
            return Divergence.load(target)
        settings = BlockFolder.settings(folder)
        work = Comparison(BlockFolder(folder, settings), settings["relations"], settings["step"])
        if missing := work.folder.missing(["design", *work.rows]):
            raise RelsimError(
                f"{folder}: {len(missing)} blocks are missing ({', '.join(missing[:3])}): "
                f"run `relsim compare` with the other shards"
            )
        work.make_pairs(Shard(0, 1), ALONE, progress)
        return _finish(work, target)


@contextmanager
def _held(target: str | Path, shard: Shard | None, crew: Crew) -> Iterator[None]:
    if not crew.leads:
        yield
    elif shard is None:
        with alone(target):
            yield
    else:
        folder = scratch_of(target)
        with together(target), alone(folder.with_name(f"{folder.name}-{shard.index + 1}-of-{shard.count}")):
            yield


def _begin(model: NeuralDistribution, path: Path, estimator: DesignEstimator, crew: Crew) -> Comparison:
    """Open the folder of blocks, and make the design where it is not there."""
    everything = torch.arange(len(model.relations), device=model.support.device)
    width = 1 + 2 * model.tail_natural(everything[:1], everything[:1]).shape[1]
    step = max(1, min(BLOCK, HELD // (estimator.most_heads(len(model.entities)) * width)))
    settings = {
        "model": fingerprint(model),
        "source": model.meta.get("source", ""),
        "estimator": type(estimator).__name__,
        **estimator.settings(),
        "step": step,
        "relations": model.relations,
        "support": model.support.tolist(),
    }
    if not crew.leads:
        crew.meet()  # the leader has made the folder
    folder = BlockFolder(path, settings)
    if crew.leads:
        crew.meet()
    if crew.size == 1:
        folder.make_once("design", lambda: estimator.design(model, everything).tensors())
    elif crew.chosen(["design"], folder.missing(["design"]) if crew.leads else []):
        start = time.process_time()
        design = estimator.design(model, everything)
        if crew.leads:
            folder.write("design", design.tensors(), time.process_time() - start)
    crew.meet()
    return Comparison(folder, model.relations, step)


def _hidden(progress: bool | None, crew: Crew) -> bool | None:
    """What tqdm's `disable` is for a wish for a bar; none is a bar on a terminal only."""
    return True if not crew.leads else None if progress is None else not progress


def _finish(work: Comparison, target: str | Path) -> Divergence:
    settings = BlockFolder.settings(work.folder.path)
    kept = {key: value for key, value in settings.items() if key not in ("relations", "support", "step", "model")}
    div = work.divergence(torch.tensor(settings["support"]), kept)
    save_comparison(div, target)
    shutil.rmtree(work.folder.path)
    return div
