# SPDX-License-Identifier: Apache-2.0
"""What a step costs, beside Optax and PyTorch: `python -m tests.benchmarks --help`."""
