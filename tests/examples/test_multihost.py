# SPDX-License-Identifier: Apache-2.0
"""A training in several processes ends with the same bits when one of them is killed, and leaves no process behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent.parent / "examples" / "multihost.py"
SMALL = ["--processes", "2", "--every", "4", "--batch-size", "4", "--length", "16", "--width", "16", "--layers", "1"]
DEADLINE = 300  # of what takes seconds, on a machine that does much else


@pytest.fixture(autouse=True)
def compiled_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", os.environ["GRADTX_TEST_CACHE"])
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")


@pytest.fixture
def start():
    """Starts the script, whose first line tells the numbers of its processes."""
    started = []

    def start(folder: Path, steps: int) -> tuple[subprocess.Popen, list[int]]:
        command = [sys.executable, str(SCRIPT), *SMALL, "--dir", str(folder), "--steps", str(steps)]
        # Unbuffered, so that `communicate` gets whatever comes after the first line.
        launcher = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)
        started.append(launcher)
        return launcher, [int(number) for number in launcher.stdout.readline().split()[1:]]

    yield start
    for launcher in started:
        launcher.kill()
        launcher.communicate()


def last_step(folder: Path) -> int:
    return max((int(path.name) for path in folder.glob("checkpoints/*") if path.name.isdigit()), default=0)


def ended(launcher: subprocess.Popen) -> tuple[int, str, str]:
    """Its code and what was printed; its processes have the pipe too, so that none of them is left then."""
    out, err = launcher.communicate(timeout=DEADLINE)
    return launcher.returncode, out.decode(), err.decode()


def test_a_killed_run_continues_and_ends_with_the_same_bits(start, tmp_path: Path):
    killed, never_killed = tmp_path / "killed", tmp_path / "never_killed"
    launcher, pids = start(killed, 1_000_000)
    deadline = time.monotonic() + DEADLINE
    while not last_step(killed):
        assert time.monotonic() < deadline and launcher.poll() is None, "no checkpoint"
        time.sleep(0.01)
    os.kill(pids[1], signal.SIGKILL)
    code, _, err = ended(launcher)
    step = last_step(killed)
    sentence = f"multihost: process 1 ended with code -9; start again to continue from step {step:,}\n"
    assert (code, err) == (1, sentence)

    # How far it came is a matter of luck, and the batches do not depend on the number of steps.
    resumed, whole = (ended(start(folder, step + 6)[0]) for folder in (killed, never_killed))
    assert resumed[0] == whole[0] == 0, (resumed, whole)
    assert resumed[1].startswith(f"continues from step {step:,}\nstep {step + 4:,}: loss ")
    assert "parameters " in whole[1] and resumed[1].splitlines()[-1] == whole[1].splitlines()[-1]
    # The folder holds the newest few.
    assert len(list(never_killed.glob("checkpoints/*"))) <= 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_the_launcher(start, tmp_path: Path, number: signal.Signals):
    launcher, pids = start(tmp_path, 1_000_000)
    assert len(pids) == 2
    launcher.send_signal(number)
    code, out, err = ended(launcher)
    assert out == ""
    if number == signal.SIGINT:
        assert (code, err) == (130, "multihost: interrupted; there is no checkpoint yet\n")
    else:
        assert (code, err) == (-number, "")
