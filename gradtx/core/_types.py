# SPDX-License-Identifier: Apache-2.0
"""Types of the contract: aliases for trees and schedules, and the empty state."""

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple, Union

import jax

Numeric = float | jax.Array
ScheduleFn = Callable[[Numeric], Numeric]
# As an argument that must be a function: the error says what it is a function of.
StepFn = Annotated[ScheduleFn, "of the step"]
# typing.Union and not `|`: inspect.signature accepts only the former, and clients compare annotations with this object.
ScalarOrSchedule = Union[float, jax.Array, ScheduleFn]  # noqa: UP007  # see above

Params = Any  # a tree of arrays; None means "no value here"
Updates = Any  # a tree of the same structure
OptState = Any  # a tree of arrays, usually nested named tuples


class EmptyState(NamedTuple):
    """The state of a transformation that remembers nothing."""
