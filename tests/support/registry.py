# SPDX-License-Identifier: Apache-2.0
"""Every factory of the library with an example of its call, for tests that hold a promise over all of them.

A new factory is here by itself if its annotations give examples of its required arguments; else it needs a line in
`EXPLICIT`.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx import _front, precision
from gradtx.core._calls import Factory
from gradtx.core._factory import REGISTRY
from gradtx.core._transformation import is_transformation
from gradtx.testing import example_arguments
from gradtx.testing._case import example_gradients
from support import meshes

PARAMS = {"w": jnp.linspace(-1.0, 1.0, 6).reshape(2, 3), "b": jnp.full(3, 0.5, jnp.float32)}
GRADIENTS = example_gradients(PARAMS)

_front.namespaces()  # some factories are in those that load on first use
FACTORIES: dict[str, Factory] = {f.name: f for f in REGISTRY.values() if f.module.startswith("gradtx.")}


# Functions for the table below. They are here, with names, so that they print and pickle.


def halve_tree(updates, params):
    return jax.tree.map(lambda g: g * jnp.asarray(0.5, g.dtype), updates)


def halve(g, p):
    return 0.5 * g


def only_matrices(params):
    return jax.tree.map(lambda p: jnp.ndim(p) == 2, params)


def as_columns(params):
    return jax.tree.map(lambda p: gradtx.MuonDimensionNumbers(0, 1) if jnp.ndim(p) == 2 else _column(p), params)


def _column(p):
    return gradtx.MuonDimensionNumbers(tuple(range(jnp.ndim(p))), ())


def by_rank(params):
    return jax.tree.map(lambda p: "matrix" if jnp.ndim(p) == 2 else "rest", params)


def kinds_by_rank(params):
    """Roles of any tree: matrices are hidden, the rest is the head."""
    hidden = gradtx.Role("hidden", in_axes=0, out_axes=1)
    return jax.tree.map(lambda p: hidden if jnp.ndim(p) == 2 else gradtx.Role("head"), params)


def first_layer(path):
    return 0


def half_square(params):
    """A loss of any tree of parameters."""
    squares = [jnp.sum(jnp.square(p.astype(jnp.float32))) for p in jax.tree.leaves(params)]
    return 0.5 * sum(squares, start=jnp.zeros([], jnp.float32))


def every_second(step, **extra):
    return step % 2 == 1


def no_parameter(path, p):
    return False


def boxed(state):
    return {"state": state}


def unboxed(box):
    return box["state"]


FUNCTIONS = (halve_tree, halve, only_matrices, as_columns, by_rank, every_second, no_parameter, boxed, unboxed)
FUNCTIONS += (kinds_by_rank, first_layer)
"""What examples are made of."""

EXPLICIT: dict[str, Callable[[], Any]] = {
    "chain": lambda: _make("chain")(_make("scale")(0.5), _make("scale_by_adam")()),
    "named_chain": lambda: _make("named_chain")(("first", _make("scale")(0.5)), ("second", _make("trace")(0.9))),
    "stateless": lambda: _make("stateless")(halve_tree),
    "stateless_with_tree_map": lambda: _make("stateless_with_tree_map")(halve),
    "MultiSteps": lambda: _make("MultiSteps")(_make("adam")(0.1), 2),
    "aggregate": lambda: _make("aggregate")(_make("identity")(), _make("accumulate_avg_updates")(2), example("adam")),
    "average_incrementally_updates": lambda: _make("average_incrementally_updates")(None, 2),
    "add_mean_variance_to_opt": lambda: _make("add_mean_variance_to_opt")(example("adam")),
    "freeze": lambda: _make("freeze")(only_matrices),
    "selective_transform": lambda: _make("selective_transform")(_make("adam")(0.1), freeze_mask=only_matrices),
    "partition": lambda: _make("partition")({"matrix": _make("adam")(0.1), "rest": _make("sgd")(0.1)}, by_rank),
    "masked": lambda: _make("masked")(_make("scale_by_adam")(), only_matrices),
    "differentially_private_aggregate": lambda: _make("differentially_private_aggregate")(1.0, 0.5, 3),
    "dpsgd": lambda: _make("dpsgd")(0.1, 1.0, 0.5, 3),
    "mechanize": lambda: _make("mechanize")(_make("sgd")(0.1), s_init=0.1),
    "trac": lambda: _make("trac")(_make("sgd")(0.1), eps=0.1),
    "primal_averaging": lambda: _make("primal_averaging")(_make("adamw")(0.1)),
    "flatten": lambda: _make("flatten")(_make("scale_by_adam")()),
    "snapshot": lambda: _make("snapshot")("norm", gradtx.global_norm),
    "monitor": lambda: _make("monitor")({"norm": gradtx.global_norm, "slow": example("measure_with_ema")}),
    "measure_with_ema": lambda: _make("measure_with_ema")(gradtx.global_norm, 0.9),
    "record_metrics": lambda: _make("record_metrics")(_make("clip")(1.0), ("update_norm", "clip_fraction")),
    "repack_state": lambda: _make("repack_state")(_make("scale_by_adam")(), boxed, unboxed),
    "lookahead": lambda: _make("lookahead")(_make("adam")(0.1), 2, 0.8),
    "apply_if_finite": lambda: _make("apply_if_finite")(_make("scale_by_adam")(), 2),
    "conditionally_mask": lambda: _make("conditionally_mask")(_make("scale_by_adam")(), every_second),
    "conditionally_transform": lambda: _make("conditionally_transform")(_make("scale_by_adam")(), every_second),
    "dynamic_loss_scale": lambda: _make("dynamic_loss_scale")(_make("scale_by_adam")(), 1024.0, 2),
    "groups": lambda: _make("groups")([("**", {"learning_rate": gradtx.times(0.5)})], _make("adam")(0.1)),
    "graft": lambda: _make("graft")(_make("sign_sgd")(1.0), _make("adam")(0.1)),
    "guard": lambda: _make("guard")(_make("scale_by_adam")(), gradtx.skipping.norm_spike(4, warmup=2)),
    "sam": lambda: _make("sam")(_make("adam")(0.1), _make("chain")(_make("normalize")(), _make("sgd")(0.05))),
    "schedule_free": lambda: _make("schedule_free")(_make("sgd")(0.1), 0.1),
    "split_real_and_imaginary": lambda: _make("split_real_and_imaginary")(_make("scale_by_adam")()),
    "with_master_params": lambda: _make("with_master_params")(_make("adamw")(0.1), _make("error_bits")(8)),
    "with_roles": lambda: _make("with_roles")((("**", gradtx.Role()),), _make("adam")(0.1)),
    "over_axes": lambda: _make("over_axes")(_make("adam")(0.1), ()),
    "spread_matrices": lambda: _make("spread_matrices")(_make("muon")(0.1), ()),
    "reset_every": lambda: _make("reset_every")(_make("scale_by_adam")(), 2),
    "stored": lambda: _make("stored")(_make("adam")(0.1), precision.int8(2), min_size=0),
    "unstacked": lambda: _make("unstacked")(_make("scale_by_adam")()),
    # Without roles it has no heads to scale: see tests/transforms/test_qk_clip.py.
    "qk_clip": lambda: _make("qk_clip")([(no_parameter, 0.5)]),
    "round_stochastically": lambda: _make("round_stochastically")(0),
    "scale_by_muon": lambda: _make("scale_by_muon")(weight_dimension_numbers=as_columns),
    "scale_by_normuon": lambda: _make("scale_by_normuon")(weight_dimension_numbers=as_columns),
    "scale_by_adamuon": lambda: _make("scale_by_adamuon")(weight_dimension_numbers=as_columns),
    "scale_by_namo": lambda: _make("scale_by_namo")(weight_dimension_numbers=as_columns),
    "scale_by_polargrad": lambda: _make("scale_by_polargrad")(weight_dimension_numbers=as_columns),
    "scale_by_aurora": lambda: _make("scale_by_aurora")(weight_dimension_numbers=as_columns),
    "dion": lambda: _make("dion")(0.01, rank=1),
    "scale_by_dion": lambda: _make("scale_by_dion")(rank=1, weight_dimension_numbers=as_columns),
    "scale_by_dion2": lambda: _make("scale_by_dion2")(weight_dimension_numbers=as_columns),
    "scale_by_matrix_shape": lambda: _make("scale_by_matrix_shape")(weight_dimension_numbers=as_columns),
    # With gradients of low rank, these would divide rounding errors by rounding errors, or take their signs.
    "scale_by_soap": lambda: _make("scale_by_soap")(eps=0.01),
    "soap": lambda: _make("soap")(0.01, eps=0.01),
    "scale_by_kl_soap": lambda: _make("scale_by_kl_soap")(eps=0.01),
    "kl_soap": lambda: _make("kl_soap")(0.01, eps=0.01),
    "scale_by_shampoo": lambda: _make("scale_by_shampoo")(eps=0.01),
    "shampoo": lambda: _make("shampoo")(0.01, eps=0.01),
    "scale_by_splus": lambda: _make("scale_by_splus")(max_precond_dim=2),
    "splus": lambda: _make("splus")(0.01, max_precond_dim=2),
    "low_rank": lambda: _make("low_rank")(_make("scale_by_adam")(), 1),
    "cautious": lambda: _make("cautious")(_make("scale_by_adam")()),
    "orthograd": lambda: _make("orthograd")(_make("adam")(0.1)),
    "with_gradient_signs": lambda: _make("with_gradient_signs")(_make("scale_by_adam")()),
    "offload": lambda: _make("offload")(_make("adam")(0.1)),
    "zero": lambda: _make("zero")(_make("adam")(0.1), "devices", mesh=meshes.mesh(devices=1)),
    "decay_weights": lambda: _make("decay_weights")(0.1, "corrected", learning_rate=0.01, max_learning_rate=0.02),
    # Recipes of known runs, made short.
    "nanogpt_speedrun": lambda: _make("nanogpt_speedrun")(40, 0.02, 0.01, 0.1, rules=kinds_by_rank),
    "nanochat": lambda: _make("nanochat")(40, 16, embedding_learning_rate=0.2, rules=kinds_by_rank),
    "kimi_k2": lambda: _make("kimi_k2")(40, [(no_parameter, 0.5)], warmup_steps=1, rules=kinds_by_rank),
    "muon_by_head": lambda: _make("muon_by_head")(0.01, rules=kinds_by_rank),
    "muon_hyperball": lambda: _make("muon_hyperball")(0.01, 0.1, rules=kinds_by_rank),
    "llama_wsd": lambda: _make("llama_wsd")(40, warmup_steps=1),
    "algoperf_nadamw": lambda: _make("algoperf_nadamw")(40),
    "algoperf_shampoo": lambda: _make("algoperf_shampoo")(40, 0.01, 0.1, eps=0.01),
    "vit_adafactor": lambda: _make("vit_adafactor")(40, warmup_steps=1, cooldown_steps=1, rules=kinds_by_rank),
    "vit_finetuning": lambda: _make("vit_finetuning")(40, depth=first_layer, rules=kinds_by_rank),
    "resnet_lars": lambda: _make("resnet_lars")(40, 0.1, warmup_steps=1),
    "resnet_nesterov": lambda: _make("resnet_nesterov")(40),
}
"""Calls of the factories for which the annotations give no example, or one that no promise can be held on."""

EXTRA: dict[str, dict[str, Any]] = {
    "gauss_newton_bartlett": {"sampled_grad": lambda params: params},
    "hutchinson_estimator_diag_hessian": {"obj_fn": half_square},
    "kimi_k2": {"max_logits": np.full(2, 200.0, np.float32)},
    "qk_clip": {"max_logits": np.full(2, 200.0, np.float32)},
    "sam": {"grad_fn": lambda params, i: params},
    "scale_by_sophia": {"obj_fn": half_square},
    "sophia": {"obj_fn": half_square},
    "sophia_g": {"sampled_grad": lambda params: params},
    "track_per_element_mean_and_variance_with_ema": {
        "sum_sq_diff_grads": jax.tree.map(jnp.square, GRADIENTS),
        "sample_size": jnp.asarray(3, jnp.int32),
    },
}
"""Keyword arguments that the `update` of some factories needs, besides those that every factory takes or ignores."""

PER_EXAMPLE = {
    "add_mean_variance_to_opt",
    "average_per_element_updates",
    "differentially_private_aggregate",
    "dpsgd",
    "get_per_element_mean_and_sum_sq_diff_grads",
}
"""Their gradients have an axis more than their updates: see tests/transforms/test_privacy.py and
tests/wrappers/test_aggregating.py."""

MEASURES = {"measure_with_ema"}
"""What their update returns is a measurement: see tests/transforms/test_monitoring.py."""


def extra_arguments(name: str) -> dict[str, Any]:
    return {"value": jnp.asarray(1.5, jnp.float32), "grad": GRADIENTS, "value_fn": half_square, **EXTRA.get(name, {})}


def _make(name: str) -> Callable:
    return FACTORIES[name].public


@functools.cache
def example(name: str) -> Any:
    return EXPLICIT[name]() if name in EXPLICIT else _make(name)(**example_arguments(FACTORIES[name]))


def _without_example() -> dict[str, str]:
    found = {}
    for name in FACTORIES:
        try:
            example(name)
        except (TypeError, ValueError) as error:
            found[name] = str(error)
    return found


WITHOUT_EXAMPLE = _without_example()
COVERED = [n for n in FACTORIES if n not in {*WITHOUT_EXAMPLE, *PER_EXAMPLE, *MEASURES}]


def _is_recipe(name: str) -> bool:
    """Whether the example stands for calls of other factories and wraps nothing, as that of `adam` does."""
    tx = example(name)
    return tx.expanded is not tx and not any(map(is_transformation, tx.arguments.values()))


WITH_ROLES = {n for n in COVERED if {"rules"} & set(FACTORIES[n].signature.parameters) and n != "groups"}
"""They say themselves what the parameters are, so that roles around them change nothing."""

RECIPES = [n for n in COVERED if _is_recipe(n)]
STAGES = [n for n in COVERED if n not in RECIPES]
"""Stages and wrappers: what recipes are made of."""


def in_turns(names: Iterable[str] = COVERED) -> list[Any]:
    """Cases by name, for a law that takes long: all stages and wrappers, and of the recipes a sixth in each commit.

    Their stages are under the same law, so that a recipe adds only how it puts them together. `tests/conftest.py`
    chooses the sixth; `--all-cases` runs all.
    """
    return [turns(n, RECIPES.index(n), of=6) if n in RECIPES else n for n in names]


def turns(case: Any, turn: int, of: int = 3) -> Any:
    """A case that runs in every third commit only, such as one of a product whose rows and columns all run."""
    return pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.turn(turn, of))


def sample() -> list[Any]:
    """All names, every sixth of them in the sample that other Pythons run (`-m sample`)."""
    return [pytest.param(n, marks=pytest.mark.sample) if i % 6 == 0 else n for i, n in enumerate(COVERED)]
