# SPDX-License-Identifier: Apache-2.0
"""Muon: orthogonalized momentum for matrices, Adam for everything else."""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core._combine import chain, identity
from gradtx.core._dtypes import widen
from gradtx.core._factory import per_matrix, transformation
from gradtx.core._matrices import Modes, is_numbers, modes_of
from gradtx.core._over_devices import whole_shape_of
from gradtx.core._prefixes import of_boxes, said_of
from gradtx.core._ranges import Decay, DType, NonNegative, PositiveInt
from gradtx.core._roles import is_box, is_full_box, splits_of, unboxed
from gradtx.core._said import check_said
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._trees import is_hole, is_none
from gradtx.core._types import OptState, Params, ScalarOrSchedule, Updates
from gradtx.numerics._averages import ema, unbiased, weighted, zeros_like
from gradtx.numerics._equilibration import Renormalization, Sides, equilibrated, renormalized
from gradtx.numerics._newton_schulz import QUINTIC, Preconditioning, coefficients_of, orthogonalized
from gradtx.optimizers._adam import scale_by_adam
from gradtx.transforms._scaling import scale_by_lr
from gradtx.transforms._weight_decay import add_decayed_weights
from gradtx.wrappers._masked import MaskOfParams
from gradtx.wrappers._partition import partition


class MuonState(NamedTuple):
    """The number of updates made, the moving average of g, and the coefficients of the iteration."""

    count: jax.Array
    mu: Updates
    ns_coeffs: jax.Array

    counts_from = {"count": 0}


@transformation
def scale_by_muon(
    ns_coeffs: Any = QUINTIC,
    ns_steps: PositiveInt = 5,
    beta: Decay = 0.95,
    eps: NonNegative = 1e-8,
    mu_dtype: DType = None,
    *,
    nesterov: bool = True,
    adaptive: bool = False,
    preconditioning: Preconditioning = "frobenius",
    weight_dimension_numbers: Any | Callable[[Params], Any] = None,
    ns_dtype: DType = None,
    bias_correction: bool = True,
    equilibrate: Sides = None,
    renormalize: Renormalization = None,
) -> GradientTransformationExtraArgs:
    """Muon's direction: the momentum of each matrix with all singular values set to about 1.

    ```
    mu = beta mu + (1 - beta) g        m = mu, or beta mu + (1 - beta) g with `nesterov`, bias-corrected
    u  = NewtonSchulz(m)               (times ⟨m, u⟩ if `adaptive`)
    ```

    Args:
      ns_coeffs: the three coefficients of all iterations, a row of three for each, or a name: "quintic" has the same
        for all; "dion" (also "quintic5"), "polar_express", "polar_express8", "cans", "aol" (with that preconditioning),
        "deepseek_v4" and "cubic5" a row for each; "exact" is a singular value decomposition.
      ns_steps: the number of iterations; ignored if there is a row for each.
      eps: added to the norm that m is divided by, so that a momentum of 0 gives 0.
      adaptive: True multiplies u by ⟨m, u⟩, about the sum of the singular values of m.
      preconditioning: what m is divided by, so that its singular values are at most 1: its "frobenius" norm, its
        "spectral" norm or its "schatten" 4-norm. "aol" scales each row instead, after which u is less exact.
      weight_dimension_numbers: a tree of `MuonDimensionNumbers` like the parameters (or a prefix, or a function from
        them to it). None reads the axes off the roles; without roles all must be matrices (inputs, outputs).
      ns_dtype: the dtype of the iterations; None for at least float32. bfloat16 is faster on accelerators.
      bias_correction: False is Jordan's momentum. With `nesterov` it is another direction in the first 1 / (1 - beta)
        steps, without it another length only, which counts where `adaptive` or `equilibrate` do.
      equilibrate: divides m before the iterations by sqrt(Σ m² + 1e-8), with the sum over the inputs of each "output",
        over the outputs of each "input", or "both" (MuonEq).
      renormalize: divides u likewise, with 1e-7, for each "output", each "input", or one after the other (Muon+); or
        "frobenius" makes its norm that of an orthogonal matrix.

    References: Jordan et al. 2024 (Muon); Bernstein and Newhouse 2024, arXiv:2409.20325 (adaptive); arXiv:2603.28254
    (equilibrate); arXiv:2602.21545 (renormalize).
    """
    where = "scale_by_muon"
    fixed = coefficients_of(where, ns_coeffs)
    scaled_by = preconditioning
    if isinstance(ns_coeffs, str) and ns_coeffs == "aol":
        if preconditioning not in ("frobenius", "aol"):
            raise ValueError(f"{where}: ns_coeffs='aol' has preconditioning 'aol', not {preconditioning!r}")
        scaled_by = "aol"

    def init(p: jax.Array) -> jax.Array:
        return zeros_like(p, mu_dtype)

    def enter(g: jax.Array, mu: jax.Array, p: jax.Array | None, t: jax.Array) -> tuple:
        mu = ema(mu, g, beta)
        return weighted(mu, g, _weights(beta, t, nesterov, bias_correction)), mu

    def update(m: jax.Array, slots: tuple, p: None, t: jax.Array, coefficients: jax.Array) -> tuple:
        x = m if equilibrate is None else equilibrated(m, equilibrate)
        x = x if ns_dtype is None else widen(x, jnp.dtype(ns_dtype))
        least = jnp.asarray(eps, jnp.real(x).dtype)
        u = orthogonalized(x, coefficients, ns_steps, scaled_by, least).astype(m.dtype)
        u = u if renormalize is None else renormalized(u, renormalize)
        return (u * jnp.sum(jnp.real(jnp.conj(m) * u)) if adaptive else u), ()

    def memory() -> dict:
        return {"ns_coeffs": fixed}

    def shared(t: jax.Array, total: None, memory: dict) -> tuple:
        return memory["ns_coeffs"], memory

    return per_matrix(
        init,
        update,
        MuonState,
        enter=enter,
        entering=("mu",),
        memory=memory,
        shared=shared,
        weight_dimension_numbers=weight_dimension_numbers,
    )


def _weights(beta: Any, t: jax.Array, nesterov: bool, corrected: bool) -> tuple[Any, Any]:
    if corrected:
        return unbiased(beta, t, nesterov)
    return (beta, 1 - beta) if nesterov else (1, None)


SCALINGS = {
    "jordan": lambda inputs, outputs: math.sqrt(max(1.0, outputs / inputs)),
    "spectral": lambda inputs, outputs: math.sqrt(outputs / inputs),
    "none": lambda inputs, outputs: 1.0,
}
"""What the update of a matrix is multiplied by, by the numbers of its inputs and outputs."""

Scaling = Literal["jordan", "spectral", "none"]


@transformation
def scale_by_matrix_shape(
    consistent_rms: NonNegative | None = None,
    weight_dimension_numbers: Any | Callable[[Params], Any] = None,
    *,
    scaling: Scaling = "jordan",
) -> GradientTransformationExtraArgs:
    """u = sqrt(max(1, outputs / inputs)) g, or consistent_rms sqrt(max(inputs, outputs)) g.

    With the first form, which is Jordan's, one learning rate fits all widths. With the second, it can be that of Adam:
    at the usual 0.2, the updates have about the same root mean square as Adam's.

    Args:
      consistent_rms: the root mean square of an orthogonal update; None for the first form.
      weight_dimension_numbers: as in `scale_by_muon`.
      scaling: the factor of the first form: "jordan", as above; "spectral", sqrt(outputs / inputs), also below 1;
        "none", 1.

    Raises:
      ValueError: for `scaling` beside `consistent_rms`.

    Reference: Liu et al. 2025, arXiv:2502.16982 (consistent_rms).
    """
    if consistent_rms is not None and scaling != "jordan":
        raise ValueError(f"scale_by_matrix_shape: give consistent_rms or scaling={scaling!r}, not both")

    def update(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Updates, OptState]:
        check_said("scale_by_matrix_shape", params)
        modes = modes_of("scale_by_matrix_shape", weight_dimension_numbers, updates)
        leaves, treedef = jax.tree.flatten(updates, is_leaf=is_none)
        for i, (g, split) in enumerate(zip(leaves, splits_of(updates), strict=True)):
            if not is_hole(g):
                factors = [factor(*shape) for shape in modes[i].shapes(whole_shape_of(g.shape, split))]
                leaves[i] = scaled(widen(g), factors, modes[i])
        return treedef.unflatten(leaves), state

    def factor(inputs: int, outputs: int) -> Any:
        if consistent_rms is not None:
            return consistent_rms * math.sqrt(max(inputs, outputs))
        return SCALINGS[scaling](inputs, outputs) if inputs else 1.0

    def scaled(g: jax.Array, factors: list, modes: Modes) -> jax.Array:
        if len(factors) == 1:
            return g * jnp.asarray(factors[0], g.dtype)
        (axis,) = modes.groups[1]
        each = jnp.asarray(np.repeat(factors, modes.blocks), g.dtype)
        return g * jnp.expand_dims(each, [a for a in range(g.ndim) if a != axis])

    return GradientTransformationExtraArgs(identity().init, update)


@transformation
def muon(
    learning_rate: ScalarOrSchedule,
    ns_coeffs: Any = QUINTIC,
    ns_steps: PositiveInt = 5,
    beta: Decay = 0.95,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    weight_decay_mask: MaskOfParams | None = None,
    mu_dtype: DType = None,
    *,
    nesterov: bool = True,
    adaptive: bool = False,
    preconditioning: Preconditioning = "frobenius",
    adam_b1: Decay = 0.9,
    adam_b2: Decay = 0.999,
    adam_eps_root: NonNegative = 0.0,
    adam_weight_decay: NonNegative = 0.0,
    adam_learning_rate: ScalarOrSchedule | None = None,
    muon_weight_dimension_numbers: Any | Callable[[Params], Any] = None,
    consistent_rms: NonNegative | None = None,
    ns_dtype: DType = None,
    bias_correction: bool = True,
    equilibrate: Sides = None,
    renormalize: Renormalization = None,
    scaling: Scaling = "jordan",
) -> GradientTransformationExtraArgs:
    """Muon on matrices, Adam on the rest, both with Nesterov momentum and decoupled weight decay.

    With roles (`with_roles`), a "hidden" parameter goes to Muon if its role names the axes of inputs and outputs, or if
    it has two axes besides the stack; each head is a matrix. Without roles, parameters with exactly two axes go to Muon
    and all others to Adam, as in Optax: Muon then has embeddings and output layers, which are better left to Adam, and
    Adam has stacked matrices and convolutions. See `scale_by_muon` for the formula.

    Args:
      ns_coeffs, ns_steps, adaptive, preconditioning, ns_dtype, bias_correction, equilibrate, renormalize: see
        `scale_by_muon`; `bias_correction` is that of Muon alone.
      eps: added to Muon's norm and to Adam's denominator.
      weight_decay_mask: where to decay among Muon's parameters; Adam's have `adam_weight_decay`.
      adam_learning_rate: None for `learning_rate`.
      muon_weight_dimension_numbers: a tree like the parameters (or a prefix, or a function from them to it) that has
        `MuonDimensionNumbers` for Muon's parameters and None for Adam's. A function is called a second time with all of
        Adam's parameters hidden. None decides as described above.
      consistent_rms, scaling: see `scale_by_matrix_shape`.

    References: Jordan et al. 2024; Liu et al. 2025, arXiv:2502.16982.
    """
    numbers = muon_weight_dimension_numbers
    of_muon = chain(
        scale_by_muon(
            ns_coeffs,
            ns_steps,
            beta,
            eps,
            mu_dtype,
            nesterov=nesterov,
            adaptive=adaptive,
            preconditioning=preconditioning,
            weight_dimension_numbers=numbers,
            ns_dtype=ns_dtype,
            bias_correction=bias_correction,
            equilibrate=equilibrate,
            renormalize=renormalize,
        ),
        scale_by_matrix_shape(consistent_rms, numbers, scaling=scaling),
        add_decayed_weights(weight_decay, weight_decay_mask),
        scale_by_lr(learning_rate),
    )
    of_adam = chain(
        scale_by_adam(adam_b1, adam_b2, eps, adam_eps_root, mu_dtype, nesterov=nesterov),
        add_decayed_weights(adam_weight_decay),
        scale_by_lr(learning_rate if adam_learning_rate is None else adam_learning_rate),
    )
    return matrices_and_rest(of_muon, of_adam, numbers)


def matrices_and_rest(of_matrices: Any, of_rest: Any, numbers: Any) -> GradientTransformationExtraArgs:
    """One transformation for the matrices among the parameters, as `muon` finds them, another for the rest."""

    @of_boxes
    def labels(params: Params) -> Any:
        if numbers is None:
            return jax.tree.map(lambda p: "muon" if _is_matrix(p) else "adam", params, is_leaf=is_full_box)
        return jax.tree.map(label, said_of(numbers, params), is_leaf=lambda x: x is None or is_numbers(x))

    def label(said: Any) -> str:
        if said is not None and not is_numbers(said):
            raise TypeError(f"matrices: weight_dimension_numbers must hold MuonDimensionNumbers or None, got {said!r}")
        return "adam" if said is None else "muon"

    return partition({"muon": of_matrices, "adam": of_rest}, labels)


def _is_matrix(p: Any) -> bool:
    """Whether a parameter goes to Muon by default: by its role or, without one, if it has two axes."""
    if not is_box(p) or p.role is None:
        return jnp.ndim(unboxed(p)) == 2
    role, ndim = p.role.logical(jnp.ndim(p.value)), jnp.ndim(p.value) - len(p.role.stack)
    if role.kind not in ("hidden", "other"):
        return False
    return bool(role.in_axes and role.out_axes) if role.kind == "hidden" and ndim != 2 else ndim == 2
