# SPDX-License-Identifier: Apache-2.0
"""The arguments of a call as text, from which `from_string` makes the same arguments again."""

import functools
from collections import OrderedDict
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer


def sorts(x: dict) -> bool:
    """Whether the keys of a dictionary can be sorted."""
    try:
        return sorted(x) is not None
    except TypeError:
        return False


def shown(value: Any) -> str:
    """An argument as text. Values print as their calls, functions as their names."""
    if isinstance(value, np.dtype):
        return f"dtype({value.name!r})"
    if type(value) in (dict, OrderedDict):
        entries = "{" + ", ".join(f"{k!r}: {shown(v)}" for k, v in value.items()) + "}"
        return f"OrderedDict({entries})" if type(value) is OrderedDict and sorts(value) else entries
    if type(value) in (list, tuple):
        left, right = ("[", "]") if type(value) is list else ("(", ",)" if len(value) == 1 else ")")
        return left + ", ".join(map(shown, value)) + right
    if isinstance(value, jax.Array | np.ndarray) and not isinstance(value, Tracer):
        return _array(value)
    if type(value) is functools.partial:
        given = [*map(shown, (value.func, *value.args)), *(f"{n}={shown(x)}" for n, x in value.keywords.items())]
        return f"partial({', '.join(given)})"
    if callable(value) and not hasattr(type(value), "from_call"):
        scalar = "jnp." if isinstance(value, type(jnp.float32)) else "np." if _is_numpy(value) else ""
        return scalar + (getattr(value, "__qualname__", None) or repr(value))
    return repr(value)


def _is_numpy(x: Any) -> bool:
    return isinstance(x, type) and issubclass(x, np.generic)


def _array(x: Any) -> str:
    """An array with all digits that its dtype has, of which its own library leaves some out."""
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return f"wrap_key_data({jax.random.key_data(x).tolist()}, impl={str(jax.random.key_impl(x))!r})"
    kind, weak = ("array", "") if isinstance(x, np.ndarray) else ("Array", ", weak_type=True" if x.weak_type else "")
    values = np.asarray(x)
    text = np.array2string(values, separator=", ", floatmode="unique") if values.size else str(values.tolist())
    return f"{kind}({text}, dtype={x.dtype}{weak})"
