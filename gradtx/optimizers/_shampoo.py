# SPDX-License-Identifier: Apache-2.0
"""Shampoo: a gradient multiplied along each axis by an inverse root of what gradients were along it."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._branching import branch
from gradtx.core._combine import chain
from gradtx.core._factory import per_matrix, transformation
from gradtx.core._ranges import Decay, Fraction, NonNegative, PositiveInt, is_number
from gradtx.core._transformation import GradientTransformationExtraArgs, check_transformation
from gradtx.core._types import Params, ScalarOrSchedule, Updates
from gradtx.numerics._averages import ema, one_minus_power, zeros_like
from gradtx.numerics._kronecker import (
    along_all,
    failed_roots,
    gram,
    if_finite,
    inverse_power,
    is_due,
    no_failures,
    taken,
)
from gradtx.numerics._ratios import l2_norm
from gradtx.numerics._safe import abs_sq, safe_divide, safe_sqrt
from gradtx.numerics._tensor_blocks import TensorBlocks, merged_shape, tensor_blocks
from gradtx.transforms._scaling import scale_by_lr
from gradtx.transforms._weight_decay import add_decayed_weights
from gradtx.wrappers import _grafting
from gradtx.wrappers._masked import MaskOfParams

GRAFTS = {"sgd": None, "adam": (0.999, True), "rmsprop": (0.99, False), "adagrad": (1.0, False)}
"""The decay of g², a sum for 1, and whether it is corrected for its start at 0; None without g²."""

GRAFT_EPS = 1e-10


class ShampooState(NamedTuple):
    """The number of updates made, the moving average of g, that of g² for the graft (or ()), and L and R.

    L and R of a parameter are a tuple for the shapes of its blocks, of a tuple for their axes, of stacks of matrices.
    `failures` is how often in a row a new R of the parameter was not finite.
    """

    count: jax.Array
    mu: Updates
    nu: Updates
    factors: Updates
    roots: Updates
    failures: Updates

    counts_from = {"count": 0}
    symmetric_fields = ("factors", "roots")

    def metrics(self) -> dict[str, jax.Array]:
        """Of the parameter with the most failures their number, as "failed_roots"."""
        return failed_roots(self.failures)


@transformation
def scale_by_shampoo(
    b1: Decay = 0.9,
    b2: Fraction = 1.0,
    eps: NonNegative = 1e-12,
    *,
    exponent: Any = None,
    precondition_frequency: PositiveInt = 1,
    start_step: PositiveInt | None = None,
    stagger: bool = False,
    graft: Any = None,
    block_size: PositiveInt = 1024,
    merge_dims: bool = False,
    bias_correction: bool = True,
    weight_dimension_numbers: Any | Callable[[Params], Any] = None,
) -> GradientTransformationExtraArgs:
    """Shampoo's direction, with L and R for each of the k axes of a block (written here for the two of a matrix):

    ```
    L1 = b2 L1 + w g gᵀ      L2 = b2 L2 + w gᵀ g      w = 1 - b2, or 1 if b2 is 1
    R  = (L / (1 - b2^t) + eps)^(-1 / (2 k))          at t = start_step, and later every f steps
    x  = (average of g by b1) / (1 - b1^t)            u = R1 x R2            (u = u ‖graft(x)‖ / (‖u‖ + 1e-16))
    ```

    R is 1 before the first root. A root that comes out with NaN or infinity is not taken: the old one stays, as long
    as it takes. How often that was so in a row is the metric "failed_roots", 0 after a root that is right. eps is
    absolute: of a matrix that is not square, and at early steps of any, L has a null space, where a small eps is a
    large factor.

    Args:
      b2: the decay of L; 1 for a sum.
      eps: what is added to the eigenvalues of L.
      exponent: None for 1 / (2 k); a number for blocks of any k, or a mapping from k to a number or to one for each
        axis. Without an entry for k, that is 1 / (2 k) again. 0 leaves an axis out.
      precondition_frequency: f, the number of steps between two roots.
      start_step: the step of the first root; None for f.
      stagger: whether the n kinds of matrices in the tree, by shape, dtype and role, have their roots after the first
        one f / n steps apart, so that steps take more nearly the same time.
      graft: whose norm each block of u gets, and what u is before `start_step`: "sgd" for x, "adam", "rmsprop" or
        "adagrad" for x / (sqrt(average or sum of g²) + 1e-10) with decays of 0.999, 0.99 and 1; None for none. Or a
        stage, whose updates for g give the norm of each parameter as in `graft`, from the first step.
      block_size: the longest side of a block: longer axes are cut.
      merge_dims: whether to leave out axes of length 1 and merge neighbors whose product is at most `block_size`.
      bias_correction: False leaves out the two divisions by 1 - bᵗ.
      weight_dimension_numbers: which axes are inputs and outputs of a matrix, as in `scale_by_muon`. None asks the
        roles; what has none there has L and R for each of its axes.

    References: Gupta et al. 2018, arXiv:1802.09568; Shi et al. 2023, arXiv:2309.06497 (blocks, grafting).
    """
    where = "scale_by_shampoo"
    if graft is not None and not isinstance(graft, str):
        check_transformation("scale_by_shampoo: graft", graft)
        alone = scale_by_shampoo(
            b1,
            b2,
            eps,
            exponent=exponent,
            precondition_frequency=precondition_frequency,
            start_step=start_step,
            stagger=stagger,
            block_size=block_size,
            merge_dims=merge_dims,
            bias_correction=bias_correction,
            weight_dimension_numbers=weight_dimension_numbers,
        )
        return _grafting.graft(alone, graft)
    if graft is not None and graft not in GRAFTS:
        raise ValueError(
            f"{where}: graft must be one of {', '.join(map(repr, GRAFTS))}, a stage or None, got {graft!r}"
        )
    _check_exponent(where, exponent)
    squares = None if graft is None else GRAFTS[graft]
    start = precondition_frequency if start_step is None else start_step

    def blocks_of(shape: tuple[int, ...]) -> tuple[tuple[int, ...], list[TensorBlocks]]:
        seen = merged_shape(shape, block_size) if merge_dims else shape or (1,)
        return seen, tensor_blocks(seen, block_size)

    def init(p):
        shape, blocks = blocks_of(p.shape)
        axes = [axis for axis, power in enumerate(_exponents(exponent, len(shape))) if power]
        sides = [[(b.number, b.shape[axis], b.shape[axis]) for axis in axes] for b in blocks]
        factors = tuple(tuple(jnp.zeros(s, p.dtype) for s in of_one) for of_one in sides)
        roots = tuple(tuple(jnp.broadcast_to(jnp.eye(s[-1], dtype=p.dtype), s) for s in of_one) for of_one in sides)
        return zeros_like(p), zeros_like(p, real=True) if squares else (), factors, roots, no_failures()

    def enter(g, mu, p, t):
        mu = ema(mu, g, b1)
        return (g, mu / one_minus_power(b1, t) if bias_correction else mu), mu

    def update(entered, slots, p, t, turn=(0, 1)):
        (g, x), (nu, factors, roots, failures) = entered, slots
        grafted = x
        if squares:
            decay, corrected = squares
            nu = decay * nu + (1 if decay == 1 else 1 - decay) * abs_sq(g)
            size = nu / one_minus_power(decay, t) if corrected else nu
            grafted = safe_divide(x, safe_sqrt(size) + GRAFT_EPS)
        shape, blocks = blocks_of(g.shape)
        powers = _exponents(exponent, len(shape))
        axes = tuple(axis for axis, power in enumerate(powers) if power)
        weight = jnp.where(b2 == 1, 1, 1 - b2)
        total = jnp.where((b2 == 1) | (not bias_correction), 1, one_minus_power(b2, t))
        due = (t == start) | ((t > start) & is_due(t, precondition_frequency, turn))

        def grown(old: Any, one: jax.Array) -> Any:
            return tuple(if_finite(b2 * f + weight * gram(one, a), f) for f, a in zip(old, axes, strict=True))

        def rooted() -> Any:
            root = [jax.vmap(lambda f, power=powers[a]: inverse_power(f / total, eps, power)) for a in axes]
            found = tuple(tuple(r(f) for r, f in zip(root, one, strict=True)) for one in new)
            return taken(found, roots, failures)

        def direction(one: jax.Array, of_graft: jax.Array, roots: Any) -> jax.Array:
            found = along_all(one, roots, axes)
            return found if graft is None else found * (l2_norm(of_graft) / (l2_norm(found) + 1e-16))

        of_g, of_x, of_graft = (y.reshape(shape) for y in (g, x, grafted))
        pairs = zip(factors, blocks, strict=True)
        new = tuple(jax.vmap(grown)(old, part.taken_from(of_g)) for old, part in pairs)
        roots, failures = branch(due, rooted, lambda: (roots, failures))
        u = jnp.zeros(shape, x.dtype)
        for part, root in zip(blocks, roots, strict=True):
            found = jax.vmap(direction)(part.taken_from(of_x), part.taken_from(of_graft), root)
            u = part.put_into(u, found)
        u = u.reshape(g.shape)
        return u if graft is None else jnp.where(t < start, grafted, u), (nu, new, roots, failures)

    return per_matrix(
        init,
        update,
        ShampooState,
        enter=enter,
        entering=("mu",),
        weight_dimension_numbers=weight_dimension_numbers,
        modes="all",
        takes_turns=stagger,
    )


def _exponents(exponent: Any, order: int) -> tuple[float, ...]:
    """What -1 times the power of the factor of each axis is, for a block with so many axes."""
    given = exponent.get(order) if isinstance(exponent, Mapping) else exponent
    if isinstance(given, tuple | list):
        return tuple(given)
    return (1 / (2 * order) if given is None else given,) * order


def _check_exponent(where: str, exponent: Any) -> None:
    entries = exponent.items() if isinstance(exponent, Mapping) else [] if exponent is None else [(None, exponent)]
    for order, given in entries:
        numbers = given if order is not None and isinstance(given, tuple | list) else [given]
        if not all(is_number(x) and 0 <= x < float("inf") for x in numbers):
            raise ValueError(
                f"{where}: exponent must be None, a number >= 0, or a mapping from a number of axes to a number or "
                f"to a tuple of one for each axis, got {exponent!r}"
            )
        if numbers is given and len(given) != order:
            raise ValueError(f"{where}: exponent must have {order} numbers for {order} axes, got {given!r}")


@transformation
def shampoo(
    learning_rate: ScalarOrSchedule,
    b1: Decay = 0.9,
    b2: Fraction = 1.0,
    eps: NonNegative = 1e-12,
    weight_decay: NonNegative = 0.0,
    *,
    exponent: Any = None,
    precondition_frequency: PositiveInt = 1,
    start_step: PositiveInt | None = None,
    stagger: bool = False,
    graft: Any = None,
    block_size: PositiveInt = 1024,
    merge_dims: bool = False,
    bias_correction: bool = True,
    mask: MaskOfParams | None = None,
    weight_dimension_numbers: Any | Callable[[Params], Any] = None,
) -> GradientTransformationExtraArgs:
    """Shampoo for all parameters, with the step size of another method where there is a `graft`.

    See `scale_by_shampoo` for the formula.

    Args:
      b2: the decay of L; 1 for a sum.
      eps: what is added to the eigenvalues of L.
      exponent, precondition_frequency, start_step, stagger, graft, block_size, merge_dims: see `scale_by_shampoo`.
      mask: where to decay, see `add_decayed_weights`.
      weight_dimension_numbers: see `scale_by_shampoo`.

    References: Gupta et al. 2018, arXiv:1802.09568; Shi et al. 2023, arXiv:2309.06497.
    """
    direction = scale_by_shampoo(
        b1,
        b2,
        eps,
        exponent=exponent,
        precondition_frequency=precondition_frequency,
        start_step=start_step,
        stagger=stagger,
        graft=graft,
        block_size=block_size,
        merge_dims=merge_dims,
        bias_correction=bias_correction,
        weight_dimension_numbers=weight_dimension_numbers,
    )
    return chain(direction, add_decayed_weights(weight_decay, mask), scale_by_lr(learning_rate))
