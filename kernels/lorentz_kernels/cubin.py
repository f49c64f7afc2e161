"""What a compiled kernel will do, read from its machine code: resources, spills, loads, tensor cores, the hot loop.

The hot loop is the innermost loop with the most products, the shortest of several, since a masked tail repeats the body
with more instructions; of a kernel without products it is the longest. Its modelled share of peak is

    useful products / max(issue, products, exponentials), in cycles of one streaming multiprocessor

as if the three overlapped perfectly: an upper bound, which knows nothing of memory.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lorentz_kernels.ahead import Compiled

ISSUE, EXPONENTIALS = 4, 16  # warp instructions, and special functions, that a multiprocessor starts in a cycle
PRODUCTS = {80: 2048, 90: 4096}  # floating-point operations of 16-bit products in a cycle, by capability
RATE = {"BF16": 1.0, "F16": 1.0, "TF32": 0.5}  # of inputs to a product, relative to 16 bits; a name without one is F16
WIDTHS = {"U8": 8, "S8": 8, "U16": 16, "S16": 16, "64": 64, "128": 128, "256": 256}


@dataclass(frozen=True)
class Facts:
    """Figures of one kernel for one capability."""

    warps: int
    stages: int
    registers: int
    stack: int
    shared: int
    spills: int  # loads and stores of local memory in the hot loop, anywhere in a kernel without loop
    widest_load: int  # bits
    hgmma: int  # tensor-core instructions of Hopper, of earlier and of later generations
    hmma: int
    utcmma: int
    loop: int  # instructions in the hot loop, in the whole kernel where there is none
    share: float | None  # modelled share of peak; none without products, or where the model knows no peak
    bound: str | None  # what limits it: issue, products, exponentials

    def as_dict(self) -> dict[str, Any]:
        """Return the figures by name."""
        return asdict(self)


def facts(kernel: Compiled, useful: float = 1.0) -> Facts:
    """Read the figures of a kernel; `useful` is the share of its products that were asked for."""
    usage, code = _disassemble(kernel.cubin)
    registers, stack = (int(_found(rf"{name}:(\d+)", usage)) for name in ("REG", "STACK"))
    instructions, labels = parse(code)
    everything = _counts(instructions)
    hot = hot_loop(instructions, labels)
    mix = _counts(hot)
    share, bound = _model(hot, kernel, useful)
    return Facts(
        warps=kernel.warps,
        stages=kernel.stages,
        registers=registers,
        stack=stack,
        shared=kernel.shared,
        spills=mix["LDL"] + mix["STL"],
        widest_load=max(map(width, instructions), default=0),
        hgmma=everything["HGMMA"],
        hmma=everything["HMMA"],
        utcmma=sum(count for name, count in everything.items() if name.startswith("UTC") and name.endswith("MMA")),
        loop=len(hot),
        share=share,
        bound=bound,
    )


def parse(code: str) -> tuple[list[str], dict[str, int]]:
    """Return the instructions of a disassembly, without predicates, and the index that each label stands before."""
    instructions: list[str] = []
    labels: dict[str, int] = {}
    for line in code.splitlines():
        if label := re.match(r"(\.L_x_\d+):", line):
            labels[label[1]] = len(instructions)
        elif instruction := re.match(r"\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?(\S.*?)\s*;", line):
            instructions.append(instruction[1])
    return instructions, labels


def hot_loop(instructions: list[str], labels: dict[str, int]) -> list[str]:
    """Return the instructions of the hot loop, all of them where there is no loop."""
    loops = []
    for end, instruction in enumerate(instructions):
        target = re.match(r"BRA.*?`\((\.L_x_\d+)\)", instruction)
        start = labels.get(target[1], end + 1) if target else end + 1
        if start < end:  # a branch to itself is the trap after the last instruction
            loops.append((start, end + 1))
    inner = [a for a in loops if not any(b != a and a[0] <= b[0] and b[1] <= a[1] for b in loops)]
    bodies = [instructions[start:end] for start, end in inner]
    products = [body for body in bodies if _products(body)]
    if products:
        return max(products, key=lambda body: (_products(body), -len(body)))
    return max(bodies, key=len, default=instructions)


def width(instruction: str) -> int:
    """Return the bits that one thread loads from global memory by an instruction, 0 where it is no such load."""
    name, *suffixes = instruction.split()[0].split(".")
    if name not in ("LDG", "LDGSTS"):
        return 128 if name == "UTMALDG" else 0  # the copy engine moves whole tiles
    return next((WIDTHS[suffix] for suffix in suffixes if suffix in WIDTHS), 32)


def _counts(instructions: list[str]) -> Counter[str]:
    return Counter(re.split(r"[.\s]", instruction, maxsplit=1)[0] for instruction in instructions)


def _products(instructions: list[str]) -> float:
    """Return the floating-point operations of the tensor-core instructions of one warp, slower ones counted for more.

    HGMMA.64x128x16 multiplies tiles for four warps together; HMMA.16816 is 16 x 8 x 16 for one.
    """
    total = 0.0
    for instruction in instructions:
        name = instruction.split()[0]
        if group := re.match(r"HGMMA\.(\d+)x(\d+)x(\d+)\.", name):
            m, n, k = map(int, group.groups())
            total += 2 * m * n * k / 4 / _rate(name)
        elif single := re.match(r"HMMA\.(16)(8)(16|8|4)\.", name):
            m, n, k = map(int, single.groups())
            total += 2 * m * n * k / _rate(name)
    return total


def _rate(name: str) -> float:
    return RATE.get(name.split(".")[-1], 1.0)


def _model(loop: list[str], kernel: Compiled, useful: float) -> tuple[float | None, str | None]:
    """Return the modelled share of peak and what bounds it."""
    work = _products(loop) * kernel.warps
    if work == 0 or kernel.capability not in PRODUCTS:
        return None, None
    special = sum(instruction.startswith("MUFU") for instruction in loop)
    cycles = {
        "issue": len(loop) * kernel.warps / ISSUE,
        "products": work / PRODUCTS[kernel.capability],
        "exponentials": special * 32 * kernel.warps / EXPONENTIALS,
    }
    bound = max(cycles, key=lambda name: cycles[name])
    return round(useful * cycles["products"] / cycles[bound], 3), bound


def _disassemble(cubin: bytes) -> tuple[str, str]:
    """Return what the wheel's own tools say: resource usage and machine code."""
    from triton import knobs

    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(cubin)
        usage = _run(knobs.nvidia.cuobjdump.path, "-res-usage", file.name)
        code = _run(knobs.nvidia.nvdisasm.path, "-c", file.name)
    return usage, code


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def _found(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    assert found is not None, f"no {pattern} in what cuobjdump printed: {text[-200:]}"
    return found[1]
