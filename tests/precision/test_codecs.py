# SPDX-License-Identifier: Apache-2.0
"""Storage codecs against formulas in float64, and what each of them promises."""

import functools
import math

import chex
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given

from gradtx.precision import Blocks, Factored, bfloat16, companded8, float8, float32, int4, int8

pytestmark = pytest.mark.slow

BLOCKWISE = [
    int8(stochastic=False),
    int8(signed=False),
    companded8(stochastic=False),
    companded8(signed=False),
    float8(stochastic=False),
    float8("e5m2", stochastic=False),
    float8(signed=False),
    float8("e5m2", signed=False),
    int4(stochastic=False),
    int4(signed=False),
]
CODECS = [float32(), bfloat16(), *BLOCKWISE]
STOCHASTIC = [
    int8(),
    int8(signed=False, stochastic=True),
    companded8(),
    companded8(signed=False, stochastic=True),
    float8(),
    float8("e5m2"),
    float8(signed=False, stochastic=True),
    int4(),
    int4(signed=False, stochastic=True),
]
FACTORS = int4(signed=False)
SHAPES = [(), (0,), (3, 0), (0, 5), (7,), (300,), (5, 513), (2, 3, 4), (2, 4, 512)]
TINY = float(np.finfo(np.float32).tiny)


def dynamic_map(decades: int, first: int, signed: bool) -> np.ndarray:
    """The definition: centers of the equal parts of each decade, finer towards 1, with 0 and 1."""
    positive = []
    for i in range(decades):
        edges = np.linspace(0.1, 1, first * 2**i + 1) * 10.0 ** (i - decades + 1)
        positive += list((edges[1:] + edges[:-1]) / 2)
    return np.array(sorted([0.0, 1.0, *positive, *(-x for x in positive if signed)]))


def float8_values(kind: str, signed: bool) -> np.ndarray:
    dtype, top = {"e4m3": (ml_dtypes.float8_e4m3fn, 2.0**8), "e5m2": (ml_dtypes.float8_e5m2, 2.0**15)}[kind]
    values = np.arange(256, dtype=np.uint8).view(dtype).astype(np.float64)
    values = values[np.isfinite(values) & (np.abs(values) <= top)] / top
    return np.unique(values if signed else values[values >= 0])


def ratios(codec) -> np.ndarray:
    """All that an element divided by its scale can be read as, in float64."""
    if isinstance(codec, int8):
        return dynamic_map(7, 1 if codec.signed else 2, codec.signed)
    if isinstance(codec, companded8):
        codes = np.arange(-127, 128)
        return codes / (254 - np.abs(codes)) if codec.signed else (np.arange(256) / 255) ** 2
    if isinstance(codec, float8):
        return float8_values(codec.kind, codec.signed)
    return dynamic_map(3, 1, True) if codec.signed else np.arange(1, 17) / 16


def scales_of(codec, x: np.ndarray) -> np.ndarray:
    """The scale of each element of an array without special numbers, in float64."""
    x = x.astype(np.float64)
    if codec.nearest == FACTORS and x.ndim >= 2:
        return np.minimum(x.max(-1, keepdims=True), x.max(-2, keepdims=True))
    scales = np.zeros_like(x)
    turned = codec.signed and isinstance(codec, int8 | int4)
    for start in range(0, x.shape[-1], codec.block):
        block = x[..., start : start + codec.block]
        largest = np.take_along_axis(block, np.argmax(np.abs(block), -1)[..., None], -1)
        scales[..., start : start + codec.block] = largest if turned else np.abs(largest)
    return scales


def numbers(codec, shape, seed=0, spread=4.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape) * np.exp(spread * rng.normal(size=shape))
    return np.asarray(x if codec.signed else x * x, np.float32)


@functools.partial(jax.jit, static_argnums=0)
def encode(codec, x, seed=0):
    return codec.encode(x, jax.random.key(seed) if codec.needs_key else None)


@functools.partial(jax.jit, static_argnums=(0, 2))
def decode(codec, payload, shape):
    return codec.decode(payload, shape)


def stored(codec, x) -> np.ndarray:
    return np.asarray(decode(codec, encode(codec, jnp.asarray(x)), np.shape(x)))


def check_nearest(codec, x: np.ndarray) -> None:
    """Each element is read as the value nearest to it; in the millionth around the middle of two, it may be either."""
    scales, values = scales_of(codec, x), ratios(codec)
    r = x / np.where(scales == 0, 1, scales)
    space = values
    if isinstance(codec, companded8):  # nearest in what is spaced evenly
        r = 2 * r / (1 + np.abs(r)) if codec.signed else np.sqrt(r)
        space = np.linspace(-1, 1, 255) if codec.signed else np.arange(256) / 255
    candidates = np.abs(r[..., None] - space)
    if not codec.signed:
        candidates[r > 0] += np.where(values == 0, np.inf, 0)
    found = stored(codec, x) / np.where(scales == 0, 1, scales)
    code = np.abs(found[..., None] - values).argmin(-1)
    np.testing.assert_allclose(found, values[code], rtol=4e-7)
    excess = np.take_along_axis(candidates, code[..., None], -1)[..., 0] - candidates.min(-1)
    assert np.all(excess <= 2e-6 * np.abs(r))


@pytest.mark.parametrize("codec", BLOCKWISE, ids=repr)
@pytest.mark.parametrize("shape", [(7,), (300,), (3, 513)], ids=str)
def test_the_nearest_value_is_kept(codec, shape):
    check_nearest(codec, numbers(codec, shape))


@pytest.mark.parametrize("codec", BLOCKWISE, ids=repr)
@pytest.mark.parametrize("scale", [1.0, -3e-5, 7.3e30], ids=str)
def test_values_and_the_middles_between_them(codec, scale):
    """Also the middles, and what is beside them by a unit in the last place or two."""
    values = ratios(codec)
    middles = ((values[1:] + values[:-1]) / 2).astype(np.float32)
    below, above = np.nextafter(middles, np.float32(-2)), np.nextafter(middles, np.float32(2))
    r = np.concatenate([values, middles, below, above, np.nextafter(below, np.float32(-2))]).astype(np.float32)
    r = np.clip(r if codec.signed else np.abs(r), -0.998, 0.998)
    r = np.concatenate([np.resize(r, (-(-len(r) // 15), 15)), np.ones((-(-len(r) // 15), 1))], axis=1)
    x = (r * (scale if codec.signed else abs(scale))).astype(np.float32)
    check_nearest(type(codec)(**{**vars(codec), "block": 16}), x if codec != FACTORS else x[0])


@pytest.mark.parametrize("codec", [*CODECS, *STOCHASTIC], ids=repr)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_payloads_of_shapes(codec, shape):
    x = numbers(codec, shape)
    payload = encode(codec, jnp.asarray(x))
    y = decode(codec, payload, shape)
    assert y.shape == shape and y.dtype == jnp.float32
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(payload)) == codec.bytes(shape)
    for leaf in jax.tree.leaves(payload):
        leading = 2 if isinstance(payload, Factored) else 1  # columns have no row
        assert leaf.shape[: len(shape) - leading] == shape[: len(shape) - leading]
    chex.assert_trees_all_equal(encode(codec, y), payload)  # a stored value does not drift while nothing changes


@pytest.mark.parametrize("codec", [*BLOCKWISE, *STOCHASTIC], ids=repr)
@pytest.mark.parametrize("scale", [1.0, -0.7, 3e-20, -6e30, 3.4e38], ids=str)
def test_every_code_is_encoded_the_same(codec, scale):
    values = ratios(codec)
    values = values[np.abs(values) < 1]
    x = np.stack([values * scale, np.full(len(values), scale)], axis=1).astype(np.float32)
    x = x if codec.signed else np.abs(x)
    short = type(codec)(**{**vars(codec), "block": 2})
    vector = x.reshape(-1)
    payload = encode(short, jnp.asarray(vector))
    chex.assert_trees_all_equal(encode(short, decode(short, payload, vector.shape)), payload)
    np.testing.assert_allclose(stored(short, vector), vector, rtol=1e-6)
    if not isinstance(codec, int4):
        assert len(np.unique(np.asarray(payload.codes))) == len(ratios(codec)) - isinstance(
            codec, companded8 | float8
        ) * (codec.signed)  # of two extremes only the positive one is made here


@pytest.mark.parametrize("codec", [*CODECS, *STOCHASTIC], ids=repr)
@given(data=st.data())
def test_errors_are_bounded(codec, data):
    n = data.draw(st.sampled_from([1, 8, 40]))
    elements = st.floats(-(2.0**127), 2.0**127, width=32).filter(lambda v: v == 0 or abs(v) >= TINY)
    x = np.array(data.draw(st.lists(elements, min_size=n, max_size=n)), np.float32)
    x = x if codec.signed else np.abs(x)
    y = stored(codec, x)
    if isinstance(codec, float32 | bfloat16):
        bounds = np.array([codec.error_bound(float(v)) for v in np.abs(x)])
    else:
        bounds = np.array([codec.error_bound(float(v)) for v in np.abs(scales_of(codec, x))])
    assert np.all(np.abs(y.astype(np.float64) - x) <= bounds)
    if not codec.signed:
        assert np.all(y >= 0)


@pytest.mark.parametrize("codec", [*CODECS, *STOCHASTIC], ids=repr)
def test_error_bounds_are_not_loose(codec):
    """On many numbers something comes near to the bound."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1 if codec.signed else 0, 1, (64, 256)).astype(np.float32)
    x[:, 0] = 1
    assert np.max(np.abs(stored(codec, x) - x)) <= codec.error_bound(1.0)
    if not isinstance(codec, float32):
        assert np.max(np.abs(stored(codec, x) - x)) >= 0.45 * codec.error_bound(1.0)


def test_bytes_per_element():
    shape = (1024, 1024)
    expected = {int8(): 1 + 4 / 256, companded8(): 1 + 4 / 128, float8(): 1 + 4 / 256, int4(): 0.5 + 4 / 128}
    expected |= {FACTORS: 0.5 + 8 / 1024, bfloat16(): 2, float32(): 4}
    assert {codec: codec.bytes(shape) / math.prod(shape) for codec in expected} == expected
    assert FACTORS.bytes((3, 1024, 512)) == 3 * (1024 * 512 / 2 + 4 * (1024 + 512))


def test_bytes_of_adam_for_a_transformer():
    """The 148 arrays of GPT-2's smallest; those below 4096 elements in float32."""
    layer = [(768,), (768,), (768, 2304), (2304,), (768, 768), (768,)]
    layer += [(768,), (768,), (768, 3072), (3072,), (3072, 768), (768,)]
    shapes = [(50257, 768), (1024, 768), *(12 * layer), (768,), (768,)]
    assert len(shapes) == 148

    def per_parameter(*codecs) -> float:
        total = sum((codec if math.prod(s) >= 4096 else float32()).bytes(s) for codec in codecs for s in shapes)
        return total / sum(map(math.prod, shapes))

    assert per_parameter(float32(), float32()) == 8
    assert per_parameter(int8(), int8(signed=False)) < 2.05
    assert per_parameter(companded8(), companded8(signed=False)) < 2.14
    assert per_parameter(float8(), float8("e5m2", signed=False)) < 2.05
    assert per_parameter(int4(), int4(signed=False)) < 1.06


@pytest.mark.parametrize("codec", [*CODECS, *STOCHASTIC], ids=repr)
@pytest.mark.parametrize("value", [0.0, 1e-45, 1.1e-38, 2e-38, 1e-30, 1.0, 3.4e38], ids=str)
def test_blocks_of_one_value(codec, value):
    x = np.full((2, 300), value, np.float32)
    y = stored(codec, x)
    assert np.all(np.isfinite(y))
    assert np.all(np.abs(y.astype(np.float64) - x) <= codec.error_bound(value))
    if not isinstance(codec, float32 | bfloat16) and value >= TINY:
        np.testing.assert_array_equal(y, x)


@pytest.mark.parametrize("codec", [*BLOCKWISE, *STOCHASTIC], ids=repr)
@pytest.mark.parametrize("shape", [(64,), (8, 64)], ids=str)
def test_what_is_not_finite_leaves_the_others_alone(codec, shape):
    x = numbers(codec, shape, spread=1.0)
    bad = {3: np.nan, 5: np.inf} | ({7: -np.inf} if codec.signed else {})
    zeroed, spoiled = x.copy(), x.copy()
    for i, value in bad.items():
        zeroed.reshape(-1)[i], spoiled.reshape(-1)[i] = 0, value
    y, expected = stored(codec, spoiled).reshape(-1), stored(codec, zeroed).reshape(-1)
    others = np.setdiff1d(np.arange(x.size), list(bad))
    np.testing.assert_array_equal(y[others], expected[others])
    scales = np.abs(scales_of(codec, zeroed)).reshape(-1)
    assert y[3] == (0 if codec.signed else scales[3])
    np.testing.assert_allclose(y[5], scales[5], rtol=1.001 * codec.error_bound(1.0))
    if codec.signed:
        np.testing.assert_allclose(y[7], -scales[7], rtol=1.001 * codec.error_bound(1.0))


@pytest.mark.parametrize("codec", [*BLOCKWISE, *STOCHASTIC], ids=repr)
@pytest.mark.parametrize("value", [np.nan, np.inf], ids=str)
def test_blocks_of_nothing_finite_are_zero(codec, value):
    np.testing.assert_array_equal(stored(codec, np.full((2, 5), value, np.float32)), np.zeros((2, 5)))


@pytest.mark.parametrize("codec", [c for c in [*BLOCKWISE, *STOCHASTIC] if not c.signed], ids=repr)
@pytest.mark.parametrize("shape", [(256,), (16, 16)], ids=str)
def test_second_moments_stay_positive(codec, shape):
    x = (10.0 ** np.linspace(-30, 8, 256)).astype(np.float32).reshape(shape)
    assert np.all(stored(codec, x) > 0)
    zeros = stored(codec, np.zeros(shape, np.float32))
    np.testing.assert_array_equal(zeros, 0)


def test_bfloat16_is_the_nearest():
    x = numbers(bfloat16(), (4096,), spread=20.0)
    expected = x.astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(np.asarray(bfloat16().encode(jnp.asarray(x))), expected)
    largest = np.float32(ml_dtypes.finfo(ml_dtypes.bfloat16).max)
    special = np.array([3.4e38, -3.4e38, np.inf, -np.inf, np.nan], np.float32)
    np.testing.assert_array_equal(stored(bfloat16(), special), [largest, -largest, np.inf, -np.inf, np.nan])


def test_stochastic_bfloat16_is_right_on_average():
    n, x = 1_000_000, np.float32(1 + 0.3 * 2**-7)
    codec = bfloat16(stochastic=True)
    y = np.asarray(codec.decode(codec.encode(jnp.full(n, x), jax.random.key(0)), (n,)), np.float64)
    assert set(np.unique(y)) == {1.0, 1 + 2**-7}
    standard_error = 2**-7 * math.sqrt(0.3 * 0.7 / n)
    assert abs(y.mean() - float(x)) < 3 * standard_error
    assert codec.needs_key and not bfloat16().needs_key


@pytest.mark.parametrize("codec", STOCHASTIC, ids=repr)
def test_stochastic_codes_are_right_on_average(codec):
    """Between values of all sizes, also of different decades: one of the two, a million draws within 3 errors."""
    values = np.unique(np.abs(ratios(codec)))
    for k, part in [(2, 0.3), (len(values) // 3, 0.1), (len(values) // 2, 0.5), (-3, 0.7), (-2, 0.2)]:
        below, above = values[k], values[k + 1]
        x = np.full((4000, 256), below + part * (above - below), np.float32)
        x[:, :: codec.block] = x[0] = 1  # the scale of each block, row and column
        if codec.signed and k != -2:  # the maps have 1, but not -1
            x[1:, 1::2] *= -1
        y = np.asarray(decode(codec, encode(codec, jnp.asarray(x), seed=k), x.shape), np.float64) * np.sign(x)
        drawn = y[np.abs(x) != 1]
        np.testing.assert_allclose(np.unique(drawn), [below, above], rtol=1e-6)
        standard_error = (above - below) * math.sqrt(part * (1 - part) / drawn.size)
        assert abs(drawn.mean() - (below + part * (above - below))) < 3 * standard_error + 1e-7 * above


@pytest.mark.parametrize("codec", [*STOCHASTIC, bfloat16(stochastic=True)], ids=repr)
def test_without_a_key_codes_are_the_nearest(codec):
    assert codec.needs_key and not codec.nearest.needs_key
    x = jnp.asarray(numbers(codec, (3, 300)))
    chex.assert_trees_all_equal(codec.encode(x), codec.nearest.encode(x))


@pytest.mark.parametrize("codec", [c for c in STOCHASTIC if c.signed], ids=repr)
def test_no_number_is_more_than_doubled(codec):
    """By a chance, however small, its step would else be huge: beside a second moment in float32."""
    values = ratios(codec)[ratios(codec) >= 0]
    for below, above in zip(values[:2], values[1:3], strict=True):
        x = np.full((2000, 64), max(0.49 * above, 1.001 * below), np.float32)
        x[:, 1::4] = 0.55 * above
        x[:, ::2] *= -1
        x[:, 0] = 1
        y = np.abs(stored(codec, x))
        if above > 2.1 * below:
            np.testing.assert_allclose(y[:, 2::4], below, rtol=1e-6)
            np.testing.assert_allclose(y[:, 3::4], below, rtol=1e-6)
        drawn = (y[:, 1::4] - below) / (above - below)
        np.testing.assert_allclose(np.unique(drawn.round(5)), [0, 1])
        part = (0.55 * above - below) / (above - below)
        assert abs(drawn.mean() - part) < 3 * 0.5 / math.sqrt(drawn.size)


def test_stochastic_bfloat16_keeps_what_fits():
    codec, x = bfloat16(stochastic=True), jnp.array([1.0, -2.5, 0.0, jnp.inf, -jnp.inf, jnp.nan, 3.4e38])
    y = np.asarray(codec.decode(codec.encode(x, jax.random.key(1)), x.shape))
    largest = np.float32(ml_dtypes.finfo(ml_dtypes.bfloat16).max)
    np.testing.assert_array_equal(y, [1, -2.5, 0, np.inf, -np.inf, np.nan, largest])


def test_codecs_are_values():
    assert int8() == int8(256) != int8(128) and hash(int8()) == hash(int8(block=256))
    assert int8() == int8(stochastic=True) and int8(signed=False) == int8(signed=False, stochastic=False)
    assert int8() != companded8(256) and float8() != float8("e5m2")
    assert repr(int8(128, signed=False)) == "int8(block=128, signed=False, stochastic=False)"
    assert eval(repr(float8("e5m2", 64))) == float8("e5m2", 64)
    with pytest.raises(AttributeError):
        int8().block = 3  # type: ignore[misc]  # frozen
    assert [c.name for c in (float32(), bfloat16(), int8(), companded8(), float8(), int4())] == [
        "float32",
        "bfloat16",
        "int8",
        "companded8",
        "float8",
        "int4",
    ]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: int8(0), "int8: block must be a whole number, at least 1, got 0"),
        (lambda: companded8(2.5), "companded8: block must be a whole number, at least 1, got 2.5"),  # type: ignore
        (lambda: float8(block=True), "float8: block must be a whole number, at least 1, got True"),
        (lambda: int4(31), "int4: block must be an even whole number, at least 2, got 31"),
        (lambda: float8("e3m4"), 'float8: kind must be "e4m3" or "e5m2", got \'e3m4\''),  # type: ignore
    ],
)
def test_options_that_cannot_be(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_blocks_that_do_not_fit():
    """Where scales take more than is saved."""
    for shape in [(1024, 1024), (3, 3, 64, 64), (2,), ()]:
        int8().check(shape)
    with pytest.raises(
        ValueError, match="it would take 20480 bytes with a scale for each block of the last axis, 16384"
    ):
        int8().check((4096, 1))


def test_payloads_are_plain_arrays():
    payload = encode(int8(), jnp.ones((3, 300)))
    assert isinstance(payload, Blocks)
    assert (payload.codes.shape, payload.codes.dtype, payload.scales.shape) == ((3, 300), jnp.uint8, (3, 2))
    payload = encode(FACTORS, jnp.ones((3, 300)))
    assert isinstance(payload, Factored)
    assert (payload.codes.shape, payload.rows.shape, payload.columns.shape) == ((3, 150), (3,), (300,))


def test_the_dynamic_map_is_that_of_the_paper():
    """Known entries: the smallest, around the decades, the largest."""
    signed, unsigned = dynamic_map(7, 1, True), dynamic_map(7, 2, False)
    assert len(signed) == len(unsigned) == 256 and len(dynamic_map(3, 1, True)) == 16
    np.testing.assert_allclose(signed[[0, 126, 127, 128, -2, -1]], [-0.99296875, -5.5e-7, 0, 5.5e-7, 0.99296875, 1])
    np.testing.assert_allclose(unsigned[[0, 1, 2, -2, -1]], [0, 3.25e-7, 7.75e-7, 0.996484375, 1])
    block = jnp.asarray(np.where(np.arange(256) == 127, 0, signed), jnp.float32)
    np.testing.assert_array_equal(encode(int8(), block).codes, np.arange(256))
    np.testing.assert_array_equal(encode(int8(signed=False), jnp.asarray(unsigned, jnp.float32)).codes, np.arange(256))
