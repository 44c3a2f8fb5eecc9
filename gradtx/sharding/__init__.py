# SPDX-License-Identifier: Apache-2.0
"""Optimizers on many devices: where the state lies, and how it gets there."""

from gradtx.sharding._bytes import StateBytes as StateBytes
from gradtx.sharding._bytes import bytes_per_device as bytes_per_device
from gradtx.sharding._init_sharded import init_sharded as init_sharded
from gradtx.sharding._nnx import set_optimizer_sharding as set_optimizer_sharding
from gradtx.sharding._offload import offload as offload
from gradtx.sharding._over_axes import over_axes as over_axes
from gradtx.sharding._spread_matrices import spread_matrices as spread_matrices
from gradtx.sharding._state_shardings import state_shardings as state_shardings
from gradtx.sharding._zero import zero as zero
