# SPDX-License-Identifier: Apache-2.0
"""A flipped sign, operator, comparison or decay in any rule makes a formula fail: see tests/mutation.py."""

import pathlib
import subprocess
import sys

import pytest

from mutation_survivors import EXPLAINED
from support.registry import turns

SCRIPT = pathlib.Path(__file__).parent / "mutation.py"
PACKAGE = pathlib.Path(__file__).parent.parent / "gradtx"


def run(*arguments):
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, check=False)


def test_the_lines_of_explained_mutants_are_there():
    lines = {file: (PACKAGE / file).read_text().splitlines() for file, _ in EXPLAINED}
    assert [key for key in EXPLAINED if key[1] not in map(str.strip, lines[key[0]])] == []


@pytest.mark.slow
def test_every_mutant_of_one_rule_is_noticed():
    result = run("--only", "optimizers/_sgd.py")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "1 mutants noticed" in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("third", [turns(i, i) for i in range(3)])
def test_every_mutant_of_a_sample_of_all_rules_is_noticed(third: int):
    """The whole set takes ten minutes: run the script without arguments. Any change of a rule shifts the sample."""
    result = run("--every", "51", "--first", str(17 * third))
    assert result.returncode == 0, result.stdout + result.stderr
