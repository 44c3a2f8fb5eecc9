# SPDX-License-Identifier: Apache-2.0
"""The law of bad calls: what has no meaning is refused, in a sentence that names the callable and the argument.

Calls that look bad and are legal stand in one table, with the reason: `support/legal_calls.py`. A sixth of the
callables runs in each commit; `python tests/bad_calls.py` counts all.
"""

from typing import Literal

import jax.numpy as jnp
import numpy as np
import pytest

from gradtx.core._checked import checked
from gradtx.core._ranges import Positive
from support.bad_calls import Bad, answer, bad_calls, plain
from support.good_calls import GOOD, Good
from support.legal_calls import BY_KIND, BY_NAME, parameter_of, reason_of
from support.registry import turns

ENOUGH = 30_000


@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize("path", [turns(path, i, of=6) for i, path in enumerate(GOOD)])
def test_every_bad_call_is_answered(path: str):
    good = GOOD[path]
    plain(good)  # the good call is one
    unanswered = []
    for call in bad_calls(path, good):
        found = answer(call)
        parameter = parameter_of(path, good.function, call.argument)
        if found.kind != "refused" and reason_of(parameter, call.label, call.value) is None:
            unanswered.append(f"{call} is {found.kind}: {found.said}")
    assert unanswered == []


def test_there_are_many():
    assert sum(1 for path, good in GOOD.items() for _ in bad_calls(path, good)) >= ENOUGH


def test_each_row_of_the_table_is_of_use():
    """A row that covers no call is a promise to nobody."""
    unused = {id(row): row for row in [*BY_KIND, *BY_NAME]}
    for path, good in GOOD.items():
        for call in bad_calls(path, good):
            parameter = parameter_of(path, good.function, call.argument)
            covering = next((r for r in [*BY_KIND, *BY_NAME] if r.covers(parameter, call.label, call.value)), None)
            unused.pop(id(covering), None)
    assert [(row.reason, row.arguments) for row in unused.values()] == []


def silent(x, kind: str = "mean"):
    return x


def opaque(x, kind="mean"):
    return jnp.zeros(x)


@checked
def answering(x: Positive = 1.0, kind: Literal["mean", "sum"] = "mean"):
    return x


@pytest.mark.parametrize(
    ("function", "argument", "value", "kind"),
    [
        (silent, "x", float("nan"), "accepted"),
        (opaque, "x", "word", "opaque"),
        (answering, "x", float("nan"), "refused"),
        (answering, "x", np.ones(3), "refused"),
        (answering, "kind", np.ones(3), "refused"),
        (answering, "kind", "sum", "accepted"),
    ],
)
def test_the_law_itself(function, argument, value, kind):
    good = Good(function, {"x": 1})
    assert answer(Bad(f"here.{function.__name__}", good, argument, "", value)).kind == kind
