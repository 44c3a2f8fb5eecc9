# SPDX-License-Identifier: Apache-2.0
"""The examples of docs/examples.md that train something small: each runs, and its numbers say what it says they say."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

EXAMPLES = Path(__file__).parent.parent.parent / "examples"

PNG = b"\x89PNG"


def all_frameworks_agree(losses: dict[str, np.ndarray], folder: Path) -> None:
    assert list(losses) == ["plain JAX", "linen, scanned", "nnx", "equinox"]
    assert losses["plain JAX"][-1] < losses["plain JAX"][0] / 1.2
    for name, values in losses.items():
        np.testing.assert_allclose(values, losses["plain JAX"], rtol=1e-4, err_msg=name)


def rates_have_basins(losses: dict[str, np.ndarray], folder: Path) -> None:
    assert list(losses) == ["momentum", "Adam"]
    for name, values in losses.items():
        assert values.shape == (32,) and values[0] > 1.5 * np.nanmin(values), (name, values)
        assert not values[-1] < 1.5 * np.nanmin(values), (name, values)
    assert (folder / "population.png").read_bytes().startswith(PNG)


def adapters_forget_nothing(results: dict[str, tuple], folder: Path) -> None:
    _, _, side, upright = results["before"]
    assert side < 0.3 and upright > 0.8
    lora = results["LoRA, rank 4"]
    assert lora[3] == upright and lora[2] > side + 0.2
    assert lora[:2] < results["all"][:2] and results["all"][2] > side + 0.2


def all_learn_at_some_rate(results: dict[str, list], folder: Path) -> None:
    assert list(results) == ["Nesterov momentum", "AdamW", "Muon"]
    for name, rows in results.items():
        assert len(rows) == 3 and max(right for _, right in rows) > 0.5, (name, rows)
        assert len({loss for loss, _ in rows}) == 3, (name, rows)


def error_bits_keep_what_bfloat16_loses(results: dict[str, tuple], folder: Path) -> None:
    exact, alone, bits = (results[n] for n in ("float32", "bfloat16 and nothing else", "bfloat16, error bits"))
    assert bits[1] == pytest.approx(exact[1], rel=0.02) and alone[1] > 1.02 * exact[1]
    assert (exact[0], alone[0], bits[0]) == pytest.approx((12, 10, 11), abs=0.01)
    assert results["both: adamw_bf16"][0] < 5.1 < 6 < results["float32, 8-bit moments"][0] < 6.1


def averages_are_of_the_same_run(results: dict[str, np.ndarray], folder: Path) -> None:
    assert len(results) == 5 and all(x.shape == (3, 20) and np.isfinite(x).all() for x in results.values())
    for name, values in results.items():
        assert values[:, -1].mean() < 0.7 * values[:, 0].mean(), name
    assert (results["constant"] != results["params_ema"]).all()
    assert (folder / "averages.png").read_bytes().startswith(PNG)


def gradients_are_quotients(results: dict[str, Any], folder: Path) -> None:
    rows = results["rows"]
    assert results["quotient"] == pytest.approx(rows[0, 3], rel=0.01)
    assert float(results["gradient"].arguments["learning_rate"]) * 0.02 == pytest.approx(rows[0, 3], rel=1e-3)
    assert rows[-1, 2] < rows[0, 2] and rows[-1, 0] > rows[0, 0]


def training_beats_where_it_began(results: dict[str, Any], folder: Path) -> None:
    adam, untrained, _, trained = results["tasks"]["as trained on"]
    assert untrained == pytest.approx(adam, rel=1e-3)
    assert trained < 0.9 * untrained and results["outer"][-1] < results["outer"][0]


def promises_cost_accuracy(results: dict[float, tuple], folder: Path) -> None:
    epsilons, right = zip(*(results[noise] for noise in (0.0, 0.5, 1.0, 2.0, 4.0)), strict=True)
    assert epsilons[0] == np.inf and list(epsilons) == sorted(epsilons, reverse=True)
    assert right[0] > 0.7 and right[0] > right[-1]


def sam_ends_where_curvature_is_less(results: dict[str, tuple], folder: Path) -> None:
    momentum, _, sam = results.values()
    assert sam[1] < momentum[1] and sam[0] > momentum[0]


def curvature_pays(results: dict[str, Any], folder: Path) -> None:
    assert bool(results["fit"].converged) and int(results["fit"].evaluations) < 40
    found = float(results["fit"].params["damping"]), float(results["fit"].params["frequency"])
    assert found == pytest.approx((0.3, 2.0), abs=0.05)
    assert abs(results["Adam"][0] - results["L-BFGS"][0]) <= 1
    assert results["L-BFGS"][1] < results["Adam"][1]
    assert (folder / "physics.png").read_bytes().startswith(PNG)


def spectra_train(results: dict[float, list], folder: Path) -> None:
    assert list(results) == [0.0, 0.25, 0.5, 1.0]
    losses = np.asarray(list(results.values()))
    assert losses.shape == (4, 4) and (losses.min(axis=1) < 0.8 * np.log(10)).all(), losses
    assert len(set(losses.ravel().tolist())) == 16


def methods_reach_the_minimum(results: dict[str, tuple], folder: Path) -> None:
    assert list(results) == ["adam", "nadam", "adan", "minimize, L-BFGS"]
    assert results["adam"][1] < 0.5 and results["minimize, L-BFGS"][1] < 1e-3
    assert results["minimize, L-BFGS"][0] < results["adam"][0]


def guide_is_near_the_posterior(results: dict[str, Any], folder: Path) -> None:
    np.testing.assert_allclose(results["found"], results["exact"], atol=0.1)
    assert np.isfinite(results["losses"]).all()


CASES: dict[str, tuple[Sequence[str], Callable[[Any, Path], None]]] = {
    "frameworks": (["--steps", "12"], all_frameworks_agree),
    "population": (["--steps", "200"], rates_have_basins),
    "lora": (["--steps", "150"], adapters_forget_nothing),
    "convnet": (["--steps", "40"], all_learn_at_some_rate),
    "few_bits": (["--steps", "100"], error_bits_keep_what_bfloat16_loses),
    "averages": (["--steps", "100"], averages_are_of_the_same_run),
    "hypergradients": (["--steps", "3", "--inner", "30"], gradients_are_quotients),
    "learned_optimizer": (["--steps", "30"], training_beats_where_it_began),
    "privacy": (["--steps", "50"], promises_cost_accuracy),
    "physics": (["--steps", "60"], curvature_pays),
    "svd_optimizer": (["--steps", "30"], spectra_train),
    "optimistix_fit": (["--steps", "1000"], methods_reach_the_minimum),
    "numpyro_svi": (["--steps", "400"], guide_is_near_the_posterior),
    "sharp_minima": (["--steps", "200"], sam_ends_where_curvature_is_less),
}


NEEDS = {"optimistix_fit": "optimistix", "numpyro_svi": "numpyro"}


@pytest.mark.parametrize("name", CASES)
def test_shows_what_it_says(
    example, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    arguments, holds = CASES[name]
    monkeypatch.syspath_prepend(str(EXAMPLES))  # some take the network of digits.py
    monkeypatch.chdir(tmp_path)
    results = example(name).main([*arguments, "--quiet"])
    assert capsys.readouterr().out == ""
    holds(results, tmp_path)
