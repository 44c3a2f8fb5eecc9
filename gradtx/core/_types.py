# SPDX-License-Identifier: Apache-2.0
"""Types of the contract: aliases for trees and schedules, and the empty state."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Protocol, Union

import jax

if TYPE_CHECKING:
    from typing_extensions import TypeVar  # with defaults, which `typing` has from Python 3.13 on

    State = TypeVar("State", default=Any)
else:
    from typing import TypeVar

    State = TypeVar("State")

Numeric = float | jax.Array
ScheduleFn = Callable[[Numeric], Numeric]
# As an argument that must be a function: the error says what it is a function of.
StepFn = Annotated[ScheduleFn, "of the step"]
# typing.Union and not `|`: inspect.signature accepts only the former, and clients compare annotations with this object.
ScalarOrSchedule = Union[float, jax.Array, ScheduleFn]  # noqa: UP007  # see above

Params = Any  # a tree of arrays; None means "no value here"
Updates = Any  # a tree of the same structure
OptState = Any  # a tree of arrays, usually nested named tuples


class UpdateFn(Protocol[State]):
    """The second function of a transformation; extra arguments are those that some stages take, such as `value`."""

    def __call__(
        self, updates: Updates, state: State, params: Params = None, **extra: Any
    ) -> tuple[Updates, State]: ...


class TransformationLike(Protocol):
    """Any object with the two functions, such as a transformation of Optax."""

    @property
    def init(self) -> Callable[..., Any]: ...

    @property
    def update(self) -> Callable[..., Any]: ...


class EmptyState(NamedTuple):
    """The state of a transformation that remembers nothing."""
