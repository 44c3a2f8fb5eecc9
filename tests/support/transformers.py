# SPDX-License-Identifier: Apache-2.0
"""Tiny language models of several libraries, layers stacked by scans, each with its parameters and a loss of them."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

LAYERS, WIDTH, HEADS, HIDDEN, VOCABULARY, LENGTH = 3, 8, 2, 16, 11, 5

TOKENS = jnp.arange(2 * LENGTH).reshape(2, LENGTH) % VOCABULARY


class Model(NamedTuple):
    """A tree of parameters and its loss on `TOKENS`."""

    params: Any
    loss: Callable


@contextlib.contextmanager
def relaxed() -> Iterator[None]:
    """Other libraries promote ranks and dtypes, as JAX lets them where it is not told otherwise."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def next_token_loss(logits: jax.Array) -> jax.Array:
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits[:, :-1]), TOKENS[:, 1:, None], axis=-1)
    return -jnp.mean(chosen)


def linen_scanned(named: bool = False) -> Model:
    """A transformer of Flax's linen whose blocks run in `nn.scan`; `named` gives its weights names of their axes."""
    import flax.linen as nn

    def kernel(*names: str) -> Any:
        init = nn.initializers.lecun_normal()
        return nn.with_partitioning(init, names) if named else init

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, _: None) -> tuple[jax.Array, None]:
            h = nn.LayerNorm()(x)
            x = x + nn.MultiHeadDotProductAttention(
                HEADS, kernel_init=kernel("embed", "heads", "kv"), out_kernel_init=kernel("heads", "kv", "embed")
            )(h, h)
            h = nn.Dense(HIDDEN, kernel_init=kernel("embed", "mlp"), name="up")(nn.LayerNorm()(x))
            return x + nn.Dense(WIDTH, kernel_init=kernel("mlp", "embed"), name="down")(nn.gelu(h)), None

    class Transformer(nn.Module):
        @nn.compact
        def __call__(self, tokens: jax.Array) -> jax.Array:
            x = nn.Embed(VOCABULARY, WIDTH, embedding_init=kernel("vocab", "embed"), name="embed")(tokens)
            position = self.param("pos_embedding", nn.initializers.normal(0.02), (LENGTH, WIDTH))
            blocks = nn.scan(
                Block,
                variable_axes={"params": 0},
                split_rngs={"params": True},
                length=LAYERS,
                metadata_params={nn.PARTITION_NAME: "layers"},
            )
            x, _ = blocks(name="blocks")(x + position, None)
            x = nn.LayerNorm(name="final_norm")(x)
            return nn.Dense(VOCABULARY, kernel_init=kernel("embed", "vocab"), name="lm_head")(x)

    model = Transformer()

    @relaxed()
    def loss(params: Any) -> jax.Array:
        return next_token_loss(model.apply({"params": params}, TOKENS))  # type: ignore[arg-type]  # one output

    with relaxed():
        return Model(model.init(jax.random.key(0), TOKENS)["params"], loss)


def nnx_stacked(named: bool = False) -> Model:
    """A transformer of Flax's nnx whose blocks are made by `nnx.vmap` and run by `nnx.scan`: an `nnx.State`.

    `named` gives its weights names of their axes; then call it under a mesh, as `named_mesh()`, that has them.
    """
    from flax import nnx

    def kernel(*names: str) -> Any:
        init = nnx.initializers.lecun_normal()
        return nnx.with_partitioning(init, names) if named else init

    class Block(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.norm1 = nnx.LayerNorm(WIDTH, rngs=rngs)
            self.attention = nnx.MultiHeadAttention(
                HEADS,
                WIDTH,
                decode=False,
                rngs=rngs,
                kernel_init=kernel("embed", "heads", "kv"),
                out_kernel_init=kernel("heads", "kv", "embed"),
            )
            self.norm2 = nnx.RMSNorm(WIDTH, rngs=rngs)
            self.up = nnx.Linear(WIDTH, HIDDEN, kernel_init=kernel("embed", "mlp"), rngs=rngs)
            self.down = nnx.Linear(HIDDEN, WIDTH, kernel_init=kernel("mlp", "embed"), rngs=rngs)

        def __call__(self, x: jax.Array) -> jax.Array:
            x = x + self.attention(self.norm1(x))
            return x + self.down(nnx.gelu(self.up(self.norm2(x))))

    class Transformer(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            @nnx.split_rngs(splits=LAYERS)
            @nnx.vmap(in_axes=(0,), out_axes=0, transform_metadata={nnx.PARTITION_NAME: "layers"} if named else {})
            def blocks(rngs: nnx.Rngs) -> Block:
                return Block(rngs)

            self.embed = nnx.Embed(VOCABULARY, WIDTH, embedding_init=kernel("vocab", "embed"), rngs=rngs)
            self.layers = blocks(rngs)
            self.final_norm = nnx.LayerNorm(WIDTH, rngs=rngs)
            self.lm_head = nnx.Linear(WIDTH, VOCABULARY, kernel_init=kernel("embed", "vocab"), rngs=rngs)

        def __call__(self, tokens: jax.Array) -> jax.Array:
            @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
            def run(x: jax.Array, block: Block) -> jax.Array:
                return block(x)

            return self.lm_head(self.final_norm(run(self.embed(tokens), self.layers)))

    with relaxed():
        graph, params, rest = nnx.split(Transformer(nnx.Rngs(0)), nnx.Param, ...)

    @relaxed()
    def loss(params: Any) -> jax.Array:
        return next_token_loss(nnx.merge(graph, params, rest)(TOKENS))

    return Model(params, loss)


def named_mesh() -> Any:
    """A context with a mesh of one device whose axes have the names of the models' axes."""
    names = ("layers", "embed", "heads", "kv", "mlp", "vocab")
    types = (jax.sharding.AxisType.Auto,) * len(names)
    return jax.set_mesh(jax.make_mesh((1,) * len(names), names, axis_types=types, devices=jax.devices()[:1]))
