# SPDX-License-Identifier: Apache-2.0
"""Loss functions: masked, safe at extremes, in at least float32."""

from gradtx.losses._contrastive import info_nce_loss as info_nce_loss
from gradtx.losses._contrastive import ntxent as ntxent
from gradtx.losses._contrastive import siglip_loss as siglip_loss
from gradtx.losses._contrastive import triplet_margin_loss as triplet_margin_loss
from gradtx.losses._cross_entropy import poly_loss_cross_entropy as poly_loss_cross_entropy
from gradtx.losses._cross_entropy import safe_softmax_cross_entropy as safe_softmax_cross_entropy
from gradtx.losses._cross_entropy import sigmoid_binary_cross_entropy as sigmoid_binary_cross_entropy
from gradtx.losses._cross_entropy import softmax_cross_entropy as softmax_cross_entropy
from gradtx.losses._cross_entropy import (
    softmax_cross_entropy_with_integer_labels as softmax_cross_entropy_with_integer_labels,
)
from gradtx.losses._cross_entropy import z_loss as z_loss
from gradtx.losses._ctc import ctc_loss as ctc_loss
from gradtx.losses._ctc import ctc_loss_with_forward_probs as ctc_loss_with_forward_probs
from gradtx.losses._divergence import generalized_kl_divergence as generalized_kl_divergence
from gradtx.losses._divergence import kl_divergence as kl_divergence
from gradtx.losses._divergence import kl_divergence_with_log_targets as kl_divergence_with_log_targets
from gradtx.losses._fenchel_young import make_fenchel_young_loss as make_fenchel_young_loss
from gradtx.losses._focal import sigmoid_focal_loss as sigmoid_focal_loss
from gradtx.losses._likelihood import gaussian_nll_loss as gaussian_nll_loss
from gradtx.losses._likelihood import poisson_nll_loss as poisson_nll_loss
from gradtx.losses._lovasz import lovasz_hinge as lovasz_hinge
from gradtx.losses._lovasz import lovasz_softmax as lovasz_softmax
from gradtx.losses._margin import hinge_loss as hinge_loss
from gradtx.losses._margin import multiclass_hinge_loss as multiclass_hinge_loss
from gradtx.losses._margin import multiclass_perceptron_loss as multiclass_perceptron_loss
from gradtx.losses._margin import perceptron_loss as perceptron_loss
from gradtx.losses._preference import dpo_loss as dpo_loss
from gradtx.losses._ranking import ranking_softmax_loss as ranking_softmax_loss
from gradtx.losses._reduction import reduce_loss as reduce_loss
from gradtx.losses._regression import huber_loss as huber_loss
from gradtx.losses._regression import l2_loss as l2_loss
from gradtx.losses._regression import log_cosh as log_cosh
from gradtx.losses._regression import squared_error as squared_error
from gradtx.losses._segmentation import binary_dice_loss as binary_dice_loss
from gradtx.losses._segmentation import dice_loss as dice_loss
from gradtx.losses._segmentation import focal_tversky_loss as focal_tversky_loss
from gradtx.losses._segmentation import multiclass_generalized_dice_loss as multiclass_generalized_dice_loss
from gradtx.losses._segmentation import tversky_loss as tversky_loss
from gradtx.losses._similarity import cosine_distance as cosine_distance
from gradtx.losses._similarity import cosine_similarity as cosine_similarity
from gradtx.losses._smoothing import smooth_binary_labels as smooth_binary_labels
from gradtx.losses._smoothing import smooth_labels as smooth_labels
from gradtx.losses._sparsemax import multiclass_sparsemax_loss as multiclass_sparsemax_loss
from gradtx.losses._sparsemax import sparsemax_loss as sparsemax_loss
from gradtx.losses._transport import histogram_wasserstein_1d as histogram_wasserstein_1d
from gradtx.losses._transport import wasserstein_1d as wasserstein_1d
