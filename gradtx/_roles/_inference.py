# SPDX-License-Identifier: Apache-2.0
"""Roles guessed from the names that libraries give to parameters, and from the classes of their layers."""

import functools
import re
import warnings
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._checked import checked
from gradtx.core._kinds import ShapesTree
from gradtx.core._roles import Role, is_absent, opened
from gradtx.core._selectors import is_entry, named_leaves

NORM = {"norm", "norms", "normalization", "ln", "bn", "gn", "rms"}
SCALE = {"scale", "gamma", "g", "weight", "w"}
BIAS = {"bias", "biases", "offset", "beta", "shift"}
EMBEDDING = {"embedding", "embeddings", "embed", "embeds", "emb", "wte", "wpe"}
HEAD = {"head", "classifier", "logits", "unembed", "unembedding", "readout"}
WEIGHT = {"kernel", "kernels", "weight", "weights"}
PROJECTION = {"query", "key", "value", "q", "k", "v"}
OUTPUT = {"out", "output", "o"}
STACKED = {"layers", "blocks", "h"}
SCANNED = {"scan", "scanned", "stack", "stacked"}
LAYERS = ("equinox.nn", "flax.nnx.nn")
TALL = 5
"""A matrix with at least so many times as many rows as columns is rather a table than the matrix of a product."""


class Clues(NamedTuple):
    """A parameter as far as guesses need it: the names on its path, its shape, and the class of its layer if known."""

    parts: tuple[str, ...]
    shape: tuple[int, ...]
    layer: str = ""

    @property
    def leaf(self) -> str:
        return self.parts[-1].lower() if self.parts else ""

    @property
    def module(self) -> str:
        return self.parts[-2] if len(self.parts) > 1 else ""

    @property
    def holder(self) -> tuple[str, ...]:
        """The words that tell what holds it: of the class of its layer or, if that is not known, of its module."""
        return words(self.layer or self.module)


@checked
def infer_roles(params: ShapesTree, *, stack: int | Iterable[int] | None = None) -> Any:
    """Guesses the role of each parameter from the names that Flax, Haiku, Equinox and PyTorch give, and from its rank.

    The names of the parameter and of its module decide: see "Roles" in the docs for the whole list. Where the tree has
    layers of `equinox.nn` or `flax.nnx` in it, their class says more than the name of the module. Print
    `as_rules(infer_roles(params))`, and edit the rules where the guess is wrong.

    - "bias": `bias`, `offset`, `beta`, and vectors `b`; "norm": `scale`, `gamma`, weights in modules such as
      `LayerNorm_0`, `ln_f`, vectors `weight`; "embedding": `embedding`, `wte`, `embed_tokens/weight`; "head": matrices
      in `lm_head`, `logits`, `classifier`; "hidden": all other `kernel`, `weight`, `w`; "other": the rest.
    - A `kernel` or `w` is (space..., inputs, outputs), a `weight` (outputs, inputs, space...), a `kernel` of rank 3 in
      `query`, `key`, `value` (inputs, heads, outputs), in `out` beside them (heads, inputs, outputs).
    - A stack on axis 0 is guessed below `layers`, `blocks`, `h` or a name with `scan` or `stack`, where no index
      follows, all sizes along it are equal, and the scale of a norm has rank 2, or a bias (stack, outputs) has.

    Args:
      stack: the stack axes of all these parameters; () for none, None to guess them.

    Raises:
      ValueError: for a stack axis that a parameter does not have.

    Warns:
      UserWarning: once for each path, if the first matrix has far more rows than columns, as tables that are indexed
        have, and nothing says what it is.
    """
    names, leaves, treedef = named_leaves(params)
    rows = zip(names, leaves, _layers(params), strict=True)
    known = [None if is_absent(leaf) else clues(name, leaf, layer) for name, leaf, layer in rows]
    there = [p for p in known if p is not None]
    modules = modules_of(there)
    if stack is None:
        stacks = guess_stacks(there)
        found = [None if p is None else guess(p, stacks.get(p.parts, ()), modules) for p in known]
    else:
        axes = Role(stack=stack).stack  # type: ignore[arg-type]  # checked there
        found = [None if p is None else guess(p, axes, modules) for p in known]
    _look_for_a_table(known, found)
    return jax.tree.unflatten(treedef, found)


def clues(name: str, leaf: Any, layer: str = "") -> Clues:
    return Clues(tuple(name.split("/")), jnp.shape(opened(leaf)), layer)


def _layers(tree: Any, layer: str = "") -> list[str]:
    """For each leaf the name of the class of the layer that it is in, "" for none that is known."""
    if is_entry(tree):
        return [layer]
    children = jax.tree.leaves(tree, is_leaf=lambda x: x is not tree)
    if children and children[0] is tree:
        return [layer]
    layer = next((c.__name__ for c in type(tree).__mro__ if c.__module__.startswith(LAYERS)), layer)
    return [name for child in children for name in _layers(child, layer)]


def _look_for_a_table(known: list[Clues | None], found: list[Role | None]) -> None:
    matrices = [(p, r) for p, r in zip(known, found, strict=True) if p and r and len(p.shape) - len(r.stack) == 2]
    for p, role in matrices[:1]:
        rows, columns = (n for axis, n in enumerate(p.shape) if axis not in role.fitted(len(p.shape)).stack)
        unclear = role.kind == "other" or role.kind == "hidden" and p.leaf == "weight" and not p.layer
        if unclear and rows >= TALL * columns:
            _warn_of_a_table("/".join(p.parts), p.shape, role.kind)


def _warn_of_a_table(path: str, shape: tuple[int, ...], kind: str) -> None:
    warnings.warn(
        f"infer_roles: {path}, of shape {shape}, is taken for {kind!r}, but looks like a table that is indexed; if so, "
        f"say it by a rule before the guess, ({path!r}, Role('embedding'))",
        stacklevel=4,
    )


def modules_of(parameters: Iterable[Clues]) -> set[tuple[str, ...]]:
    return {p.parts[:-1] for p in parameters}


def guess(p: Clues, stack: tuple[int, ...], modules: set[tuple[str, ...]], heads: int | None = None) -> Role:
    """The role by names, with these stack axes and, if known, this axis of heads, counted from the end."""
    try:
        left = _left(stack, len(p.shape))
    except ValueError as error:
        raise ValueError(f"infer_roles: {'/'.join(p.parts)}, of shape {p.shape}: {error}") from None
    kind = _kind(p, len(left))
    if kind not in ("hidden", "head", "embedding"):
        return _shared(kind, stack)
    in_axes, out_axes, heads = _axes(p, kind, len(left), modules, heads)
    at = [axis - len(p.shape) for axis in left]
    in_axes, out_axes = (tuple(at[a] for a in axes) for axes in (in_axes, out_axes))
    return _shared(kind, stack, in_axes, out_axes, None if heads is None else at[heads])


# Cached, since roles are guessed whenever a step is traced, and few of them are different.
_shared = functools.lru_cache(maxsize=4096)(Role)


@functools.lru_cache(maxsize=4096)
def _left(stack: tuple[int, ...], ndim: int) -> tuple[int, ...]:
    """The axes that are not stacked."""
    stacked = Role(stack=stack).fitted(ndim).stack
    return tuple(axis for axis in range(ndim) if axis not in stacked)


def _kind(p: Clues, rank: int) -> Any:
    own, module = words(p.parts[-1]) if p.parts else (), p.holder
    if _ends(own, BIAS) or _ends(own, {"b"}) and rank <= 1:
        return "bias"
    in_norm = _is_norm(module) and p.leaf in SCALE
    if in_norm or _is_norm(own) or p.leaf in ("scale", "gamma") or p.leaf == "weight" and rank == 1:
        return "norm"
    # A `kernel` in a module of this name is a matrix of a product, as in the embedding of image patches.
    if EMBEDDING & set(own) or EMBEDDING & set(module) and p.leaf == "weight" and rank == 2:
        return "embedding"
    if rank < 2 or not any(w in WEIGHT or re.fullmatch("w[a-z]?", w) for w in own):
        return "other"
    name = words(p.module)
    return "head" if _ends(name, HEAD) and name[:1] != ("multi",) else "hidden"


def _axes(p: Clues, kind: str, rank: int, modules: set, heads: int | None) -> tuple:
    """The axes of inputs, outputs and heads, from the end, among those that are not stacked."""
    axes = tuple(range(-rank, 0))
    if kind == "embedding":
        return ((-2,), (-1,), heads) if rank == 2 else ((), (), heads)
    is_kernel = p.leaf in ("kernel", "w")
    if heads is None and rank == 3 and is_kernel:
        heads = _heads(p, modules)
    if heads is not None and rank == 3:
        return (axes[:2], axes[2:], heads) if heads == -3 else (axes[:1], axes[1:], heads)
    if "weight" in words(p.leaf):
        return axes[1:], axes[:1], heads
    return (axes[:-1], axes[-1:], heads) if rank == 2 or is_kernel else ((), (), heads)


def _heads(p: Clues, modules: set) -> int | None:
    """The axis of heads of a kernel of rank 3 in an attention module; None if it has none."""
    if _ends(words(p.module), PROJECTION):
        return -2
    beside = (words(other[-1]) for other in modules if other and other[:-1] == p.parts[:-2])
    return -3 if _ends(words(p.module), OUTPUT) and any(_ends(name, PROJECTION) for name in beside) else None


def guess_stacks(parameters: list[Clues]) -> dict[tuple[str, ...], tuple[int, ...]]:
    """The stack axes, by path, of the parameters for which there is evidence of a stack."""
    branches: dict[tuple[str, ...], list[Clues]] = {}
    for p in parameters:
        for n in range(1, len(p.parts)):
            if _names_stack(p.parts[n - 1]):
                branches.setdefault(p.parts[:n], []).append(p)
    found: dict[tuple[str, ...], tuple[int, ...]] = {}
    for branch, below in branches.items():
        sizes = {p.shape[:1] for p in below}
        indexed = any(p.parts[len(branch)].isdigit() for p in below)
        if len(below) > 1 and len(sizes) == 1 and min(sizes) > (1,) and not indexed and _has_evidence(below):
            found |= {p.parts: (0,) for p in below}
    return found


def _has_evidence(below: list[Clues]) -> bool:
    """Whether a parameter that is a vector in each layer is a matrix here, so that one of its axes is the stack's."""
    shapes = {p.parts: p.shape for p in below}

    def beside(p: Clues) -> list[tuple[int, ...]]:
        return [shapes[path] for name in ("kernel", "w", "weight") if (path := (*p.parts[:-1], name)) in shapes]

    def is_vector_of_stack(p: Clues) -> bool:
        kind = _kind(p, 1)
        if kind == "bias":
            return any(len(s) == 3 and p.shape in ((s[0], s[1]), (s[0], s[2])) for s in beside(p))
        return kind == "norm" and (_is_norm(p.holder) or p.leaf in ("scale", "gamma"))

    return any(len(p.shape) == 2 and is_vector_of_stack(p) for p in below)


def _names_stack(part: str) -> bool:
    found = words(part)
    return bool(SCANNED & set(found)) or bool(found) and found[-1] in STACKED


def _is_norm(found: tuple[str, ...]) -> bool:
    return any(w in NORM or w.endswith("norm") for w in found)


def _ends(found: tuple[str, ...], names: set[str]) -> bool:
    """Whether the last word of a name is one of these; numbers and a final "proj" or "projection" do not count."""
    left = [w for w in found if not w.isdigit() and w not in ("proj", "projection")]
    return bool(left) and left[-1] in names


@functools.lru_cache(maxsize=4096)
def words(part: str) -> tuple[str, ...]:
    """The words of a name: "LayerNorm_0" has layer, norm, 0."""
    return tuple(w.lower() for w in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", part))
