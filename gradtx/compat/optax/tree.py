# SPDX-License-Identifier: Apache-2.0
"""Functions of trees: the names of `optax.tree`."""

from gradtx.tree._arithmetic import add as add
from gradtx.tree._arithmetic import add_scale as add_scale
from gradtx.tree._arithmetic import clip as clip
from gradtx.tree._arithmetic import conj as conj
from gradtx.tree._arithmetic import div as div
from gradtx.tree._arithmetic import mul as mul
from gradtx.tree._arithmetic import real as real
from gradtx.tree._arithmetic import scale as scale
from gradtx.tree._arithmetic import sub as sub
from gradtx.tree._arithmetic import where as where
from gradtx.tree._making import batch_shape as batch_shape
from gradtx.tree._making import cast as cast
from gradtx.tree._making import cast_like as cast_like
from gradtx.tree._making import full_like as full_like
from gradtx.tree._making import ones_like as ones_like
from gradtx.tree._making import random_like as random_like
from gradtx.tree._making import split_key_like as split_key_like
from gradtx.tree._making import unwrap_random_key_data as unwrap_random_key_data
from gradtx.tree._making import zeros_like as zeros_like
from gradtx.tree._moments import bias_correction as bias_correction
from gradtx.tree._moments import update_infinity_moment as update_infinity_moment
from gradtx.tree._moments import update_moment as update_moment
from gradtx.tree._moments import update_moment_per_elem_norm as update_moment_per_elem_norm
from gradtx.tree._params import map_params as map_params
from gradtx.tree._reductions import allclose as allclose
from gradtx.tree._reductions import dtype as dtype
from gradtx.tree._reductions import max as max
from gradtx.tree._reductions import min as min
from gradtx.tree._reductions import norm as norm
from gradtx.tree._reductions import size as size
from gradtx.tree._reductions import sum as sum
from gradtx.tree._reductions import vdot as vdot
from gradtx.tree._search import get as get
from gradtx.tree._search import get_all_with_path as get_all_with_path
from gradtx.tree._search import set as set
