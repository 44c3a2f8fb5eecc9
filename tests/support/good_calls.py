# SPDX-License-Identifier: Apache-2.0
"""One good call of every public function and factory, from which bad ones are made."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import gradtx
from gradtx import precision
from support import losses, meshes, registry, schedules
from support.public import public_names

PARAMS = {"w": np.linspace(-1.0, 1.0, 6, dtype=np.float32).reshape(2, 3), "b": np.full(3, 0.5, np.float32)}
LIKE = {"w": np.linspace(0.2, 1.0, 6, dtype=np.float32).reshape(2, 3), "b": np.full(3, 0.25, np.float32)}
EXAMPLES = {n: np.stack([x, 2 * x]) for n, x in PARAMS.items()}
VECTOR, MATRIX = np.array([0.3, 1.0, 2.0], np.float32), np.eye(3, dtype=np.float32) + np.float32(0.1)
KEY = np.asarray(jax.random.key_data(jax.random.key(0)))
TX = gradtx.adam(0.1)
STATE = TX.init(PARAMS)
SCALED = gradtx.dynamic_loss_scale(gradtx.sgd(0.1), 1024.0, 2)
CONFIGURATION = gradtx.to_dict(TX)
STATISTICS = registry.example("track_per_element_mean_and_variance_with_ema").init(PARAMS)


class Good(NamedTuple):
    """A call, its arguments by name, and whether it must run on values: shapes do not tell whether it is a good one."""

    function: Callable[..., Any]
    arguments: dict[str, Any]
    on_values: bool = False


def half_square(params: Any) -> Any:
    return sum(0.5 * jnp.sum(jnp.square(x)) for x in jax.tree.leaves(params))


def first(x: Any, *others: Any) -> Any:
    return x


def product(a: Any, b: Any) -> Any:
    return jnp.sum(a * b)


def body() -> Any:
    return gradtx.identity()


def unchanged(g: Any, slots: Any, p: Any, t: Any) -> tuple[Any, Any]:
    return g, slots


def best(x: Any) -> Any:
    return jax.nn.one_hot(jnp.argmax(x), x.shape[-1])


def curve(x: Any) -> Any:
    return jnp.sum(x * x)


BOWL = gradtx.race.Task(lambda key: {"w": jnp.ones(2)}, lambda params, key: half_square(params), steps=1)

FUNCTIONS: dict[str, dict[str, Any]] = {
    "layerwise_decay": {"decay": 0.8, "depth": None},
    "mup": {"base_params": PARAMS},
    "minimize": {"fn": half_square, "params": PARAMS, "tx": TX, "max_steps": 1, "bounds": (-1.0, 1.0)},
    "as_rules": {"roles": gradtx.infer_roles(PARAMS)},
    "infer_roles": {"params": PARAMS},
    "roles_from_names": {"params": {"w": np.ones((2, 3))}, "names": {}},
    "roles": {"params": PARAMS, "rules": (("**", gradtx.Role()),)},
    "apply_updates": {"params": PARAMS, "updates": LIKE},
    "restart": {"state": STATE, "at": 3},
    "eval_from": {"f": first, "params": PARAMS, "slots": (LIKE,)},
    "eval_params": {"state": STATE, "params": PARAMS},
    "per_matrix": {"init": None, "update": unchanged},
    "per_parameter": {"init": None, "update": unchanged},
    "transformation": {"body": body},
    "metrics": {"state": STATE, "tx": TX},
    "needs": {"tx": TX},
    "of_kind": {"kinds": ("norm",)},
    "where": {"chosen": ("**",)},
    "with_extra_args_support": {"tx": TX},
    "describe": {"tx": TX, "params": PARAMS, "state": STATE},
    "explain_path": {"tx": TX, "params": PARAMS, "path": "w", "state": STATE},
    "explain_update": {"tx": TX, "grads": LIKE, "state": STATE, "params": PARAMS, "path": "w"},
    "check_configuration": {"kept": CONFIGURATION, "tx": TX},
    "diff": {"left": TX, "right": CONFIGURATION},
    "fingerprint": {"value": TX},
    "from_dict": {"data": CONFIGURATION},
    "from_string": {"text": "adam(0.1)"},
    "json_schema": {"names": {"half_square": half_square}},
    "to_dict": {"value": TX},
    "race": {"contenders": (TX,), "tasks": {"bowl": BOWL}, "seeds": 1, "factors": (1.0,), "steps": 1},
    "check_precision": {"tx": TX, "params": PARAMS, "gradients": LIKE, "steps": (0,)},
    "master_params": {"state": registry.example("with_master_params").init(PARAMS), "params": PARAMS},
    "schedule": {"body": body},
    "find_slots": {"state": STATE, "params": PARAMS, "where": "**", "slot": "mu"},
    "get_slot": {"state": STATE, "params": PARAMS, "path": "w", "slot": "mu"},
    "reset": {"tx": TX, "state": STATE, "params": PARAMS, "where": "**", "slots": "mu"},
    "set_slot": {"state": STATE, "params": PARAMS, "path": "b", "slot": "mu", "value": VECTOR},
    "migrate": {"old_state": STATE, "new_tx": TX, "params": PARAMS, "old_tx": TX, "step": 3},
    "scale_gradient": {"inputs": PARAMS, "scale": 0.5},
    "value_and_grad_from_state": {"value_fn": half_square},
    "per_example_global_norm_clip": {"grads": EXAMPLES, "l2_norm_clip": 1.0},
    "per_example_layer_norm_clip": {"grads": EXAMPLES, "global_l2_norm_clip": 1.0},
    "global_norm": {"updates": PARAMS},
    "incremental_update": {"new_tensors": PARAMS, "old_tensors": LIKE, "step_size": 0.5},
    "periodic_update": {"new_tensors": PARAMS, "old_tensors": LIKE, "steps": 3, "update_period": 2},
    "join_frozen": {"trained": {"w": PARAMS["w"], "b": None}, "frozen": {"w": None, "b": PARAMS["b"]}},
    "split_frozen": {"params": PARAMS, "freeze_mask": {"w": True, "b": False}},
    "guard_rule": {"body": body},
    "inject_hyperparams": {"inner_factory": gradtx.adam, "static_args": ("nesterov",)},
    "loss_scale": {"state": SCALED.init(PARAMS)},
    "skip_large_updates": {"updates": PARAMS, "gradient_step": 0, "params": PARAMS, "max_squared_norm": 1.0},
    "skip_not_finite": {"updates": PARAMS, "gradient_step": 0, "params": PARAMS},
    "get_batch_size_from_per_elt_updates": {"per_elt_updates": EXAMPLES, "per_elt_axis": 0},
    "get_unbiased_mean_and_variance_ema": {"state": STATISTICS},
    "base_hungarian_algorithm": {"cost_matrix": MATRIX},
    "hungarian_algorithm": {"cost_matrix": MATRIX},
    "carry_state": {"state": STATE, "tx": TX, "params": PARAMS},
    "as_optax": {"tx": TX},
    "gauss_newton_vector_product": {"model": first, "loss": half_square, "params": PARAMS, "v": LIKE},
    "hessian_diagonal": {"loss": half_square, "params": PARAMS},
    "hessian_spectrum": {"loss": half_square, "params": PARAMS, "key": KEY, "num_iters": 2},
    "hessian_vector_product": {"loss": half_square, "params": PARAMS, "v": LIKE},
    "hutchinson_diagonal": {"loss": half_square, "params": PARAMS, "key": KEY},
    "top_eigenvalue": {"loss": half_square, "params": PARAMS, "key": KEY, "num_iters": 2},
    "make_fenchel_young_loss": {"max_fun": half_square},
    "micro_grad": {"fun": product, "microbatch_size": 2},
    "micro_vmap": {"fun": product, "microbatch_size": 2},
    "microbatch": {"fun": product, "argnums": (0, 1), "microbatch_size": 2},
    "reshape_batch_axis": {"tree": EXAMPLES, "microbatch_size": 1},
    "safe_increment": {"count": np.int32(3)},
    "largest": {"x": MATRIX, "axis": 0, "initial": 0.0},
    "mean": {"x": MATRIX, "axis": 0},
    "gradtx.numerics.size": {"x": MATRIX, "axis": 0},
    "total": {"x": MATRIX, "axis": 0},
    "multi_normal": {"loc": VECTOR, "log_scale": VECTOR},
    "lanczos": {"times": first, "v0": VECTOR, "num_iters": 2},
    "matrix_inverse_pth_root": {"matrix": MATRIX, "p": 2, "num_iters": 3},
    "matrix_inverse_pth_root_eigh": {"matrix": MATRIX, "p": 2},
    "nnls": {"A": MATRIX, "b": VECTOR, "iters": 3},
    "power_iteration": {"matrix": MATRIX, "v0": VECTOR, "num_iters": 3, "key": KEY},
    "distance_from_orthogonal": {"updates": PARAMS},
    "safe_norm": {"x": VECTOR, "min_norm": 0.1},
    "safe_root_mean_squares": {"x": VECTOR, "min_rms": 0.1},
    "unitwise_clip": {"g_norm": MATRIX, "max_norm": MATRIX, "grad": MATRIX},
    "unitwise_norm": {"x": MATRIX, "axis": 0},
    "make_perturbed_fun": {"fun": best, "num_samples": 2},
    "plot_curves": {"curves": {"loss": {"adam": VECTOR}}},
    "plot_paths": {"f": curve, "paths": {"adam": np.ones((3, 2))}, "bounds": ((-1.0, 1.0), (-1.0, 1.0)), "levels": 2},
    "plot_races": {"races": {"bowl": gradtx.plot.Race(curve, {"adam": np.ones((3, 2))}, ((-1.0, 1.0), (-1.0, 1.0)))}},
    "plot_schedules": {"schedules": {"rate": gradtx.constant_schedule(0.1)}, "steps": 3},
    "projection_box": {"tree": PARAMS, "lower": -0.5, "upper": LIKE},
    "projection_halfspace": {"x": PARAMS, "a": LIKE, "b": 0.5},
    "projection_hyperplane": {"x": PARAMS, "a": LIKE, "b": 0.5},
    "projection_vector": {"x": PARAMS, "a": LIKE},
    "at": {"epochs": 3, "steps_per_epoch": 10},
    "bytes_per_device": {"tx": TX, "params": PARAMS, "mesh": meshes.mesh(devices=1)},
    "init_sharded": {"tx": TX, "params": PARAMS, "mesh": meshes.mesh(devices=1)},
    "state_shardings": {"tx": TX, "params": PARAMS, "mesh": meshes.mesh(devices=1)},
    "check_contract": {"tx": gradtx.sgd(0.1), "params": {"w": VECTOR}, "steps": 2},
    "check_hyperparameters": {"tx": TX, "state": STATE},
    "example_arguments": {"factory": gradtx.adam},
    "add_scale": {"tree_x": PARAMS, "scalar": 0.5, "tree_y": LIKE},
    "gradtx.tree.clip": {"tree": PARAMS, "min_value": -1.0, "max_value": 1.0},
    "gradtx.tree.scale": {"scalar": 0.5, "tree": PARAMS},
    "gradtx.tree.where": {"condition": True, "tree_x": PARAMS, "tree_y": LIKE},
    "batch_shape": {"tree": PARAMS, "shape": (2,)},
    "cast": {"tree": PARAMS, "dtype": np.float32},
    "cast_like": {"tree": PARAMS, "other_tree": LIKE},
    "full_like": {"tree": PARAMS, "fill_value": 2.0},
    "random_like": {"rng_key": KEY, "target_tree": PARAMS},
    "split_key_like": {"rng_key": KEY, "target_tree": PARAMS},
    "unwrap_random_key_data": {"input_tree": PARAMS},
    "bias_correction": {"moment": PARAMS, "decay": 0.9, "count": 3},
    "update_infinity_moment": {"updates": PARAMS, "moments": LIKE, "decay": 0.9, "eps": 1e-8},
    "update_moment": {"updates": PARAMS, "moments": LIKE, "decay": 0.9, "order": 1},
    "update_moment_per_elem_norm": {"updates": PARAMS, "moments": LIKE, "decay": 0.9, "order": 2},
    "map_params": {"initable": TX, "f": first, "state": STATE},
    "allclose": {"a": PARAMS, "b": LIKE},
    "get": {"tree": STATE, "key": "count"},
    "get_all_with_path": {"tree": STATE, "key": "count"},
    "set": {"tree": STATE, "kwargs": {"count": 3}},
    "times": {"factor": 0.5},
    "skip_when": {"predicate": first},
    "ademamix_alpha_schedule": {"alpha": 0.5, "transition_steps": 10},
    "ademamix_b3_schedule": {"b3": 0.99, "transition_steps": 10},
    "vdot": {"tree_x": PARAMS, "tree_y": LIKE},
}
"""The arguments of the good call of functions, by name, by path where several have the name."""

ON_VALUES = {"minimize", "hungarian_algorithm", "base_hungarian_algorithm", "check_precision", "check_contract"}
ON_VALUES |= {"plot_curves", "plot_paths", "plot_races", "plot_schedules", "init_sharded", "at", "full_like"}
ON_VALUES |= {"explain_update", "race"}

OTHERS = {"set_optimizer_sharding": "changes a flax.nnx.Optimizer, see tests/sharding"}
"""Functions without a good call here, and why."""

CODECS = {n: c for n, c in vars(precision).items() if inspect.isclass(c) and issubclass(c, precision.Codec)}


def _of_losses() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for case in losses.CASES:
        arrays = {n: x.astype(np.float32) if x.dtype == np.float64 else x for n, x in case.arrays.items()}
        known = found.setdefault(case.name, {**arrays, **case.kwargs})
        known |= {n: x for n, x in case.kwargs.items() if n not in known and isinstance(x, float)}
    return found


def _of_schedules() -> dict[str, dict[str, Any]]:
    made = [case.schedule for case in schedules.CASES]
    return {s.factory.name: dict(s.arguments) for s in reversed(made) if s.factory is not None}


def _generic(function: Callable[..., Any]) -> dict[str, Any] | None:
    """The arguments of a function of trees only."""
    trees = {"tree": PARAMS, "tree_x": PARAMS, "tree_y": LIKE}
    names = [p.name for p in inspect.signature(function).parameters.values() if p.default is p.empty]
    names = [n for n in names if n != "other_trees"]
    return {n: trees[n] for n in names} if set(names) <= set(trees) else None


def good_calls() -> dict[str, Good]:
    """The good call of every public callable, by the path of its name."""
    of_losses, of_schedules = _of_losses(), _of_schedules()
    found = {}
    for place, name, thing in public_names():
        if not callable(thing) or inspect.isclass(thing) or place == "gradtx.typing" or name in OTHERS:
            continue
        path = f"{place}.{name}"
        arguments = FUNCTIONS.get(path, FUNCTIONS.get(name))
        if arguments is None and place == "gradtx.losses":
            arguments = of_losses.get(name)
        elif arguments is None and name in registry.FACTORIES and name not in registry.WITHOUT_EXAMPLE:
            arguments = dict(registry.example(name).arguments)
        elif arguments is None:
            arguments = (of_schedules.get(name) if hasattr(thing, "factory") else None) or _generic(thing)
        if arguments is None:
            raise LookupError(f"{path} has no good call: give it one in tests/support/good_calls.py")
        found[path] = Good(thing, arguments, name in ON_VALUES)
    return found


GOOD = good_calls()
