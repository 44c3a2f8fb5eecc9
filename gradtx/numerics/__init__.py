# SPDX-License-Identifier: Apache-2.0
"""Maths on one array, or on scalars. Imports only core."""
