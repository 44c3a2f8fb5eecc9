# SPDX-License-Identifier: Apache-2.0
"""Roles: what parameters are for, said once by rules on their paths."""

from gradtx.parameters.boxing import with_roles as with_roles
from gradtx.parameters.factors import layerwise_decay as layerwise_decay
from gradtx.parameters.factors import mup as mup
from gradtx.parameters.factors import times as times
from gradtx.parameters.grouping import groups as groups
from gradtx.parameters.inference import infer_roles as infer_roles
from gradtx.parameters.matching import of_kind as of_kind
from gradtx.parameters.matching import where as where
from gradtx.parameters.metadata import roles_from_names as roles_from_names
from gradtx.parameters.rules import roles as roles
from gradtx.parameters.table import as_rules as as_rules
