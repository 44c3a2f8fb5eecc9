# SPDX-License-Identifier: Apache-2.0
"""Transformations of transformations."""

from gradtx.wrappers.masked import MaskedNode as MaskedNode
from gradtx.wrappers.masked import MaskedState as MaskedState
from gradtx.wrappers.masked import masked as masked
