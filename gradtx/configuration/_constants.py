# SPDX-License-Identifier: Apache-2.0
"""Constants that neither JSON nor a call has a sign for: arrays, keys, dtypes, meshes, regular expressions.

Each function here makes one, and has the parameters that stand in a configuration; `apart` finds them for a constant.
"""

import math
import re
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import AxisType, PartitionSpec


def number(value: str) -> float:
    """A number that JSON has not: "inf", "-inf" or "nan"."""
    if value not in ("inf", "-inf", "nan"):
        raise ValueError(f"float: value must be 'inf', '-inf' or 'nan', got {value!r}")
    return float(value)


def sequence(items: Sequence[Any]) -> list:
    """A list, as the lists of JSON are tuples."""
    return list(items)


def dictionary(items: Sequence[Sequence[Any]], ordered: bool = False) -> dict:
    """A dictionary whose keys are no strings, or one of them "call", as pairs of key and value."""
    return (OrderedDict if ordered else dict)((key, value) for key, value in items)


def Array(value: Any, dtype: Any = "float32", weak_type: bool = False) -> jax.Array:
    """An array of JAX from numbers or lists of them."""
    x = jnp.asarray(array(value, dtype))
    if str(x.dtype) != str(dtype):
        raise ValueError(f"Array: dtype {dtype} needs 64-bit numbers: set jax_enable_x64")
    if not weak_type:
        return x
    # Only what is made of Python's numbers has a weak type.
    weak = [jnp.asarray(n) for n in np.asarray(x).ravel().tolist()]
    return jnp.stack(weak).reshape(x.shape) if weak else x


def array(value: Any, dtype: Any = None) -> np.ndarray:
    """An array of NumPy from numbers or lists of them."""
    values = np.asarray(value, object)
    numbers = [float(x) if isinstance(x, str) else x for x in values.ravel()]
    if not all(isinstance(x, bool | int | float) for x in numbers):
        raise TypeError(f"array: value must be numbers or lists of numbers, got {value!r}")
    return np.asarray(numbers, None if dtype is None else jnp.dtype(dtype)).reshape(values.shape)


def dtype(name: str) -> np.dtype:
    """A dtype, where an argument does not say that it is one."""
    return jnp.dtype(name)


def scalar_type(name: str) -> Any:
    """What NumPy and JAX take for a dtype: the type of its numbers, such as jnp.bfloat16.

    Raises:
      ValueError: for any other name.
    """
    start, _, end = name.rpartition(".")
    if start in ("jnp", "jax.numpy") and isinstance(found := getattr(jnp, end, None), type(jnp.float32)):
        return found
    if start in ("np", "numpy") and isinstance(found := getattr(np, end, None), type) and issubclass(found, np.generic):
        return found
    raise ValueError(f"{name} is no type of numbers, such as jnp.bfloat16 or np.float32")


def wrap_key_data(key_data: Any, impl: str) -> jax.Array:
    """A key of `jax.random`."""
    return jax.random.wrap_key_data(jnp.asarray(array(key_data, "uint32")), impl=impl)


def Mesh(axis_sizes: Sequence[int], axis_names: Sequence[str], axis_types: Sequence[Any] = ()) -> jax.sharding.Mesh:
    """A mesh of the first devices of this process's JAX."""
    size, there = math.prod(axis_sizes), jax.devices()
    if len(there) < size:
        raise ValueError(f"Mesh: axis_sizes {tuple(axis_sizes)} need {size} devices, and there are {len(there)}")
    types = tuple(x if isinstance(x, AxisType) else AxisType[x] for x in axis_types) or None
    return jax.sharding.Mesh(np.asarray(there[:size]).reshape(tuple(axis_sizes)), tuple(axis_names), axis_types=types)


def pattern(pattern: str, flags: Sequence[str] = ()) -> re.Pattern:
    """A regular expression."""
    given = re.RegexFlag(0)
    for flag in (flags,) if isinstance(flags, str | re.RegexFlag) else flags:
        given |= flag if isinstance(flag, re.RegexFlag) else re.RegexFlag[flag]
    return re.compile(pattern, given)


def apart(x: Any) -> tuple[str, dict[str, Any]] | None:
    """The name of the function here that makes a constant and its arguments, as plain data; None for other things.

    Raises:
      ValueError: for a mesh of other devices than the first ones.
    """
    if isinstance(x, float) and not math.isfinite(x):
        return "float", {"value": str(x)}
    if isinstance(x, np.dtype):
        return "dtype", {"name": x.name}
    if isinstance(x, type(jnp.float32)) or isinstance(x, type) and issubclass(x, np.generic):
        return "scalar_type", {
            "name": f"{'np' if isinstance(x, type) and issubclass(x, np.generic) else 'jnp'}.{x.__name__}"
        }
    if isinstance(x, re.Pattern) and isinstance(x.pattern, str):
        flags = re.RegexFlag(x.flags & ~re.UNICODE)
        return "re.compile", {"pattern": x.pattern, **({"flags": [f.name for f in flags]} if flags else {})}
    if isinstance(x, PartitionSpec):
        return "PartitionSpec", {"partitions": [list(p) if isinstance(p, tuple) else p for p in x]}
    if isinstance(x, jax.sharding.Mesh):
        return "Mesh", _mesh_apart(x)
    if isinstance(x, jax.Array | np.ndarray | np.generic) and not isinstance(x, Tracer):
        return _array_apart(x)
    return None


def _mesh_apart(x: jax.sharding.Mesh) -> dict[str, Any]:
    if list(x.devices.flat) != jax.devices()[: x.size]:
        raise ValueError("is a mesh of devices in an order of its own, and devices are no configuration")
    types = [t.name for t in x.axis_types]
    return {"axis_sizes": list(x.axis_sizes), "axis_names": list(x.axis_names), "axis_types": types}


def _array_apart(x: Any) -> tuple[str, dict[str, Any]] | None:
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return "wrap_key_data", {"key_data": jax.random.key_data(x).tolist(), "impl": str(jax.random.key_impl(x))}
    if jnp.issubdtype(x.dtype, jnp.complexfloating) or x.dtype.hasobject or x.dtype.kind in "SU":
        return None
    values = np.asarray(x)
    values = values.astype(np.float64) if jnp.issubdtype(x.dtype, jnp.floating) else values
    data = {"value": _finite(values.tolist()), "dtype": x.dtype.name}
    if not isinstance(x, jax.Array):
        return "array", data
    return "Array", {**data, "weak_type": True} if x.weak_type else data


def _finite(x: Any) -> Any:
    """Numbers in lists, those that JSON has not as text."""
    if isinstance(x, list):
        return list(map(_finite, x))
    return str(x) if isinstance(x, float) and not math.isfinite(x) else x
