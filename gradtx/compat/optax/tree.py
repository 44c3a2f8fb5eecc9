# SPDX-License-Identifier: Apache-2.0
"""Functions of trees: the names of `optax.tree`."""

from gradtx.tree.arithmetic import add as add
from gradtx.tree.arithmetic import add_scale as add_scale
from gradtx.tree.arithmetic import clip as clip
from gradtx.tree.arithmetic import conj as conj
from gradtx.tree.arithmetic import div as div
from gradtx.tree.arithmetic import mul as mul
from gradtx.tree.arithmetic import real as real
from gradtx.tree.arithmetic import scale as scale
from gradtx.tree.arithmetic import sub as sub
from gradtx.tree.arithmetic import where as where
from gradtx.tree.making import batch_shape as batch_shape
from gradtx.tree.making import cast as cast
from gradtx.tree.making import cast_like as cast_like
from gradtx.tree.making import full_like as full_like
from gradtx.tree.making import ones_like as ones_like
from gradtx.tree.making import random_like as random_like
from gradtx.tree.making import split_key_like as split_key_like
from gradtx.tree.making import unwrap_random_key_data as unwrap_random_key_data
from gradtx.tree.making import zeros_like as zeros_like
from gradtx.tree.moments import bias_correction as bias_correction
from gradtx.tree.moments import update_infinity_moment as update_infinity_moment
from gradtx.tree.moments import update_moment as update_moment
from gradtx.tree.moments import update_moment_per_elem_norm as update_moment_per_elem_norm
from gradtx.tree.params import map_params as map_params
from gradtx.tree.reductions import allclose as allclose
from gradtx.tree.reductions import dtype as dtype
from gradtx.tree.reductions import max as max
from gradtx.tree.reductions import min as min
from gradtx.tree.reductions import norm as norm
from gradtx.tree.reductions import size as size
from gradtx.tree.reductions import sum as sum
from gradtx.tree.reductions import vdot as vdot
from gradtx.tree.search import get as get
from gradtx.tree.search import get_all_with_path as get_all_with_path
from gradtx.tree.search import set as set
