# SPDX-License-Identifier: Apache-2.0
"""Describing: what a transformation does with each parameter, and why."""
