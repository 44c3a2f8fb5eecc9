# SPDX-License-Identifier: Apache-2.0
"""Encoding and decoding of arrays of which each device has a part, inside `over_axes`.

The payload of a part is the part of the payload of the whole: it has its codes, and so a checkpoint of one device fits.
Blocks of the last axis that would lie on several devices need the whole rows: these are gathered, and of the codes each
device keeps its own, where devices divide them.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core._over_devices import Split, devices, gathered, on_leaf, own_part, split_by, whole_shape_of
from gradtx.core._placement import is_on_host, on_device
from gradtx.precision._codec import Codec

# Jitted separately, so that a codec is traced once for each shape, as rules are, and is fast outside of jit.


@functools.partial(jax.jit, static_argnums=(0, 3))
def encode(codec: Codec, x: jax.Array, key: Any, split: Split | None) -> Any:
    """The payload of an array or of this device's part of it, in the memory in which the array is."""
    wide = on_device(x).astype(jnp.float32)
    rows, others = _split_of_rows(codec, x.shape, split)
    with on_leaf(others, x.ndim):
        payload = codec.encode(gathered(wide, rows), key)
    if rows is not None:
        payload = _along_rows(payload, lambda _, x: _own(x, rows))
    return jax.device_put(payload, jax.typeof(x).memory_space) if is_on_host(x) else payload


@functools.partial(jax.jit, static_argnums=(0, 2, 3, 4))
def decode(codec: Codec, payload: Any, shape: tuple[int, ...], dtype: Any, split: Split | None) -> jax.Array:
    """The array of this shape of which `encode` made the payload."""
    payload = on_device(payload)
    rows, others = _split_of_rows(codec, shape, split)
    if rows is None:
        with on_leaf(others, len(shape)):
            return codec.decode(payload, shape).astype(dtype)
    wanted = whole_shape_of(shape, rows)
    like = jax.eval_shape(codec.encode, jax.ShapeDtypeStruct(wanted, jnp.float32))
    is_whole = {name: x.shape == getattr(like, name).shape for name, x in payload._asdict().items()}
    payload = _along_rows(payload, lambda name, x: x if is_whole[name] else gathered(x, _last_of(rows, x.ndim)))
    with on_leaf(others, len(shape)):
        return own_part(codec.decode(payload, wanted).astype(dtype), rows)


def _along_rows(payload: Any, f: Callable[[str, jax.Array], jax.Array]) -> Any:
    """The payload with f(name, x) for each field along the rows; scales, of which a row has few, are not along it."""
    return payload._replace(**{name: f(name, getattr(payload, name)) for name in payload._fields if name in ALONG})


ALONG = {"codes", "columns"}


def _own(x: jax.Array, rows: Split) -> jax.Array:
    """This device's part of an array of rows; all of it if the devices do not divide it."""
    return x if x.shape[-1] % devices(rows.names) else own_part(x, _last_of(rows, x.ndim))


def _last_of(split: Split, ndim: int) -> Split:
    """The split of the last axis alone, for an array of this rank."""
    return split_by((*((),) * (ndim - 1), split.names))


def _split_of_rows(codec: Codec, shape: tuple[int, ...], split: Split | None) -> tuple[Split | None, Split | None]:
    """The split of the last axis if blocks would lie on several devices, and that of the others; else None and all."""
    if split is None or not split.names or not shape or codec.plain:
        return None, split
    *others, last = split.of_each(len(shape))
    if not last or codec.divides(shape[-1] * devices(last), devices(last)):
        return None, split
    return _last_of(split_by((last,)), len(shape)), split_by((*others, ()))
