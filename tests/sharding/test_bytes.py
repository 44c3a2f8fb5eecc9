# SPDX-License-Identifier: Apache-2.0
"""The bytes of a state on each device."""

import jax
import numpy as np
from jax.sharding import PartitionSpec as P

import gradtx as gt
from gradtx.sharding import bytes_per_device, init_sharded
from support.meshes import SHAPES, mesh, numbers, put, structs


def test_they_are_those_of_the_arrays():
    params = put(numbers(), mesh())
    for tx in (gt.adamw(1e-3), gt.adafactor(1e-3), gt.adamw8bit(1e-3), gt.sgd(1e-3)):
        found, state = bytes_per_device(tx, params), jax.tree.leaves(init_sharded(tx, params))
        first = [[s.data.nbytes for s in x.addressable_shards if s.device.id == 0] for x in state]
        assert found.total == sum(x.nbytes for x in state) == sum(row.total for row in found.rows)
        assert found.per_device == sum(map(sum, first)) == sum(row.per_device for row in found.rows)


def test_the_table_names_slots_and_what_is_whole():
    params = structs(mesh(data=8), {n: P() for n in SHAPES})
    found = bytes_per_device(gt.adamw(1e-3), params)
    size = 4 * sum(int(np.prod(s)) for s in SHAPES.values())
    assert [(row.name, row.dtype, row.arrays, row.total) for row in found.rows] == [
        ("0.count", "int32", 1, 4),
        ("0.mu", "float32", 4, size),
        ("0.nu", "float32", 4, size),
    ]
    assert found.rows[1].whole == 2 * 4 * 256 * 512  # the matrices; vectors are small
    lines = str(found).splitlines()
    assert lines[0].split() == ["slot", "dtype", "arrays", "bytes", "per", "device", "whole", "sharding"]
    assert lines[-1].split()[:3] == ["all", f"{found.total:,}", f"{found.per_device:,}"]
    assert lines[-1].endswith("8 devices")
