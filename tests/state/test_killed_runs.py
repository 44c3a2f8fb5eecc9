# SPDX-License-Identifier: Apache-2.0
"""A training that is killed by SIGKILL, also in the middle of a checkpoint, goes on and ends with the same bits.

The moments are drawn from a seed; what a process has done by then is a matter of luck.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "resume.py"
SETTINGS = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}


def killed(folder: Path, kills: int, steps: int, every: int) -> tuple[list[int], int]:
    """How many steps each kill has cost, and how many came while a checkpoint was written."""
    environment = os.environ | SETTINGS | {"JAX_COMPILATION_CACHE_DIR": os.environ["GRADTX_TEST_CACHE"]}
    sizes = ["--kills", str(kills), "--steps", str(steps), "--every", str(every)]
    command = [sys.executable, str(SCRIPT), "--dir", str(folder), *sizes]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    moments = re.findall(r"^kill \d+: after step (\d+).*; goes on from step (\d+)$", done.stdout, re.MULTILINE)
    assert len(moments) == kills
    count, most = re.search(r"kills, (\d+) of them .*; at most (\d+) steps lost", done.stdout).groups()
    lost = [int(last) - int(begins) for last, begins in moments]
    assert max(lost) == int(most) and done.stdout.endswith(": the same bits\n"), done.stdout
    return lost, int(count)


def test_two_kills(tmp_path: Path):
    lost, _ = killed(tmp_path / "runs", kills=2, steps=60, every=10)
    assert max(lost) <= 10


@pytest.mark.slow
def test_ten_kills_some_of_them_while_a_checkpoint_is_written(tmp_path: Path):
    lost, writing = killed(tmp_path / "runs", kills=10, steps=800, every=20)
    assert max(lost) <= 20 and writing > 0


@pytest.mark.parametrize("argv", [["--kills", "3", "--steps", "159", "--every", "20"]])
def test_too_few_steps_to_be_killed_so_often(argv: list[str]):
    done = subprocess.run([sys.executable, str(SCRIPT), *argv], capture_output=True, text=True, timeout=300)
    assert done.returncode == 2 and done.stderr.endswith("3 kills need at least 160 steps\n")
