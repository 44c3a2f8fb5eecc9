# SPDX-License-Identifier: Apache-2.0
"""A stranger trains, sweeps, saves, resumes and looks at an optimizer with nothing but the home page.

The page's own code runs, in its order, in one namespace and an empty folder; after each part the test looks at what the
stranger has then. That the page prints what it says is for `test_readme.py`.
"""

import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

HOME = Path(__file__).parents[2] / "docs" / "index.md"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
PART = re.compile(r"^\*\*(\w+)\.\*\*", re.MULTILINE)


def parts() -> dict[str, str]:
    """The code of each part of the way, by the word that it begins with on the page; the first loop is "Train"."""
    training, _, way = HOME.read_text().partition("\n## In ten minutes\n")
    way = way.partition("\n## ")[0]
    words = ["Train", *PART.findall(way)]
    texts = [training, *PART.split(way)[2::2]]
    return {word: "\n".join(BLOCK.findall(text)) for word, text in zip(words, texts, strict=True)}


def same_bits(a: Any, b: Any) -> bool:
    leaves, others = jax.tree.leaves(a), jax.tree.leaves(b)
    pairs = [(np.asarray(x), np.asarray(y)) for x, y in zip(leaves, others, strict=True)]
    return all(x.dtype == y.dtype and x.tobytes() == y.tobytes() for x, y in pairs)


def test_the_page_names_the_whole_way_in_order():
    assert list(parts()) == ["Train", "Sweep", "Save", "Resume", "Look"]
    assert all(parts().values())


@pytest.mark.usefixtures("standard_promotion")  # JAX as a stranger has it
def test_a_stranger_goes_the_whole_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    code, has = parts(), {}

    def follow(part: str) -> str:
        exec(compile(code[part], f"{HOME.name}: {part}", "exec"), has)
        return capsys.readouterr().out

    follow("Train")
    untrained = jax.tree.map(np.zeros_like, has["params"])
    assert has["loss"](has["params"]) < 1e-3 < has["loss"](untrained)

    table = follow("Sweep").splitlines()
    assert len(table) == len(has["rates"]) >= 3
    for line, rate, final in zip(table, has["rates"], has["losses"], strict=True):
        assert [float(cell) for cell in line.split()] == pytest.approx([rate, float(final)], abs=1e-3)
    assert min(has["losses"]) < 1e-2 < max(has["losses"])
    alone = has["trained"](has["rates"][2])
    assert float(has["losses"][2]) == pytest.approx(float(alone), rel=1e-4), "of the population, as by itself"

    follow("Save")
    assert has["best"] == has["rates"][int(np.argmin(has["losses"]))]
    assert [p.name for p in tmp_path.iterdir()] == ["run.pickle"]
    at_save = {name: has.pop(name) for name in ("tx", "params", "state")}

    follow("Resume")
    assert has["tx"] == at_save["tx"]
    steps = int(has["state"][1][0].count)
    assert steps > int(at_save["state"][1][0].count) > 0
    params = has["start"]
    state = at_save["tx"].init(params)
    for _ in range(steps):
        params, state = has["step"](at_save["tx"], params, state)
    assert same_bits((has["params"], has["state"]), (params, state)), "as if it had never stopped"
    assert has["loss"](params) < has["loss"](at_save["params"])

    said = follow("Look")
    for row in (
        r"^  1: adam\(0\.3\)$",
        r"^w +\(3,\) +adam .* mu, nu float32",
        r"^learning_rate 0\.3$",
        r"^w +\(3,\)( +[\d.e-]+){5}$",
    ):
        assert re.search(row, said, re.MULTILINE), row
