# SPDX-License-Identifier: Apache-2.0
"""Each example runs, and shows what it says it shows."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gradtx
from gradtx.plot import plot_curves, plot_paths, plot_schedules

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
PNG = b"\x89PNG"


def test_digits_runs(example, tmp_path: Path, capsys: pytest.CaptureFixture):
    digits, out = example("digits"), tmp_path / "digits.png"
    results = digits.main(["--epochs", "2", "--seeds", "2", "--quiet", "--out", str(out)])
    assert capsys.readouterr().out == ""
    assert list(results) == ["softmax regression", *digits.optimizers()]
    for name, result in results.items():
        seeds = 1 if name == "softmax regression" else 2
        assert all(curve.shape == (seeds, 2) and np.isfinite(curve).all() for curve in result.curves)
    assert out.read_bytes().startswith(PNG)


def test_watch_publishes_what_happens(example, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.syspath_prepend(str(EXAMPLES))  # it takes the network of digits.py
    out = tmp_path / "watch.png"
    logged = example("watch").main(["--steps", "200", "--quiet", "--out", str(out)])
    assert (logged["skipped"][[149, 150, 199]] == [0, 1, 1]).all()
    assert np.isfinite(logged["loss"]).all() and logged["loss"][-10:].mean() < logged["loss"][0] / 2
    assert out.read_bytes().startswith(PNG)


@pytest.mark.parametrize(("batch_size", "updates"), [("all", 1), ("128", 11), ("1", 1437)])
def test_digits_has_three_data_regimes(
    example,
    batch_size: str,
    updates: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    digits = example("digits")
    # Compiling is all the time this takes, so two optimizers of the four.
    few = {name: tx for name, tx in digits.optimizers().items() if name in ("plain descent", "Adam")}
    monkeypatch.setattr(digits, "optimizers", lambda factor: few)
    args = ["--model", "network", "--epochs", "1", "--seeds", "1", "--out", str(tmp_path / "digits.png")]
    digits.main([*args, "--batch-size", batch_size])
    assert f"{updates:,} updates" in " ".join(capsys.readouterr().out.split())


def test_softmax_regression_climbs_over_50_epochs(example):
    result = example("digits").main(["--model", "softmax", "--quiet"])["softmax regression"]
    (curve,) = result.curves.accuracy
    assert curve.shape == (50,)
    assert curve[0] < 0.3 and curve[-1] > 0.9
    every_tenth = curve[[0, 9, 19, 29, 39, 49]]
    assert np.all(np.diff(every_tenth) > -0.005), every_tenth
    assert np.all(np.diff(result.curves.loss[0]) < 0)


@pytest.mark.slow
def test_adam_is_three_points_above_plain_descent(example, tmp_path: Path):
    results = example("digits").main(["--model", "network", "--quiet", "--out", str(tmp_path / "digits.png")])
    adam, plain = results["Adam"].accuracy, results["plain descent"].accuracy
    assert adam.shape == (3,)
    assert np.all(adam - plain >= 0.03), (adam, plain)
    assert np.all(adam > 0.92), adam


@pytest.fixture
def paths_results(example, tmp_path: Path):
    paths = example("paths")
    pictures = tmp_path / "paths.png", tmp_path / "decays.png"
    results = paths.main(["--quiet", "--out", str(pictures[0]), "--decays-out", str(pictures[1])])
    assert all(p.read_bytes().startswith(PNG) for p in pictures)
    return paths, results


def test_adam_reaches_the_minimum_of_the_linear_fit(paths_results):
    paths, results = paths_results
    assert list(results.paths) == ["plain descent", "momentum", "Nesterov", "AdaGrad", "RMSProp", "Adam"]
    assert repr(paths.OPTIMIZERS["Adam"]) == "adam(0.3)" and repr(paths.OPTIMIZERS["plain descent"]) == "sgd(0.05)"
    np.testing.assert_allclose(results.paths["Adam"][200], [2, 0.5], atol=1e-3)
    plain = np.linalg.norm(results.paths["plain descent"] - np.array([2, 0.5]), axis=1)
    assert plain[100] > 0.5 and plain[200] > 0.05
    # Plain descent on a quadratic, in closed form: the distance from the minimum times 1 - rate curvature, each step.
    design = np.stack([paths.X, np.ones_like(paths.X)], axis=1).astype(np.float64)
    step = np.eye(2) - 0.05 * 2 * design.T @ design / len(design)
    expected = paths.MINIMUM + np.linalg.matrix_power(step, 100) @ (paths.START - paths.MINIMUM)
    np.testing.assert_allclose(results.paths["plain descent"][100], expected, atol=1e-4)


def test_a_rate_of_2_oscillates_and_decays_rescue_it(paths_results):
    paths, results = paths_results
    oscillating = results.decays.pop("constant")
    np.testing.assert_array_equal(oscillating, np.where(np.arange(51) % 2 == 0, 0, 6))
    assert list(results.decays) == ["exponential", "natural exponential", "inverse time", "step", "polynomial"]
    for name, thetas in results.decays.items():
        assert float(paths.DECAYS[name](0)) == 2.0
        assert thetas[0] == 0 and abs(thetas[1] - 6) < 1e-6, name
        assert abs(thetas[-1] - paths.BOTTOM) < 1e-4, (name, thetas[-1])


def test_sample_efficiency_runs(
    example, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
):
    race, out = example("sample_efficiency"), tmp_path / "race.png"
    for name, value in {"LAYERS": 1, "LENGTH": 16, "BATCH": 4, "RATES": np.array([4e-3, 8e-3])}.items():
        monkeypatch.setattr(race, name, value)
    monkeypatch.delitem(race.OPTIMIZERS, "SOAP")  # half of the time to compile
    results = race.main(["--steps", "20", "--seeds", "2", "--out", str(out)])
    assert list(results) == ["AdamW", "Muon"]
    for name, losses in results.items():
        assert losses.shape == (2, 2, 2), name  # rates, seeds, measurements
        assert (losses[..., -1] < 0.9 * np.log(96)).all(), (name, losses)  # what knowing nothing costs
    lines = capsys.readouterr().out.splitlines()
    assert "20 steps of 4 x 16, 2 seeds" in lines[0]
    assert [line.split(" | ")[0] for line in lines if line.startswith("| ")][1:] == ["| AdamW", "| Muon"]
    assert out.read_bytes().startswith(PNG)


def test_sample_efficiency_measures_steps_and_basins(example):
    race = example("sample_efficiency")
    curves = np.array([[3.0, 2.0, 1.0], [3.0, 3.0, 3.0]])
    np.testing.assert_array_equal(race.reached(curves, np.array([2.0, 2.0])), [2 / 3, np.inf])
    # 0.1 more for each factor of 2 from the best: 0.05 more at a factor of sqrt(2).
    valley = 2 + 0.1 * np.abs(np.log2(race.RATES / race.RATES[2]))
    ends = race.RATES[2] / np.sqrt(2), race.RATES[2] * np.sqrt(2)
    np.testing.assert_allclose(race.basin(valley), ends, rtol=3e-3)
    valley[3] = np.nan  # it diverges
    np.testing.assert_allclose(race.basin(valley), (ends[0], race.RATES[2]), rtol=3e-3)
    np.testing.assert_allclose(race.basin(np.ones_like(race.RATES)), (race.RATES[0], race.RATES[-1]))


def test_write_your_own_sweeps_with_one_compilation(example):
    results = example("write_your_own").main(["--steps", "20", "--quiet"])
    assert results["compilations"] == 1
    losses = list(results["sweep"].values())
    assert len(losses) == 9 and len(set(losses)) == 9
    alone = [loss for (_, decay), loss in results["sweep"].items() if decay == 0.9]
    np.testing.assert_allclose(results["population"], alone, rtol=1e-4)
    assert results["compared"]["plain_pair(0.1)"] == pytest.approx(results["compared"]["sgd(0.1)"], rel=1e-4)


def test_pictures_of_schedules(tmp_path: Path):
    decays = {"step": gradtx.step_decay_schedule(0.1, 10), "any function": lambda count: 0.1 / (1 + count)}
    figure = plot_schedules(decays, 30, log=True)
    figure.savefig(tmp_path / "schedules.png")
    assert (tmp_path / "schedules.png").read_bytes().startswith(PNG)
    step, function = (np.asarray(line.get_ydata()) for line in figure.axes[0].get_lines())
    np.testing.assert_allclose(step[[0, 9, 10, 29]], [0.1, 0.1, 0.05, 0.1 / 3], rtol=1e-6)
    np.testing.assert_allclose(function, 0.1 / (1 + np.arange(30)))


@pytest.mark.parametrize("number", [1, 2, 4, 5, 7])
def test_panels_of_any_number(number: int, tmp_path: Path):
    figure = plot_curves({f"panel {i}": {"a": np.ones(3), "b": np.arange(6.0).reshape(2, 3)} for i in range(number)})
    figure.savefig(tmp_path / "curves.png")
    assert sum(axes.get_visible() for axes in figure.axes) == number


def test_a_path_of_another_shape_is_an_error():
    with pytest.raises(ValueError, match=r"paths\['a'\] must have shape \(n, 2\), got \(3,\)"):
        plot_paths(lambda p: p[0] + p[1], {"a": np.zeros(3)}, bounds=((0, 1), (0, 1)))


def test_without_matplotlib_the_error_names_the_extra():
    script = "import sys; sys.modules['matplotlib'] = None; import gradtx.plot"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=EXAMPLES.parent, capture_output=True, text=True, timeout=300)
    assert "gradtx.plot needs matplotlib: install the extra with `pip install 'gradtx[plot]'`" in done.stderr
