# SPDX-License-Identifier: Apache-2.0
"""What `describe` and `explain_path` promise for every factory of gradtx."""

import json

import jax
import pytest

import gradtx
from gradtx import describe, explain_path
from gradtx.describing._stages import nested
from support import registry

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", sorted(registry.COVERED))
def test_every_byte_and_every_parameter_once(name: str):
    tx, params = registry.example(name), registry.PARAMS
    description = describe(tx, params)
    leaves = jax.tree.leaves(jax.eval_shape(tx.init, params))
    total = sum(x.size * x.dtype.itemsize for x in leaves)
    assert description.state_bytes == total
    assert sum(row.state_bytes for row in description.parameters) == sum(
        s.bytes for s in description.slots if s.parameter
    )
    assert [row.path for row in description.parameters] == ["b", "w"]
    found = description.to_dict()
    assert json.loads(json.dumps(found)) == found
    assert max(map(len, str(description).splitlines())) <= 120
    for path in ("b", "w"):
        explanation = explain_path(tx, params, path)
        assert max(map(len, str(explanation).splitlines())) <= 120
        assert json.loads(json.dumps(explanation.to_dict())) == explanation.to_dict()


@pytest.mark.parametrize("name", sorted(n for n in registry.COVERED if hasattr(gradtx, n)))
def test_the_rule_is_named(name: str):
    """A factory is what its table says, or one of the transformations that it was given."""
    tx = registry.example(name)
    rules = {row.rule for row in describe(tx, registry.PARAMS).parameters}
    inner = [child for _, child in nested(tx)]
    labels = {name, "muon", "adam", "adamw"}
    assert inner or rules <= labels or rules == {"frozen"} or (name, rules) == ("freeze", {"frozen", None})
