# SPDX-License-Identifier: Apache-2.0
"""What differs between two transformations, and what a checkpoint keeps of one."""

import subprocess
import sys

import jax
import pytest

import gradtx as gt
from gradtx import precision, schedules

SAVED = gt.chain(gt.clip_by_global_norm(1.0), gt.adamw(1e-3))
NOW = gt.chain(gt.zero_nans(), gt.clip_by_global_norm(0.5), gt.adamw(3e-4 * schedules.cosine(90), b1=0.95))


def lines(left, right):
    return str(gt.diff(left, right)).splitlines()


def test_by_the_path_of_the_calls():
    want = ["0: added zero_nans()", "1.max_norm: 1.0 -> 0.5", "2.learning_rate: 0.001 -> cosine(90).scale(0.0003)"]
    assert lines(SAVED, NOW) == [*want, "2.b1: 0.9 -> 0.95"]
    assert lines(NOW, SAVED)[0] == "0: removed zero_nans()"
    change = gt.diff(SAVED, NOW).changes[-1]
    assert (change.path, change.argument, change.left, change.right, change.kind) == ("2", "b1", 0.9, 0.95, "changed")
    assert NOW.replace(**{f"{change.path}.{change.argument}": change.left}) == NOW.replace(b1=0.9)
    assert gt.diff(SAVED, NOW).to_dict()["changes"][0]["right"] == {"call": "zero_nans"}


@pytest.mark.parametrize(
    ("left", "right", "want"),
    [
        (gt.adam(1e-3), gt.sgd(1e-3), ["adam(0.001) -> sgd(0.001)"]),
        (gt.adam(schedules.linear(10)), gt.adam(schedules.linear(20)), ["learning_rate.steps: 10 -> 20"]),
        (
            gt.masked(gt.adam(1e-3), {"w": True, "b": False}),
            gt.masked(gt.adam(1e-3, eps=0.1), {"w": False}),
            ["inner.eps: 1e-08 -> 0.1", "mask['b']: removed False", "mask['w']: True -> False"],
        ),
        (
            gt.named_chain(("a", gt.clip(1.0)), ("b", gt.sgd(0.1))),
            gt.named_chain(("b", gt.sgd(0.2)), ("c", gt.scale(2.0))),
            ["a: removed clip(1.0)", "b.learning_rate: 0.1 -> 0.2", "c: added scale(2.0)"],
        ),
        (
            gt.groups([("a", {"learning_rate": gt.times(2.0)})], gt.sgd(0.1)),
            gt.groups([("z", "frozen"), ("a", {"learning_rate": gt.times(2.0)})], gt.sgd(0.1)),
            ["rules[0]: added ('z', 'frozen')"],
        ),
        (
            gt.with_roles([("w", gt.Role("norm"))], gt.sgd(0.1)),
            gt.with_roles([("w", gt.Role("hidden", stack=0))], gt.sgd(0.1)),
            ["rules[0][1].kind: 'norm' -> 'hidden'", "rules[0][1].stack: () -> (0,)"],
        ),
        (
            gt.stored(gt.sgd(0.1, 0.9), precision.float32()),
            gt.stored(gt.sgd(0.1, 0.9), {"trace": precision.bfloat16()}),
            ["policy: float32() -> {'trace': bfloat16(stochastic=False)}"],
        ),
        (
            gt.partition({1: gt.sgd(0.1)}, {"w": 1}),
            gt.partition({1: gt.sgd(0.2)}, {"w": 1}),
            ["transforms[1].learning_rate: 0.1 -> 0.2"],
        ),
        (gt.adam(1), gt.adam(1.0), ["no difference"]),
        (gt.adam(1e-3, nesterov=True), gt.adam(1e-3), ["nesterov: True -> False"]),
    ],
)
def test_differences(left, right, want):
    assert lines(left, right) == want
    assert bool(gt.diff(left, right)) == (want != ["no difference"])
    assert lines(gt.to_dict(left), gt.to_dict(right, defaults=True)) == want


def test_functions_and_tracers_are_compared_too():
    def other(params):
        return params

    assert lines(gt.masked(gt.sgd(0.1), lambda p: p), gt.masked(gt.sgd(0.1), other))[0].startswith("mask: ")
    tx = gt.masked(gt.sgd(0.1), other)
    assert not gt.diff(tx, tx)
    jax.jit(lambda rate: len(gt.diff(gt.sgd(rate), gt.sgd(0.1))) == 1 or 1 / 0)(0.1)


@pytest.mark.parametrize("side", [3, "adam(1)", {"a": 1}, None])
def test_what_cannot_be_compared(side):
    with pytest.raises(TypeError, match="diff: right must be a transformation or what to_dict made of one"):
        gt.diff(gt.adam(1e-3), side)


def test_the_fingerprint_is_the_same_in_every_process():
    rules = "[('**/b', {'weight_decay': 0.0}), ('a', {'learning_rate': times(0.5)})]"
    text = f"groups({rules}, adamw(cosine(100), b1=0.95, mask={{'w': True, 'b': False}}))"
    script = f"import gradtx; print(gradtx.fingerprint(gradtx.from_string({text!r})))"
    runs = [
        subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": s}
        )
        for s in ("1", "2")
    ]
    assert {run.stdout.strip() for run in runs} == {gt.fingerprint(gt.from_string(text))}


def test_the_fingerprint_stays():
    """Checkpoints have it: this changes only where a default of adamw does."""
    assert gt.fingerprint(gt.adamw(1e-3)) == "afe572220cb39b3f52143bed1baccb26"
    assert gt.fingerprint(gt.adamw(1)) == gt.fingerprint(gt.adamw(1.0)) == gt.fingerprint(gt.to_dict(gt.adamw(1)))
    assert gt.fingerprint(gt.adamw(1e-3, nesterov=True)) != gt.fingerprint(gt.adamw(1e-3))


def test_a_restore_under_another_optimizer():
    for kept in (gt.to_dict(SAVED), gt.to_dict(SAVED, defaults=True), gt.fingerprint(SAVED)):
        gt.check_configuration(kept, SAVED)
    with pytest.raises(
        ValueError, match=r"under another optimizer, .*1.max_norm: 1.0 -> 0.5; .* and 1 more; from_dict"
    ):
        gt.check_configuration(gt.to_dict(SAVED), NOW)
    with pytest.raises(ValueError, match=f"the fingerprint {gt.fingerprint(SAVED)}, .* to be told what changed, keep"):
        gt.check_configuration(gt.fingerprint(SAVED), NOW)
    with pytest.raises(TypeError, match="check_configuration: kept must be what to_dict or fingerprint returned"):
        gt.check_configuration(3, NOW)  # pyright: ignore[reportArgumentType]


def test_a_default_that_changed_is_told():
    saved = gt.to_dict(gt.adamw(1e-3), defaults=True) | {"eps": 1e-6}
    with pytest.raises(ValueError, match="eps: 1e-06 -> 1e-08"):
        gt.check_configuration(saved, gt.adamw(1e-3))
