# SPDX-License-Identifier: Apache-2.0
"""One call that both libraries understand."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Shared:
    """`name(*args, **kwargs)` in gradtx and, at `at` (default: the same name), in optax.

    `float32` is the largest relative difference of an update in float32 (None: not comparable there), `why` says why
    it is more than rounding. Extra arguments of `update` are made from the parameters by `extra`.
    """

    name: str
    args: tuple = ()
    kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)
    at: str | None = None
    float32: float | None = 2e-6
    float64: float = 1e-10
    why: str = ""
    extra: Any = None


def shared(name: str, *args: Any, **kwargs: Any) -> Shared:
    return Shared(name, args, kwargs)
