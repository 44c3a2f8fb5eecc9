# SPDX-License-Identifier: Apache-2.0
"""Optimizers: one algorithm a file, with its state, its `scale_by_x` and its recipe `x`."""

from gradtx.optimizers.adagrad import ScaleByRssState as ScaleByRssState
from gradtx.optimizers.adagrad import adagrad as adagrad
from gradtx.optimizers.adagrad import scale_by_rss as scale_by_rss
from gradtx.optimizers.adam import ScaleByAdamState as ScaleByAdamState
from gradtx.optimizers.adam import adam as adam
from gradtx.optimizers.adam import adamw as adamw
from gradtx.optimizers.adam import nadam as nadam
from gradtx.optimizers.adam import nadamw as nadamw
from gradtx.optimizers.adam import scale_by_adam as scale_by_adam
from gradtx.optimizers.rmsprop import ScaleByRmsState as ScaleByRmsState
from gradtx.optimizers.rmsprop import ScaleByRmsWithCountState as ScaleByRmsWithCountState
from gradtx.optimizers.rmsprop import ScaleByRStdDevState as ScaleByRStdDevState
from gradtx.optimizers.rmsprop import ScaleByRStdDevWithCountState as ScaleByRStdDevWithCountState
from gradtx.optimizers.rmsprop import rmsprop as rmsprop
from gradtx.optimizers.rmsprop import scale_by_rms as scale_by_rms
from gradtx.optimizers.rmsprop import scale_by_stddev as scale_by_stddev
from gradtx.optimizers.sgd import sgd as sgd
