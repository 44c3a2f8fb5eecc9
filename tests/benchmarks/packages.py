# SPDX-License-Identifier: Apache-2.0
"""What it costs to have gradtx: the seconds of its import, in processes of their own, and the size of its wheel."""

import io
import statistics
import subprocess
import sys
import zipfile
from pathlib import Path

import gradtx

PROGRAM = "import time, jax; begin = time.perf_counter(); import {}; print(time.perf_counter() - begin)"


def import_seconds(rounds: int) -> dict[str, float]:
    """What gradtx and Optax add to the import of JAX: the medians of processes that take turns."""
    found: dict[str, list[float]] = {"gradtx": [], "optax": []}
    for _ in range(rounds):
        for name, times in found.items():
            command = [sys.executable, "-c", PROGRAM.format(name)]
            times.append(float(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    return {name: statistics.median(times) for name, times in found.items()}


def wheel_bytes() -> int:
    """The modules, compressed as a wheel has them; its few lines about itself are left out."""
    folder, file = Path(gradtx.__file__).parent, io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as wheel:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.suffix != ".pyc":
                wheel.write(path, path.relative_to(folder.parent))
    return len(file.getvalue())
