# SPDX-License-Identifier: Apache-2.0
"""The optimizers of known training runs, with their schedules and numbers."""

from gradtx.recipes._algoperf_nadamw import algoperf_nadamw as algoperf_nadamw
from gradtx.recipes._algoperf_shampoo import algoperf_shampoo as algoperf_shampoo
from gradtx.recipes._kimi_k2 import kimi_k2 as kimi_k2
from gradtx.recipes._llama_wsd import llama_wsd as llama_wsd
from gradtx.recipes._muon_by_head import muon_by_head as muon_by_head
from gradtx.recipes._muon_hyperball import muon_hyperball as muon_hyperball
from gradtx.recipes._nanochat import nanochat as nanochat
from gradtx.recipes._nanogpt_speedrun import nanogpt_speedrun as nanogpt_speedrun
from gradtx.recipes._resnet_lars import resnet_lars as resnet_lars
from gradtx.recipes._resnet_nesterov import resnet_nesterov as resnet_nesterov
from gradtx.recipes._vit_adafactor import vit_adafactor as vit_adafactor
from gradtx.recipes._vit_finetuning import vit_finetuning as vit_finetuning
