# SPDX-License-Identifier: Apache-2.0
"""Wrappers: transformations that are made of other transformations."""
