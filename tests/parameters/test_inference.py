# SPDX-License-Identifier: Apache-2.0
"""Roles guessed from the names of several libraries."""

import functools
import warnings

import jax
import jax.numpy as jnp
import pytest

import gradtx
from gradtx import Role
from support import transformers

HIDDEN = Role("hidden", (), -2, -1)
TORCH = Role("hidden", (), -1, -2)
EMBEDDING = Role("embedding", (), -2, -1)


def nested(shapes: dict[str, tuple[int, ...]]) -> dict:
    """A tree of dictionaries with a parameter of this shape at each path."""
    tree: dict = {}
    for path, shape in shapes.items():
        *parts, last = path.split("/")
        functools.reduce(lambda branch, part: branch.setdefault(part, {}), parts, tree)[last] = jnp.ones(shape)
    return tree


def guessed(shapes: dict[str, tuple[int, ...]], **options) -> dict[str, Role]:
    """The guess for each path; written with a leading "/" as rules are."""
    return {path[1:]: role for path, role in gradtx.as_rules(gradtx.infer_roles(nested(shapes), **options))}


@pytest.mark.parametrize(
    ("path", "shape", "role"),
    [
        # Flax
        ("Dense_0/kernel", (3, 4), HIDDEN),
        ("Dense_0/bias", (4,), Role("bias")),
        ("Conv_0/kernel", (3, 3, 8, 16), Role("hidden", (), (-4, -3, -2), -1)),
        ("Conv_0/kernel", (3, 8, 16), Role("hidden", (), (-3, -2), -1)),
        ("LayerNorm_0/scale", (4,), Role("norm")),
        ("LayerNorm_0/bias", (4,), Role("bias")),
        ("RMSNorm_0/scale", (4,), Role("norm")),
        ("Embed_0/embedding", (9, 4), EMBEDDING),
        ("patch_embed/kernel", (4, 4, 3, 8), Role("hidden", (), (-4, -3, -2), -1)),
        ("pos_embedding", (1, 5, 4), Role("embedding")),
        ("attention/query/kernel", (8, 2, 4), Role("hidden", (), -3, (-2, -1), -2)),
        ("attention/key/bias", (2, 4), Role("bias")),
        ("MultiHeadDotProductAttention_0/kernel", (3, 4), HIDDEN),
        ("lm_head/kernel", (4, 9), Role("head", (), -2, -1)),
        ("lm_head/bias", (9,), Role("bias")),
        ("OptimizedLSTMCell_0/hf/kernel", (3, 4), HIDDEN),
        ("cls", (1, 1, 4), Role("other")),
        # Haiku
        ("mlp/~/linear_0/w", (3, 4), HIDDEN),
        ("mlp/~/linear_0/b", (4,), Role("bias")),
        ("layer_norm/offset", (4,), Role("bias")),
        ("embed/embeddings", (9, 4), EMBEDDING),
        # PyTorch, Equinox
        ("layers/0/weight", (4, 3), TORCH),
        ("conv1/weight", (16, 8, 3, 3), Role("hidden", (), (-3, -2, -1), -4)),
        ("bn1/weight", (4,), Role("norm")),
        ("downsample/1/weight", (4,), Role("norm")),
        ("embeddings/LayerNorm/weight", (4,), Role("norm")),
        ("model/embed_tokens/weight", (9, 4), EMBEDDING),
        ("embeddings/patch/proj/weight", (8, 3, 4, 4), Role("hidden", (), (-3, -2, -1), -4)),
        ("transformer/wte/weight", (9, 4), EMBEDDING),
        ("transformer/h/0/ln_1/weight", (4,), Role("norm")),
        ("rnn/weight_ih_l0", (8, 3), TORCH),
        ("in_proj_bias", (4,), Role("bias")),
        ("model/layers/0/self_attn/q_norm/weight", (4,), Role("norm")),
        ("classifier/weight", (9, 4), Role("head", (), -1, -2)),
        # By hand
        ("w", (3, 4), HIDDEN),
        ("w1", (3, 4), HIDDEN),
        ("wq", (3, 2, 4), Role("hidden")),
        ("wte", (9, 4), EMBEDDING),
        ("b2", (4,), Role("bias")),
        ("ln1", (4,), Role("norm")),
        ("w", (3,), Role("other")),
        ("temperature", (), Role("other")),
        ("lora/a", (3, 4), Role("other")),
        ("lora/b", (3, 4), Role("other")),
    ],
)
def test_names(path, shape, role):
    assert guessed({path: shape}) == {path: role}


def test_one_array():
    assert gradtx.infer_roles(jnp.ones((3, 4))) == Role("other")


HIDDEN_STACK = Role("hidden", 0, -2, -1)
QUERY, OUT = Role("hidden", 0, -3, (-2, -1), -2), Role("hidden", 0, (-3, -2), -1, -3)

LINEN = {
    **{f"blocks/LayerNorm_{i}/{n}": Role(k, 0) for i in (0, 1) for n, k in (("bias", "bias"), ("scale", "norm"))},
    **{f"blocks/MultiHeadDotProductAttention_0/{n}/bias": Role("bias", 0) for n in ("key", "query", "value", "out")},
    **{f"blocks/MultiHeadDotProductAttention_0/{n}/kernel": QUERY for n in ("key", "query", "value")},
    "blocks/MultiHeadDotProductAttention_0/out/kernel": OUT,
    **{f"blocks/{n}/bias": Role("bias", 0) for n in ("up", "down")},
    **{f"blocks/{n}/kernel": HIDDEN_STACK for n in ("up", "down")},
    "embed/embedding": EMBEDDING,
    "pos_embedding": EMBEDDING,
    "final_norm/scale": Role("norm"),
    "final_norm/bias": Role("bias"),
    "lm_head/kernel": Role("head", (), -2, -1),
    "lm_head/bias": Role("bias"),
}

NNX = {
    **{f"layers/attention/{n}/bias": Role("bias", 0) for n in ("key", "query", "value", "out")},
    **{f"layers/attention/{n}/kernel": QUERY for n in ("key", "query", "value")},
    "layers/attention/out/kernel": OUT,
    "layers/norm1/bias": Role("bias", 0),
    "layers/norm1/scale": Role("norm", 0),
    "layers/norm2/scale": Role("norm", 0),
    **{f"layers/{n}/bias": Role("bias", 0) for n in ("up", "down")},
    **{f"layers/{n}/kernel": HIDDEN_STACK for n in ("up", "down")},
    **{
        n: LINEN[n]
        for n in ("embed/embedding", "final_norm/scale", "final_norm/bias", "lm_head/kernel", "lm_head/bias")
    },
}

MODELS = {
    "linen": (transformers.linen_scanned, LINEN, "blocks/**"),
    "nnx": (transformers.nnx_stacked, NNX, "layers/**"),
}


@pytest.mark.slow
@pytest.mark.parametrize("library", MODELS)
def test_transformers(library):
    pytest.importorskip("flax")
    make, expected, branch = MODELS[library]
    params = make().params
    for tree in (params, jax.eval_shape(lambda: params)):
        table = gradtx.as_rules(gradtx.infer_roles(tree))
        assert {path[1:]: role for path, role in table} == expected
    assert gradtx.roles(params, table) == gradtx.infer_roles(params)
    # The rules of two lines leave nothing of the stacks to a guess.
    unstacked, stacked = (functools.partial(gradtx.infer_roles, stack=s) for s in ((), 0))
    assert gradtx.roles(params, [(branch, stacked), ("**", unstacked)]) == gradtx.infer_roles(params)


@pytest.mark.slow
@pytest.mark.parametrize("library", MODELS)
def test_the_models_have_gradients_like_their_parameters(library):
    pytest.importorskip("flax")
    model = MODELS[library][0]()
    gradients = jax.jit(jax.grad(model.loss))(model.params)
    assert jax.tree.structure(gradients) == jax.tree.structure(model.params)
    assert gradtx.infer_roles(gradients) == gradtx.infer_roles(model.params)


def test_haiku_dictionaries():
    shapes = {
        "transformer/embed/embeddings": (9, 4),
        "transformer/layer_0/attention/query/w": (4, 4),
        "transformer/layer_0/attention/query/b": (4,),
        "transformer/layer_0/layer_norm/scale": (4,),
        "transformer/layer_0/layer_norm/offset": (4,),
        "transformer/head/w": (4, 9),
    }
    # Haiku's trees have two levels, the names of modules contain "/".
    params: dict = {}
    for path, shape in shapes.items():
        module, name = path.rsplit("/", 1)
        params.setdefault(module, {})[name] = jnp.ones(shape)
    kinds = ["embedding", "hidden", "bias", "norm", "bias", "head"]
    expected = dict(zip(shapes, kinds, strict=True))
    table = gradtx.as_rules(gradtx.infer_roles(params))
    assert {path[1:]: role.kind for path, role in table} == expected
    assert {role.stack for _, role in table} == {()}
    assert gradtx.roles(params, table) == gradtx.infer_roles(params)


def test_an_equinox_mlp():
    eqx = pytest.importorskip("equinox")
    params = eqx.filter(eqx.nn.MLP(2, 3, 4, 1, key=jax.random.key(0)), eqx.is_array)
    assert gradtx.as_rules(gradtx.infer_roles(params)) == (
        ("/layers/0/weight", TORCH),
        ("/layers/0/bias", Role("bias")),
        ("/layers/1/weight", TORCH),
        ("/layers/1/bias", Role("bias")),
    )


STACK = {
    "layers/up/kernel": (3, 4, 8),
    "layers/up/bias": (3, 8),
    "layers/norm/scale": (3, 4),
    "final/scale": (4,),
}


def stacked(shapes: dict[str, tuple[int, ...]]) -> set[str]:
    return {path for path, role in guessed(shapes).items() if role.stack}


@pytest.mark.parametrize("name", ["layers", "blocks", "h", "ScanTransformerBlock_0", "__layer_stack_no_per_layer"])
def test_names_of_stacks(name):
    shapes = {path.replace("layers", name): shape for path, shape in STACK.items()}
    assert len(stacked(shapes)) == 3


@pytest.mark.parametrize("name", ["encoder", "layer_0", "layers_0", "block", "head"])
def test_other_names_are_no_stacks(name):
    shapes = {path.replace("layers", name): shape for path, shape in STACK.items()}
    assert stacked(shapes) == set()


def test_evidence_for_a_stack():
    assert len(stacked({n: s for n, s in STACK.items() if "norm" not in n})) == 2  # by the bias
    assert len(stacked({n: s for n, s in STACK.items() if "bias" not in n})) == 2  # by the norm
    # Nothing that should be a vector; several sizes; a size of one; one parameter; an index.
    assert stacked({"layers/up/kernel": (3, 4, 8), "layers/down/kernel": (3, 8, 4)}) == set()
    assert stacked(STACK | {"layers/more": (2, 4)}) == set()
    assert stacked(STACK | {"layers/more": ()}) == set()
    assert stacked({n: (1, *s[1:]) for n, s in STACK.items()}) == set()
    assert stacked({"layers/norm/scale": (3, 4)}) == set()
    assert stacked({n.replace("layers", "layers/0"): s for n, s in STACK.items()}) == set()
    # The biases of heads are matrices without a stack.
    heads = {"layers/query/kernel": (8, 2, 4), "layers/query/bias": (2, 4)}
    assert stacked(heads) == set()
    # Two branches, each by itself.
    two = {f"{a}/{n}": s for a in ("encoder", "decoder") for n, s in STACK.items()} | {"decoder/layers/more": (2, 2)}
    assert stacked(two) == {n for n in two if n.startswith("encoder/layers")}


def test_given_stacks():
    assert stacked(STACK) == {n for n in STACK if "layers" in n}
    assert {r.stack for r in guessed(STACK, stack=()).values()} == {()}
    # The axes of a matrix stay its own wherever the stack is.
    shapes = {"up/kernel": (4, 3, 8), "norm/scale": (4, 3)}
    assert guessed(shapes, stack=1) == {"up/kernel": Role("hidden", 1, -3, -1), "norm/scale": Role("norm", 1)}
    assert guessed({"up/kernel": (2, 3, 4, 8)}, stack=(0, 1)) == {"up/kernel": Role("hidden", (0, 1), -2, -1)}
    assert guessed({"up/kernel": (4, 8, 3)}, stack=-1) == {"up/kernel": Role("hidden", -1, -3, -2)}
    assert guessed({"embed/embedding": (9, 4, 3)}, stack=-1) == {"embed/embedding": Role("embedding", -1, -3, -2)}
    with pytest.raises(ValueError, match=r"infer_roles: a/b, of shape \(2,\): stack names axis 1"):
        guessed({"a/b": (2,)}, stack=1)
    with pytest.raises(TypeError, match="stack must be an axis"):
        guessed({"a/b": (2,)}, stack="layers")


def test_guesses_fit():
    for shapes in (STACK, {"a/weight": (2, 3, 4), "a/bias": (2,), "query/w": (2, 3, 4), "out/w": (2, 3, 4)}):
        params = nested(shapes)
        assert gradtx.roles(params, gradtx.infer_roles) == gradtx.infer_roles(params)


def test_the_class_of_a_layer_says_more_than_its_name():
    eqx = pytest.importorskip("equinox")

    class Model(eqx.Module):
        tok: eqx.nn.Embedding
        pos: eqx.nn.Embedding
        patch_embed: eqx.nn.Linear
        first: eqx.nn.LayerNorm
        lm_head: eqx.nn.Linear

        def __init__(self, key):
            self.tok, self.pos = eqx.nn.Embedding(50, 4, key=key), eqx.nn.Embedding(9, 4, key=key)
            self.patch_embed, self.lm_head = eqx.nn.Linear(4, 4, key=key), eqx.nn.Linear(4, 50, key=key)
            self.first = eqx.nn.LayerNorm((4, 3))

    params = eqx.filter(Model(jax.random.key(0)), eqx.is_inexact_array)
    table = gradtx.as_rules(gradtx.infer_roles(params))
    assert dict(table) == {
        "/tok/weight": EMBEDDING,
        "/pos/weight": EMBEDDING,
        "/patch_embed/weight": TORCH,
        "/patch_embed/bias": Role("bias"),
        "/first/weight": Role("norm"),
        "/first/bias": Role("bias"),
        "/lm_head/weight": Role("head", (), -1, -2),
        "/lm_head/bias": Role("bias"),
    }
    # So the tables go to Adam, the matrix to Muon.
    tx = gradtx.with_roles(gradtx.infer_roles, gradtx.muon(1e-3))
    rule = {row.path: row.rule for row in gradtx.describe(tx, params).parameters}
    assert (rule["tok/weight"], rule["pos/weight"], rule["patch_embed/weight"]) == ("adam", "adam", "muon")


def test_the_class_of_a_layer_in_nnx():
    nnx = pytest.importorskip("flax.nnx")

    class Model(nnx.Module):
        def __init__(self, rngs):
            self.embed = nnx.Linear(4, 4, use_bias=False, rngs=rngs)
            self.tok = nnx.Embed(50, 4, rngs=rngs)
            self.a = nnx.LayerNorm(4, rngs=rngs)

    kinds = {path: role.kind for path, role in gradtx.as_rules(gradtx.infer_roles(Model(nnx.Rngs(0))))}
    assert kinds == {"/a/bias": "bias", "/a/scale": "norm", "/embed/kernel": "hidden", "/tok/embedding": "embedding"}


def test_a_matrix_that_looks_like_a_table():
    table = {"a/bias": (8,), "tok/weight": (500, 8), "up/weight": (500, 8)}
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("default")
        for _ in range(2):
            assert guessed(table)["tok/weight"] == TORCH
    (one,) = seen  # not for each trace, and only of the first matrix
    assert "infer_roles: tok/weight, of shape (500, 8), is taken for 'hidden'" in str(one.message)
    with pytest.warns(UserWarning, match=r"a rule before the guess, \('tokens', Role\('embedding'\)\)"):
        assert guessed({"tokens": (500, 8), "up/weight": (8, 8)})["tokens"] == Role("other")
    # No warning: `kernel` and `w` are matrices of products, 4 is the ratio of an MLP, and this is said to be a head.
    guessed({"up/kernel": (500, 8), "v/weight": (500, 8)})
    guessed({"up/w": (500, 8)})
    guessed({"up/weight": (32, 8)})
    guessed({"lm_head/weight": (500, 8)})
    rules = [("tokens", Role("embedding")), ("**", gradtx.infer_roles)]
    assert gradtx.roles(nested({"tokens": (500, 8), "up/weight": (8, 8)}), rules)["tokens"] == Role("embedding")
