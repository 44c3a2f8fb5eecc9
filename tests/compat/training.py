# SPDX-License-Identifier: Apache-2.0
# A training script as people write it for optax; see test_migration.py.
import jax
import jax.numpy as jnp
import numpy as np
import optax

STEPS = 60
rng = np.random.default_rng(0)
X = jnp.asarray(rng.normal(size=(96, 8)), jnp.float32)
Y = jnp.asarray(np.argmax(np.asarray(X) @ rng.normal(size=(8, 4)), axis=1))
PARAMS = {
    "hidden": {"kernel": jnp.asarray(rng.normal(size=(8, 16)) * 0.3, jnp.float32), "bias": jnp.zeros(16)},
    "head": {"kernel": jnp.asarray(rng.normal(size=(16, 4)) * 0.3, jnp.float32), "bias": jnp.zeros(4)},
}


def logits(params, x):
    x = jnp.tanh(x @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    return x @ params["head"]["kernel"] + params["head"]["bias"]


def cross_entropy(params, x, y):
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits(params, x), y).mean()


def smoothed(params, x, y):
    labels = optax.smooth_labels(jax.nn.one_hot(y, 4), 0.1)
    penalty = 1e-4 * optax.tree_utils.tree_norm(params, squared=True)
    return optax.softmax_cross_entropy(logits(params, x), labels).mean() + penalty


def robust(params, x, y):
    return optax.huber_loss(logits(params, x), jax.nn.one_hot(y, 4), delta=0.5).mean()


def kernels(params):
    return jax.tree.map(lambda p: p.ndim > 1, params)


def labels(params):
    return {"hidden": "adam", "head": "sgd"}


cosine = optax.warmup_cosine_decay_schedule(0.0, 0.03, warmup_steps=5, decay_steps=STEPS, end_value=1e-3)
stairs = optax.join_schedules(
    [optax.constant_schedule(0.1), optax.exponential_decay(0.1, 10, 0.5, staircase=True)], [20]
)
RUNS = {
    "clipped adamw": (cross_entropy, optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(cosine, mask=kernels))),
    "masked decay": (
        smoothed,
        optax.chain(
            optax.scale_by_adam(b2=0.99, nesterov=True),
            optax.masked(optax.add_decayed_weights(1e-2), kernels),
            optax.scale_by_learning_rate(stairs),
        ),
    ),
    "in the state": (cross_entropy, optax.inject_hyperparams(optax.rmsprop)(learning_rate=cosine, decay=0.95)),
    "accumulated": (robust, optax.MultiSteps(optax.lamb(0.02), every_k_schedule=3).gradient_transformation()),
    "groups": (
        cross_entropy,
        optax.multi_transform({"adam": optax.nadam(0.01), "sgd": optax.sgd(stairs, 0.9, nesterov=True)}, labels),
    ),
    "averaged": (smoothed, optax.chain(optax.scale_by_rss(), optax.ema(0.9), optax.scale(-0.1))),
    "contributed": (cross_entropy, optax.contrib.ademamix(0.01, weight_decay=1e-3)),
    "matrices": (cross_entropy, optax.contrib.muon(0.02, weight_decay=0.01)),
    "guarded": (robust, optax.apply_if_finite(optax.noisy_sgd(0.1, eta=0.001, key=jax.random.key(0)), 3)),
}


def train(loss_fn, tx):
    @jax.jit
    def step(params, average, state, x, y):
        loss, grads = jax.value_and_grad(loss_fn)(params, x, y)
        updates, state = tx.update(grads, state, params, value=loss)
        params = optax.apply_updates(params, updates)
        average = optax.incremental_update(params, average, 0.1)
        return params, average, state, loss, optax.global_norm(grads)

    params = average = PARAMS
    state, found = tx.init(params), []
    for i in range(STEPS):
        batch = slice(32 * (i % 3), 32 * (i % 3) + 32)
        params, average, state, loss, norm = step(params, average, state, X[batch], Y[batch])
        found += [float(loss), float(norm)]
        if i == 40 and optax.tree_utils.tree_get(state, "decay") is not None:
            state = optax.tree_utils.tree_set(state, decay=jnp.asarray(0.5))
    distance = optax.tree_utils.tree_norm(optax.tree_utils.tree_sub(params, average))
    dot = optax.tree.vdot(params, optax.tree.scale(2.0, average))
    zeros = optax.tree.map_params(tx, jnp.zeros_like, state)
    kept = optax.tree.sum(jax.tree.map(jnp.ravel, [x for x in jax.tree.leaves(zeros) if x.dtype == jnp.float32]))
    return [*found, float(distance), float(dot), float(kept)]


def minimize(tx):
    def value_fn(params):
        return smoothed(params, X, Y)

    @jax.jit
    def step(params, state):
        value, grad = optax.value_and_grad_from_state(value_fn)(params, state=state)
        updates, state = tx.update(grad, state, params, value=value, grad=grad, value_fn=value_fn)
        return optax.apply_updates(params, updates), state, value

    params, state, found = PARAMS, tx.init(PARAMS), []
    for _ in range(6):
        params, state, value = step(params, state)
        found.append(float(value))
    return found


RESULTS = {name: train(*run) for name, run in RUNS.items()}
SEARCHES = {
    "zoom": minimize(optax.lbfgs(memory_size=4)),
    "backtracking": minimize(
        optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(max_backtracking_steps=12, store_grad=True))
    ),
}
