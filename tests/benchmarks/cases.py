# SPDX-License-Identifier: Apache-2.0
"""All that is measured, by the table that it stands in. A case is `recipe/tree`, and compares what solves one task."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

import gradtx
from gradtx import Role
from gradtx.precision import bfloat16, companded8, int4, int8

from . import trees
from .contenders import Contender
from .trees import FULL, Params, Size

RATE = 1e-3

BANDWIDTH = "copy"
"""A loop that only moves bytes, as many as a step must: where a step is bound by memory, it is measured too."""

ANEW = "not in place"
"""The contender whose results lie in memory of their own."""


class Case(NamedTuple):
    """Contenders by name, and the one to which the others' ratios are taken: the first, where it takes no part."""

    name: str
    contenders: dict[str, Contender]
    over: str = "optax"
    torch: str | None = None
    """What the recipe is called in `torch_steps`."""
    reads: int = 1
    """How often each gradient must be read: twice where a norm of all is needed first."""
    memory_bound: bool = False
    """Whether `BANDWIDTH` is one of the steps."""

    @property
    def ours(self) -> Contender:
        return next(iter(self.contenders.values()))


FIRST_ORDER: dict[str, Callable[[Any], Any]] = {
    "sgd": lambda library: library.sgd(RATE, momentum=0.9),
    "adam": lambda library: library.adam(RATE),
    "clip_adamw": lambda library: library.chain(library.clip_by_global_norm(1.0), library.adamw(RATE)),
    "lion": lambda library: library.lion(RATE),
    "adafactor": lambda library: library.adafactor(RATE),
    "lamb": lambda library: library.lamb(RATE),
    "adamw": lambda library: library.adamw(RATE),
}
"""Both libraries call them the same. The last is not among the 18: clipping is what differs."""


def paired(name: str, make: Callable[[Any], Any], params: Callable[[], Params], **options: Any) -> Case:
    """gradtx and Optax, on the same parameters."""
    ours = Contender(partial(make, gradtx), params)
    theirs = Contender(partial(make, optax), params, optax.apply_updates)
    return Case(name, {"gradtx": ours, "optax": theirs}, **options)


def first_order(size: Size) -> list[Case]:
    shapes = {"large": trees.large, "gpt": trees.gpt, "leaves": lambda size: trees.small_leaves(size.leaves)}
    return [
        paired(
            f"{recipe}/{tree}",
            make,
            partial(params, size),
            torch=recipe,
            reads=2 if recipe == "clip_adamw" else 1,
            memory_bound=tree == "large" and size is FULL,
        )
        for tree, params in shapes.items()
        for recipe, make in FIRST_ORDER.items()
    ]


def many_leaves(size: Size) -> list[Case]:
    params = partial(trees.small_leaves, size.many)
    return [paired(f"{name}/many", FIRST_ORDER[name], params, torch=name) for name in ("sgd", "adamw")]


def packed(size: Size) -> list[Case]:
    """Whether it is worth it to keep the moments of many leaves as one array."""
    case = paired("packed/leaves", FIRST_ORDER["adam"], partial(trees.small_leaves, size.leaves))
    in_one = Contender(lambda: packing(gradtx.adam(RATE)), case.ours.params)
    return [case._replace(contenders={"packed": in_one, **case.contenders})]


def packing(tx: Any) -> Any:
    """All gradients as one leaf, and so the state too."""

    def init(params: Params) -> Any:
        return tx.init(ravel_pytree(params)[0])

    def update(updates: Params, state: Any, params: Params = None) -> tuple[Params, Any]:
        flat, unpack = ravel_pytree(updates)
        flat, state = tx.update(flat, state)
        return unpack(flat), state

    return gradtx.GradientTransformation(init, update)


def floor(size: Size) -> list[Case]:
    """Where the time of a step on one large leaf goes: beside a loop that moves the same bytes, in place and not."""
    cases = []
    for recipe in ("sgd", "adam", "adamw", "lion"):
        case = paired(f"{recipe}/floor", FIRST_ORDER[recipe], partial(trees.large, size), torch=recipe)
        anew = {ANEW: case.ours._replace(in_place=False)}
        by_hand = {"by hand": Contender(adam_by_hand, case.ours.params)} if recipe == "adam" else {}
        contenders = {**case.contenders, **by_hand, **anew}
        cases.append(case._replace(contenders=contenders, over=BANDWIDTH, memory_bound=True))
    return cases


def adam_by_hand() -> Any:
    """Four arrays read and three written, as Adam does, with nothing else: what XLA makes of so little."""

    def init(params: Params) -> Any:
        return jax.tree.map(jnp.zeros_like, (params, params))

    def update(grads: Params, state: Any, params: Params) -> tuple[Params, Any]:
        mu = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, state[0], grads)
        nu = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, state[1], grads)
        return jax.tree.map(lambda m, v: -RATE * m / (jnp.sqrt(v) + 1e-8), mu, nu), (mu, nu)

    return gradtx.GradientTransformation(init, update)


def muon(library: Any) -> Any:
    return optax.contrib.muon(RATE) if library is optax else library.muon(RATE)


LAYERS = ("layers/**", Role("hidden", stack=0))
"""They lie along the first axis."""


def matrices(size: Size) -> list[Case]:
    """Muon beside Optax's; Shampoo and SOAP, which Optax has not, beside AdamW."""
    layers, half = partial(trees.matrices_of_layers, size), partial(trees.half_of_the_matrices, size)
    stacked = Contender(lambda: gradtx.with_roles([LAYERS], gradtx.muon(RATE)), partial(trees.stacked_matrices, size))
    separate = Contender(lambda: optax.contrib.muon(RATE), half, optax.apply_updates)
    adamw = Contender(lambda: gradtx.adamw(RATE), layers)
    return [
        paired("muon/matrices", muon, partial(trees.matrices, size), torch="muon"),
        Case("muon/stack", {"gradtx": stacked, "optax": separate}),
        paired("muon/layers", muon, layers, torch="muon"),
        Case("shampoo/layers", {"gradtx": Contender(lambda: gradtx.shampoo(RATE), layers), "adamw": adamw}, "adamw"),
        Case("soap/layers", {"gradtx": Contender(lambda: gradtx.soap(RATE), layers), "adamw": adamw}, "adamw"),
    ]


def stacks(size: Size) -> list[Case]:
    """The layers of a transformer as leaves of their own, and as one leaf a parameter, with roles."""
    found = []
    for recipe in ("clip_adamw", "lamb"):
        make = partial(FIRST_ORDER[recipe], gradtx)
        with_roles = partial(lambda make: gradtx.with_roles([LAYERS, ("**", Role())], make()), make)
        stacked = Contender(with_roles, partial(trees.stacked_gpt, size))
        case = paired(f"{recipe}/stack", FIRST_ORDER[recipe], partial(trees.gpt, size))
        found.append(case._replace(contenders={"stacked": stacked, **case.contenders}))
    return found


def groups(size: Size) -> list[Case]:
    """Ten groups with learning rates of their own."""
    layers = min(6, size.layers)
    choices = ["embed", "head", "positions", *(f"layers/{i}/**" for i in range(layers))]
    factors = {where: 1.0 - 0.05 * (i + 1) for i, where in enumerate(choices)}

    def label(params: Params) -> Any:
        """The same groups for `partition`."""
        labels = {name: name for name in ("embed", "head", "positions")}
        in_layers = {name: f"layers/{name}/**" for name in params["layers"]}
        known = {**labels, "layers": {name: where if where in choices else "" for name, where in in_layers.items()}}
        return {**known, "norm": ""}

    def in_groups() -> Any:
        rules = [(where, {"learning_rate": gradtx.times(factor)}) for where, factor in factors.items()]
        return gradtx.groups(rules, gradtx.adamw(RATE))

    def in_parts() -> Any:
        return gradtx.partition({x: gradtx.adamw(RATE * f) for x, f in {**factors, "": 1.0}.items()}, label)

    makers = {"groups": in_groups, "no groups": lambda: gradtx.adamw(RATE), "partition": in_parts}
    params = partial(trees.gpt, size)
    return [Case("groups/gpt", {name: Contender(make, params) for name, make in makers.items()}, "no groups")]


def moments_in(mu: Any, nu: Any) -> Any:
    stage = gradtx.stored(gradtx.scale_by_adam(), {"mu": mu, "nu": nu})
    return gradtx.chain(stage, gradtx.add_decayed_weights(1e-4), gradtx.scale_by_lr(RATE))


MOMENTS: dict[str, Callable[[], Any]] = {
    "adamw8bit": lambda: gradtx.adamw8bit(RATE),
    "float32": lambda: gradtx.adamw(RATE),
    "bfloat16": lambda: moments_in(bfloat16(), bfloat16()),
    "companded8": lambda: moments_in(companded8(), companded8(signed=False, stochastic=True)),
    "companded8, to the nearest": lambda: moments_in(companded8(stochastic=False), companded8(signed=False)),
    "int8, to the nearest": lambda: moments_in(int8(stochastic=False), int8(signed=False)),
    "int4": lambda: moments_in(int4(), int4(signed=False)),
}


def moments(size: Size) -> list[Case]:
    """AdamW's moments in few bits, beside float32."""
    params = partial(trees.large, size)
    return [Case("moments/large", {name: Contender(make, params) for name, make in MOMENTS.items()}, "float32")]


TABLES: dict[str, Callable[[Size], list[Case]]] = {
    "first-order": first_order,
    "floor": floor,
    "many": many_leaves,
    "packed": packed,
    "stacks": stacks,
    "matrices": matrices,
    "groups": groups,
    "moments": moments,
}


def all_cases(size: Size) -> dict[str, list[Case]]:
    return {table: make(size) for table, make in TABLES.items()}


def in_the_mean(name: str) -> bool:
    """Whether a case is one of the 18 whose geometric mean is compared with Optax."""
    recipe, tree = name.split("/")
    return recipe in FIRST_ORDER and recipe != "adamw" and tree in ("large", "gpt", "leaves")
