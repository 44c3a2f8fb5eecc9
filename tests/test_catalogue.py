# SPDX-License-Identifier: Apache-2.0
"""The catalogue is up to date and complete, and a new optimizer, one file and one line, is everywhere by itself."""

import importlib.util
import re
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
import support
from gradtx import describe
from gradtx.core import _factory as factory

ROOT = Path(__file__).parent.parent


def load(name: str, path: Path) -> ModuleType:
    """A module from a file, a new one at each call."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def catalogue() -> ModuleType:
    return load("catalogue", ROOT / "docs" / "catalogue.py")


@pytest.mark.slow
def test_the_page_is_up_to_date(catalogue: ModuleType):
    assert catalogue.page() == catalogue.PAGE.read_text(), f"docs/catalogue.md: run `{catalogue.COMMAND}`"


def test_every_factory_is_on_the_page_once(catalogue: ModuleType):
    # Link texts and bare names at the beginning of a row.
    listed = Counter(re.findall(r"^\| \[?`(\w+)`", catalogue.PAGE.read_text(), re.MULTILINE))
    registered = [f.name for f in factory.REGISTRY.values() if f.module.startswith("gradtx.")]
    assert listed == Counter(registered), f"docs/catalogue.md: run `{catalogue.COMMAND}`"


@pytest.mark.slow
def test_what_rules_declare_is_what_they_need(catalogue: ModuleType):
    for name, record in catalogue.registry.FACTORIES.items():
        tx, extra = catalogue.example(record), catalogue.registry.extra_arguments(name)
        assert catalogue.needs(tx, extra) == catalogue.needs_by_trial(tx, extra), name


def test_formulas(catalogue: ModuleType):
    both = "The rule:\n\n```\nmu = b1 mu + g           nu = nu + g²\nu  = mu / nu   (0 where nu is 0)\n```\n"
    assert catalogue.formula(both) == "u = mu / nu (0 where nu is 0)"
    assert catalogue.formula("The rule:\n\n```\nmu = b1 mu + g\nu  = mu\n```\n") == "mu = b1 mu + g"
    assert catalogue.formula("u = g.") is None
    escaped = r"u = &#124;g&#124; \* 2, see section 2.1 of it"
    assert catalogue.update("u = |g| * 2, see section 2.1 of it. Not this.") == escaped
    assert catalogue.update("Adam.\n\nSee `scale_by_adam` for the formula.").startswith("Adam<br>`u = (mu / ")


def test_sources(catalogue: ModuleType):
    assert catalogue.source("References: A 2014, arXiv:1412.6980; B, arXiv:2405.15682 (it).") == (
        "[1412.6980](https://arxiv.org/abs/1412.6980), [2405.15682](https://arxiv.org/abs/2405.15682)"
    )
    assert catalogue.source("Adam.\n\nReference: Riedmiller and Braun 1993, a paper.") == "Riedmiller and Braun 1993"
    assert catalogue.source("Adam.") == "–"


@pytest.mark.slow
def test_a_family_is_drawn(catalogue: ModuleType, tmp_path: Path):
    trajectories = load("trajectories", ROOT / "docs" / "trajectories.py")
    trajectories.main(["--family", "Averages", "--out", str(tmp_path)])
    (picture,) = tmp_path.iterdir()
    assert picture.name == "family_averages_instead_of_schedules.png"
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size < 100_000


# A new optimizer.

TOY = '''
"""Toy: the sign of a moving average."""

import jax.numpy as jnp
from typing import NamedTuple

from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import Decay
from gradtx.core._types import Updates


class ScaleByToyState(NamedTuple):
    mu: Updates


@transformation
def scale_by_toy(decay: Decay = 0.75):
    """The toy:

    ```
    mu = decay mu + (1 - decay) g
    u  = sign(mu) |p|
    ```

    Reference: Nobody 2026, arXiv:2601.00001.
    """

    def update(g, mu, p, t):
        mu = decay * mu + (1 - decay) * g
        return jnp.sign(mu) * jnp.abs(p), mu

    return per_parameter(jnp.zeros_like, update, ScaleByToyState, needs_params=True)
'''


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file of gradtx.optimizers and its line in gradtx/__init__.py, for one test."""
    monkeypatch.setattr(factory, "REGISTRY", dict(factory.REGISTRY))
    for name in ("gradtx.optimizers._toy", "support.registry", "test_laws", "catalogue"):
        monkeypatch.setitem(sys.modules, name, sys.modules.get(name))  # so that what is there comes back
    file = tmp_path / "_toy.py"
    file.write_text(TOY)
    module = load("gradtx.optimizers._toy", file)
    monkeypatch.setattr(gradtx, "scale_by_toy", module.scale_by_toy, raising=False)
    registry = load("support.registry", ROOT / "tests" / "support" / "registry.py")
    monkeypatch.setattr(support, "registry", registry, raising=False)
    return "scale_by_toy"


@pytest.mark.slow
def test_a_new_optimizer_is_under_every_law(toy: str):
    laws = load("test_laws", ROOT / "tests" / "test_laws.py")
    assert toy in laws.COVERED and laws.numbers_of(toy) == ["decay"]
    ran = []
    for name, law in vars(laws).items():
        for mark in getattr(law, "pytestmark", []):
            cases = mark.args[1] if mark.name == "parametrize" else []
            for case in cases:
                arguments = getattr(case, "values", case if isinstance(case, tuple) else (case,))
                if arguments[0] == toy:
                    law(*arguments)
                    ran.append(name)
    assert {"test_contract", "test_pickle", "test_arrays_equal_the_numbers", "test_illegal_values_are_errors"} <= set(
        ran
    )


@pytest.mark.slow
def test_a_new_optimizer_is_described_and_in_the_catalogue(toy: str, monkeypatch: pytest.MonkeyPatch):
    laws = sys.modules["support.registry"]
    catalogue = load("catalogue", ROOT / "docs" / "catalogue.py")
    line = catalogue.reference.Name("gradtx.optimizers._toy", f"gradtx.{toy}")
    names = [*catalogue.reference.public(), line]
    monkeypatch.setattr(catalogue.reference, "public", lambda: names)
    tx = laws.example(toy)
    description = describe(tx, {"w": jnp.zeros((4, 8)), "b": jnp.zeros(8)})
    assert description.stages[0].call == "scale_by_toy()" and description.bytes_per_element == 4
    row = catalogue.row(laws.FACTORIES[toy], tx, laws.extra_arguments(toy))
    assert row == catalogue.Row(
        call="[`scale_by_toy`](api/optimizers.md#gradtx.scale_by_toy) `decay=0.75`",
        update="The toy<br><code>u = sign(mu) &#124;p&#124;</code>",
        source="[2601.00001](https://arxiv.org/abs/2601.00001)",
        bytes="4",
        needs="`params`",
    )
    assert f"\n| {' | '.join(row)} |\n" in catalogue.page()


# How to choose.


@pytest.mark.slow
def test_what_the_page_on_choosing_recommends_runs():
    blocks = re.findall(
        r"^```python\n(.*?)^```$", (ROOT / "docs" / "choosing.md").read_text(), re.MULTILINE | re.DOTALL
    )
    params = {"w": jnp.ones((4, 3)), "b": jnp.zeros(3)}
    grad = jax.tree.map(jnp.ones_like, params)
    lines = [line for block in blocks for line in block.splitlines() if line and not line.startswith(" ")]
    names: dict[str, Any] = {}
    recommended = 0
    for line in lines:
        exec(line, names)
        if line.startswith("tx = "):
            recommended += 1
            tx = names["tx"]
            gradients = jax.tree.map(lambda g: g[None], grad) if "dpsgd" in line else grad
            updates, _ = jax.jit(tx.update)(gradients, tx.init(params), params, value=jnp.asarray(1.0))
            assert all(np.isfinite(u).all() for u in jax.tree.leaves(updates)), line
    assert recommended >= 20
