# SPDX-License-Identifier: Apache-2.0
"""State surgery: finding, reading, setting, resetting and carrying over the slots of states."""
