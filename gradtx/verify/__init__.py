# SPDX-License-Identifier: Apache-2.0
"""The contract as a command for anybody's transformation: `python -m gradtx.verify module:factory`."""
