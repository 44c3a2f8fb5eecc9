# SPDX-License-Identifier: Apache-2.0
"""What a transformation is. Imports nothing else of gradtx."""
