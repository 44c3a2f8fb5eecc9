# SPDX-License-Identifier: Apache-2.0
"""Training with few bits ends where float32 does: the script of the docs' table, at a smaller size."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import jax
import pytest

from support.registry import turns

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "precision_training.py"
SEEDS = 5
SIZES = {
    "digits": {"steps": 250},
    "transformer": {"steps": 60, "length": 32, "width": 32, "layers": 1},
    "lstm": {"steps": 80, "length": 16, "width": 32},
}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("precision_training", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", autouse=True)
def digits_forgotten():
    """The script imports examples/digits.py under its own name, which other tests may load anew."""
    yield
    sys.modules.pop("digits", None)


@pytest.mark.slow
@pytest.mark.parametrize("title", [turns(title, i) for i, title in enumerate(SIZES)])
def test_the_final_loss_is_within_one_percent_of_float32(script: ModuleType, title: str):
    assert list(SIZES) == list(script.PROBLEMS)
    problem, candidates = script.PROBLEMS[title](**SIZES[title]), script.candidates()
    reference = script.train(problem, candidates[script.REFERENCE], SEEDS)
    start = problem.loss(problem.init(jax.random.key(0)), problem.trained)
    assert (reference.trained < 0.8 * start).all()

    def off(name: str) -> float:
        return script.deviations(script.train(problem, candidates[name], SEEDS).trained, reference.trained)[0]

    found = {name: off(name) for name in script.LOW}
    assert all(abs(x) < 1 for x in found.values()), found
    if title == "digits":  # that one percent sees a difference: weights that small steps do not move
        assert off(script.PLAIN) > 2


@pytest.mark.slow
def test_the_script_prints_a_table(script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    few = {name: c for name, c in script.candidates(0.99).items() if name in (script.REFERENCE, script.PLAIN)}
    monkeypatch.setattr(script, "candidates", lambda b2: few)
    script.main(["--problem", "digits", "--steps", "20", "--seeds", "2", "--b2", "0.99", "--learning-rate", "0.01"])
    lines = capsys.readouterr().out.split("\n")
    assert "digits: 20 updates, learning rate 0.01, b2 0.99, 2 seeds" in lines
    rows = [line for line in lines if line.startswith("| ")]
    assert [row.split(" | ")[0][2:] for row in rows[1:]] == list(few)
    assert all(row.count("|") == 8 for row in rows)
    assert "+0.00 %" in rows[1]
