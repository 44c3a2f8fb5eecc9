# SPDX-License-Identifier: Apache-2.0
"""What a transformation is; imports nothing else from gradtx."""
