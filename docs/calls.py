# SPDX-License-Identifier: Apache-2.0
"""A call of each public function that no page shows and whose arguments are more than numbers, with what it returns.

    python docs/calls.py      prints them anew

The reference has them as examples; a test runs them all.
"""

from typing import Any

CALLS = """
gradtx.adaptive_grad_clip(0.01)
gradtx.add_noise(0.01, 0.55, 0)
gradtx.aggregating.accumulate_avg_updates(4)
gradtx.aggregating.aggregate(gradtx.identity(), gradtx.aggregating.average_per_element_updates(), gradtx.adam(1e-3))
gradtx.aggregating.average_incrementally_updates(0, 4)
gradtx.aggregating.get_batch_size_from_per_elt_updates({"w": jnp.ones((8, 2))}, 0)  # 8
gradtx.aggregating.per_example_global_norm_clip({"w": jnp.array([[3.0, 4.0]])}, 1.0)[0]  # {'w': [0.6, 0.8]}
gradtx.aggregating.per_example_layer_norm_clip({"w": jnp.array([[3.0, 4.0]])}, 1.0)[0]  # {'w': [0.6, 0.8]}
gradtx.apply_if_finite(gradtx.adam(1e-3), 5)
gradtx.assignment.base_hungarian_algorithm(jnp.array([[4.0, 1.0], [2.0, 3.0]]))  # ([0, 1], [1, 0])
gradtx.assignment.hungarian_algorithm(jnp.array([[4.0, 1.0], [2.0, 3.0]]))  # ([0, 1], [1, 0])
gradtx.cautious(gradtx.scale_by_adam())
gradtx.chebyshev_schedule(4, 0.1, 1.0)(0)  # 7.4486
gradtx.clip_by_block_rms(1.0)
gradtx.conditionally_mask(gradtx.sgd(0.1), lambda step: step % 2 == 0)
gradtx.conditionally_transform(gradtx.sgd(0.1), lambda step: step % 2 == 0)
gradtx.constant_schedule(0.1)(20)  # 0.1
gradtx.cosine_onecycle_schedule(100, 1.0)(30)  # 1.0
gradtx.curvature.gauss_newton_bartlett(32)
gradtx.curvature.gauss_newton_vector_product(jnp.square, lambda y: sum(y**2), jnp.ones(2), jnp.ones(2))  # [8.0, 8.0]
gradtx.curvature.hessian_diagonal(lambda p: jnp.sum(p**3), jnp.array([1.0, 2.0]))  # [6.0, 12.0]
gradtx.curvature.hessian_spectrum(lambda p: sum(p**3), jnp.array([1.0, 2.0]), jax.random.key(0), 2)[0]  # [[6.0, 12.0]]
gradtx.curvature.hessian_vector_product(lambda p: jnp.sum(p**3), jnp.array([1.0, 2.0]), jnp.ones(2))  # [6.0, 12.0]
gradtx.curvature.hutchinson_diagonal(lambda p: jnp.sum(p**3), jnp.array([1.0, 2.0]), jax.random.key(0))  # [6.0, 12.0]
gradtx.curvature.top_eigenvalue(lambda p: jnp.sum(p**3), jnp.array([1.0, 2.0]), jax.random.key(0))[0]  # 12.0
gradtx.cyclic_schedule(0.1, 1.0, 10)(5)  # 0.55
gradtx.decay_weights(0.1)
gradtx.differentially_private_aggregate(1.0, 1.1, 0)
gradtx.eval_from(gradtx.tree.add, {"w": jnp.ones(2)}, {"w": jnp.ones(2)})  # {'w': [2.0, 2.0]}
gradtx.eval_params(gradtx.adam(1e-3).init(jnp.ones(2)), jnp.ones(2))  # [1.0, 1.0]
gradtx.exponential_decay(1.0, 10, 0.5)(20)  # 0.25
gradtx.fingerprint(gradtx.adam(1e-3))  # c26c5932640d09c74c1d2d30cd3d0049
gradtx.flatten(gradtx.adam(1e-3))
gradtx.freeze({"backbone": True, "head": False})
gradtx.graft(gradtx.scale_by_shampoo(), gradtx.scale_by_adam())
gradtx.infer_roles({"norm": {"scale": jnp.ones(4)}})["norm"]["scale"].kind  # norm
gradtx.inject_hyperparams(gradtx.adam)(1e-3).init(jnp.zeros(2)).hyperparams["learning_rate"]  # 0.001
gradtx.inverse_time_decay(1.0, 10, 0.5)(20)  # 0.5
gradtx.join_schedules([gradtx.linear_schedule(0.0, 1.0, 10), gradtx.constant_schedule(0.5)], [10])(5)  # 0.5
gradtx.linear_onecycle_schedule(100, 1.0)(30)  # 1.0
gradtx.losses.binary_dice_loss(jnp.array([[3.0], [-3.0]]), jnp.array([[1.0], [0.0]]))  # [0.012, 0.0232]
gradtx.losses.cosine_distance(jnp.array([3.0, 4.0]), jnp.array([1.0, 0.0]))  # 0.4
gradtx.losses.cosine_similarity(jnp.array([3.0, 4.0]), jnp.array([1.0, 0.0]))  # 0.6
gradtx.losses.ctc_loss(jnp.zeros((1, 3, 4)), jnp.zeros((1, 3)), jnp.array([[1, 2]]), jnp.zeros((1, 2)))  # [2.5494]
gradtx.losses.ctc_loss_with_forward_probs(jnp.zeros((1, 1, 2)), jnp.zeros((1, 1)), jnp.ones((1, 1), int), \
jnp.zeros((1, 1)))[0]  # [0.6931]
gradtx.losses.dice_loss(3 * jnp.eye(2)[None], jnp.eye(2)[None])  # [0.0237]
gradtx.losses.dpo_loss(jnp.array([-1.0]), jnp.array([-3.0]), jnp.array([-2.0]), jnp.array([-2.0]))  # [0.5981]
gradtx.losses.focal_tversky_loss(3 * jnp.eye(2)[None], jnp.eye(2)[None])  # [0.0604]
gradtx.losses.gaussian_nll_loss(jnp.array([1.0]), jnp.array([3.0]), jnp.array([4.0]))  # [1.1931]
gradtx.losses.generalized_kl_divergence(jnp.log(jnp.array([0.5, 0.5])), jnp.array([0.9, 0.3]))  # 0.1758
gradtx.losses.hinge_loss(jnp.array([0.5, -2.0]), jnp.array([1.0, -1.0]))  # [0.5, 0.0]
gradtx.losses.histogram_wasserstein_1d(jnp.array([1.0, 0.0, 0.0]), jnp.array([0.0, 0.0, 1.0]))  # 2.0
gradtx.losses.huber_loss(jnp.array([3.0, 0.5]), jnp.zeros(2))  # [2.5, 0.125]
gradtx.losses.info_nce_loss(jnp.eye(2), jnp.eye(2), temperature=1.0)  # [0.3133, 0.3133]
gradtx.losses.kl_divergence(jnp.log(jnp.array([0.5, 0.5])), jnp.array([0.9, 0.1]))  # 0.3681
gradtx.losses.kl_divergence_with_log_targets(jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([0.9, 0.1])))  # 0.3681
gradtx.losses.l2_loss(jnp.array([3.0, 1.0]), jnp.array([1.0, 1.0]))  # [2.0, 0.0]
gradtx.losses.log_cosh(jnp.array([3.0, 0.5]), jnp.zeros(2))  # [2.3093, 0.1201]
gradtx.losses.lovasz_hinge(jnp.array([2.0, -1.0]), jnp.array([1, 1]))  # [0.0, 2.0]
gradtx.losses.lovasz_softmax(jnp.array([[2.0, 0.0], [0.0, 1.0]]), jnp.array([0, 1]))  # [0.1192, 0.2689]
gradtx.losses.make_fenchel_young_loss(jax.nn.logsumexp)(jnp.zeros(2), jnp.array([1.0, 0.0]))  # 0.6931
gradtx.losses.multiclass_generalized_dice_loss(3 * jnp.eye(2)[None], jnp.eye(2)[None])  # 0.0237
gradtx.losses.multiclass_hinge_loss(jnp.array([2.0, 1.5, 0.0]), 0)  # 0.5
gradtx.losses.multiclass_perceptron_loss(jnp.array([2.0, 2.5, 0.0]), 0)  # 0.5
gradtx.losses.multiclass_sparsemax_loss(jnp.array([0.5, 0.0, -1.0]), 0)  # 0.0625
gradtx.losses.ntxent(jnp.eye(4), jnp.array([0, 0, 1, 1]), temperature=1.0)  # 1.0986
gradtx.losses.perceptron_loss(jnp.array([0.5, -2.0]), jnp.array([-1.0, -1.0]))  # [0.5, 0.0]
gradtx.losses.poisson_nll_loss(jnp.array([0.0, 1.0]), jnp.array([1.0, 2.0]))  # [1.0, 0.7183]
gradtx.losses.poly_loss_cross_entropy(jnp.zeros(4), jnp.array([1.0, 0.0, 0.0, 0.0]))  # 2.8863
gradtx.losses.ranking_softmax_loss(jnp.array([[2.0, 0.0]]), jnp.array([[1.0, 0.0]]))  # 0.1269
gradtx.losses.reduce_loss(jnp.array([1.0, 3.0]))  # 2.0
gradtx.losses.safe_softmax_cross_entropy(jnp.zeros(4), jnp.array([1.0, 0.0, 0.0, 0.0]))  # 1.3863
gradtx.losses.siglip_loss(jnp.eye(2), jnp.eye(2))  # [0.6932, 0.6932]
gradtx.losses.sigmoid_binary_cross_entropy(jnp.array([0.0, 2.0]), jnp.array([1.0, 1.0]))  # [0.6931, 0.1269]
gradtx.losses.sigmoid_focal_loss(jnp.array([0.0, 2.0]), jnp.array([1.0, 1.0]))  # [0.1733, 0.0018]
gradtx.losses.smooth_binary_labels(jnp.array([1.0, 0.0]), 0.1)  # [0.95, 0.05]
gradtx.losses.smooth_labels(jnp.array([1.0, 0.0, 0.0, 0.0]), 0.1)  # [0.925, 0.025, 0.025, 0.025]
gradtx.losses.softmax_cross_entropy(jnp.zeros(4), jnp.array([1.0, 0.0, 0.0, 0.0]))  # 1.3863
gradtx.losses.sparsemax_loss(jnp.array([0.5, 3.0]), jnp.array([1, 1]))  # [0.0625, 0.0]
gradtx.losses.squared_error(jnp.array([3.0, 1.0]), jnp.array([1.0, 1.0]))  # [4.0, 0.0]
gradtx.losses.triplet_margin_loss(jnp.zeros(2), jnp.array([0.3, 0.4]), jnp.array([0.6, 0.8]))  # 0.5
gradtx.losses.tversky_loss(3 * jnp.eye(2)[None], jnp.eye(2)[None])  # [0.0237]
gradtx.losses.wasserstein_1d(jnp.array([0.0, 1.0]), jnp.array([2.0, 3.0]))  # 2.0
gradtx.losses.z_loss(jnp.zeros(4))  # 1.9218
gradtx.low_rank(gradtx.adam(1e-3), rank=4)
gradtx.measure_with_ema(gradtx.global_norm, 0.9)
gradtx.mechanize(gradtx.sgd(1.0))
gradtx.microbatching.micro_grad(lambda p, x: jnp.mean(p * x), microbatch_size=2)(2.0, jnp.arange(6.0))[0]  # 15.0
gradtx.microbatching.micro_vmap(jnp.square, microbatch_size=2)(jnp.arange(6))  # [0, 1, 4, 9, 16, 25]
gradtx.microbatching.microbatch(jnp.sum, 0, 2)(jnp.arange(6))  # 15
gradtx.microbatching.reshape_batch_axis(jnp.arange(6), 2)  # [[0, 3], [1, 4], [2, 5]]
gradtx.monitor({"norm": gradtx.global_norm})
gradtx.named_chain(("clip", gradtx.clip(1.0)), ("descend", gradtx.sgd(0.1)))
gradtx.natural_exponential_decay(1.0, 10, 0.5)(20)  # 0.3679
gradtx.numerics.distance_from_orthogonal({"w": 2 * jnp.eye(2)})  # 3.0
gradtx.numerics.lanczos(lambda v: jnp.array([1.0, 3.0]) * v, jnp.ones(2), 2)[0]  # [2.0, 2.0]
gradtx.numerics.largest(jnp.array([3.0, -4.0]))  # 3.0
gradtx.numerics.matrix_inverse_pth_root(jnp.diag(jnp.array([1.0, 16.0])), 4)[0].round(3)  # [[1.0, 0.0], [0.0, 0.5]]
gradtx.numerics.matrix_inverse_pth_root_eigh(16 * jnp.eye(2), 4)[0].round(3)  # [[0.5, 0.0], [0.0, 0.5]]
gradtx.numerics.multi_normal(jnp.zeros(2), jnp.zeros(2)).log_prob(jnp.zeros(2))  # -1.8379
gradtx.numerics.nnls(jnp.eye(2), jnp.array([3.0, -1.0]), 100)  # [3.0, 0.0]
gradtx.numerics.power_iteration(jnp.diag(jnp.array([1.0, 3.0])))[1].round(3)  # [0.0, 1.0]
gradtx.numerics.safe_increment(jnp.array(2**31 - 1))  # 2147483647
gradtx.numerics.safe_norm(jnp.zeros(3), 1e-6)  # 0.0
gradtx.numerics.safe_root_mean_squares(jnp.array([3.0, 4.0]), 1e-6)  # 3.5355
gradtx.numerics.size(jnp.ones((2, 3)))  # 6.0
gradtx.numerics.total(jnp.array([3.0, -4.0]))  # -1.0
gradtx.numerics.unitwise_clip(jnp.array([5.0]), jnp.array([1.0]), jnp.array([3.0]))  # [0.6]
gradtx.numerics.unitwise_norm(jnp.array([[3.0, 0.0], [4.0, 1.0]]))  # [[5.0, 1.0], [5.0, 1.0]]
gradtx.of_kind("norm", "bias")  # of_kind('norm', 'bias')
gradtx.orthograd(gradtx.adam(1e-3))
gradtx.perturbations.make_perturbed_fun(lambda x: x / x.sum(), sigma=0.01)(jax.random.key(0), jnp.ones(2)).sum()  # 1.0
gradtx.piecewise_interpolate_schedule("linear", 1.0, {10: 0.5})(5)  # 0.75
gradtx.plot.plot_curves({"loss": {"adam": [[3.0, 1.0, 0.5]]}})
gradtx.plot.plot_paths(jnp.sum, {"adam": jnp.eye(2)}, bounds=((-1, 2), (-1, 2)))
gradtx.plot.plot_races({"bowl": gradtx.plot.Race(jnp.sum, {"adam": jnp.eye(2)}, ((-1, 2), (-1, 2)))})
gradtx.plot.plot_schedules({"cosine": gradtx.cosine_decay_schedule(1.0, 100)}, 100)
gradtx.polynomial_schedule(1.0, 0.0, 2.0, 10)(5)  # 0.25
gradtx.power_schedule(0.02, 32, 2000.0)(100)  # 0.02
gradtx.primal_averaging(gradtx.adamw(1e-3))
gradtx.projections.projection_box(jnp.array([2.0, -1.0]), 0.0, 1.0)  # [1.0, 0.0]
gradtx.projections.projection_halfspace(jnp.array([3.0, 4.0]), jnp.array([1.0, 0.0]), 1.0)  # [1.0, 4.0]
gradtx.projections.projection_hypercube(jnp.array([2.0, -1.0]))  # [1.0, 0.0]
gradtx.projections.projection_hyperplane(jnp.array([3.0, 4.0]), jnp.array([1.0, 0.0]), 1.0)  # [1.0, 4.0]
gradtx.projections.projection_l1_ball(jnp.array([2.0, 1.5]))  # [0.75, 0.25]
gradtx.projections.projection_l1_sphere(jnp.array([2.0, 1.5]))  # [0.75, 0.25]
gradtx.projections.projection_l2_ball(jnp.array([3.0, 4.0]))  # [0.6, 0.8]
gradtx.projections.projection_l2_sphere(jnp.array([3.0, 4.0]))  # [0.6, 0.8]
gradtx.projections.projection_linf_ball(jnp.array([3.0, 0.5]))  # [1.0, 0.5]
gradtx.projections.projection_non_negative(jnp.array([2.0, -1.0]))  # [2.0, 0.0]
gradtx.projections.projection_simplex(jnp.array([2.0, 1.5]))  # [0.75, 0.25]
gradtx.projections.projection_vector(jnp.array([3.0, 4.0]), jnp.array([1.0, 0.0]))  # [3.0, 0.0]
gradtx.recipes.algoperf_nadamw(1000)
gradtx.recipes.resnet_lars(1000, 10.0, warmup_steps=50)
gradtx.recipes.resnet_nesterov(1000)
gradtx.repack_state(gradtx.adam(1e-3), lambda state: state, lambda state: state)
gradtx.scale_by_schedule(gradtx.cosine_decay_schedule(1.0, 100))
gradtx.scale_by_zoom_linesearch(20)
gradtx.scale_gradient(2.0, 0.1)  # 2.0
gradtx.schedule_free(gradtx.sgd(1.0), learning_rate=1.0)
gradtx.schedules.ademamix_alpha_schedule(5.0, 1000)
gradtx.schedules.ademamix_b3_schedule(0.999, 1000)
gradtx.schedules.inverse_sqrt(100)(400)  # 0.4472
gradtx.schedules.multiplicative_schedule(1.0, lambda count: 0.5, 3)(2)  # 0.25
gradtx.schedules.one_minus_sqrt(100)(25)  # 0.5
gradtx.schedules.one_minus_square(100)(50)  # 0.75
gradtx.schedules.rex(100)(50)  # 0.6667
gradtx.selective_transform(gradtx.adam(1e-3), freeze_mask={"backbone": True, "head": False})
gradtx.sgdr_schedule([dict(init_value=0.0, peak_value=1.0, decay_steps=10, warmup_steps=2)] * 2)(12)  # 1.0
gradtx.skipping.guard_rule(lambda limit=1.0: gradtx.skipping.skip_when(lambda step: step.norm > limit))(2.0)
gradtx.skipping.loss_spike(z=4.0)
gradtx.skipping.skip_large_updates({"w": jnp.array([3.0])}, 0, None, 4.0)[0]  # True
gradtx.skipping.skip_not_finite({"w": jnp.array([jnp.nan])}, 0, None)[0]  # True
gradtx.sophia_g(1e-3, 32)
gradtx.split_real_and_imaginary(gradtx.adam(1e-3))
gradtx.stateless(lambda updates, params: jax.tree.map(jnp.sign, updates))
gradtx.stateless_with_tree_map(lambda g, p: jnp.sign(g))
gradtx.step_decay_schedule(1.0, 10)(20)  # 0.3333
gradtx.testing.example_arguments(gradtx.adam)  # {'learning_rate': 0.01}
gradtx.trac(gradtx.adam(1e-3))
gradtx.tree.add({"w": jnp.ones(2)}, {"w": jnp.full(2, 4.0)})  # {'w': [5.0, 5.0]}
gradtx.tree.add_scale({"w": jnp.ones(2)}, 0.5, {"w": jnp.full(2, 4.0)})  # {'w': [3.0, 3.0]}
gradtx.tree.allclose({"w": jnp.ones(2)}, {"w": jnp.ones(2)})  # True
gradtx.tree.batch_shape({"w": jnp.ones(2)}, (1,))  # {'w': [[1.0, 1.0]]}
gradtx.tree.bias_correction({"w": jnp.full(2, 0.1)}, 0.9, 1)  # {'w': [1.0, 1.0]}
gradtx.tree.cast({"w": jnp.ones(2)}, jnp.bfloat16)["w"].dtype  # bfloat16
gradtx.tree.cast_like({"w": jnp.ones(2)}, {"w": jnp.zeros(2, jnp.int32)})["w"].dtype  # int32
gradtx.tree.clip({"w": jnp.array([3.0, -4.0])}, -1.0, 1.0)  # {'w': [1.0, -1.0]}
gradtx.tree.conj({"w": jnp.array([1 + 2j])})  # {'w': [(1-2j)]}
gradtx.tree.div({"w": jnp.ones(2)}, {"w": jnp.full(2, 4.0)})  # {'w': [0.25, 0.25]}
gradtx.tree.dtype({"w": jnp.ones(2)})  # float32
gradtx.tree.full_like({"w": jnp.ones(2)}, 3.0)  # {'w': [3.0, 3.0]}
gradtx.tree.get(gradtx.trace(0.9).init(jnp.zeros(2)), "trace")  # [0.0, 0.0]
gradtx.tree.get_all_with_path(gradtx.trace(0.9).init(jnp.zeros(2)), "trace")[0][1]  # [0.0, 0.0]
gradtx.tree.incremental_update({"w": jnp.ones(2)}, {"w": jnp.zeros(2)}, 0.1)  # {'w': [0.1, 0.1]}
gradtx.tree.map_params(gradtx.trace(0.9), jnp.cos, gradtx.trace(0.9).init(jnp.zeros(2)))  # TraceState(trace=[1.0, 1.0])
gradtx.tree.max({"w": jnp.array([3.0, -4.0])})  # 3.0
gradtx.tree.min({"w": jnp.array([3.0, -4.0])})  # -4.0
gradtx.tree.mul({"w": jnp.full(2, 3.0)}, {"w": jnp.full(2, 4.0)})  # {'w': [12.0, 12.0]}
gradtx.tree.norm({"w": jnp.array([3.0, -4.0])})  # 5.0
gradtx.tree.ones_like({"w": jnp.zeros(2)})  # {'w': [1.0, 1.0]}
gradtx.tree.periodic_update({"w": jnp.ones(2)}, {"w": jnp.zeros(2)}, 10, 5)  # {'w': [1.0, 1.0]}
gradtx.tree.random_like(jax.random.key(0), {"w": jnp.ones(2)})["w"].shape  # (2,)
gradtx.tree.real({"w": jnp.array([1 + 2j])})  # {'w': [1.0]}
gradtx.tree.scale(0.5, {"w": jnp.array([3.0, -4.0])})  # {'w': [1.5, -2.0]}
gradtx.tree.set(gradtx.trace(0.9).init(jnp.zeros(2)), trace=jnp.ones(2))  # TraceState(trace=[1.0, 1.0])
gradtx.tree.size({"w": jnp.ones((2, 3)), "b": jnp.ones(3)})  # 9
gradtx.tree.split_key_like(jax.random.key(0), {"w": jnp.ones(2)})["w"].dtype  # key<fry>
gradtx.tree.sub({"w": jnp.ones(2)}, {"w": jnp.full(2, 4.0)})  # {'w': [-3.0, -3.0]}
gradtx.tree.sum({"w": jnp.array([3.0, -4.0])})  # -1.0
gradtx.tree.unwrap_random_key_data({"key": jax.random.key(3)})  # {'key': [0, 3]}
gradtx.tree.update_infinity_moment({"w": jnp.full(2, 2.0)}, {"w": jnp.full(2, 3.0)}, 0.9, 0.0)  # {'w': [2.7, 2.7]}
gradtx.tree.update_moment({"w": jnp.full(2, 2.0)}, {"w": jnp.zeros(2)}, 0.9, 1)  # {'w': [0.2, 0.2]}
gradtx.tree.update_moment_per_elem_norm({"w": jnp.full(2, 2.0)}, {"w": jnp.zeros(2)}, 0.9, 2)  # {'w': [0.4, 0.4]}
gradtx.tree.vdot({"w": jnp.ones(2)}, {"w": jnp.full(2, 4.0)})  # 8.0
gradtx.tree.where(True, {"w": jnp.ones(2)}, {"w": jnp.zeros(2)})  # {'w': [1.0, 1.0]}
gradtx.tree.zeros_like({"w": jnp.ones(2)})  # {'w': [0.0, 0.0]}
gradtx.unstacked(gradtx.adam(1e-3))
gradtx.warmup_exponential_decay_schedule(0.0, 1.0, 10, 100, 0.5)(110)  # 0.5
gradtx.with_extra_args_support(gradtx.adam(1e-3))
gradtx.with_gradient_signs(gradtx.scale_by_adam())
gradtx.wsd_schedule(0.0, 1.0, 10, 80, 10)(95)  # 0.5
""".splitlines()
EXAMPLES = {line.partition("(")[0]: line for line in CALLS if line}


def shown(code: str) -> str:
    """What a call returns, in the words of Python with four digits; nothing for values, which print as the call."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    import gradtx
    import gradtx.testing  # loads on first use

    def plain(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array | np.ndarray | np.generic):
            return leaf
        array = np.asarray(leaf)
        return np.round(array.astype(float), 4).tolist() if array.dtype.kind == "f" else array.tolist()

    value = eval(code, {"__name__": __name__, "gradtx": gradtx, "jax": jax, "jnp": jnp})
    if hasattr(value, "init") or callable(value):
        return ""
    return "" if "Figure" in str(value) else str(jax.tree.map(plain, value))


def main() -> None:
    for line in filter(None, CALLS):
        code = line.partition("  # ")[0]
        said = shown(code)
        print(f"{code}  # {said}" if said else code)


if __name__ == "__main__":
    main()
