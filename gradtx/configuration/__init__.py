# SPDX-License-Identifier: Apache-2.0
"""Configuration: transformations as text and as plain data, what differs between two, and a schema of all."""
