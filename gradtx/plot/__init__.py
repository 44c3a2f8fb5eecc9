# SPDX-License-Identifier: Apache-2.0
"""Plots: paths on contours, curves of runs, schedules. Needs matplotlib: the extra `plot`."""

from gradtx.plot._plot import Race as Race
from gradtx.plot._plot import plot_curves as plot_curves
from gradtx.plot._plot import plot_paths as plot_paths
from gradtx.plot._plot import plot_races as plot_races
from gradtx.plot._plot import plot_schedules as plot_schedules
