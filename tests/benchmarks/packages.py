# SPDX-License-Identifier: Apache-2.0
"""What it costs to have gradtx: the seconds of its import, in processes of their own, and the size of its wheel."""

import io
import json
import os
import statistics
import subprocess
import sys
import zipfile
from pathlib import Path

import gradtx

TIMING = "from time import {0} as clock; import jax; begin = clock(); import {1}; print(clock() - begin)"
# What Python does to find and read files depends on where they lie.
COUNTING = """
import json, sys, jax
calls, before = 0, set(sys.modules)
def on_event(frame, event, argument):
    global calls
    calls += event == "call" and "importlib" not in frame.f_code.co_filename
sys.setprofile(on_event)
import gradtx
sys.setprofile(None)
print(json.dumps({"modules": len(sys.modules.keys() - before), "calls": calls}))
"""


def _printed(program: str) -> str:
    """By a process of its own, which may keep what it compiles of Python."""
    kept = {name: x for name, x in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env=kept, capture_output=True, text=True, check=True).stdout


def import_seconds(rounds: int, clock: str) -> dict[str, float]:
    """What gradtx and Optax add to the import of JAX, by a function of `time`: medians of processes that take turns."""
    found: dict[str, list[float]] = {"gradtx": [], "optax": []}
    for name in found:
        _printed(TIMING.format(clock, name))  # Python compiles it once
    for _ in range(rounds):
        for name, times in found.items():
            times.append(float(_printed(TIMING.format(clock, name))))
    return {name: statistics.median(times) for name, times in found.items()}


def import_counts() -> dict[str, int]:
    """The modules that gradtx loads after JAX, and the calls of Python functions that this takes."""
    return json.loads(_printed(COUNTING))


def wheel_bytes() -> int:
    """The modules, compressed as a wheel has them; its few lines about itself are left out."""
    folder, file = Path(gradtx.__file__).parent, io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as wheel:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.suffix != ".pyc":
                wheel.write(path, path.relative_to(folder.parent))
    return len(file.getvalue())
