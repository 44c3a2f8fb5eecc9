# SPDX-License-Identifier: Apache-2.0
# pyright: strict, reportUnknownMemberType=false
"""All that may be a hyperparameter, in strict mode: pyright has nothing to say, and it runs as it stands."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax  # pyright: ignore[reportMissingTypeStubs]

import gradtx


def warming(count: jax.Array) -> jax.Array:
    return jnp.minimum(count / 10, 0.9)


class Falling:
    """A schedule of somebody else's."""

    def __init__(self, start: float):
        self.start = start

    def __call__(self, step: Any) -> Any:
        return self.start / (step + 1)


def of_known_types(
    rate: float | jax.Array | Callable[[jax.Array], jax.Array],
    either: gradtx.typing.ScalarOrSchedule,
    anything: Any,
    schedule: gradtx.typing.Schedule,
    function: Callable[[jax.Array], float],
) -> None:
    gradtx.adam(rate, b1=rate)
    gradtx.adam(either, b1=either)
    gradtx.adam(anything, b1=anything)
    gradtx.adam(schedule, b1=schedule)
    gradtx.adam(0.5 * schedule, b1=0.5 * schedule)
    gradtx.adam(function, b1=function)


def main() -> None:
    elements = np.array([0.5, 0.25], dtype=np.float32)
    gradtx.adam(1, b1=0, eps=1)
    gradtx.adam(np.float32(1e-3), b1=np.float32(0.9), b2=np.float64(0.9), eps=np.int32(1))
    gradtx.adam(elements[0], b1=elements[1])
    gradtx.adam(np.asarray(0.1), b1=np.asarray(0.9))
    gradtx.adam(jnp.asarray(0.1), b1=jnp.asarray(0.9))
    gradtx.adam(lambda count: 1e-3 / (count + 1), b1=lambda count: 0.9 / (count + 1))
    gradtx.adam(warming, b1=warming)
    gradtx.adam(Falling(0.5), b1=Falling(0.5))
    gradtx.adam(functools.partial(warming), b1=functools.partial(warming))
    gradtx.adam(optax.cosine_decay_schedule(1e-3, 10), b1=optax.constant_schedule(0.9))
    gradtx.adam(gradtx.cosine_decay_schedule(1e-3, 10), b1=gradtx.constant_schedule(0.9))
    gradtx.adam(1e-3, mu_dtype=None)
    gradtx.adam(1e-3, mu_dtype="bfloat16")
    gradtx.adam(1e-3, mu_dtype=jnp.bfloat16)
    gradtx.adam(1e-3, mu_dtype=elements.dtype)
    gradtx.clip_by_global_norm(jnp.inf)
    gradtx.losses.huber_loss(elements, delta=elements[0])
    gradtx.sgd(0.1, momentum=None)
    gradtx.sgd(0.1, momentum=warming)
    of_known_types(warming, 1e-3, 0.1, gradtx.constant_schedule(0.5), Falling(0.5))


if __name__ == "__main__":
    main()
