# SPDX-License-Identifier: Apache-2.0
"""Transformations of transformations."""
