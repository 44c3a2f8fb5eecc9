# SPDX-License-Identifier: Apache-2.0
"""The dtype of updates in all four mixes of gradients and parameters in bfloat16 and float32, over all shared names.

gradtx returns the promoted dtype, from all. So does Optax but for what is listed here, and on the page of differences.
"""

import functools
import operator
import pathlib
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import gradtx
import parity
from support import problems
from support.parity import Shared

pytestmark = pytest.mark.usefixtures("standard_promotion")

LOW, HIGH = jnp.bfloat16, jnp.float32
START = problems.start()
MATRICES = {n: p for n, p in START.items() if p.ndim}


def loss(params: Any) -> jax.Array:
    return sum(jnp.sum(x * x) for x in jax.tree.leaves(params))  # type: ignore[return-value]  # no leaf, no sum


def searched(params: Any) -> dict[str, Any]:
    return {"value": loss(params), "grad": jax.grad(loss)(params), "value_fn": loss}


FIRST = {c.name: c for c in reversed(parity.CALLS)}
"""One call of each name that gradtx and Optax share with its numbers."""
MORE = [
    Shared("lbfgs", extra=searched),
    Shared("scale_by_lbfgs"),
    Shared("rprop", (0.01,)),
    Shared("scale_by_rprop", (0.01,)),
    Shared("sm3", (0.1,)),
    Shared("scale_by_sm3"),
    Shared("yogi", (0.1,)),
    Shared("acprop", (0.1,), at="contrib.acprop"),
    Shared("scale_by_acprop", at="contrib.scale_by_acprop"),
    Shared("sophia", (0.1,), at="contrib.sophia", extra=lambda p: {"obj_fn": loss}),
    Shared("scale_by_distance_over_gradients"),
    Shared("flatten", (optax.adam(0.1),)),
]
CALLS = {**FIRST, **{c.name: c for c in MORE}}
UNTOUCHED = {"identity", "freeze", "masked", "selective_transform"}
"""They hand on gradients, or some of them, as they are, in both."""

THE_GRADIENTS = {
    *("sgd", "noisy_sgd", "polyak_sgd", "sign_sgd", "optimistic_gradient_descent"),
    *("add_noise", "centralize", "clip", "clip_by_block_rms", "clip_by_global_norm", "normalize"),
    *("normalize_by_update_norm", "scale", "scale_by_learning_rate", "scale_by_optimistic_gradient", "scale_by_polyak"),
    *("scale_by_schedule", "scale_by_sign", "set_to_zero", "zero_nans"),
}
"""bfloat16 from Optax of bfloat16 gradients and float32 parameters; the optimistic ones from the second update on."""
THE_PARAMETERS = {"schedule_free", "schedule_free_adamw", "schedule_free_sgd", "rprop", "scale_by_rprop"}
"""bfloat16 from Optax of float32 gradients and bfloat16 parameters; rprop at its first update only."""
RAISES = {
    "apply_if_finite": {(HIGH, LOW), (LOW, HIGH)},
    "conditionally_mask": {(HIGH, LOW), (LOW, HIGH)},
    "conditionally_transform": {(HIGH, LOW), (LOW, HIGH)},
    "galore": {(HIGH, LOW), (LOW, HIGH)},
    "scale_by_galore": {(HIGH, LOW), (LOW, HIGH)},
    "mechanize": {(HIGH, LOW)},
    "novograd": {(HIGH, LOW)},
    "scale_by_novograd": {(HIGH, LOW)},
}
"""A TypeError in Optax, for these dtypes of gradients and parameters."""
WIDER = {"scale_by_distance_over_gradients"}
"""float32 from Optax where both are bfloat16."""


def cast(tree: Any, dtype: Any) -> Any:
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), tree)


def dtypes(tx: Any, g: Any, p: Any, extra: Callable[[Any], dict] | None) -> list[set]:
    """Those of two updates in a row."""
    more = {} if extra is None else extra(p)

    def two(g: Any, p: Any) -> list:
        state, found = tx.init(p), []
        for _ in range(2):
            updates, state = tx.update(g, state, p, **more)
            found.append(updates)
        return found

    found = jax.eval_shape(two, g, p)
    return [{x.dtype for x in jax.tree.leaves(updates)} for updates in found]


def name_in_optax(call: Shared) -> str:
    return (call.at or call.name).rsplit(".", 1)[-1]


def of_optax(call: Shared, g: Any, p: Any) -> set | None:
    """The dtypes of Optax's two updates together; None where it raises."""
    maker = operator.attrgetter(call.at or call.name)(optax)
    try:
        found = dtypes(optax.with_extra_args_support(maker(*call.args, **call.kwargs)), g, p, call.extra)
    except TypeError:
        return None
    return functools.reduce(operator.or_, found)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:scatter inputs have incompatible types:FutureWarning")  # of Optax's L-BFGS
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(("of_g", "of_p"), [(HIGH, HIGH), (LOW, LOW), (HIGH, LOW), (LOW, HIGH)], ids=str)
def test_the_dtype_of_updates(name: str, of_g: Any, of_p: Any):
    call = CALLS[name]
    start = MATRICES if "sm3" in name else START  # Optax's SM3 takes no scalars
    g, p = cast(start, of_g), cast(start, of_p)
    wide, low = jnp.dtype(jnp.promote_types(of_g, of_p)), jnp.dtype(LOW)
    ours = gradtx.with_extra_args_support(getattr(gradtx, call.name)(*call.args, **call.kwargs))
    found = dtypes(ours, g, p, call.extra)
    theirs, known = of_optax(call, g, p), name_in_optax(call)
    if known in UNTOUCHED:
        assert found[0] == found[1] == theirs
        return
    assert found == [{wide}, {wide}]
    if (of_g, of_p) in RAISES.get(known, ()):
        assert theirs is None
        return
    assert theirs is not None
    narrow = {(LOW, HIGH): THE_GRADIENTS, (HIGH, LOW): THE_PARAMETERS}.get((of_g, of_p), ())
    if known in narrow:
        assert low in theirs
    else:
        assert theirs == {jnp.dtype(HIGH) if known in WIDER else wide}


def test_the_names_are_on_the_page_of_differences():
    page = (pathlib.Path(__file__).parents[2] / "docs/differences.md").read_text()
    section = page.partition("## Dtypes of updates\n")[2].partition("\n## ")[0]
    known = {name_in_optax(c) for c in CALLS.values()}
    assert {*THE_GRADIENTS, *THE_PARAMETERS, *RAISES, *WIDER} <= known
    found = set(re.findall(r"`(\w+)`", section)) & known
    assert found == {*THE_GRADIENTS, *THE_PARAMETERS, *RAISES, *WIDER}
