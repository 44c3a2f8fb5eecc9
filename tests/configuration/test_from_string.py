# SPDX-License-Identifier: Apache-2.0
"""What text may say, and what is said of text that it may not."""

import re
import sys
from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest

import gradtx as gt
from gradtx import schedules


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("chain(clip_by_global_norm(1.0), adamw(1e-3))", gt.chain(gt.clip_by_global_norm(1.0), gt.adamw(1e-3))),
        ("  adamw(\n    learning_rate=1e-3,  # the peak\n)\n", gt.adamw(1e-3)),
        ("gradtx.adamw(schedules.linear(10))", gt.adamw(schedules.linear(10))),
        ("gradtx.schedules.linear(10)", schedules.linear(10)),
        (
            "sgd(3e-4 * warmup(10).then(cosine(90)) / 2 - 1e-5)",
            gt.sgd(3e-4 * schedules.warmup(10).then(schedules.cosine(90)) / 2 - 1e-5),
        ),
        ("sgd(1 / 4 + 2 * -0.1 + 1)", gt.sgd(1 / 4 + 2 * -0.1 + 1)),
        ("sgd(-linear(3) + 1)", gt.sgd(-schedules.linear(3) + 1)),
        ("adam(0.1, mu_dtype=jnp.bfloat16)", gt.adam(0.1, mu_dtype=jnp.bfloat16)),
        ("adam(0.1, np.float32(0.1), jnp.float32(0.9))", gt.adam(0.1, np.float32(0.1), jnp.float32(0.9))),
        ("snapshot('norm', gradtx.global_norm)", gt.snapshot("norm", gt.global_norm)),
        ("inject_hyperparams(gradtx.adam)(0.1)", gt.inject_hyperparams(gt.adam)(0.1)),
        ("where(re.compile('a', re.I | re.M))", gt.where(re.compile("a", re.IGNORECASE | re.MULTILINE))),
        (
            "with_roles([('a', functools.partial(infer_roles, stack=0)), ('**', partial(infer_roles))], sgd(0.1))",
            gt.with_roles([("a", partial(gt.infer_roles, stack=0)), ("**", partial(gt.infer_roles))], gt.sgd(0.1)),
        ),
        ("clip_by_global_norm(inf)", gt.clip_by_global_norm(float("inf"))),
    ],
)
def test_what_text_says(text, value):
    assert gt.from_string(text) == value


def test_names_of_the_caller():
    def halve(g, p):
        return g / 2

    assert gt.from_string("chain(stateless_with_tree_map(halve))", names={"halve": halve}) == gt.chain(
        gt.stateless_with_tree_map(halve)
    )
    with pytest.raises(ValueError, match="column 1: halve is a function, .* does not call it"):
        gt.from_string("halve(1)", names={"halve": halve})
    with pytest.raises(TypeError, match="from_string: names must be a dictionary"):
        gt.from_string("adam(1)", names=[halve])  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("__import__('os')", "column 1: __import__ is no name that a configuration may call"),
        ("__import__('os').system('true')", "column 1: __import__ is no name"),
        ("os.system('true')", "column 1: os.system is no name"),
        ("adam(open('/etc/passwd'))", "column 6: open is no name"),
        ("eval('1')", "column 1: eval is no name"),
        ("adam.factory.body(1)", "column 1: adam.factory.body is no name"),
        ("adam(1e-3).__class__", r"column 1: adam\(0.001\).__class__ is an attribute"),
        ("adam(1e-3).init(1)", r"column 1: only schedules have methods here, and adam\(0.001\) is none"),
        ("linear(10).__reduce__()", "column 1: Schedule.__reduce__ is no name"),
        ("skip_when(partial(3))", "column 11: partial: function must be a function, got 3"),
        ("skip_when(partial(eval, '1'))", "column 19: eval is no name"),
        ("minimize(1)", "column 1: minimize is a function, which may be an argument, but a configuration does not"),
        ("adam(jnp.linalg)", "column 6: jnp.linalg is no name"),
        ("adamm(1e-3)", "column 1: adamm is no name that a configuration may call; the closest are adam"),
        ("chain(clip(1.0), adamw(1e-3, b1=1.5))", r"column 18: adamw: b1 must be in \[0, 1\), got 1.5"),
        (
            "chain(\n  clip(1.0),\n  adamw(1e-3, betas=1)\n)",
            "line 3, column 3: adamw: got an unexpected keyword .* b1 and b2",
        ),
        (
            "stored(adam(0.1), int8(blok=2))",
            "column 19: int8: got an unexpected keyword argument 'blok'; its arguments are block",
        ),
        ("with_roles([('**', Role('hiden'))], sgd(1))", "column 20: Role: kind must be one of hidden"),
        ("chain('ä', adam(1, b1=2))", "column 12: adam: b1"),
        ("adam(1e-3", r"column 5: '\(' was never closed"),
        ("", "column 1: invalid syntax"),
        ("adam", r"the text must be a call: call it, adam\(...\)"),
        ("1e-3", "the text must be a call, such as adamw"),
        ("[adam(1)]", "the text must be a call"),
        ("adam(1)(2)", "column 1: only a name can be called"),
        ("adam(lambda t: t)", "column 6: a lambda is no configuration"),
        ("adam([x for x in y])", "column 6: a comprehension is no configuration"),
        ("adam(x[0])", "column 6: a subscript is no configuration"),
        ("adam(f'{x}')", "column 6: an f-string is no configuration"),
        ("adam(1 if 2 else 3)", "column 6: a condition is no configuration"),
        ("adam(*[1])", "column 6: an unpacked argument is no configuration"),
        ("adam(**{'b1': 1})", "column 8: arguments cannot be unpacked"),
        ("adam(2 ** 10000000)", r"column 6: \+ - \* / are for numbers"),
        ("adam('a' * 10000000)", r"column 6: \+ - \* / are for numbers"),
        ("adam(1 / 0)", "column 6: 1 / 0: division by zero"),
        ("adam(1j)", "column 6: there are no complex numbers"),
        ("adam(not 1)", "column 6: the sign before 1"),
        ("adam(array([1.0, ..., 2.0]))", "column 18: an array that prints with '...' is not whole"),
        ("masked(adam(1), {**{}})", "keys of a dictionary must be text or numbers"),
        ("inject_hyperparams(adam)", r"call what it returns: inject_hyperparams\(adamw\)\(1e-3\)"),
        ("freeze(GradientTransformation(1, 2))", "column 8: GradientTransformation is no name"),
        ("(" * 1000, "too many nested parentheses"),
        ("-" * 20000 + "1", "nested too deeply|cannot be read"),
        ("adam(1)\x00", "null bytes"),
    ],
)
def test_what_text_may_not_say(text, error):
    with pytest.raises((TypeError, ValueError), match=f"^from_string: .*({error})"):
        gt.from_string(text)


def test_nothing_is_imported_or_run():
    before = set(sys.modules)
    for text in ("antigravity.geohash(1)", "this.s(1)", "adam(__builtins__)", "chain.__globals__"):
        with pytest.raises(ValueError, match="is no name that a configuration may"):
            gt.from_string(text)
    assert not {"this", "antigravity"} & (set(sys.modules) - before)


def test_what_is_no_text():
    with pytest.raises(TypeError, match="from_string: text must be a string, got adam"):
        gt.from_string(gt.adam(1e-3))  # pyright: ignore[reportArgumentType]
