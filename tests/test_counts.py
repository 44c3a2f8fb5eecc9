# SPDX-License-Identifier: Apache-2.0
"""What a step costs may not rise unnoticed: counts of equations, operations, calls and compilations are recorded."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from benchmarks import __main__ as suite
from benchmarks import counts, goals, growth, measures, packages, programs, tables, timing

PAGES = (Path(__file__).parents[1] / "docs").glob("*.md")
COMMANDS = [x for page in PAGES for x in re.findall(r"`python -m tests\.benchmarks(?: ([^`]*))?`", page.read_text())]
OTHERS = f"counts.json is of {counts.recorded()['versions']}, this is {counts.versions()}: counts depend on all of them"


@pytest.mark.slow
@pytest.mark.whole
@pytest.mark.skipif(counts.versions() != counts.recorded()["versions"], reason=OTHERS)
def test_no_count_differs_from_the_recorded_one():
    found = counts.differences(counts.count_all()["counts"], counts.recorded()["counts"])
    assert not found, "\n".join([*found, counts.AGAIN])


@pytest.mark.skipif(counts.versions() != counts.recorded()["versions"], reason=OTHERS)
def test_an_import_costs_what_is_recorded():
    found, wanted = {"import": packages.import_counts()}, {"import": counts.recorded()["import"]}
    sentences = counts.differences(found, wanted, counts.OF_IMPORT)
    assert not sentences, "\n".join([*sentences, counts.AGAIN])


def with_count(what: str, number: int) -> dict[str, dict[str, int]]:
    return {"adam/gpt": {"equations": 100, "operations": 1000, "calls": 10, "compilations": 0, what: number}}


@pytest.mark.parametrize(
    ("what", "number", "says"),
    [
        ("operations", 1020, ""),
        ("operations", 1021, "adam/gpt: 1021 instructions of its optimized HLO, up from 1000: it costs more."),
        ("compilations", 1, "adam/gpt: 1 compilations in a second step, up from 0: it costs more."),
        ("calls", 9, ""),
        (
            "equations",
            89,
            "adam/gpt: 89 equations of the jaxpr of a step, down from 100: a gain that nothing holds yet.",
        ),
    ],
)
def test_which_counts_are_out_of_bounds(what: str, number: int, says: str):
    found = counts.differences(with_count(what, number), with_count("calls", 10))
    assert found == ([says] if says else [])


def test_cases_come_and_go_with_their_counts():
    one, other = with_count("calls", 10), {"sgd/gpt": {}}
    assert counts.differences(one, {}) == ["adam/gpt is new, and not recorded."]
    assert counts.differences({}, other) == ["sgd/gpt is recorded, and there is no such case."]


def test_recorded_are_the_cases_that_there_are():
    assert counts.recorded()["counts"].keys() == counts.cases().keys()


def test_equations_of_a_function_that_is_called_twice_count_once():
    inner = jax.jit(lambda x: jnp.sin(x) * x)
    assert programs.equations(jax.make_jaxpr(inner)(1.0)) == 3
    assert programs.equations(jax.make_jaxpr(lambda x: inner(x) + inner(x))(1.0)) == 5


def test_bytes_of_a_program_in_place():
    compiled = jax.jit(lambda x: x * 2, donate_argnums=0).lower(jnp.ones(1000)).compile()
    assert programs.moved_bytes(compiled) == 8000 and programs.peak_bytes(compiled) == 4000
    assert programs.operations(compiled) >= 3
    assert programs.floor_bytes(jnp.ones(10), [jnp.ones(5)], jnp.ones(10), reads=2) == 2 * 40 + 2 * (40 + 20)


def test_ratios_are_of_the_times_of_one_round():
    times = timing.Times({"a": [1.0, 20.0, 3.0], "b": [2.0, 10.0, 6.0]})
    assert times.median("a") == 3.0 and times.ratio("a", "b") == 0.5


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_of_the_pages_measure_something(command: str):
    options = suite.parsed([word.strip('"') for word in command.split()])
    assert options.record or suite.chosen(options)
    for table, case in suite.chosen(options):
        assert table in (growth.AXES if options.growth else options.table)
        assert case.contenders and (case.memory_bound or case.over in case.contenders)


@pytest.mark.slow
def test_a_case_from_its_arrays_to_its_tables():
    options = suite.parsed(["--quick", "--case", "sgd/large"])
    ((table, case),) = suite.chosen(options)
    result = measures.measured(table, case, measures.MEASURES, timing.Effort(0.0, 1, 1))
    assert result.values.keys() == measures.MEASURES.keys()
    assert result.values["floor"]["gradtx"] == 5 * 4 * 256 * 128 and result.ratio("state") == 1.0
    assert "| `sgd/large` |" in tables.page([result])
    found = {goal.what: goal for goal in goals.goals([result])}
    assert found["trace, the worst case over Optax"].found == result.ratio("trace")


@pytest.mark.slow
@jax.numpy_dtype_promotion("standard")  # Optax's Adam needs it
def test_a_step_that_is_not_in_place_stands_beside_the_one_that_is():
    options = suite.parsed(["--quick", "--case", "adam/floor"])
    ((table, case),) = suite.chosen(options)
    result = measures.measured(table, case, ["step", "moved", "floor"], timing.Effort(0.0, 1, 1))
    assert result.values["step"].keys() >= {"gradtx", "optax", "by hand", "not in place", "copy"}
    assert result.ratios["step"]["copy"] == result.ratios["moved"]["gradtx"] == 1.0
    # Three loops: the gradient and the new moments are read twice. And a few numbers.
    assert result.values["moved"]["by hand"] == pytest.approx(10 * 4 * 256 * 128, rel=1e-4)
    assert result.values["floor"]["by hand"] == 7 * 4 * 256 * 128
    assert " GB/s | 1.43 | 1.43 |" in tables.page([result])


@pytest.mark.slow
@jax.numpy_dtype_promotion("standard")  # Optax's Adam needs it
def test_growth_from_its_arrays_to_its_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    few = {"leaves": (2, 3), "numbers": (1000, 2000)}
    axes = {which: axis._replace(places=few[which]) for which, axis in growth.AXES.items()}
    monkeypatch.setattr(growth, "AXES", axes)
    monkeypatch.setattr(growth, "COMPILED", 2)
    results = [growth.measured(axis, case, timing.Effort(0.0, 1, 1)) for axis, case in growth.cases()]
    assert [r.case for r in results] == [f"{x}/{n}" for x in growth.RECIPES for a in few.values() for n in a]
    assert results[0].values.keys() == {"step", "trace", "lower", "compile"}
    assert results[1].values.keys() == {"trace", "lower"}  # too many leaves to compile
    assert "| `adam` | 2,000 |" in growth.page(results)
    assert growth.curve(results, "leaves", "adam", "optax", "compiling")[0] == [2]
    places, seconds = growth.curve(results, "leaves", "adam", "optax", "tracing and lowering")
    first = results[0].values
    assert places == [2, 3] and seconds[0] == first["trace"]["optax"] + first["lower"]["optax"]
    growth.draw(results, tmp_path / "growth.png")
    assert 10_000 < (tmp_path / "growth.png").stat().st_size < 100_000
