# SPDX-License-Identifier: Apache-2.0
"""The clauses of the contract on calls, types and values, one function each."""

import dataclasses
import functools
import pickle
import warnings
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core._calls import Value
from gradtx.testing._case import Case, Step, as_numpy, example_gradients, is_inexact, reversed_dicts, weakly_typed
from gradtx.testing._compare import (
    Broken,
    NotApplicable,
    buffers,
    finite,
    is_key,
    leaves_with_paths,
    numbers,
    require,
    same_structure,
    same_types,
    same_values,
)


def updates_fit(case: Case) -> None:
    """Updates have the structure and shapes of the gradients and a floating dtype; parameters keep their types."""
    updates, _ = case.update(case.gradients, case.state, case.params)
    _updates_fit(case, updates)
    for step in case.plain:
        same_types("the updated parameters", step.params, "the parameters", case.params)


def deterministic(case: Case) -> None:
    """Two runs are bitwise equal, whatever the order in which the keys of dictionaries were inserted."""
    same_values("a second run", case.run(case.tx.init, case.step), "the first run", case.plain)
    # One step only, as trees that JAX returns have sorted dictionary keys.
    params, gradients = reversed_dicts(case.params), reversed_dicts(case.gradients)
    turned = case.update(gradients, case.tx.init(params), params)
    same_values("a step with dictionary keys inserted in another order", turned, "the first step", case.plain[0][:2])


def abstract_init(case: Case) -> None:
    """`jax.eval_shape(tx.init, params)` works and agrees with the state."""
    same_types("jax.eval_shape of init", jax.eval_shape(case.tx.init, case.params), "init", case.state)


def inputs_unchanged(case: Case) -> None:
    """Neither `init` nor `update` changes its arguments, not even NumPy arrays."""
    for kind, convert in (("JAX", lambda tree: tree), ("NumPy", as_numpy)):
        params, gradients = convert(case.params), convert(case.gradients)
        with _unchanged(f"the parameters given to init as {kind} arrays", params):
            state = case.tx.init(params)
        state = convert(state)
        given = {"gradients": gradients, "state": state, "parameters": params}
        with _unchanged(f"what was given to update as {kind} arrays", given):
            case.update(gradients, state, params)


class _unchanged:
    def __init__(self, what: str, tree: Any):
        self.what, self.tree = what, tree
        self.before = as_numpy(tree)

    def __enter__(self) -> None:
        pass

    def __exit__(self, error: Any, *rest: Any) -> None:
        if error is None:
            same_values(self.what, as_numpy(self.tree), "itself before the call", self.before)


def jit_agrees(case: Case) -> None:
    """The run under `jax.jit` equals the run without it: types exactly, values up to rounding."""
    for i, (jitted, plain) in enumerate(zip(case.jitted[0], case.plain, strict=True), 1):
        for part, a, b in zip(Step._fields, jitted, plain, strict=True):
            same_types(f"the {part} of step {i} under jit", a, "those without jit", b)
            same_values(f"the {part} of step {i} under jit", a, "those without jit", b, exact=False)


def state_types(case: Case) -> None:
    """`update` returns a state with the types of `init`, whatever the dtypes of parameters and gradients."""
    for i, step in enumerate(case.plain, 1):
        same_types(f"the state after update {i}", step.state, "init's", case.state)
    for dtypes, mixed in case.mixes.items():
        keeps_state_types(f"with {dtypes}", mixed)


def weak_types(case: Case) -> None:
    """The state keeps its types for parameters made of Python numbers too, whose types are weak."""
    weak = dataclasses.replace(case, params=weakly_typed(case.params))
    keeps_state_types("with weakly typed parameters, such as jnp.full(3, 0.5)", weak)


def keeps_state_types(when: str, case: Case) -> None:
    before, step = case.abstract
    same_types(f"{when}, the state after update", step.state, "init's", before)


def mixed_updates_fit(case: Case) -> None:
    """Updates fit, and parameters keep their types, whatever the dtypes of parameters and gradients."""
    for dtypes, mixed in case.mixes.items():
        _, step = mixed.abstract
        _updates_fit(mixed, step.updates)
        same_types(f"with {dtypes}, the updated parameters", step.params, "the parameters", mixed.params)


def _updates_fit(case: Case, updates: Any) -> None:
    same_structure("the updates", updates, "the gradients", case.gradients)
    for (path, u), g in zip(leaves_with_paths(updates), jax.tree.leaves(case.gradients), strict=True):
        require(jnp.shape(u) == g.shape, f"at {path} the update has shape {jnp.shape(u)}, the gradient {g.shape}")
        floating = jnp.issubdtype(jnp.result_type(u), jnp.inexact)
        require(floating, f"at {path} the update has dtype {jnp.result_type(u)}, which is not floating")


def traced_once(case: Case) -> None:
    """The second step under `jax.jit` reuses the compilation of the first."""
    steps, traces = case.jitted
    require(traces == 1, f"{len(steps)} steps with the same types were traced {traces} times under jit")


def runs_in_scan(case: Case) -> None:
    """`jax.lax.scan` can carry parameters and state, and ends with the values of the loop."""

    def body(carry: tuple, gradients: Any) -> tuple:
        step = case.step(gradients, carry[1], carry[0])
        return (step.params, step.state), None

    stacked = jax.tree.map(lambda *gs: jnp.stack(gs), *[case.gradients_at(i) for i in range(case.steps)])
    end, _ = jax.lax.scan(body, (case.params, case.state), stacked, length=case.steps)
    loop = (case.plain[-1].params, case.plain[-1].state)
    for part, a, b in zip(("parameters", "state"), end, loop, strict=True):
        same_types(f"the {part} after scan", a, "those after the loop", b)
        same_values(f"the {part} after scan", a, "those after the loop", b, exact=False)


def vmap_agrees(case: Case) -> None:
    """Under `jax.vmap`, each member of a population ends where it ends alone."""
    if not case.in_one_memory:
        raise NotApplicable("its state lies in another memory, where JAX cannot choose between branches under vmap")
    members = [
        case.like(_times(scale, case.params), _times(scale, case.gradients), case.steps) for scale in (1.0, -0.5)
    ]

    population = functools.partial(jax.vmap, axis_size=len(members))  # said, as a tree may have no arrays

    @jax.jit
    @population
    def step(first_gradients: Any, gradients: Any, state: Any, params: Any) -> Step:
        return case.like(params, first_gradients).step(gradients, state, params)

    first_gradients, params = (_stacked(getattr(m, name) for m in members) for name in ("gradients", "params"))
    state = population(case.tx.init)(params)
    for i in range(case.steps):
        together = step(first_gradients, _stacked(m.gradients_at(i) for m in members), state, params)
        state, params = together.state, together.params
        alone = _stacked(m.plain[i] for m in members)
        for part, a, b in zip(Step._fields, together, alone, strict=True):
            same_values(f"the {part} of step {i + 1} under vmap", a, "those of each alone", b, exact=False)


def _times(scale: float, tree: Any) -> Any:
    return jax.tree.map(lambda x: x * jnp.asarray(scale, x.dtype) if is_inexact(x) else x, tree)


def _stacked(trees: Iterable[Any]) -> Any:
    return jax.tree.map(lambda *xs: jnp.stack(xs), *trees)


def resumes_exactly(case: Case) -> None:
    """A run that is stopped after its first step and goes on from the bytes of its arrays ends bitwise the same."""
    first, *_, last = case.plain
    params, state = (
        jax.tree.map(_through_bytes, tree, like)
        for tree, like in ((first.params, case.params), (first.state, jax.eval_shape(case.tx.init, case.params)))
    )
    resumed = case.go_on(state, params, case.step, range(1, case.steps))[-1]
    for part, a, b in zip(Step._fields, resumed, last, strict=True):
        same_values(f"the {part} of a run that was resumed", a, "those of one that was not stopped", b)


def _through_bytes(x: Any, like: Any) -> jax.Array:
    """The array that a checkpoint gives back: its type is all that is known of it from elsewhere."""
    plain = numbers(x)
    again = jnp.asarray(np.frombuffer(bytearray(plain.tobytes()), plain.dtype).reshape(plain.shape))
    if is_key(x):
        return jax.random.wrap_key_data(again, impl=jax.random.key_impl(x))
    require(again.dtype == like.dtype, f"a checkpoint gives back {again.dtype}, but init makes {like.dtype}")
    return again


def donation_safe(case: Case) -> None:
    """State and parameters share no memory, nor do two leaves of the state, so that both can be donated to a step."""
    _no_sharing("init", case.state, case.params)
    before = case.params
    for step in case.plain:
        _no_sharing("update", step.state, before)
        _no_sharing("apply_updates", step.state, step.params)
        before = step.params
    if not case.in_one_memory:
        return  # XLA ends the process where it pairs a donated array with a result in another memory
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Some donated buffers")  # of other types afterwards: another clause
        params = jax.tree.map(jnp.copy, case.params)
        step = jax.jit(case.step, donate_argnums=(1, 2))
        donated = case.go_on(case.tx.init(params), params, step, range(case.steps))[-1]
    same_values("the last step with donation", donated, "that without", case.jitted[0][-1], exact=False)


def _no_sharing(after: str, state: Any, params: Any) -> None:
    held = {address: f"the parameter at {path}" for path, address in buffers(params)}
    for path, address in buffers(state):
        require(address not in held, f"after {after}, the state at {path} is the memory of {held.get(address)}")
        held[address] = f"the state at {path}"


def none_leaves(case: Case) -> None:
    """None in parameters and gradients means "no value here": no update, no change, the same state types."""
    wrapped = case.like({"given": case.params, "none": None}, {"given": case.gradients, "none": None})
    _check_holes("with a parameter None", wrapped)
    leaves, treedef = jax.tree.flatten(case.gradients)
    if leaves:
        _check_holes("with a gradient None", case.like(case.params, treedef.unflatten([None, *leaves[1:]])))


def _check_holes(when: str, case: Case) -> None:
    updates, _ = case.update(case.gradients, case.state, case.params)
    same_structure(f"{when}, the updates", updates, "the gradients", case.gradients)
    step = case.plain[0]
    same_types(f"{when}, the state after update", step.state, "init's", case.state)
    same_types(f"{when}, the updated parameters", step.params, "the parameters", case.params)
    treedef = jax.tree.structure(case.params)
    rows = zip(leaves_with_paths(case.params), *map(treedef.flatten_up_to, (step.params, step.updates)), strict=True)
    for (path, before), after, update in rows:
        if update is None:
            same_values(f"{when}, the parameter {path} without an update", after, "itself", before)


def edge_shapes(case: Case) -> None:
    """The empty tree, scalars and leaves of size zero work, and everything stays finite."""
    empty = case.like({}, {})
    same_types("for the empty tree, the state after update", empty.plain[0].state, "init's", empty.state)
    require(empty.plain[0].updates == {}, f"for the empty tree, the updates must be {{}}, got {empty.plain[0].updates}")
    shapes = {"scalar": (), "empty": (0,), "flat": (3, 0), "vector": (2,)}
    params = {n: jnp.full(shape, 0.5, jnp.float32) for n, shape in shapes.items()}
    edge = case.like(params, example_gradients(params), steps=2)
    keeps_state_types("for scalars and leaves of size zero", edge)
    with jax.disable_jit():  # compiling takes longer, and what is traced has been
        steps = edge.plain
    for step in steps:
        finite("the updates of scalars and leaves of size zero", step.updates)
        finite("the parameters after updates of scalars and leaves of size zero", step.params)
        same_types("the updated scalars and leaves of size zero", step.params, "the parameters", params)
        same_types("for scalars and leaves of size zero, the state after update", step.state, "init's", edge.state)


def round_trips(case: Case) -> None:
    """The state survives flattening and pickling, and so does the transformation if it is a value."""
    leaves, treedef = jax.tree.flatten(case.state)
    same_types("the state, flattened and unflattened,", treedef.unflatten(leaves), "the state", case.state)
    same_values("the pickled state", pickle.loads(pickle.dumps(case.state)), "the state", case.state)
    leaves, treedef = jax.tree.flatten(case.tx)
    _same_transformation("flattened and unflattened", case, treedef.unflatten(leaves))
    if isinstance(case.tx, Value) and case.tx.factory is not None and _arguments_pickle(case.tx):
        _same_transformation("pickled", case, pickle.loads(pickle.dumps(case.tx)))


def _same_transformation(how: str, case: Case, tx: Any) -> None:
    if isinstance(case.tx, Value):
        require(tx == case.tx and hash(tx) == hash(case.tx), f"the transformation {how} must equal itself, got {tx!r}")
    again = dataclasses.replace(case, tx=tx, steps=1)
    same_values(f"a step of the transformation {how}", again.plain[0], "its own", case.plain[0])


def _arguments_pickle(tx: Value) -> bool:
    """Whether the arguments of `tx` can be pickled: lambdas among them cannot, and are still allowed."""
    for x in jax.tree.leaves(dict(tx.arguments), is_leaf=lambda x: type(x) not in (dict, list, tuple)):
        if isinstance(x, Value) and x.factory is not None:
            if not _arguments_pickle(x):
                return False
            continue
        try:
            pickle.dumps(x)
        except (pickle.PicklingError, AttributeError, TypeError):
            return False
    return True


def params_argument(case: Case) -> None:
    """`update` takes parameters by position and by keyword; without them it works, or its error names them."""
    updates, state = case.tx.update(case.gradients, case.state, params=case.params, **case.extra)
    same_values("update with params by keyword", (updates, state), "update with params by position", case.plain[0][:2])
    try:
        jax.eval_shape(lambda g, s: case.tx.update(g, s, **case.extra), case.gradients, case.state)
    except Exception as error:  # of any class: what counts is that the message helps
        if "param" not in str(error):
            raise Broken(
                f"update without params must work or name them, got {type(error).__name__}: {error}"
            ) from error


def unknown_arguments(case: Case) -> None:
    """A `GradientTransformationExtraArgs`, gradtx's or Optax's, tolerates keyword arguments that it does not know."""
    if "GradientTransformationExtraArgs" in [c.__name__ for c in type(case.tx).__mro__]:
        more = {**case.extra, "an_argument_nobody_knows": jnp.zeros([])}
        result = case.tx.update(case.gradients, case.state, case.params, **more)
        same_values("update with an unknown argument", result, "update without", case.plain[0][:2])
