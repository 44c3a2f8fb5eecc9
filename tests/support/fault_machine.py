# SPDX-License-Identifier: Apache-2.0
"""A random optimizer in a random life: good and bad gradients, compiled and not, saved, moved, frozen and reset.

Each rule of the machine is one event, and holds what must be true after it. `tests/test_faults.py` runs machines from
seeds that take turns; `python tests/faults.py` runs as many as one likes and counts their events.
"""

import collections
import functools
import pickle
import tempfile
from pathlib import Path
from typing import Any

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from jax.sharding import SingleDeviceSharding

import gradtx as gt
from gradtx.testing._case import as_numpy, reversed_dicts
from gradtx.testing._compare import finite, is_key, leaves_with_paths, numbers, require, same_types, same_values
from support import meshes
from support.compositions import Composition, compositions, extra_arguments, module
from support.questions import QUESTIONS

EVENTS: collections.Counter[str] = collections.Counter()
"""How often each event happened, in all machines of this process."""

UNKNOWN_TO_FLAX = "'collections.OrderedDict' object", "'State' object"
"""What flax.serialization does not write: the state of Optax's `named_chain` is one, the other is flax's own."""

FAR = 100.0
"""Parameters that went farther start anew: a stage that only multiplies would otherwise leave every range."""

FAULTS = {"nan": jnp.nan, "inf": jnp.inf, "-inf": -jnp.inf, "huge": 1e20}
"""What one element of a bad gradient is."""

HARMLESS = {"": set(), "guard": {*FAULTS}, "dynamic_loss_scale": {*FAULTS} - {"huge"}}
"""Which of them a guard skips, or lets pass without harm. What a finite, huge gradient does, the rule decides."""

SMALL = {"zero": 0.0, "tiny": 1e-30, "denormal": 1e-40}
"""What a whole gradient is multiplied with: no rule may divide by it."""


def alike(what: str, have: Any, wanted: str, want: Any, noise: float = 0.0) -> None:
    """Equal up to rounding, of which a state that has lived long may enlarge some: where moments cancel, or are divided
    by what is near 0. Numbers in few bits may be the neighbor, and what they stand for with them. `noise` is what they
    may differ by, however small they are.
    """
    same_types(what, have, wanted, want)
    for (path, x), y in zip(leaves_with_paths(have), jax.tree.leaves(want), strict=True):
        a, b = numbers(x), numbers(y)
        if not a.size or a.dtype.itemsize == 1:
            continue
        a, b = a.astype(np.complex128), b.astype(np.complex128)
        slack = max(1e-3, 8 * float(jnp.finfo(x.dtype).eps) if jnp.issubdtype(x.dtype, jnp.inexact) else 0.0)
        scale = np.max(np.abs(b[np.isfinite(b)]), initial=0.0)
        close = np.allclose(a, b, rtol=slack, atol=slack * scale + noise, equal_nan=True)
        require(close, f"{what} must equal {wanted}: at {path} there is {a.ravel()[:4]} instead of {b.ravel()[:4]}")


def counted(event: Any) -> Any:
    @functools.wraps(event)
    def happen(self: Any, *args: Any, **kwargs: Any) -> Any:
        EVENTS[event.__name__] += 1
        try:
            return event(self, *args, **kwargs)
        except hypothesis.errors.HypothesisException:
            raise
        except Exception as error:
            error.add_note(f"{event.__name__} of {self.life.name}")
            raise

    return happen


class FaultMachine(RuleBasedStateMachine):
    """One optimizer and its life."""

    life: Composition

    @initialize(life=compositions())
    def begin(self, life: Composition) -> None:
        self.life, self.params, self.i, self.asked_before = life, life.params, 0, 0
        if life.simplest:  # with which hypothesis begins, in every machine
            hypothesis.reject()
        try:
            self.state = life.tx.init(self.params)
            self.updated(self.gradients(), self.state, self.params)
        except (TypeError, ValueError) as error:
            # What has no meaning together is refused in words; the words are the subject of other tests.
            hypothesis.event(f"refused: {type(error).__name__}")
            hypothesis.reject()
        self.compiled = jax.jit(self.updated)

    # What events are made of

    def updated(self, gradients: Any, state: Any, params: Any) -> tuple[Any, Any]:
        return self.life.tx.update(gradients, state, params, **extra_arguments(params, gradients))

    def gradients(self, factor: float = 1.0) -> Any:
        """New ones each time, of the size of 1."""
        self.i += 1
        leaves, treedef = jax.tree.flatten(self.life.params)
        draw = np.random.default_rng(self.i)
        new = [factor * (draw.normal(size=x.shape) + draw.normal(size=x.shape) * 1j) for x in leaves]
        new = [x if jnp.iscomplexobj(p) else x.real for x, p in zip(new, leaves, strict=True)]
        return treedef.unflatten([jnp.asarray(x, p.dtype) for x, p in zip(new, leaves, strict=True)])

    def with_one(self, element: float) -> Any:
        """Gradients of which one element is bad, in the first leaf that has one."""
        leaves, treedef = jax.tree.flatten(self.gradients())
        at = next(i for i, x in enumerate(leaves) if x.size)
        leaves[at] = leaves[at].ravel().at[-1].set(jnp.asarray(element, leaves[at].dtype)).reshape(leaves[at].shape)
        return treedef.unflatten(leaves)

    def take(self, updates: Any, state: Any) -> None:
        """Goes on from there."""
        same_types("the state after a step", state, "the state before", self.state)
        params = gt.apply_updates(self.params, updates)
        same_types("the updated parameters", params, "the parameters", self.params)
        finite("the state", state)
        finite("the parameters", params)
        far = any(float(jnp.max(jnp.abs(x.astype(jnp.complex64)), initial=0.0)) > FAR for x in jax.tree.leaves(params))
        self.state, self.params = state, self.life.params if far else params

    # Steps

    @rule()
    @counted
    def step(self) -> None:
        self.take(*self.compiled(self.gradients(), self.state, self.params))

    @rule(fault=st.sampled_from(sorted(FAULTS)))
    @counted
    def step_of_a_bad_gradient(self, fault: str) -> None:
        updates, state = self.compiled(self.with_one(FAULTS[fault]), self.state, self.params)
        same_types("the state after a bad step", state, "the state before", self.state)
        if fault in HARMLESS[self.life.guard]:
            self.take(updates, state)

    @rule(size=st.sampled_from(sorted(SMALL)))
    @counted
    def step_of_a_small_gradient(self, size: str) -> None:
        self.take(*self.compiled(self.gradients(SMALL[size]), self.state, self.params))

    @rule()
    @counted
    def step_outside_jit(self) -> None:
        gradients = self.gradients()
        before = as_numpy((gradients, self.state, self.params))
        found = self.updated(gradients, self.state, self.params)
        same_values("what was given to update", as_numpy((gradients, self.state, self.params)), "itself", before)
        compiled = self.compiled(gradients, self.state, self.params)
        same_types("the results outside jit", found, "those under jit", compiled)
        alike("the updates outside jit", found[0], "those under jit", compiled[0])
        self.take(*found)

    @rule()
    @counted
    def step_with_keys_in_another_order(self) -> None:
        gradients = self.gradients()
        turned = [reversed_dicts(x) for x in (gradients, self.state, self.params)]
        found, want = self.updated(*turned), self.updated(gradients, self.state, self.params)
        same_values("a step with keys in another order", found, "the step", want)
        self.take(*want)

    @rule()
    @precondition(lambda self: not self.life.placed)  # jaxlib aborts where memory is donated to memory of another kind
    @counted
    def donated_step(self) -> None:
        gradients, state = self.gradients(), jax.tree.map(jnp.copy, self.state)
        want = self.compiled(gradients, self.state, self.params)
        found = self.donating(gradients, state, self.params)
        same_values("a donated step", found, "the step", want)
        self.take(*found)

    @functools.cached_property
    def donating(self) -> Any:
        return jax.jit(self.updated, donate_argnums=1)

    @rule(where=st.integers(0, 3))
    @counted
    def step_with_a_parameter_frozen(self, where: int) -> None:
        """No gradient for one of them; with the next step it is there again."""
        leaves, treedef = jax.tree.flatten(self.gradients())
        leaves[where % len(leaves)] = None
        updates, state = self.updated(treedef.unflatten(leaves), self.state, self.params)
        same_types("the state after a step without a gradient", state, "the state before", self.state)
        finite("the state after a step without a gradient", state)
        self.state = state

    @rule()
    @precondition(lambda self: not self.life.placed)  # restored states may lie in other memory, which is another type
    @counted
    def several_under_scan(self) -> None:
        given = [self.gradients() for _ in range(3)]
        stacked = jax.tree.map(lambda *xs: jnp.stack(xs), *given)
        state = self.scanned(stacked, self.state, self.params)
        updates, want = None, self.state
        for gradients in given:
            updates, want = self.compiled(gradients, want, self.params)
        alike("three steps under scan", state, "three steps", want)
        self.take(updates, want)

    @functools.cached_property
    def scanned(self) -> Any:
        def several(gradients: Any, state: Any, params: Any) -> Any:
            def one(state: Any, g: Any) -> tuple[Any, None]:
                return self.updated(g, state, params)[1], None

            return jax.lax.scan(one, state, gradients)[0]

        return jax.jit(several)

    @rule(fault=st.sampled_from(["", *sorted(FAULTS)]))
    @counted
    def two_under_vmap(self, fault: str) -> None:
        """What befalls one member of a population does not befall the other."""
        pair = [self.gradients(), self.with_one(FAULTS[fault]) if fault else self.gradients()]
        stacked = jax.tree.map(lambda *xs: jnp.stack(xs), *pair)
        both = self.mapped(stacked, self.state, self.params)
        first = self.compiled(pair[0], self.state, self.params)
        alike("one of two under vmap", jax.tree.map(lambda x: x[0], both), "alone", first)
        self.take(*first)

    @functools.cached_property
    def mapped(self) -> Any:
        return jax.jit(jax.vmap(self.updated, in_axes=(0, None, None)))

    # The state put away and found again

    def has_keys(self) -> bool:
        """Random keys, which neither flax nor equinox writes."""
        return any(map(is_key, jax.tree.leaves(self.state)))

    def kept(self, restored: Any, how: str) -> None:
        same_types(f"the state through {how}", restored, "the state", self.state)
        same_values(f"the state through {how}", restored, "the state", self.state)
        self.state = restored

    @rule()
    @counted
    def through_pickle(self) -> None:
        self.kept(pickle.loads(pickle.dumps(self.state)), "pickle")

    @rule()
    @counted
    def through_plain_leaves(self) -> None:
        leaves = [x if is_key(x) else np.asarray(x) for x in jax.tree.leaves(self.state)]
        self.kept(jax.tree.unflatten(jax.tree.structure(self.life.tx.init(self.params)), leaves), "plain leaves")
        self.state = jax.tree.map(jnp.asarray, self.state)

    @rule()
    @counted
    def through_flax(self) -> None:
        import flax.serialization

        if self.has_keys():
            return
        try:
            written = flax.serialization.to_bytes(self.state)
        except TypeError as error:
            require(str(error).endswith(UNKNOWN_TO_FLAX), f"flax says: {error}")
            return
        restored = flax.serialization.from_bytes(self.life.tx.init(self.params), written)
        self.kept(jax.tree.map(jnp.asarray, restored), "flax")

    @rule()
    @counted
    def through_equinox(self) -> None:
        import equinox

        if self.has_keys():
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "state.eqx"
            equinox.tree_serialise_leaves(path, self.state)
            self.kept(equinox.tree_deserialise_leaves(path, self.life.tx.init(self.params)), "equinox")

    @rule()
    @counted
    def through_orbax(self) -> None:
        import orbax.checkpoint

        leaves = jax.tree.leaves(self.state)
        if not leaves or any(not x.size for x in leaves):  # orbax writes no empty trees and no arrays of size 0
            return
        with tempfile.TemporaryDirectory() as folder, orbax.checkpoint.StandardCheckpointer() as saver:
            saver.save(Path(folder) / "state", self.state)
            saver.wait_until_finished()
            like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), self.state)
            self.kept(saver.restore(Path(folder) / "state", like), "orbax")

    @rule()
    @precondition(lambda self: not self.life.placed)
    @counted
    def split_over_eight_devices(self) -> None:
        """Gradients and parameters along every axis that can be split, the state as it follows, and back."""
        mesh = meshes.mesh(self.life.mesh, a=2, b=2, c=2)
        given = self.gradients(), self.state, self.params
        gradients, params = (
            jax.tree.map(lambda x: jax.device_put(x, meshes.split(x, mesh)), x) for x in (given[0], given[2])
        )
        state = jax.device_put(self.state, gt.sharding.state_shardings(self.life.tx, params))
        found = self.compiled(gradients, state, params)
        want = self.compiled(*given)
        # Some updates are differences of two parameters, which no number of devices makes exact.
        largest = max(float(jnp.max(jnp.abs(x), initial=0.0)) for x in jax.tree.leaves(self.params))
        alike(
            "updates on eight devices", found[0], "on one", want[0], noise=largest * float(jnp.finfo(jnp.float32).eps)
        )
        alike("the state on eight devices", found[1], "on one", want[1])
        self.take(*jax.device_put(found, SingleDeviceSharding(jax.devices()[0])))

    # Surgery, and questions

    @rule()
    @counted
    def migrated_to_itself(self) -> None:
        state, report = gt.migrate(self.state, self.life.tx, self.params)
        same_types("a migrated state", state, "the state", self.state)
        same_values("a migrated state", state, "the state", self.state)

    @rule()
    @counted
    def reset(self) -> None:
        try:
            state = gt.reset(self.life.tx, self.state, self.params)
        except ValueError as error:  # such as what `flatten` keeps for all parameters in one array
            require("holds nothing that belongs to one parameter" in str(error), f"reset says: {error}")
            return
        same_types("a state that was reset", state, "the state", self.state)
        self.state = state

    @rule(at=st.sampled_from([0, 7, 2**24, 2**31 - 2]))
    @counted
    def restarted(self, at: int) -> None:
        state = gt.restart(self.state, at)
        same_types("a restarted state", state, "the state", self.state)
        self.state = state

    @rule()
    @precondition(lambda self: self.life.of_a_module)
    @counted
    def step_of_an_nnx_optimizer(self) -> None:
        """The optimizer goes on from the state, and its model from the parameters."""
        from flax import nnx

        model, gradients = module(), self.gradients()
        nnx.update(model, self.params)
        optimizer = nnx.Optimizer(model, self.life.tx, wrt=nnx.Param)
        held = jax.tree.structure(optimizer.opt_state)
        optimizer.opt_state = jax.tree.unflatten(held, jax.tree.leaves(self.state))
        optimizer.update(model, gradients, **extra_arguments(self.params, gradients))
        updates, state = self.updated(gradients, self.state, self.params)
        found = nnx.state(model, nnx.Param), optimizer.opt_state
        want = gt.apply_updates(self.params, updates), state
        same_values("a step of nnx.Optimizer", jax.tree.leaves(found), "the step", jax.tree.leaves(want))
        self.take(updates, jax.tree.unflatten(jax.tree.structure(state), jax.tree.leaves(optimizer.opt_state)))

    @invariant()
    def asked(self) -> None:
        """One of the questions after each event, in turn."""
        self.asked_before += 1
        question, gradients = QUESTIONS[self.asked_before % len(QUESTIONS)], self.gradients()
        try:
            question(self.life.tx, self.state, self.params, gradients, extra_arguments(self.params, gradients))
        except Exception as error:
            error.add_note(f"{question.__name__} of {self.life.name}")
            raise


def run_machine(seed: int, events: int = 105, shrink: bool = True) -> None:
    """A machine from a seed, after the simplest one there is, with which hypothesis begins."""
    phases = (hypothesis.Phase.generate, hypothesis.Phase.shrink)
    settings = hypothesis.settings(
        max_examples=1,
        stateful_step_count=events,
        derandomize=False,
        deadline=None,
        database=None,
        phases=phases if shrink else phases[:1],
        suppress_health_check=list(hypothesis.HealthCheck),
    )

    @hypothesis.seed(seed)
    class Seeded(FaultMachine):
        """A class of its own, which the seed is written on."""

    run_state_machine_as_test(Seeded, settings=settings)
