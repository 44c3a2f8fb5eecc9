# SPDX-License-Identifier: Apache-2.0
"""Mutants that no formula can notice, by file and line of code, with the reason."""

EXPLAINED: dict[tuple[str, str], str] = {
    (
        "transforms/_monitoring.py",
        "return jax.tree.map(lambda x, o: x.astype(_dtype_of_average(o) if widened else o.dtype), found, old)",
    ): ("an average kept in fewer bits; float64 has one dtype"),
    ("numerics/_newton_schulz.py", "x = _transposed(x) if x.shape[-2] > x.shape[-1] else x"): (
        "a metric, which formulas do not see: tests/numerics/test_newton_schulz.py"
    ),
    ("wrappers/_low_rank.py", "shape = jnp.shape(opened(leaf)) if opened(leaf) is not None else ()"): (
        "stacks, which formulas have not: tests/wrappers/test_low_rank.py"
    ),
    (
        "numerics/_triangular.py",
        "return jnp.concatenate([y.reshape(*x.shape[:-2], y.shape[-2] * y.shape[-1]) for y in (b, both)], axis=-1)",
    ): ("a codec: tests/precision/test_symmetric.py"),
    ("numerics/_triangular.py", "c = jnp.pad(c, [*lead, (0, 0), (0, h + 1 - m)])"): (
        "a codec: tests/precision/test_symmetric.py"
    ),
    ("numerics/_triangular.py", "n = side_of(x.shape[-1])"): ("a codec: tests/precision/test_symmetric.py"),
    (
        "optimizers/_aurora.py",
        "shorter, ratio = (0, inputs / outputs) if inputs < outputs else (1, outputs / inputs)",
    ): ("a factor of the whole matrix, which its polar factor does not see; the rest: tests/optimizers/test_polar.py"),
    ("optimizers/_muon.py", "x = x if ns_dtype is None else widen(x, jnp.dtype(ns_dtype))"): (
        "None would be float64, as formulas are: tests/optimizers/test_muon.py"
    ),
    ("numerics/_keys.py", "if type(source) is int and 0 <= source < 2**31:  # nothing to find out"): (
        "the same key, found in a longer way"
    ),
    (
        "transforms/_plateau.py",
        'idle=lambda best, t, memory: set_aside(best, memory["best_value"] == worst(mode)),',
    ): ("absent gradients, which formulas have not: tests/transforms/test_plateau.py"),
    ("numerics/_triangular.py", "middle = jnp.prod(sizes ** (1 / len(factors)))"): (
        "one step in a hundred, by chance: tests/optimizers/test_kronecker.py"
    ),
    ("optimizers/_adam_mini.py", 'usual = nu.shape == _counts(blocks, "the parameter", g)'): (
        "a device's part of a parameter: tests/sharding/test_over_axes.py"
    ),
    (
        "optimizers/_shampoo.py",
        "return found if graft is None else found * (l2_norm(of_graft) / (l2_norm(found) + 1e-16))",
    ): ("1e-16 beside a norm"),
    (
        "wrappers/_masked.py",
        "extra = hide_extra(found, seen, extra, mask_compatible_extra_args) if extra else extra",
    ): ("extra arguments: tests/wrappers/test_hidden_arguments.py"),
    (
        "optimizers/_adam_mini.py",
        "lines = (role.heads,) if role.heads is not None and role.heads in role.out_axes else lines",
    ): ("heads, which formulas have not: tests/optimizers/test_scaled.py"),
    ("optimizers/_muon.py", "return g * jnp.expand_dims(each, [a for a in range(g.ndim) if a != axis])"): (
        "fused blocks, which formulas have not: tests/optimizers/test_matrix_rules.py"
    ),
    (
        "numerics/_newton_schulz.py",
        "found = [_distance(x) for x in jax.tree.leaves(updates) if jnp.ndim(x) >= 2 and jnp.size(x)]",
    ): ("a metric, which formulas do not see: tests/numerics/test_newton_schulz.py"),
    (
        "optimizers/_adopt.py",
        "c = c * shrink_factor(safe_sqrt(abs_sq(c)), limit) if jnp.iscomplexobj(c) else jnp.clip(c, -limit, limit)",
    ): ("what complex numbers become, which the formulas have not: tests/test_laws.py"),
    (
        "numerics/_newton_schulz.py",
        "precision = jax.lax.Precision.HIGHEST if a.dtype.itemsize >= 4 else jax.lax.Precision.DEFAULT",
    ): ("the same on a CPU"),
    (
        "optimizers/_muon.py",
        "role, ndim = p.role.logical(jnp.ndim(p.value)), jnp.ndim(p.value) - len(p.role.stack)",
    ): ("stacks, which formulas have not: tests/parameters/test_stacks.py"),
    (
        "optimizers/_muon.py",
        'return bool(role.in_axes and role.out_axes) if role.kind == "hidden" and ndim != 2 else ndim == 2',
    ): ("roles, which formulas have not: tests/needs/test_muon_routing.py"),
    ("numerics/_equilibration.py", "size = safe_sqrt(jnp.sum(abs_sq(x), axis=(-2, -1), keepdims=True))"): (
        "the same of one matrix; tests/numerics/test_newton_schulz.py has stacks"
    ),
    (
        "numerics/_equilibration.py",
        "largest = jnp.max(jnp.abs(y), axis=(-2, -1), keepdims=True, initial=0)",
    ): ("the same of one matrix; tests/numerics/test_newton_schulz.py has stacks"),
    (
        "numerics/_newton_schulz.py",
        "largest = jnp.max(jnp.abs(wide), axis=(-2, -1), keepdims=True, initial=0)",
    ): ("the same of one matrix; tests/numerics/test_newton_schulz.py has stacks"),
    (
        "numerics/_newton_schulz.py",
        "return laid_like(_product(u * kept[..., None, :].astype(u.dtype), vt).astype(x.dtype), x)",
    ): ("where a singular value is 0: tests/numerics/test_newton_schulz.py"),
    (
        "wrappers/_masked.py",
        "whole = None if found.params is None else jax.tree.unflatten(found.treedef, found.params)",
    ): ("extra arguments: tests/wrappers/test_hidden_arguments.py"),
    ("numerics/_safe.py", "positive = x > 0"): ("a derivative: tests/numerics/test_safe_norms.py"),
    ("numerics/_safe.py", "return y, jnp.where(positive, 0.5 / jnp.where(positive, y, 1), 0) * dx"): (
        "a derivative: tests/numerics/test_safe_norms.py"
    ),
    ("numerics/_companding.py", "return _by_size(x, lambda a: jnp.log1p(mu * a) / whole, mu / whole)"): (
        "the slope at 0, of which only derivatives know: tests/transforms/test_compression.py"
    ),
    ("numerics/_companding.py", "return _by_size(y, lambda a: jnp.expm1(whole * a) / mu, whole / mu)"): (
        "the slope at 0, of which only derivatives know: tests/transforms/test_compression.py"
    ),
    ("numerics/_companding.py", "return _by_size(x, size, a / whole)"): (
        "the slope at 0, of which only derivatives know: tests/transforms/test_compression.py"
    ),
    ("numerics/_companding.py", "return _by_size(y, size, whole / a)"): (
        "the slope at 0, of which only derivatives know: tests/transforms/test_compression.py"
    ),
    ("numerics/_companding.py", "return y / (1 - jnp.minimum(ratio, 1 - float(jnp.finfo(ratio.dtype).epsneg)))"): (
        "what is beyond the limit: tests/transforms/test_compression.py"
    ),
    ("numerics/_companding.py", "return safe_sqrt(abs_sq(x)) if jnp.iscomplexobj(x) else jnp.abs(x)"): (
        "the same for real numbers"
    ),
    ("numerics/_companding.py", "return math.log1p(x) if isinstance(x, int | float) else jnp.log1p(x)"): (
        "the same numbers where all are float64"
    ),
    ("numerics/_companding.py", "return math.log(x) if isinstance(x, int | float) else jnp.log(x)"): (
        "the same numbers where all are float64"
    ),
    ("numerics/_factored.py", "return u, safe_divide(dg, root) - safe_divide(droot, root) * u"): ("a derivative"),
    ("numerics/_keys.py", "return jax.random.key(source) if typed else jax.random.PRNGKey(source)"): (
        "two forms of the same key"
    ),
    ("numerics/_keys.py", "return key if typed else jax.random.key_data(key)"): ("two forms of the same key"),
    ("numerics/_newton_schulz.py", "given, tall = x, x.shape[-2] > x.shape[-1]"): (
        "the polynomial of X Xᴴ times X is X times that of Xᴴ X"
    ),
    (
        "numerics/_newton_schulz.py",
        "sums = jnp.sum(jnp.abs(_product(unit, _transposed(unit))), axis=-1, keepdims=True)",
    ): ("the product is symmetric; tests/numerics/test_newton_schulz.py has stacks"),
    (
        "numerics/_windows.py",
        "beyond = jnp.where(off == 0, 0, jnp.sign(off) * jnp.inf)  # the sign of NaN is NaN",
    ): ("a spread of 0, or infinity divided by a sign: tests/numerics/test_windows.py"),
    ("optimizers/_momo.py", "ScheduledMomoState if callable(learning_rate) else MomoState,"): (
        "the same fields: tests/compat/test_checkpoints.py"
    ),
    ("optimizers/_momo.py", "ScheduledMomoAdamState if callable(learning_rate) else MomoAdamState,"): (
        "the same fields: tests/compat/test_checkpoints.py"
    ),
    (
        "optimizers/_lbfgs.py",
        "weights > 0, jax.vmap(lambda s, y: _weight(products.inner(s, y), products.inner(y, y)))(all_s, all_y), 0",
    ): ("with bounds: tests/optimizers/test_lbfgs.py"),
    (
        "optimizers/_lbfgs.py",
        "good = (s_y > float(jnp.finfo(s_y.dtype).eps) * y_y) & jnp.isfinite(y_y) & jnp.isfinite(weight)",
    ): ("a threshold in the rounding errors; tests/optimizers/test_lbfgs.py has pairs without curvature"),
    ("optimizers/_lbfgs.py", "rate = scale(-1.0) if learning_rate is None else scale_by_lr(learning_rate)"): (
        "without a rate, a line search chooses the step: tests/test_minimization.py"
    ),
    ("optimizers/_delta_bar_delta.py", "agreement = jnp.real(jnp.conj(average) * g)"): (
        "only its sign counts, which the quotient has too"
    ),
    ("optimizers/_sophia.py", "_print_win_rate(updates, limit, count % max(print_win_rate_every_n_steps, 1) == 0)"): (
        "what is printed: tests/transforms/test_hessian_diagonal.py"
    ),
    (
        "optimizers/_sophia.py",
        "inside = [jnp.sum(jnp.abs(u) < jnp.asarray(limit, u.dtype)) for u in (jnp.zeros(0), *leaves)]",
    ): ("what is printed: tests/transforms/test_hessian_diagonal.py"),
    ("optimizers/_sophia.py", "return inside / jnp.maximum(number, 1)"): (
        "what is printed: tests/transforms/test_hessian_diagonal.py"
    ),
    ("wrappers/_signs.py", "agreement = jnp.real(jnp.conj(jnp.sign(g)) * jnp.sign(u))"): (
        "a sign is its own reciprocal"
    ),
    ("wrappers/_signs.py", "size = safe_sqrt(abs_sq(u)) if jnp.iscomplexobj(u) else jnp.abs(u)"): (
        "the same for real numbers; tests/wrappers/test_signs.py has complex ones"
    ),
    ("wrappers/_signs.py", "return -size * jnp.sign(g) if descent else size * jnp.sign(g)"): (
        "a sign is its own reciprocal"
    ),
    ("optimizers/_stable_adamw.py", "decays = not is_number(weight_decay) or weight_decay > 0"): (
        "whether parameters are required; formulas always give them"
    ),
    ("optimizers/_dadapt_lion.py", "lambda g, moments, w: (w * jnp.sign(ema(moments[0], g, b1)), 1.0),"): (
        "a sign is its own reciprocal"
    ),
    ("optimizers/_prodigy.py", "return c * s + d / estim_lr0 * (d if safeguard_warmup else w) * g"): (
        "only its norm counts, which -s has too; tests/differences/test_parameter_free.py compares the state"
    ),
    (
        "wrappers/_flattening.py",
        "extra = {n: packed(treedef.flatten_up_to(x)) if n in same else x for n, x in extra.items()}",
    ): ("extra arguments: tests/wrappers/test_flattening.py"),
    ("wrappers/_flattening.py", 'return shapes[0] == shapes[1] and getattr(updates, "ndim", 1) > 0'): (
        "extra arguments: tests/wrappers/test_flattening.py"
    ),
    ("wrappers/_flattening.py", "return [] if is_hole(g) else [g]"): (
        "without parameters: tests/wrappers/test_flattening.py"
    ),
    ("wrappers/_flattening.py", "if len(dtypes) == 1:"): (
        "float64 only has one dtype: tests/wrappers/test_flattening.py"
    ),
    ("numerics/_special.py", "return math.sqrt(math.log(jnp.finfo(x.dtype).max) - 1)"): (
        "the derivative of erfi, which no rule takes"
    ),
    ("numerics/_special.py", "inside = jnp.abs(x) < _limit(x)"): ("the derivative of erfi, which no rule takes"),
    ("numerics/_special.py", "return erfi(x), jnp.where(inside, slope, 0) * dx"): (
        "the derivative of erfi, which no rule takes"
    ),
    ("numerics/_special.py", "slope = (2 / math.sqrt(math.pi)) * jnp.exp(jnp.where(inside, x, 0) ** 2)"): (
        "the derivative of erfi, which no rule takes"
    ),
    ("wrappers/_multi_steps.py", "new = new if isinstance(new, jax.Array) else jnp.asarray(new)"): (
        "whatever a report is, an array is what it becomes"
    ),
    ("wrappers/_multi_steps.py", "return new if new.dtype == old.dtype else new.astype(old.dtype)"): (
        "float64 only has one dtype: tests/wrappers/test_accumulation_in_jax.py"
    ),
    ("wrappers/_multi_steps.py", 'shape = "" if value is None else f", a scalar, got shape {jnp.shape(value)}"'): (
        "the text of an error: tests/wrappers/test_accumulation.py"
    ),
    ("wrappers/_multi_steps.py", "number = x.astype(jnp.int32) if x.dtype == bool else x"): (
        "on several devices: tests/wrappers/test_accumulation_in_jax.py"
    ),
    ("transforms/_monitoring.py", "return widened_dtype(x) if jnp.issubdtype(x.dtype, jnp.inexact) else x.dtype"): (
        "averages of integers: tests/transforms/test_monitoring.py"
    ),
    ("transforms/_normalization.py", "return g * first * second, slots"): (
        "the first factor is 1 for norms in range: tests/transforms/test_norms_out_of_range.py"
    ),
    (
        "wrappers/_masked.py",
        "return isinstance(x, np.ndarray | jax.Array) and x.dtype == bool and x.ndim == 0 and "
        "not isinstance(x, Tracer)",
    ): ("flags that are arrays: tests/wrappers/test_masked.py"),
    (
        "wrappers/_masked.py",
        "return found.tree(found.treedef.flatten_up_to(x), seen) if fits else x",
    ): ("extra arguments: tests/wrappers/test_masked.py"),
    (
        "transforms/_weight_decay.py",
        'wanted = "needs a learning_rate" if needs_rate else f"takes no learning_rate, got {learning_rate!r}"',
    ): ("the words of an error: tests/transforms/test_weight_decay.py"),
    ("numerics/_windows.py", "return jnp.maximum(spread, 8 * jnp.finfo(center.dtype).eps * jnp.abs(center))"): (
        "a spread in the rounding errors: tests/numerics/test_windows.py"
    ),
    ("optimizers/_adam_mini.py", "return tuple(axis for axis, n in enumerate(blocks) if n == -1)"): (
        "what counts where a device has a part: tests/sharding/test_over_axes.py"
    ),
    (
        "optimizers/_sophia.py",
        "return jnp.clip(mu / jnp.where((mu == 0) & (size == 0), 1, size), -limit, limit), (mu, nu)",
    ): "what 0 / 0 is: tests/optimizers/test_eps_of_zero.py",
    ("_roles/_rules.py", "if not _is_role(role) and i in found:"): (
        "with `or`, the same roles: one spread over its parameters, or those of a function that is asked in vain"
    ),
    ("_roles/_inference.py", "return ((-2,), (-1,), heads) if rank == 2 else ((), (), heads)"): (
        "of two axes, 1 is -1"
    ),
    (
        "precision/_int8.py",
        "return ((0.9 if self.stochastic else 0.45) / parts + 2e-7) * block_max + TINY",
    ): "a margin for rounding errors, of which the numbers of the tests need less",
}
