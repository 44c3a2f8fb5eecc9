# SPDX-License-Identifier: Apache-2.0
"""`python -m gradtx.verify` finds what is known of transformations, gradtx's and those of three other libraries."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.example_libraries import optimizers

import gradtx
from gradtx.testing._contract import BEYOND, CLAUSES
from gradtx.verify.__main__ import main
from gradtx.verify._named_objects import named_object

UNGUARDED = ["survives 1e20", "survives NaN", "survives infinity"]
DTYPES = ["state types", "weak types"]

KNOWN = {
    "gradtx:guard(adamw(1e-3))": [],
    "gradtx:chain(clip_by_global_norm(1.0), adamw(1e-3))": ["survives NaN", "survives infinity"],
    "gradtx:muon(1e-3)": UNGUARDED,
    # Its state follows the dtype of gradients; no leaf may be None; square roots have no derivative at 0.
    "optax:adamw(1e-3)": [*DTYPES, "None leaves", "derivatives", *UNGUARDED],
    # A second kind of state for a branch that skips, which must have equal types; the gradient of 1e20 is finite.
    "optax:apply_if_finite(adamw(1e-3), 5)": [
        "state types",
        "updates fit mixed dtypes",
        "None leaves",
        "derivatives",
        "survives 1e20",
    ],
    # Norms of a stack are taken over all of its layers.
    "optax:lamb(1e-3)": [*DTYPES, "None leaves", "derivatives", "stacked layers", *UNGUARDED],
    "optax:contrib.muon(1e-3)": [*DTYPES, "None leaves", "derivatives", "stacked layers", *UNGUARDED],
    "optax:sgd(1e-3, momentum=0.9)": [*DTYPES, "None leaves", *UNGUARDED],
}


def verified(capsys: pytest.CaptureFixture, *argv: str) -> tuple[int, dict[str, tuple[str, str]]]:
    """The exit status, and the word and the sentence of each clause."""
    status = main(argv)
    rows: dict[str, list[str]] = {}
    _, *lines, last = capsys.readouterr().out.splitlines()
    width = lines[0].index("  pass") if "  pass" in lines[0] else lines[0].index("  FAIL")
    for line in lines:
        if line[:width].strip():
            rows[line[:width].strip()] = [
                line[width:].strip().partition(" ")[0],
                line[width:].strip().partition(" ")[2],
            ]
        else:
            rows[list(rows)[-1]][1] += f" {line.strip()}"
    words = [word for word, _ in rows.values()]
    assert last.startswith(", ".join(f"{words.count(word)} {word}" for word in ("pass", "FAIL", "allowed", "n/a")))
    return status, {name: (word, sentence.strip()) for name, (word, sentence) in rows.items()}


def broken(rows: dict[str, tuple[str, str]]) -> list[str]:
    return [name for name, (word, _) in rows.items() if word == "FAIL"]


@pytest.mark.slow
@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize("target", KNOWN)
def test_what_is_known_is_found(target: str, capsys: pytest.CaptureFixture):
    status, rows = verified(capsys, target)
    assert (status, broken(rows)) == (1 if KNOWN[target] else 0, KNOWN[target])


def test_every_clause_has_a_row_with_a_sentence(capsys: pytest.CaptureFixture):
    status, rows = verified(capsys, "gradtx:sgd(0.1)", "--allow", ",".join(UNGUARDED))
    assert status == 0 and len(rows) == 27
    assert rows["kept in 8 bits"] == ("n/a", "it keeps no array for each parameter")
    assert (
        rows["survives NaN"][0] == "allowed" and "1 of 9 numbers in the parameters are NaN" in rows["survives NaN"][1]
    )
    assert all(word == "pass" for name, (word, _) in rows.items() if name not in (*UNGUARDED[1:], "kept in 8 bits"))
    assert all(sentence for _, sentence in rows.values())


# What the docs say.

DOCS = Path(__file__).parent.parent / "docs"


def table(page: str, columns: str) -> list[tuple[str, str]]:
    """The rows of the table with this head."""
    rows = (DOCS / page).read_text().partition(f"| {columns} |\n|---|---|\n")[2].partition("\n\n")[0]
    return [(a, b) for a, b in re.findall(r"^\| (.*?) \| (.*) \|$", rows, re.MULTILINE)]


def test_the_page_has_what_is_found():
    found = {target.strip("`"): broken for target, broken in table("reliability.md", "transformation | broken clauses")}
    assert found == {target: ", ".join(clauses) or "none" for target, clauses in KNOWN.items()}


def test_the_page_has_the_clauses():
    *held, (formula, _) = table("contract.md", "clause | what it holds")
    assert formula == "formula"
    for rows, clauses in ((held, CLAUSES), (table("contract.md", "clause | what it says"), BEYOND)):
        assert rows == [(name, " ".join(str(clause.__doc__).split())) for name, clause in clauses.items()]


# Two other libraries.


class Pair(NamedTuple):
    init: Callable
    update: Callable


def example_library() -> Pair:
    """`jax.example_libraries.optimizers.momentum`, whose state has the parameters, as people make a pair of it."""
    init, step, get_params = optimizers.momentum(0.1, 0.9)

    def update(gradients: Any, state: tuple, params: Any = None) -> tuple:
        count, inner = state
        inner = step(count, gradients, inner)
        return jax.tree.map(jnp.subtract, get_params(inner), params), (count + 1, inner)

    return Pair(lambda params: (jnp.zeros([], jnp.int32), init(params)), update)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name by which this module can be imported."""
    monkeypatch.setitem(sys.modules, "verified_here", sys.modules[__name__])
    return "verified_here"


@pytest.mark.slow
@pytest.mark.usefixtures("standard_promotion")
def test_parameters_that_lie_in_the_state_too(here: str, capsys: pytest.CaptureFixture):
    status, rows = verified(capsys, f"{here}:example_library")
    found = [*DTYPES, "donation safe", "None leaves", "params argument", *UNGUARDED]
    assert (status, broken(rows)) == (1, found)
    assert "after init, the state at [1]" in rows["donation safe"][1]


@pytest.mark.slow
@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize(
    ("call", "found"),
    [
        ("adamw(1e-3)", ["None leaves", "derivatives", *UNGUARDED]),
        ("muon(1e-3)", ["None leaves", "derivatives", "stacked layers", *UNGUARDED]),
    ],
)
def test_rollfast(call: str, found: list[str], capsys: pytest.CaptureFixture):
    """`pip install rollfast==1.3.0`; without it, this is left out."""
    pytest.importorskip("rollfast")
    status, rows = verified(capsys, f"rollfast:{call}")
    assert (status, broken(rows)) == (1, found)


# Formulas.


def adam_in_numpy(gradients: list, params: dict, eps: float = 1e-8) -> dict:
    mu = nu = {n: np.zeros_like(p) for n, p in params.items()}
    for t, g in enumerate(gradients, 1):
        mu = {n: 0.9 * mu[n] + 0.1 * g[n] for n in mu}
        nu = {n: 0.999 * nu[n] + 0.001 * g[n] ** 2 for n in nu}
        corrected = {n: (mu[n] / (1 - 0.9**t), nu[n] / (1 - 0.999**t)) for n in mu}
        params = {n: p - 0.1 * corrected[n][0] / (np.sqrt(corrected[n][1]) + eps) for n, p in params.items()}
    return params


def wrong_adam(gradients: list, params: dict) -> dict:
    return adam_in_numpy(gradients, params, eps=1e-6)


def three_numbers() -> dict:
    return {"x": np.arange(3, dtype=np.float32)}


def test_a_formula(here: str, capsys: pytest.CaptureFixture):
    allow = "--allow", ",".join(UNGUARDED)
    target = "gradtx:adam(0.1)", "--params", f"{here}:three_numbers"
    status, rows = verified(capsys, *target, *allow, "--formula", f"{here}:adam_in_numpy")
    assert status == 0 and rows["formula"][0] == "pass"
    assert "After 20 steps in float64, the parameters are those of the formula, up to " in rows["formula"][1]
    status, rows = verified(capsys, *target, *allow, "--formula", f"{here}:wrong_adam")
    assert (status, broken(rows)) == (1, ["formula"])
    assert "the parameters at ['x'] are" in rows["formula"][1]


# What is no use.


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["optax"], "'optax' must be module:name or module:call, such as optax:adamw(1e-3)"),
        (["no_such_module:adam"], "the module 'no_such_module' cannot be imported: ModuleNotFoundError"),
        (["gradtx:no_such_name"], "gradtx has no 'no_such_name'"),
        (["gradtx:adamw(1e-3"], "'adamw(1e-3' is neither a name nor a call"),
        (["gradtx:adamw"], "gradtx:adamw() raised TypeError"),
        (["gradtx:adamw(b1=1.5, learning_rate=0.1)"], "raised ValueError: adamw: b1 must be in [0, 1), got 1.5"),
        (["gradtx:adamw(1 + 1)"], "'1 + 1' is no name, call or literal"),
        (["gradtx:adamw(*[1])"], "'*[1]' is no name, call or literal"),
        (["gradtx:adamw(**{})"], "'adamw(**{})' is no name, call or literal"),
        (["gradtx:__version__"], "gradtx:__version__ must be a transformation (an object with init and update)"),
        (["gradtx:curvature.gauss_newton_bartlett(8)"], "update needs sampled_grad, which this command does not have"),
        (
            ["gradtx:sgd(0.1)", "--allow", "survives nan"],
            "--allow: there is no clause 'survives nan'; there are updates",
        ),
        (["gradtx:sgd(0.1)", "--params", "gradtx:__version__"], "gradtx:__version__ must be a tree of arrays, got '"),
        (["gradtx:sgd(0.1)", "--formula", "gradtx:sgd(0.1)"], "gradtx:sgd(0.1) must be a function of gradients and"),
        (["gradtx:sgd(0.1)", "--devices", "0"], "--devices must be at least 1, got 0"),
    ],
)
def test_usage_errors_are_one_sentence(argv: list[str], sentence: str, capsys: pytest.CaptureFixture):
    assert main(argv) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("gradtx.verify: ") and sentence in printed.err and printed.err.count("\n") == 1


def test_nested_calls_and_literals_are_read():
    found = named_object(
        "gradtx:partition({'a': scale(-0.5), 'b': named_chain(('c', adam(0.1, b1=0.5)))}, global_norm)"
    )
    b = gradtx.named_chain(("c", gradtx.adam(0.1, b1=0.5)))
    assert found == gradtx.partition({"a": gradtx.scale(-0.5), "b": b}, gradtx.global_norm)


def test_as_a_command():
    command = [sys.executable, "-m", "gradtx.verify", "gradtx:"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "gradtx.verify: 'gradtx:' must be module:name or module:call, such as optax:adamw(1e-3)\n"
