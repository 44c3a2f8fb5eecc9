# SPDX-License-Identifier: Apache-2.0
"""Multiples of a hyperparameter: constant in a group, by the depth of the layer, or by the width of the model."""

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core._calls import Value, factory_decorator, register_value
from gradtx.core._checked import checked
from gradtx.core._ranges import Range, is_array, is_number
from gradtx.core._roles import Role, unboxed
from gradtx.core._selectors import named_leaves
from gradtx.core._stacks import stack_axes
from gradtx.core._types import Params


class Parameter(NamedTuple):
    """A parameter as far as multiples need it: the path as text, the shape as stored, and the role, None if unknown."""

    path: str
    shape: tuple[int, ...]
    role: Role | None

    @property
    def stack(self) -> tuple[int, ...]:
        """The axes of the stack, from the left."""
        return () if self.role is None else stack_axes(self.role, len(self.shape))


Factors = list[Any]
"""A factor for each parameter: a number, an array or a schedule; for a stack a NumPy array of them, of its shape."""


class Factor:
    """Base class of multiples: given instead of a value, they stand for a multiple of the base's value.

    A product of two multiplies by both: `times(16) * layerwise_decay(0.9)`.
    """

    of_all: ClassVar[bool] = False
    """Whether the factor of a parameter depends on the other parameters."""

    def of(self, parameters: Sequence[Parameter]) -> Factors:
        """The factors of these parameters, which are all parameters that the rule matches."""
        raise NotImplementedError

    def __mul__(self, other: Any) -> "Factor":
        return _product(self, other) if isinstance(other, Factor) else NotImplemented


@register_value
class Multiple(Value, Factor):
    """A multiple that prints, compares and hashes by its call, and whose numbers are leaves that may be traced."""

    __slots__ = ("_factors",)

    @property
    def of_all(self) -> bool:  # type: ignore[override]  # of a product it depends on what it is of
        return any(isinstance(x, Factor) and x.of_all for x in self.arguments.get("factors", ()))

    def of(self, parameters: Sequence[Parameter]) -> Factors:
        return self._expanded()._factors(parameters)

    def _expanded(self) -> "Multiple":
        if not hasattr(self, "_factors"):
            assert self._call is not None
            object.__setattr__(self, "_factors", self._call.factory.expand(self._call))
        return self

    def __repr__(self) -> str:
        factors = self.arguments.get("factors")
        return super().__repr__() if factors is None else " * ".join(map(repr, factors))


def _multiple(body: Callable[..., Any]) -> Callable[..., Factor]:
    """Makes of a function that returns the factors of parameters a factory of multiples."""
    return factory_decorator(body, Multiple, lambda call: call.factory.run(call.arguments))


@_multiple
def times(factor: Annotated[Any, Range(low=0.0, high_open=True, example=0.5)]):
    """In rules of `groups`: `factor` times the base's value, which may be a schedule.

    Args:
      factor: a number, finite and at least 0, a scalar array, a traced value or a schedule.

    Raises:
      ValueError: for a factor that is negative or not finite, and where it is used for one that is no scalar.
    """

    def of(parameters: Sequence[Parameter]) -> Factors:
        if is_array(factor) and jnp.ndim(factor):
            raise ValueError(f"times: factor must be a scalar, got shape {jnp.shape(factor)}")
        return [factor] * len(parameters)

    return of


@_multiple
def _product(*factors: Factor):
    return lambda parameters: list(functools.reduce(_rowwise, (f.of(parameters) for f in factors)))


def _rowwise(a: Factors, b: Factors) -> Factors:
    return list(map(multiplied, a, b))


@dataclasses.dataclass(frozen=True)
class _Product:
    """A schedule: the product of two factors, of which one is a schedule."""

    factors: tuple[Any, Any]

    def __call__(self, step: jax.Array) -> Any:
        def value(x: Any) -> Any:
            return x(step) if callable(x) else x

        return value(self.factors[0]) * value(self.factors[1])


def multiplied(a: Any, b: Any) -> Any:
    """The product of two factors: numbers, arrays, schedules, or NumPy arrays of these for a stack."""
    if isinstance(a, np.ndarray) and a.ndim or isinstance(b, np.ndarray) and b.ndim:
        shape = np.shape(a) if isinstance(a, np.ndarray) else np.shape(b)
        found = np.empty(math.prod(shape), object)
        for i, (x, y) in enumerate(zip(_elements(a, found.size), _elements(b, found.size), strict=True)):
            found[i] = multiplied(x, y)
        return found.reshape(shape)
    return _Product((a, b)) if callable(a) or callable(b) else a * b


def _elements(x: Any, size: int) -> list:
    return list(x.reshape(-1)) if isinstance(x, np.ndarray) and x.ndim else [x] * size


@dataclasses.dataclass(frozen=True)
class _LayerwiseDecay(Factor):
    decay: float
    depth: Callable[[str], Any] | None = None

    of_all: ClassVar[bool] = True

    def of(self, parameters: Sequence[Parameter]) -> Factors:
        depths = [self._depths(p) for p in parameters]
        known = [d for d in depths if d is not None]
        if not known:
            raise ValueError(
                f"{self!r}: no parameter of its group is stacked or has a layer's number in its path, such as "
                f"'layers/3/kernel'; there is {parameters[0].path or 'the root'}"
            )
        last = max(int(np.max(d)) for d in known)
        depths = [self._outside(p, last) if d is None else d for p, d in zip(parameters, depths, strict=True)]
        return [float(x) if np.ndim(x) == 0 else x for x in (self.decay ** (last + 1.0 - d) for d in depths)]

    def _depths(self, parameter: Parameter) -> Any:
        sizes = [parameter.shape[axis] for axis in parameter.stack]
        if self.depth is not None:
            found = self.depth(parameter.path)
            return found if found is None or not sizes else np.broadcast_to(found, sizes)
        if parameter.role is not None and parameter.role.kind in ("embedding", "head"):
            return None
        if sizes:
            return np.arange(math.prod(sizes)).reshape(sizes)
        numbers = re.findall(r"(?:^|[/_])(\d+)(?=/|$)", parameter.path)
        return int(numbers[0]) if numbers else None

    def _outside(self, parameter: Parameter, last: int) -> int:
        """The depth of a parameter outside the layers: before the first for embeddings, else after the last."""
        if parameter.role is None:
            raise ValueError(
                f"{self!r}: {parameter.path or 'the root'} has no layer's number, and nobody said whether it comes "
                f"before the layers, as embeddings do, or after them: wrap the whole transformation in "
                f"with_roles(rules, ...), or choose fewer parameters"
            )
        return -1 if parameter.role.kind == "embedding" else last + 1

    @property
    def made_by(self) -> tuple[Callable[..., Any], dict[str, Any]]:
        return layerwise_decay, {"decay": self.decay, "depth": self.depth}

    def __repr__(self) -> str:
        of = "" if self.depth is None else f", {getattr(self.depth, '__qualname__', self.depth)}"
        return f"layerwise_decay({self.decay!r}{of})"


@checked
def layerwise_decay(decay: float, depth: Callable[[str], Any] | None = None) -> Factor:
    """In rules of `groups`: decay^(n - i) times the base's value in layer i = 0 ... n - 1, and 1 after the layers.

    The layer of a stacked parameter is its index in the stack: each layer gets its own factor. For others it is the
    first number that is a part of the path or ends one ("layers/3/kernel", "h_3/w"). Parameters without a number come
    before the layers, with decay^(n + 1), if their kind is "embedding", else after them. Heads come after the layers.

    Args:
      decay: in (0, 1]; 0.65 to 0.9 are usual.
      depth: a function from the path to the number of the layer, for a stack an array of numbers; it returns None for
        parameters outside of the layers. None for the numbering above.

    Reference: Clark et al. 2020, arXiv:2003.10555; Bao et al. 2021, arXiv:2106.08254.
    """
    if not is_number(decay) or not 0 < decay <= 1:
        raise ValueError(f"layerwise_decay: decay must be in (0, 1], got {decay!r}")
    return _LayerwiseDecay(float(decay), depth)


@dataclasses.dataclass(frozen=True)
class _Mup(Factor):
    base: tuple[tuple[str, tuple[int, ...]], ...]
    rule: str

    def of(self, parameters: Sequence[Parameter]) -> Factors:
        return [self._factor(p) for p in parameters]

    def _factor(self, p: Parameter) -> float:
        base = dict(self.base).get(p.path)
        if base is None or len(base) != len(p.shape):
            there = "has no such parameter" if base is None else f"has it in shape {base}"
            raise ValueError(f"mup: base_params {there}: {p.path or 'the root'} has shape {p.shape}")
        if p.role is None:
            raise ValueError(
                f"mup: nobody said what {p.path or 'the root'} is: "
                f"wrap the whole transformation in with_roles(rules, ...)"
            )
        role = p.role.fitted(len(p.shape))
        wider = sum(n != m for n, m in zip(p.shape, base, strict=True))
        if role.kind == "other" and wider > 1:
            raise ValueError(
                f"mup: the role of {p.path or 'the root'} must say its kind, as {wider} of its axes differ from the "
                f"base's, {base}; got {p.role}"
            )
        if role.kind in ("hidden", "head") and not (role.in_axes and role.out_axes):
            raise ValueError(f"mup: the role of {p.path or 'the root'} must name in_axes and out_axes, got {p.role}")
        inputs = math.prod(p.shape[a] / base[a] for a in role.in_axes)
        if role.kind == "head" or role.kind == "hidden" and self.rule == "adam":
            return 1 / inputs
        if role.kind == "hidden" or self.rule == "adam":
            return 1.0
        outputs = role.out_axes or tuple(a for a in range(len(p.shape)) if a not in (*role.stack, *role.in_axes))
        return math.prod(p.shape[a] / base[a] for a in outputs)

    @property
    def made_by(self) -> tuple[Callable[..., Any], dict[str, Any]]:
        return mup, {"base_params": dict(self.base), "rule": self.rule}

    def __repr__(self) -> str:
        return f"mup({dict(self.base)!r}, {self.rule!r})"


def mup(base_params: Params, rule: Literal["adam", "sgd"] = "adam") -> Factor:
    """In rules of `groups`: the multiple of the learning rate in the maximal update parametrization, by kind.

    A rate that is right for the base model is then right for wider models. With r the ratio of the widths:

    | kind | adam | sgd |
    |---|---|---|
    | "hidden" | 1 / r of the inputs | 1 |
    | "head" | 1 / r of the inputs | 1 / r of the inputs |
    | "embedding", "norm", "bias", "other" | 1 | r of the outputs |

    The initial values must scale too: variances with 1 / fan_in, and with 1 / fan_in² in the head.

    Args:
      base_params: the parameters of the base model at the same paths, or their shapes: as `jax.ShapeDtypeStruct`s, or
        as tuples in a dictionary by path, `{"layers/0/kernel": (64, 64)}`.
      rule: "adam" for rules whose update does not grow with the gradient, "sgd" for the others.

    Reference: Yang et al. 2022, arXiv:2203.03466, table 3.
    """
    if not isinstance(rule, str) or rule not in ("adam", "sgd"):
        raise ValueError(f"mup: rule must be 'adam' or 'sgd', got {rule!r}")
    names, leaves, _ = named_leaves(_with_shapes(base_params))
    if texts := [x for x in leaves if isinstance(x, str)]:
        raise TypeError(f"mup: base_params must be a tree of arrays or shapes, got {texts[0]!r}")
    found = [(n, tuple(jnp.shape(unboxed(x)))) for n, x in zip(names, leaves, strict=True) if x is not None]
    return _Mup(tuple(found), rule)


def _with_shapes(base_params: Params) -> Params:
    """The tree, shapes in a dictionary by path turned into what has these shapes."""
    if not isinstance(base_params, dict) or not all(map(_is_shape, base_params.values())):
        return base_params
    return {path: jax.ShapeDtypeStruct(shape, jnp.float32) for path, shape in base_params.items()}


def _is_shape(x: Any) -> bool:
    return isinstance(x, tuple | list) and all(isinstance(n, int) for n in x)
