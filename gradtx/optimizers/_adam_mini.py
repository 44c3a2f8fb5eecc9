# SPDX-License-Identifier: Apache-2.0
"""Adam-mini: Adam with one second moment for each block of a parameter, such as a neuron or a head."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core._combine import chain
from gradtx.core._dtypes import widen
from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import Decay, DType, NonNegative
from gradtx.core._roles import Role, is_box, is_full_box, logical_view, unboxed
from gradtx.core._stacks import Stacked, over_stack, stack_axes
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._trees import align, show_path
from gradtx.core._types import Params, ScalarOrSchedule
from gradtx.numerics._averages import correction, ema, zeros_like
from gradtx.numerics._blocks import block_mean, spread_blocks
from gradtx.numerics._safe import abs_sq, safe_divide, safe_sqrt
from gradtx.optimizers._adam import ScaleByAdamState
from gradtx.transforms._scaling import scale_by_lr
from gradtx.transforms._weight_decay import add_decayed_weights
from gradtx.wrappers._masked import MaskOfParams

Blocks = Any | Callable[[str, jax.Array], Any]


@transformation
def scale_by_adam_mini(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    *,
    blocks: Blocks = None,
    mu_dtype: DType = None,
    nu_dtype: DType = None,
) -> GradientTransformationExtraArgs:
    """`scale_by_adam` with nu = b2 nu + (1 - b2) mean(g²), one number for each block of a parameter.

    Args:
      blocks: the number of equal blocks along each axis, -1 for as many as the axis is long: (1, -1) makes a block of
        each column, (-1, 1) of each row (a token of an embedding), (1, 8) of each of eight heads side by side, and
        (-1, -1) is plain Adam. Given as a tree of such tuples like the parameters or a prefix of it, or as a function
        of a parameter's path ("layers/0/kernel") and the parameter. None, for one or for all, decides by role: a block
        for each head if the outputs have heads, for each token in embeddings and output layers, else for each output
        neuron. A parameter without a role has a block for each index of its last axis, a vector a single block.
      mu_dtype, nu_dtype: the dtypes in which the moments are stored; None for at least float32.

    Raises:
      ValueError: if the blocks do not fit a parameter, with its path; at `init`.

    Reference: Zhang et al. 2024, arXiv:2406.16793, algorithms 1 and 3.
    """
    if blocks is not None:
        # Only the shape of nu differs from the default, and `update` reads it off the state.
        usual = scale_by_adam_mini(b1, b2, eps, eps_root, mu_dtype=mu_dtype, nu_dtype=nu_dtype)

        def init_blocks(params: Params) -> ScaleByAdamState:
            leaves, treedef = jax.tree.flatten(params, is_leaf=is_full_box)
            counts = jax.tree.leaves(_counts_of_all(blocks, logical_view(params)), is_leaf=_is_entry)
            return usual.init(params)._replace(nu=treedef.unflatten(map(nu_of, leaves, counts)))

        def nu_of(leaf: Any, counts: tuple[int, ...]) -> jax.Array:
            zeros = _zeros(unboxed(leaf), nu_dtype)
            stack = stack_axes(leaf.role, zeros.ndim) if is_box(leaf) else ()
            cut = Stacked(zeros, stack) if stack else zeros
            return over_stack(lambda x: block_mean(x, counts), stack, zeros.shape, cut)

        return GradientTransformationExtraArgs(init_blocks, usual.update)

    def init(p, role):
        blocks = _blocks_of(role, p.ndim)
        counts = _counts(blocks, "the parameter", p)
        return zeros_like(p, mu_dtype), block_mean(_zeros(p, nu_dtype), counts, _singles(blocks))

    def shared(t, total):
        return correction(b1, t), correction(b2, t)

    def update(g, slots, p, t, corrections, role):
        (mu, nu), (of_mu, of_nu) = slots, corrections
        blocks = _blocks_of(role, g.ndim)
        usual = nu.shape == _counts(blocks, "the parameter", g)
        mu, nu = ema(mu, g, b1), ema(nu, block_mean(abs_sq(g), nu.shape, _singles(blocks) if usual else ()), b2)
        return safe_divide(of_mu * mu, spread_blocks(safe_sqrt(of_nu * nu + eps_root) + eps, g.shape)), (mu, nu)

    return per_parameter(init, update, ScaleByAdamState, shared=shared, uses_role=True)


def _blocks_of(role: Role | None, ndim: int) -> tuple[int, ...]:
    """The blocks that a role asks for, or the default ones."""
    default = (*(1,) * (ndim - 1), -1) if ndim > 1 else (1,) * ndim
    if role is None or ndim < 2:
        return default
    lines = role.in_axes if role.kind == "embedding" else role.out_axes
    lines = (role.heads,) if role.heads is not None and role.heads in role.out_axes else lines
    return tuple(-1 if axis in lines else 1 for axis in range(ndim)) if lines else default


def _singles(blocks: tuple[int, ...]) -> tuple[int, ...]:
    """The axes along which each element is a block."""
    return tuple(axis for axis, n in enumerate(blocks) if n == -1)


def _zeros(p: Any, dtype: Any) -> jax.Array:
    p = jnp.asarray(p)
    return zeros_like(widen(p), dtype, real=True)


def _counts(blocks: Any, where: str, p: Any) -> tuple[int, ...]:
    """The number of blocks along each axis of a parameter."""
    shape = jnp.shape(p)
    if blocks is None:
        blocks = (*(1 for _ in shape[1:]), -1) if len(shape) > 1 else (1,) * len(shape)
    if not _is_entry(blocks) or len(blocks) != len(shape):
        raise ValueError(
            f"scale_by_adam_mini: blocks at {where} must be a tuple of {len(shape)} whole numbers, one for each axis "
            f"of shape {shape}, got {blocks!r}"
        )
    counts = tuple(size if n == -1 else n for n, size in zip(blocks, shape, strict=True))
    for axis, (n, size) in enumerate(zip(counts, shape, strict=True)):
        if n != size and (n < 1 or size % n):
            raise ValueError(f"scale_by_adam_mini: blocks at {where}: {n} does not divide axis {axis} of shape {shape}")
    return counts


def _counts_of_all(blocks: Blocks, params: Params) -> Any:
    """For each parameter the numbers of blocks along its axes, in a tree like the parameters."""

    def counts(path: tuple, p: Any, entry: Any) -> tuple[int, ...]:
        if callable(blocks):
            entry = blocks(jax.tree_util.keystr(path, simple=True, separator="/"), p)
        return _counts(entry, show_path(path), p)

    entries, treedef = jax.tree.flatten(None if callable(blocks) else blocks, is_leaf=_is_entry)
    parts = align(treedef, params, "scale_by_adam_mini", "the parameters", blocks, "the blocks")
    full = [jax.tree.map(lambda _, entry=entry: entry, part) for entry, part in zip(entries, parts, strict=True)]
    return jax.tree.map_with_path(counts, params, jax.tree.unflatten(treedef, full))


def _is_entry(x: Any) -> bool:
    return x is None or (isinstance(x, tuple) and all(isinstance(n, int) for n in x))


@transformation
def adam_mini(
    learning_rate: ScalarOrSchedule,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    weight_decay: NonNegative = 0.0,
    mask: MaskOfParams | None = None,
    *,
    blocks: Blocks = None,
    mu_dtype: DType = None,
    nu_dtype: DType = None,
) -> GradientTransformationExtraArgs:
    """Adam-mini: p = p - learning_rate (mu / sqrt(nu) + weight_decay p), with a second moment nu for each block.

    The state is about half the size of Adam's. In the paper, the blocks of a transformer are the heads of queries and
    keys, the tokens of embedding and output layer, and the output neurons of all other matrices.

    Args:
      blocks: the blocks of each parameter, see `scale_by_adam_mini`.
      mask: where to decay, see `add_decayed_weights`.

    Reference: Zhang et al. 2024, arXiv:2406.16793.
    """
    return chain(
        scale_by_adam_mini(b1, b2, eps, eps_root, blocks=blocks, mu_dtype=mu_dtype, nu_dtype=nu_dtype),
        add_decayed_weights(weight_decay, mask),
        scale_by_lr(learning_rate),
    )
