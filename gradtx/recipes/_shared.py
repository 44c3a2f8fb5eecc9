# SPDX-License-Identifier: Apache-2.0
"""What several recipes have in common."""

import dataclasses
from typing import Any

import jax

from gradtx._roles._rules import roles
from gradtx.core._roles import Role
from gradtx.core._types import Params
from gradtx.schedules._pieces import cosine, warmup
from gradtx.schedules._schedule import Schedule


def steps_between(name: str, total_steps: int, warmup_steps: int, decay_steps: int = 0) -> int:
    """The number of steps between the warm-up and the last `decay_steps`, at least 1."""
    if total_steps <= warmup_steps + decay_steps:
        decay = f" and {decay_steps} of decay" if decay_steps else ""
        raise ValueError(
            f"{name}: total_steps must be more than the {warmup_steps} steps of warm-up{decay}, got {total_steps}: "
            f"make the run longer or the warm-up shorter"
        )
    return total_steps - warmup_steps - decay_steps


def warmup_then_cosine(name: str, total_steps: int, warmup_steps: int) -> Schedule:
    """From 0 to 1 in the warm-up, then along a cosine to 0 at the end of the run."""
    return warmup(warmup_steps).then(cosine(steps_between(name, total_steps, warmup_steps)))


def is_kernel(path: str, parameter: Any) -> bool:
    """Whether a parameter has inputs and outputs: no bias, and neither scale nor offset of a normalization."""
    return len(parameter.shape) > 1


@dataclasses.dataclass(frozen=True)
class WholeProjections:
    """Roles for Muon: those of `rules`, but with the heads of projections put together again.

    Attributes:
      rules: as of `with_roles`.
      outputs: whether only the projections are whole whose inputs are heads, those out of an attention.
    """

    rules: Any
    outputs: bool = False

    def __call__(self, params: Params) -> Any:
        return jax.tree.map(self._whole, roles(params, self.rules))

    def _whole(self, role: Role) -> Role:
        split = role.heads is not None and not (self.outputs and role.heads in role.out_axes)
        return dataclasses.replace(role, heads=None) if split else role
