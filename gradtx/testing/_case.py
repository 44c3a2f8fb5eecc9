# SPDX-License-Identifier: Apache-2.0
"""The case that the clauses of the contract test: a transformation with parameters, gradients and extra arguments."""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core._apply import apply_updates
from gradtx.testing._compare import is_key

DTYPE_MIXES = [("float32", "float32"), ("bfloat16", "bfloat16"), ("bfloat16", "float32"), ("float32", "bfloat16")]


class Step(NamedTuple):
    """The results of one step."""

    updates: Any
    state: Any
    params: Any


@dataclasses.dataclass(frozen=True)
class Case:
    """A transformation and the arguments to call it with; runs that several clauses compare are made once."""

    tx: Any
    params: Any
    gradients: Any
    steps: int
    extra: dict[str, Any]

    def update(self, gradients: Any, state: Any, params: Any) -> tuple[Any, Any]:
        return self.tx.update(gradients, state, params, **self.extra)

    def step(self, gradients: Any, state: Any, params: Any) -> Step:
        updates, state = self.update(gradients, state, params)
        return Step(updates, state, apply_updates(params, updates))

    def run(self, init: Callable[..., Any], step: Callable[..., Any]) -> list[Step]:
        """The result of each step."""
        return self.go_on(init(self.params), self.params, step, range(self.steps))

    def go_on(self, state: Any, params: Any, step: Callable[..., Any], steps: Iterable[int]) -> list[Step]:
        """The results of these steps, from the state and the parameters before the first of them."""
        done = []
        for i in steps:
            done.append(step(self.gradients_at(i), state, params))
            state, params = done[-1].state, done[-1].params
        return done

    def gradients_at(self, i: int) -> Any:
        """The gradients of step `i`: the given ones, growing by a quarter each step so that no two steps are equal."""
        return jax.tree.map(lambda g: g * jnp.asarray(1 + i / 4, g.dtype) if is_inexact(g) else g, self.gradients)

    @functools.cached_property
    def state(self) -> Any:
        return self.tx.init(self.params)

    @functools.cached_property
    def in_one_memory(self) -> bool:
        """Whether no array of the state lies elsewhere than the parameters, such as in the memory of the host."""
        arrays = [x for x in jax.tree.leaves((self.params, self.state)) if isinstance(x, jax.Array)]
        return len({x.sharding.memory_kind for x in arrays}) <= 1

    @functools.cached_property
    def plain(self) -> list[Step]:
        """The run without `jit`."""
        return self.run(self.tx.init, self.step)

    @functools.cached_property
    def jitted(self) -> tuple[list[Step], int]:
        """The run with `jit`, and how often the step was traced."""
        traces = []

        def step(gradients: Any, state: Any, params: Any) -> Step:
            traces.append(None)
            return self.step(gradients, state, params)

        return self.run(jax.jit(self.tx.init), jax.jit(step)), len(traces)

    @functools.cached_property
    def abstract(self) -> tuple[Any, Step]:
        """The types of the state of `init` and of what one step returns."""
        state = jax.eval_shape(self.tx.init, self.params)
        return state, jax.eval_shape(self.step, self.gradients, state, self.params)

    @functools.cached_property
    def mixes(self) -> dict[str, "Case"]:
        """The case in every mix of float32 and bfloat16, by the description of the mix."""
        return {f"{p} parameters and {g} gradients": self.cast(p, g) for p, g in DTYPE_MIXES}

    def like(self, params: Any, gradients: Any, steps: int = 1) -> "Case":
        """The case with another tree. Extra arguments like the parameters are replaced by the new gradients."""
        extra = {n: gradients if self._is_like_params(x) else x for n, x in self.extra.items()}
        return Case(self.tx, params, gradients, steps, extra)

    def cast(self, params_dtype: Any, gradients_dtype: Any) -> "Case":
        """The case with its floating-point leaves in these dtypes."""
        return self.like(cast(self.params, params_dtype), cast(self.gradients, gradients_dtype))

    def _is_like_params(self, x: Any) -> bool:
        same = jax.tree.structure(x) == jax.tree.structure(self.params)
        return same and [jnp.shape(a) for a in _arrays(x)] == [jnp.shape(a) for a in jax.tree.leaves(self.params)]


def _arrays(tree: Any) -> list:
    return [x for x in jax.tree.leaves(tree) if isinstance(x, jax.Array | np.ndarray)]


def is_inexact(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jnp.inexact)


def cast(tree: Any, dtype: Any) -> Any:
    return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)


def weakly_typed(tree: Any) -> Any:
    """The types of the leaves, with weak types for floating ones, as of arrays that JAX makes from Python numbers."""

    def weak(x: jax.Array) -> Any:
        is_floating = jnp.issubdtype(x.dtype, jnp.floating)
        return jax.ShapeDtypeStruct(x.shape, x.dtype, weak_type=True) if is_floating else x

    return jax.tree.map(weak, tree)


def make_case(tx: Any, params: Any, gradients: Any, steps: int, extra: dict[str, Any]) -> Case:
    """The case with its own JAX arrays, and with example gradients if none are given."""
    params = _own(params)
    return Case(tx, params, example_gradients(params) if gradients is None else _own(gradients), steps, extra)


def _own(tree: Any) -> Any:
    # The explicit dtype removes the weak type, which `jnp.full(3, 0.5)` has but an updated parameter does not.
    return jax.tree.map(lambda x: jnp.array(x, jnp.result_type(x)), tree)


def example_gradients(params: Any) -> Any:
    """Normal numbers of the parameters' shapes and dtypes, the same at each call; None for integer parameters."""
    random = np.random.default_rng(20)

    def example(p: jax.Array) -> jax.Array | None:
        if not is_inexact(p):
            return None
        values = random.normal(size=p.shape)
        if jnp.issubdtype(p.dtype, jnp.complexfloating):
            values = values + 1j * random.normal(size=p.shape)
        return jnp.asarray(values, p.dtype)

    return jax.tree.map(example, params)


def reversed_dicts(tree: Any) -> Any:
    """The same tree with the keys of its dictionaries inserted in the opposite order."""

    def is_dict(x: Any) -> bool:
        return type(x) is dict

    def turn(x: Any) -> Any:
        return {k: reversed_dicts(x[k]) for k in reversed(x)} if is_dict(x) else x

    return jax.tree.map(turn, tree, is_leaf=is_dict)


def as_numpy(tree: Any) -> Any:
    """A writable NumPy copy; random keys, which NumPy cannot hold, stay."""
    return jax.tree.map(lambda x: x if is_key(x) else np.array(x), tree)
