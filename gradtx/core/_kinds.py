# SPDX-License-Identifier: Apache-2.0
"""What an argument may be besides a number in a range: kinds as annotations, `axis: Axes`, `tree: Tree`.

A kind refuses what has no meaning and changes nothing: a list that `jax.numpy` would take for an array is one.
"""

import collections.abc
import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core._sentences import shortened

MOST_SHOWN = 60


@dataclasses.dataclass(frozen=True)
class Kind:
    """What an argument must be, in words, and what is wrong with a value: None, or what was given instead."""

    words: str
    fault: Callable[[Any], str | None]
    says_none: bool = True  # whether errors say that None may be given

    def check(self, where: str, name: str, optional: bool, value: Any) -> Any:
        """The value, or an error that names the argument."""
        if value is None and optional:
            return None
        if (found := self.fault(value)) is not None:
            raise TypeError(
                f"{where}: {name} must be {self.words}{' or None' if optional and self.says_none else ''}, got {found}"
            )
        return value


def shown(value: Any) -> str:
    """What was given, cut to what can be read, with its type."""
    if value is None or callable(value):
        return shortened(repr(value), MOST_SHOWN)
    return f"{shortened(' '.join(repr(value).split()), MOST_SHOWN)} ({type(value).__name__})"


def _unless(fits: Callable[[Any], bool]) -> Callable[[Any], str | None]:
    return lambda value: None if fits(value) else shown(value)


def of_hint(hint: Any) -> Kind | None:
    """The kind that an annotation demands by itself or by a note: `str`, a mapping, a mesh, `Axes | None`."""
    if typing.get_origin(hint) is Annotated:
        return next((m for m in hint.__metadata__ if isinstance(m, Kind)), None)
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        found = {of_hint(m) for m in typing.get_args(hint) if m is not type(None)}
        return found.pop() if len(found) == 1 else None
    return _BY_HINT.get(typing.get_origin(hint) or hint if isinstance(hint, collections.abc.Hashable) else None)


def _is_whole(x: Any) -> bool:
    return isinstance(x, int | np.integer) and not isinstance(x, bool)


def _is_axis(x: Any) -> bool:
    return _is_whole(x) or isinstance(x, np.ndarray) and x.ndim == 0 and np.issubdtype(x.dtype, np.integer)


def _are_axes(x: Any) -> bool:
    return _is_axis(x) or (isinstance(x, list | tuple) and all(map(_is_axis, x)))


_NUMBERS = (bool, int, float, complex)
_ARRAYS = (jax.Array, np.ndarray, np.generic)


def is_array_of_numbers(x: Any) -> bool:
    """Whether this is an array or scalar of numbers, traced or not, or what JAX takes for one."""
    if isinstance(x, jax.Array):
        return True
    if isinstance(x, _ARRAYS):
        # NumPy has no name for the kind of bfloat16 and its like, which JAX knows.
        return (
            x.dtype.kind in "biufc"
            or x.dtype == jax.dtypes.float0
            or jnp.issubdtype(x.dtype, jnp.inexact)
            or jnp.issubdtype(x.dtype, jnp.integer)
        )
    return hasattr(x, "__jax_array__") or hasattr(x, "dtype") and hasattr(x, "shape")


def _is_array(x: Any) -> bool:
    if is_array_of_numbers(x) or isinstance(x, int | float | complex) and not isinstance(x, bool):
        return True
    if not isinstance(x, list | tuple):
        return hasattr(x, "__array__") and not isinstance(x, type)
    return all(isinstance(y, bool) or _is_array(y) for y in x)


def _bad_leaf(tree: Any, fits: Callable[[Any], bool]) -> str | None:
    try:
        leaves = jax.tree.leaves(tree)
    except (TypeError, ValueError) as error:  # such as for keys of several types
        return f"{shown(tree)}: {error}"
    if all(map(fits, leaves)):
        return None
    path, leaf = next((p, x) for p, x in jax.tree_util.tree_leaves_with_path(tree) if not fits(x))
    return f"{shown(leaf)} at {jax.tree_util.keystr(path)}" if path else shown(leaf)


def _is_leaf(x: Any) -> bool:
    return isinstance(x, _NUMBERS) or is_array_of_numbers(x)


def _is_real_leaf(x: Any) -> bool:
    if isinstance(x, complex):
        return False
    return _is_leaf(x) and not (hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.complexfloating))


def _is_scalar(x: Any) -> bool:
    if isinstance(x, bool) or not isinstance(x, int | float | complex | jax.Array | np.ndarray | np.generic):
        return False
    return is_array_of_numbers(x) if hasattr(x, "dtype") else True


def _is_precision(x: Any) -> bool:
    parts = x if isinstance(x, tuple) else (x,)
    known = (jax.lax.Precision, jax.lax.DotAlgorithm, jax.lax.DotAlgorithmPreset)
    names = ("default", "high", "highest", "fastest", "bfloat16", "bfloat16_3x", "tensorfloat32", "float32")
    return all(isinstance(part, known) or isinstance(part, str) and part in names for part in parts if part is not None)


def _is_key(x: Any) -> bool:
    if not isinstance(x, jax.Array | np.ndarray):
        return False
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key) or x.dtype == np.uint32 and x.ndim >= 1


def _is_seed(x: Any) -> bool:
    return _is_key(x) or _is_whole(x) or is_array_of_numbers(x) and jnp.issubdtype(x.dtype, jnp.integer) and x.ndim == 0


def _is_hashable(x: Any) -> bool:
    try:
        hash(x)
    except TypeError:
        return False
    return not isinstance(x, float | complex | bool | None)


def _dtype_fault(x: Any) -> str | None:
    try:
        jnp.dtype(x)
    except TypeError:
        return shown(x)
    return shown(x) if x is None or isinstance(x, float) else None


def _is_state(x: Any) -> bool:
    return not isinstance(x, str | bytes | complex) and not inspect.isroutine(x) and not inspect.isclass(x)


def _is_state_of_parts(x: Any) -> bool:
    return _is_state(x) and not isinstance(x, _NUMBERS)


def _has_shapes(x: Any) -> bool:
    return not isinstance(x, str | bytes)


def _are_ranges(x: Any) -> bool:
    found = np.shape(x) if _is_array(x) else ()
    return found == (2, 2) and bool(np.all(np.isfinite(np.asarray(x, float))))


def _are_levels(x: Any) -> bool:
    return _is_whole(x) and x > 1 or not isinstance(x, complex) and _is_array(x) and np.ndim(x) == 1


def _are_steps(x: Any) -> bool:
    return isinstance(x, list | tuple) and all(_is_whole(n) and n >= 0 for n in x)


def _is_point(x: Any) -> bool:
    return _is_array(x) and np.shape(x) == (2,)


def _is_order(x: Any) -> bool:
    return x in ("fro", "nuc", "inf") if isinstance(x, str) else isinstance(x, int | float) and x == x


def _are_texts(x: Any) -> bool:
    return isinstance(x, str) or isinstance(x, Sequence) and all(isinstance(y, str) for y in x)


AXIS = Kind("an axis, which is a whole number", _unless(_is_axis))
AXES = Kind("an axis or several, which are whole numbers,", _unless(_are_axes))
ARRAY = Kind("an array", _unless(_is_array))
MASK = Kind("a boolean array", _unless(lambda x: isinstance(x, bool) or _is_array(x)))
TREE = Kind("a tree of arrays", functools.partial(_bad_leaf, fits=_is_leaf))
REAL_TREE = Kind("a tree of real arrays", functools.partial(_bad_leaf, fits=_is_real_leaf))
SCALAR = Kind("a number or an array without axes", _unless(_is_scalar))
PRECISION = Kind("a precision of jax.lax.Precision", _unless(_is_precision))
KEY = Kind("a random key, such as jax.random.key(0)", _unless(_is_key))
ANY_DTYPE = Kind("a dtype", _dtype_fault)
TEXT = Kind("a string", _unless(lambda x: isinstance(x, str)))
SEED = Kind("a key of jax.random or a whole number", _unless(_is_seed), says_none=False)
NAME_IN_TREE = Kind("the name or the path of a part, or a class", _unless(_is_hashable))
AXIS_NAMES = Kind("the name of a mesh axis, a string, or several", _unless(_are_texts))
LEVELS = Kind("a number of levels, at least 2, or a list of them", _unless(_are_levels))
STEPS = Kind("a list of whole numbers >= 0", _unless(_are_steps))
POINT = Kind("a point, two numbers", _unless(_is_point))
ORDER = Kind("the order of a norm: a number, 'fro' or 'nuc'", _unless(_is_order))
TEXTS = Kind("a string or several", _unless(_are_texts))
STATE = Kind("the state of a transformation", _unless(_is_state))
STATE_OF_PARTS = Kind("the state of a transformation", _unless(_is_state_of_parts))
SHAPES = Kind("a tree of arrays or shapes", functools.partial(_bad_leaf, fits=_has_shapes))
MAPPING = Kind("a dictionary, or another mapping,", _unless(lambda x: isinstance(x, Mapping)))
NAMES = Kind("a tuple of strings", _unless(lambda x: not isinstance(x, str) and _are_texts(x)))
TUPLE = Kind("a tuple", _unless(lambda x: isinstance(x, tuple | list)))
CLASS = Kind("a class", _unless(inspect.isclass))
MESH = Kind("a jax.sharding.Mesh", _unless(lambda x: isinstance(x, jax.sharding.Mesh | jax.sharding.AbstractMesh)))
PAIR = Kind("two strings", _unless(lambda x: _are_texts(x) and not isinstance(x, str) and len(x) == 2))
RANGES = Kind("((left, right), (bottom, top)), finite numbers,", _unless(_are_ranges))
SHAPE = Kind("a shape, which is a tuple of whole numbers >= 0", _unless(
    lambda x: isinstance(x, list | tuple) and all(_is_whole(n) and n >= 0 for n in x)
))  # fmt: skip  # reads as one

Axis = Annotated[int, AXIS]
Axes = Annotated[int | Sequence[int], AXES]
AxesOrOne = Annotated[int | tuple[int, ...], AXES]
ArrayLike = Annotated[Any, ARRAY]
Mask = Annotated[Any, MASK]
Tree = Annotated[Any, TREE]
RealTree = Annotated[Any, REAL_TREE]
Scalar = Annotated[Any, SCALAR]
Precision = Annotated[Any, PRECISION]
Key = Annotated[jax.Array, KEY]
AnyDType = Annotated[Any, ANY_DTYPE]
Shape = Annotated[tuple[int, ...], SHAPE]
StateTree = Annotated[Any, STATE]
StateOfParts = Annotated[Any, STATE_OF_PARTS]
ShapesTree = Annotated[Any, SHAPES]
Pair = Annotated[tuple[str, str], PAIR]
Ranges = Annotated[Sequence[tuple[float, float]], RANGES]
Seed = Annotated[Any, SEED]
NameInTree = Annotated[Any, NAME_IN_TREE]
AxisNames = Annotated[str | Sequence[str], AXIS_NAMES]
Levels = Annotated[int | Sequence[float], LEVELS]
Steps = Annotated[Sequence[int], STEPS]
Point = Annotated[Sequence[float], POINT]
Order = Annotated[Any, ORDER]
Tuple = Annotated[tuple, TUPLE]
Names = Annotated[tuple[str, ...], NAMES]
Text = Annotated[str, TEXT]
Texts = Annotated[str | Sequence[str], TEXTS]

_BY_HINT: dict[Any, Kind] = {
    type: CLASS,
    Mapping: MAPPING,
    jax.sharding.Mesh: MESH,
    jax.sharding.AbstractMesh: MESH,
}
