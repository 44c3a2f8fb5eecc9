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


CASES: dict[str, tuple[Sequence[str], Callable[[Any, Path], None]]] = {
    "frameworks": (["--steps", "12"], all_frameworks_agree),
    "population": (["--steps", "200", "--out", "population.png"], rates_have_basins),
    "lora": (["--steps", "150"], adapters_forget_nothing),
}


@pytest.mark.parametrize("name", CASES)
def test_shows_what_it_says(
    example, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
):
    arguments, holds = CASES[name]
    monkeypatch.syspath_prepend(str(EXAMPLES))  # some take the network of digits.py
    monkeypatch.chdir(tmp_path)
    results = example(name).main([*arguments, "--quiet"])
    assert capsys.readouterr().out == ""
    holds(results, tmp_path)
