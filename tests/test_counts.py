# SPDX-License-Identifier: Apache-2.0
"""What a step costs may not rise unnoticed: counts of equations, operations, calls and compilations are recorded."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from benchmarks import __main__ as suite
from benchmarks import counts, goals, measures, packages, programs, tables, timing

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
    assert options.growth or options.record or suite.chosen(options)
    for table, case in suite.chosen(options):
        assert table in options.table and case.contenders and case.over in case.contenders


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
