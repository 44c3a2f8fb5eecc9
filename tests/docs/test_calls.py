# SPDX-License-Identifier: Apache-2.0
"""Every function of the reference has an example, and the calls among them return what is written behind them."""

import ast

import pytest

from support.site import script

calls, reference = script("calls"), script("reference")
FUNCTIONS = [
    name
    for name in reference.public()
    for node in ast.parse(reference.source(name.module)).body
    if isinstance(node, ast.FunctionDef) and node.name == name.name
]
MADE = sorted({code for name in FUNCTIONS if (code := reference.call(name)) and name.path not in calls.EXAMPLES})


def test_every_function_has_an_example():
    assert len(FUNCTIONS) > 400
    assert [n.path for n in FUNCTIONS if not reference.example(n)] == []


def test_no_call_is_of_another_name():
    assert calls.EXAMPLES.keys() <= {name.path for name in FUNCTIONS}


@pytest.mark.slow
@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.filterwarnings("ignore")
def test_the_calls_return_what_they_say():
    wrong = []
    for line in calls.EXAMPLES.values():
        code, _, said = line.partition("  # ")
        shown = calls.shown(code)
        wrong += [f"{code}  # {shown}"] if shown != said else []
    assert wrong == []


def test_the_calls_of_factories_run():
    assert len(MADE) > 150
    for code in MADE:
        assert calls.shown(code) == ""


def test_pages_are_found():
    assert reference.used()["gradtx.muon"].endswith(".md)")
    assert "gradtx.tree.sum" not in reference.used()
