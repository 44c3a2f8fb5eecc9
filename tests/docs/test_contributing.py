# SPDX-License-Identifier: Apache-2.0
"""The page on contributing is followed to the letter, in a copy of the repository, and its tests run."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "contributing.md").read_text()
BLOCKS = re.findall(r'^```py title="([^"]+)"\n(.*?)^```$', PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = re.findall(r"^(python tests/mutation.py --only .*|python -m pytest -q tests/.*)$", PAGE, re.MULTILINE)


def add(path: Path, text: str) -> None:
    """A new file, or lines among those that are there, in front of the first re-export."""
    if path.exists():
        before, first, after = path.read_text().partition("\nfrom gradtx.core")
        text = before + "\n" + text.rstrip() + first + after
    path.write_text(text)


@pytest.mark.slow
def test_a_new_optimizer_step_by_step(tmp_path: Path):
    for name in ("gradtx", "tests", "docs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "images"))
    for name in ("pyproject.toml", ".mkdocs.yml"):
        shutil.copy(ROOT / name, tmp_path)
    for path, text in BLOCKS:
        add(tmp_path / path, text)
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    assert len(BLOCKS) == 4 and len(COMMANDS) == 2
    for command in COMMANDS:
        words = [sys.executable, *re.findall(r'"[^"]*"|\S+', command.removeprefix("python "))]
        done = subprocess.run(
            [w.strip('"') for w in words], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        assert re.search(r"[1-9]\d* (passed|mutants noticed)", done.stdout), done.stdout
