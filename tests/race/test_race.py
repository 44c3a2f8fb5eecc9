# SPDX-License-Identifier: Apache-2.0
"""A race: what takes part, that it is fair, what its numbers mean, the command."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx.race import Outcome, Task, race
from gradtx.race._builtin import BUILTIN
from gradtx.race._command import main
from gradtx.race._contender import contender
from gradtx.race._digits_tasks import images_and_labels
from gradtx.race._runs import curves, spacing
from gradtx.race._statistics import basin, interval, sign_test

ROOT = Path(__file__).parents[2]
MODULE = """
import jax.numpy as jnp
import optax
from gradtx.race import Task

bowl = Task(lambda key: jnp.ones(3), lambda x, key: jnp.sum(x**2), 20, 1e-3, about="a bowl")
slow = optax.sgd(0.25)


def make_bowl():
    return bowl


def descent(step, momentum=None):
    return optax.sgd(step, momentum)


def wrong():
    return 3
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A module of the user's with a task and peers."""
    (tmp_path / "race_of_mine.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "race_of_mine"
    sys.modules.pop("race_of_mine", None)


def bowl(steps: int = 10, target: float | None = 1e-2, **more: Any) -> Task:
    """Starts that differ by seed, and noise that moves the minimum."""

    def loss(x: jax.Array, key: jax.Array) -> jax.Array:
        return jnp.sum((x - 0.1 * jax.random.normal(key, x.shape)) ** 2)

    return Task(lambda key: jax.random.normal(key, (3,)), loss, steps, target, lambda x: jnp.sum(x**2), **more)


def ran(given: Any, task: Task, factors: tuple[float, ...] = (1.0,), seeds: int = 2) -> np.ndarray:
    return curves(contender(given), task, np.asarray(factors), seeds, lambda: None)


# What takes part


@pytest.mark.parametrize(
    ("text", "rate", "made"),
    [
        ("adamw(1e-3)", 1e-3, gradtx.adamw(2e-3)),
        ("muon(0.02, adam_learning_rate=0.001)", 0.02, gradtx.muon(0.04, adam_learning_rate=0.002)),
        (
            "chain(clip_by_global_norm(1.0), sgd(0.5))",
            0.5,
            gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.sgd(1.0)),
        ),
        ("gradtx:adam(0.25)", 0.25, gradtx.adam(0.5)),
    ],
)
def test_all_learning_rates_of_a_call_are_multiplied(text: str, rate: float, made: Any):
    found = contender(text)
    assert (found.name, found.rate, found.make(2.0)) == (text, rate, made)
    assert found.rate_text(10.0) == f"{10 * rate:.3g}"


def test_a_schedule_is_multiplied():
    found = contender("adam(linear_schedule(0.5, 0.1, 10))")
    assert found.rate is None and found.rate_text(2.0) == "2x"
    np.testing.assert_allclose(found.make(2.0).arguments["learning_rate"](5), 0.6, rtol=1e-6)
    found = contender(gradtx.sgd(lambda count: 0.5 - 0.1 * count))
    np.testing.assert_allclose(found.make(2.0).arguments["learning_rate"](2), 0.6, rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("optax:sgd(0.25)", 0.25),
        ("optax:sgd(momentum=0.0, learning_rate=0.25)", 0.25),
        ("race_of_mine:descent(0.25)", 0.25),
        ("optax:contrib.prodigy()", 1.0),
    ],
)
def test_a_peer_is_made_anew_for_each_rate(text: str, rate: float, mine: str):
    found = contender(text)
    assert found.rate == rate and not found.takes_roles
    if "prodigy" not in text:
        losses = ran(text, bowl(), (1.0, 2.0))
        np.testing.assert_allclose(losses, ran("sgd(0.25)", bowl(), (1.0, 2.0)), rtol=1e-5)
        assert not np.allclose(losses[0], losses[1])


def test_what_has_no_rate_runs_as_it_is(mine: str):
    report = race([f"{mine}:slow", "chain(scale(-0.25))"], {"bowl": bowl()}, seeds=2)
    for outcome in report.results[0].outcomes:
        assert outcome.rates == ("-",) and outcome.curves.shape == (1, 2, 11)
    np.testing.assert_allclose(report.results[0].outcomes[0].curves, report.results[0].outcomes[1].curves, rtol=1e-5)


def test_extra_arguments_and_averages_are_provided():
    """Polyak's step asks for the loss; Schedule-Free is measured at its average."""
    assert np.isfinite(ran("polyak_sgd(1.0)", bowl())).all()
    tx, params = gradtx.schedule_free_sgd(0.25), bowl().init(jax.random.fold_in(jax.random.key(0), 0))
    state, keys = tx.init(params), jax.random.fold_in(jax.random.key(0), 1)
    for i in range(10):
        grads = jax.grad(bowl().loss)(params, jax.random.fold_in(keys, i))
        updates, state = tx.update(grads, state, params)
        params = gradtx.apply_updates(params, updates)
    expected = jnp.sum(gradtx.eval_params(state, params) ** 2)
    np.testing.assert_allclose(ran("schedule_free_sgd(0.25)", bowl())[0, 0, -1], expected, rtol=1e-4)


def test_roles_of_a_task_reach_contenders_of_gradtx():
    """Muon leaves a head to Adam, so that its rate there is the one of Adam."""

    def task(roles: Any) -> Task:
        return Task(lambda key: {"w": jnp.ones((4, 4))}, lambda p, key: jnp.sum(p["w"] ** 2), 3, roles=roles)

    call = "muon(0.5, adam_learning_rate=1e-6)"
    without, head = ran(call, task(None)), ran(call, task([("w", gradtx.Role("head"))]))
    assert without[0, 0, -1] < 10 and head[0, 0, -1] > 15.9


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("adamm(1e-3)", ValueError, "the closest"),
        ("adamw", TypeError, "call it"),
        ("cosine(10)", TypeError, "a contender has functions init and update"),
        ("no_such_module:adam(1e-3)", ValueError, "there is no module no_such_module"),
        ("optax:no_such(1e-3)", ValueError, "optax has no no_such"),
        ("optax:adamw(__import__('os').getcwd())", ValueError, "the arguments of a peer are numbers"),
        ("optax:adamw(1e-3)(2)", ValueError, "one call"),
        ("optax:adamw(", ValueError, "never closed"),
        ("race_of_mine:wrong()", TypeError, "a contender has functions init and update"),
        ("optax:adamw()", TypeError, "learning_rate"),
    ],
)
def test_bad_contenders_are_answered(text: str, error: type, said: str, mine: str):
    with pytest.raises(error, match=said):
        contender(text)


# That it is fair


def test_seeds_decide_starts_and_data_alone():
    plain, scaled = ran("sgd(0.1)", bowl(), seeds=3), ran("sgd(0.05)", bowl(), (2.0, 4.0), seeds=3)
    np.testing.assert_allclose(plain[0], scaled[0], rtol=1e-6)
    starts = [float(jnp.sum(bowl().init(jax.random.fold_in(jax.random.key(s), 0)) ** 2)) for s in range(3)]
    np.testing.assert_allclose(plain[0, :, 0], starts, rtol=1e-6)


def test_the_runs_are_those_of_a_loop():
    task, tx = bowl(), gradtx.adam(0.2)
    params = task.init(jax.random.fold_in(jax.random.key(1), 0))
    state, keys = tx.init(params), jax.random.fold_in(jax.random.key(1), 1)
    losses = [jnp.sum(params**2)]
    for i in range(10):
        updates, state = tx.update(jax.grad(task.loss)(params, jax.random.fold_in(keys, i)), state, params)
        params = gradtx.apply_updates(params, updates)
        losses.append(jnp.sum(params**2))
    np.testing.assert_allclose(ran("adam(0.1)", task, (2.0,))[0, 1], losses, rtol=1e-4)


@pytest.mark.parametrize(("steps", "every"), [(1, 1), (20, 1), (100, 2), (97, 1), (300, 6), (320, 5)])
def test_measurements_divide_the_steps(steps: int, every: int):
    assert spacing(steps) == every


def test_a_target_that_the_task_leaves_open_is_the_best_of_the_first():
    report = race(["sgd(0.01)", "sgd(0.02)"], {"bowl": bowl(target=None)}, seeds=2, factors=(1.0, 3.0))
    (result,) = report.results
    assert result.target_of == "the best of sgd(0.01)"
    np.testing.assert_allclose(result.target, result.outcomes[0].best_losses.mean(1).min())


# What its numbers mean


def outcome(curves: Any, target: float = 1.0, every: int = 5) -> Outcome:
    losses = np.asarray(curves, float)
    return Outcome("x", 10.0 ** np.arange(len(losses)), ("a", "b", "c")[: len(losses)], losses, every, target)


def test_steps_are_those_of_the_first_measurement_at_the_target():
    found = outcome([[[3, 2, 0.5, 2], [3, 3, 3, 1]], [[3, 0.9, 0.8, np.nan], [3, 2, 2, 2]]])
    np.testing.assert_array_equal(found.steps, [[10, 15], [5, np.inf]])
    np.testing.assert_array_equal(found.best_losses, [[0.5, 1], [np.inf, 2]])
    assert (found.best, found.fastest) == (0, 0)


def test_the_fastest_rate_need_not_be_the_best():
    found = outcome([[[3, 2, 0.1]], [[3, 0.9, 0.9]], [[3, np.inf, np.inf]]])
    assert (found.best, found.fastest, found.at_edge) == (0, 1, True)
    assert found.to_dict()["best_losses"] == [[0.1], [0.9], [None]]


def test_the_basin_is_found_by_interpolation():
    factors = 10.0 ** np.arange(5)
    found = basin(factors, np.array([3.0, 1.0, 0.0, 2.0, np.inf]), 2.0)
    assert found is not None and found.open_ends == (False, False)
    np.testing.assert_allclose([found.low, found.high, found.width], [10**0.5, 1e3, 10**2.5])
    found = basin(factors, np.array([1.0, 3.0, np.inf, 0.5, np.inf]), 2.0)  # only what is around the best
    assert found is not None and (found.low, found.high) == (1e3, 1e3)
    assert str(basin(factors, np.array([1.0, 1.5, 3.0, 3.0, 3.0]), 1.5)) == ">= 10x"
    assert basin(factors, np.full(5, np.inf), 1.0) is None


@pytest.mark.parametrize(
    ("fewer", "more", "ties", "p"),
    [(8, 0, 0, 2 / 256), (7, 1, 0, 18 / 256), (6, 0, 2, 2 / 64), (3, 3, 2, 1), (0, 0, 8, 1)],
)
def test_the_sign_test_is_exact(fewer: int, more: int, ties: int, p: float):
    a = np.array([1.0] * fewer + [2.0] * more + [np.inf] * ties)
    b = np.array([np.inf] * fewer + [1.0] * more + [np.inf] * ties)
    assert sign_test(a, b) == (fewer, more, p)


def test_intervals_are_of_the_mean():
    values = np.random.default_rng(0).normal(size=400)
    low, high = interval(values)
    np.testing.assert_allclose([low, high], values.mean() + 1.96 / 20 * values.std() * np.array([-1, 1]), atol=0.02)
    assert interval(np.array([1.0, np.inf])) == (1.0, np.inf)


def test_a_difference_is_significant_by_the_rule():
    task = bowl(steps=30, target=0.1)
    report = race(["sgd(0.001)", "sgd(0.02)"], {"bowl": task}, seeds=8, factors=(1.0, 2.0))
    assert "fewer on 8 and more on 0 of 8 seeds (p = 0.0078): significantly faster" in str(report)
    comparison = report.to_dict()["tasks"][0]["comparisons"][0]
    assert comparison["significant"] and comparison["p"] == 2 / 256
    same = race(["sgd(0.02)", "optax:sgd(0.02)"], {"bowl": task}, seeds=8, factors=(1.0, 2.0))
    assert "no significant difference" in str(same)


# Tasks


@pytest.mark.parametrize("name", BUILTIN)
def test_the_tasks_can_be_learned(name: str):
    task = BUILTIN[name]()._replace(steps=30)
    losses = ran("adam(0.01)", task, seeds=1)[0, 0]
    assert np.isfinite(losses).all() and losses[-1] < 0.97 * losses[0]
    assert task.target is not None and task.target < losses[0]


def test_tasks_of_users(mine: str):
    for path in ("bowl", "make_bowl"):
        report = race(["sgd(0.1)"], [f"{mine}:{path}"], seeds=1, factors=[1.0])
        assert report.results[0].steps == 20 and report.results[0].about == "a bowl"


def test_without_its_data_a_task_is_left_out_or_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    images_and_labels.cache_clear()
    few = {name: BUILTIN[name] for name in ("digits", "quadratic")}
    monkeypatch.setattr("gradtx.race._racing.BUILTIN", few)
    report = race(["sgd(0.1)"], seeds=1, factors=[1.0], steps=2)
    assert [r.task for r in report.results] == ["quadratic"] and list(report.left_out) == ["digits"]
    assert "digits is left out: it needs scikit-learn's images: pip install 'gradtx[race]'" in str(report)
    with pytest.raises(ImportError, match="the task digits"):
        race(["sgd(0.1)"], ["digits"])


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"contenders": []}, ValueError, "contenders is empty"),
        ({"contenders": "sgd(0.1)"}, TypeError, "must be a list of calls"),
        ({"contenders": ["sgd(0.1)", "sgd(0.1)"]}, ValueError, "twice"),
        ({"tasks": ["digit"]}, ValueError, "no task has the name 'digit'"),
        ({"tasks": ["optax:sgd"]}, TypeError, "learning_rate"),
        ({"tasks": {"x": optax}}, TypeError, "has no init"),
        ({"tasks": {"x": bowl(steps=0)}}, ValueError, "steps must be a whole number"),
        ({"seeds": 0}, ValueError, "seeds must be"),
        ({"steps": 1.5}, TypeError, "race: steps must be a whole number >= 1, got 1.5"),
        ({"factors": [0.0]}, TypeError, r"race: factors must be a list of positive numbers, got \[0.0\]"),
        ({"progress": 3}, TypeError, "race: progress must be a function or None, got 3"),
        ({"contenders": ["sgd(0.1)", 3]}, TypeError, r"race: contenders\[1\]: 3: a contender has functions init"),
    ],
)
def test_bad_arguments_are_answered(arguments: dict, error: type, said: str):
    with pytest.raises(error, match=said):
        race(**{"contenders": ["sgd(0.1)"], "tasks": {"x": bowl()}, **arguments})


# The command


def test_the_command_prints_draws_and_writes(mine: str, tmp_path: Path, capsys: pytest.CaptureFixture):
    png, data = tmp_path / "race.png", tmp_path / "race.json"
    tasks = ["--task", "rosenbrock", "--task", f"{mine}:bowl"]
    main(["adam(1e-2)", f"{mine}:descent(0.1)", "--quick", *tasks, "--png", str(png), "--json", str(data)])
    shown, told = capsys.readouterr()
    assert "rosenbrock: 2 parameters" in shown and f"{mine}:bowl: a bowl" in shown and "sign test" in shown
    assert "rosenbrock: adam(1e-2): " in told  # a line, where nobody watches
    assert png.read_bytes().startswith(b"\x89PNG")
    written = json.loads(data.read_text())
    assert [t["task"] for t in written["tasks"]] == ["rosenbrock", f"{mine}:bowl"]
    assert [o["contender"] for o in written["tasks"][1]["outcomes"]] == ["adam(1e-2)", f"{mine}:descent(0.1)"]
    assert written["tasks"][0]["outcomes"][0]["rates"] == ["0.00464", "0.01", "0.0215"]


def test_the_command_answers_mistakes(capsys: pytest.CaptureFixture):
    mistakes = {
        "adamm is no name": ["adamm(1)"],
        "there is no folder": ["sgd(1.0)", "--json", "/no/such/folder/x"],
        "--rates must be 1 or more": ["sgd(1.0)", "--rates", "0"],
        "--seeds must be 1 or more": ["sgd(1.0)", "--seeds", "0"],
    }
    for said, arguments in mistakes.items():
        with pytest.raises(SystemExit, match="2"):
            main(arguments)
        assert said in capsys.readouterr().err


def test_it_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "gradtx.race", "--help"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and "mypackage.mytask:task" in done.stdout, done.stderr
