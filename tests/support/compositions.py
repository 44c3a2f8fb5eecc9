# SPDX-License-Identifier: Apache-2.0
"""Random optimizers for random parameters: a recipe or a stage, in chains and in wrappers up to three deep."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st
from jax.sharding import AxisType

import gradtx as gt
from gradtx import precision
from gradtx.configuration._constants import Mesh
from support.public import NAMES as PUBLIC
from support.registry import COVERED, FACTORIES, FUNCTIONS, PER_EXAMPLE, example, half_square
from support.wrappers import WRAPPERS

NEEDS_MORE = {"track_per_element_mean_and_variance_with_ema", "qk_clip"}
"""Their `update` takes arguments that fit one tree of parameters only."""

ALONE = {"over_axes", "zero", "offload", "spread_matrices"}
"""They say where arrays lie: what else is placed on devices does not go with them."""

RUNS = {n for n, f in FACTORIES.items() if f.module.startswith("gradtx.recipes.")}
"""They are compositions."""

BASES = sorted(n for n in COVERED if n not in {*WRAPPERS, *PER_EXAMPLE, *NEEDS_MORE, *ALONE, *RUNS, "groups"})

BEFORE = {
    "clip_by_global_norm": lambda: gt.clip_by_global_norm(1.0),
    "centralize": lambda: gt.centralize(),
    "ema": lambda: gt.ema(0.9),
    "zclip": lambda: gt.zclip(),
}
AFTER = {
    "add_decayed_weights": lambda: gt.add_decayed_weights(1e-3),
    "scheduled": lambda: gt.scale_by_schedule(gt.linear_schedule(1.0, 0.1, 20)),
    "params_ema": lambda: gt.params_ema(0.9),
}


def is_vector(path: str, p: Any) -> bool:
    return jnp.ndim(p) == 1


AROUND = {
    # Guards are drawn apart. The memory in which `offload` keeps a state is a part of its types, which a state that was
    # saved does not bring back by itself: tests/sharding/test_offload.py.
    **{name: wrap for name, wrap in WRAPPERS.items() if name not in ("guard", "dynamic_loss_scale", "offload")},
    "int8": lambda tx: gt.stored(tx, precision.int8(2), min_size=0),
    "companded8": lambda tx: gt.stored(tx, precision.companded8(2), min_size=0),
    "float8": lambda tx: gt.stored(tx, precision.float8("e4m3"), min_size=0),
    "int4": lambda tx: gt.stored(tx, precision.int4(2), min_size=0),
    "error_bits": lambda tx: gt.with_master_params(tx, gt.error_bits(8)),
    "round_stochastically": lambda tx: gt.chain(tx, gt.round_stochastically(0)),
    "groups": lambda tx: gt.groups([(gt.where(is_vector), gt.set_to_zero())], tx),
    "roles": lambda tx: gt.with_roles([("layers/**", gt.Role("hidden", stack=0)), ("**", gt.Role())], tx),
}


NAMES = {f.__name__: f for f in (*FUNCTIONS, is_vector)}
"""What the compositions print besides names of gradtx."""

NAMESPACE = {**vars(precision), **PUBLIC, **NAMES, **AxisType.__members__, "Mesh": Mesh}
"""What Python needs to read it; a mesh prints as the call that makes one of the devices that are there."""


def normal(shape: tuple[int, ...], dtype: Any = np.float32, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng((seed, *shape)).normal(size=shape), dtype)


def module() -> Any:
    from flax import nnx

    return nnx.Linear(3, 2, rngs=nnx.Rngs(0))


def of_a_module() -> Any:
    from flax import nnx

    return nnx.state(module(), nnx.Param)


def complex_numbers() -> dict[str, jax.Array]:
    return {"c": jax.lax.complex(normal((2, 3)), normal((2, 3), seed=1)), "b": normal((3,))}


TREES = {
    "plain": lambda: {"w": normal((2, 3)), "b": normal((3,))},
    "with holes": lambda: {"w": normal((4, 2)), "none": None, "scalar": normal(())},
    "of size zero": lambda: {"w": normal((3, 2)), "empty": normal((0, 3))},
    "mixed": lambda: {"w": normal((2, 3), jnp.bfloat16), "b": normal((3,)), "h": normal((2,), jnp.float16)},
    "bfloat16": lambda: [normal((2, 4), jnp.bfloat16), (normal((3,), jnp.bfloat16),)],
    "complex": complex_numbers,
    "stacked": lambda: {"layers": {"w": normal((2, 3, 4)), "b": normal((2, 4))}, "out": normal((4, 2))},
    "one array": lambda: normal((3, 3)),
    "a module's": of_a_module,
    "for eight devices": lambda: {"w": normal((8, 4)), "b": normal((8,)), "h": normal((4, 2), jnp.bfloat16)},
}


class Composition(NamedTuple):
    name: str
    tx: Any
    params: Any
    guard: str
    """What is outermost and skips bad steps: `guard` all, `dynamic_loss_scale` if a gradient is not finite; or ""."""
    placed: bool
    """Whether it says itself where arrays lie."""
    of_a_module: bool
    mesh: AxisType
    """Of what kind the axes of the mesh are, where it is moved to one."""
    simplest: bool
    """Whether it is the first that there is of everything."""


@st.composite
def compositions(draw: Any) -> Composition:
    base, tree = draw(st.sampled_from(BASES)), draw(st.sampled_from(sorted(TREES)))
    first, last = draw(st.sampled_from(["", *BEFORE])), draw(st.sampled_from(["", *AFTER]))
    around = draw(st.lists(st.sampled_from(sorted(AROUND)), max_size=3, unique=True))
    guard = draw(st.sampled_from(["guard", "", "dynamic_loss_scale"]))
    name = " around ".join([*filter(None, [guard]), *reversed(around), " > ".join(filter(None, [first, base, last]))])

    tx = example(base)
    if first or last:
        tx = gt.chain(*(BEFORE[n]() for n in [first] if n), tx, *(AFTER[n]() for n in [last] if n))
    for wrapper in around:
        tx = AROUND[wrapper](tx)
    if guard:
        tx = gt.guard(tx) if guard == "guard" else WRAPPERS[guard](tx)
    placed = bool(ALONE & {*around})
    simplest = base == BASES[0] and tree == sorted(TREES)[0] and not (first or last or around)
    mesh = draw(st.sampled_from([AxisType.Auto, AxisType.Explicit]))
    name = f"{name}, on {tree} parameters"
    return Composition(name, tx, TREES[tree](), guard, placed, tree == "a module's", mesh, simplest)


def extra_arguments(params: Any, gradients: Any) -> dict[str, Any]:
    """What `update` may need; it takes no notice of the rest."""
    return {
        "value": jnp.asarray(1.5, jnp.float32),
        "grad": gradients,
        "value_fn": half_square,
        "obj_fn": half_square,
        "sampled_grad": lambda params: params,
        "grad_fn": lambda params, i: params,
    }
