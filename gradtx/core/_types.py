# SPDX-License-Identifier: Apache-2.0
"""Types of the contract: aliases for trees and schedules, and the empty state."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Protocol, Union

import jax

MYPY = False  # mypy takes it for True: to it, a hyperparameter is Any, as it knows no such class as the one below

if TYPE_CHECKING:
    import numpy as np
    from typing_extensions import TypeVar  # with defaults, which `typing` has from Python 3.13 on

    State = TypeVar("State", default=Any)
    Numeric = float | jax.Array | np.number[Any] | np.ndarray[Any, Any]
    ScheduleFn = Callable[[Any], Any]  # those of other libraries have other types
else:
    from typing import TypeVar

    State = TypeVar("State")
    Numeric = float | jax.Array
    ScheduleFn = Callable[[Numeric], Numeric]

# As an argument that must be a function: the error says what it is a function of.
StepFn = Annotated[ScheduleFn, "of the step"]
# typing.Union and not `|`: inspect.signature accepts only the former, and clients compare annotations with this object.
ScalarOrSchedule = Union[Numeric, ScheduleFn]  # noqa: UP007  # see above

if TYPE_CHECKING and not MYPY:
    # A caller gives a number, an array or a schedule, and the rule computes with a number. No union says so, as a
    # schedule has no arithmetic. This class has two sides: what is given need only be of a class that `__class__`
    # names; what is computed with is Any. Its operators are of a class that is no protocol: nobody else needs them.

    class _Computed(Any):
        def __add__(self, other: Any) -> Any: ...

        __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __pow__ = __rpow__ = __add__
        __lt__ = __le__ = __gt__ = __ge__ = __matmul__ = __rmatmul__ = __mod__ = __floordiv__ = __add__

        def __neg__(self) -> Any: ...

        def __call__(self, count: Any) -> Any: ...

    class _Scheduled(Protocol):
        def __call__(self, count: Any, /) -> Any: ...

    class NumberOrSchedule(_Computed, Protocol):  # pyright: ignore[reportGeneralTypeIssues]  # see above
        @property
        def __class__(  # pyright: ignore[reportIncompatibleMethodOverride]  # nobody assigns it
            self,
        ) -> type[float | jax.Array | np.number[Any] | np.ndarray[Any, Any] | _Scheduled]: ...
else:
    NumberOrSchedule = Any  # pyright: ignore[reportAssignmentType]  # for mypy, and when the program runs

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
