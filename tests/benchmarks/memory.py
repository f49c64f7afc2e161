"""The memory that a piece of work takes at its peak, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FRAME = r"""
import ctypes, re, torch
from pathlib import Path
torch.set_num_threads(1)
status = lambda name: int(re.search(name + r":\s*(\d+) kB", Path("/proc/self/status").read_text())[1])
{prepare}
ctypes.CDLL("libc.so.6").malloc_trim(0)  # what a warm-up has freed
before = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
{work}
print((status("VmHWM") - before) / 1024)
"""


def peak_megabytes(prepare: str, work: str) -> float:
    """What the statements `work` add to the memory of a process at its peak, once `prepare` has run."""
    path = {"PYTHONPATH": f"{ROOT}:{ROOT / 'kernels'}", "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, "-c", FRAME.format(prepare=prepare, work=work)]
    return float(subprocess.run(command, cwd=ROOT, env=path, capture_output=True, text=True, check=True).stdout)
