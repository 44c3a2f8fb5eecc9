# SPDX-License-Identifier: Apache-2.0
"""Different transformations for different parameters, chosen by labels."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple

import jax

from gradtx.core._factory import transformation
from gradtx.core._prefixes import Rows, is_function, of_boxes, rows, said_of
from gradtx.core._transformation import GradientTransformationExtraArgs, as_inner
from gradtx.core._trees import check_state, show_path
from gradtx.core._types import OptState, Params, Updates
from gradtx.wrappers._masked import MaskedState, hide_extra


class PartitionState(NamedTuple):
    """The state of each transformation by its label, with `MaskedNode` in place of the parameters it does not see."""

    inner_states: Mapping[Any, MaskedState]


@transformation
def partition(
    transforms: Mapping[Any, Any],
    param_labels: Any | Callable[[Params], Any],
    *,
    mask_compatible_extra_args: bool = False,
) -> GradientTransformationExtraArgs:
    """Applies to each parameter the transformation with its label; each transformation sees only its own parameters.

    Args:
      transforms: a dictionary from labels to transformations. A label is anything hashable, also a tuple or None.
      param_labels: a tree of labels with the structure of the parameters or a prefix of it, or a function from the
        parameters (or the updates, if `update` is called without parameters) to such a tree. Its containers may be of
        other types if the names in them are the same, such as a dictionary for the state of a module.
      mask_compatible_extra_args: whether each transformation sees only its own part of those extra arguments that have
        the structure of the updates. Of `grad` it always does; functions, such as `value_fn` and `grad_fn`, are always
        called with whole trees.

    Raises:
      ValueError: for a label without transformation, or labels that do not fit the tree, with the path. A
        transformation whose label no parameter has is not used.
    """
    if not isinstance(transforms, Mapping):
        raise TypeError(f"partition: transforms must be a dictionary of transformations by label, got {transforms!r}")
    stages = {label: as_inner(f"partition: transforms[{label!r}]", tx) for label, tx in transforms.items()}
    if not is_function(param_labels):
        _checked(param_labels, stages)

    @of_boxes
    def labels(tree: Any) -> Any:
        return _checked(said_of(param_labels, tree), stages)

    def groups_of(updates: Updates, params: Params) -> tuple[Rows, dict[Hashable, list[bool]]]:
        found = rows("partition", "param_labels", labels, updates, params, lambda x: _is_label(x, stages))
        seen = {label: [False] * len(found.entries) for label in stages}
        for i, label in enumerate(found.entries):
            if _is_label(label, stages):  # a None that is not a label belongs to no transformation
                seen[label][i] = True
        return found, seen

    def init(params: Params) -> PartitionState:
        found, seen = groups_of(params, None)
        return _state({label: tx.init(found.tree(found.updates, seen[label])) for label, tx in stages.items()})

    def update(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Updates, OptState]:
        check_state("partition", state, PartitionState)
        if set(state.inner_states) != set(stages):
            raise TypeError(
                f"partition: state must have the labels of transforms, {list(stages)}, got {list(state.inner_states)}"
            )
        found, seen = groups_of(updates, params)
        leaves, inner_states = found.updates, {}
        for label, tx in stages.items():
            mine = seen[label]
            given = hide_extra(found, mine, extra, mask_compatible_extra_args) if extra else extra
            seen_params = None if found.params is None else found.tree(found.params, mine)
            before = state.inner_states[label].inner_state
            new, inner_states[label] = tx.update(found.tree(found.updates, mine), before, seen_params, **given)
            leaves = found.merged(f"partition: {label!r}", new, mine, leaves)
        return found.whole(leaves), _state(inner_states)

    def parts(state: PartitionState) -> dict[str, tuple[Any, OptState]]:
        inner = state.inner_states
        return {f"inner_states.{n}.inner_state": (tx, inner[n].inner_state) for n, tx in transforms.items()}

    return GradientTransformationExtraArgs(init, update, parts=parts)


def _state(inner_states: dict[Hashable, OptState]) -> PartitionState:
    masked = {label: MaskedState(state) for label, state in inner_states.items()}
    try:
        sorted(masked)  # type: ignore[type-var]  # that is the question
    except TypeError:  # JAX sorts the keys of a dict
        return PartitionState(OrderedDict(masked))
    return PartitionState(masked)


def _is_label(x: Any, stages: Mapping) -> bool:
    try:
        return x in stages
    except TypeError:  # not hashable, so not a label
        return False


def _checked(labels: Any, stages: Mapping) -> Any:
    """The same tree, or an error at the first label for which there is no transformation."""
    for path, label in jax.tree_util.tree_leaves_with_path(labels, is_leaf=lambda x: _is_label(x, stages)):
        if not _is_label(label, stages):
            raise ValueError(
                f"partition: the label at {show_path(path)} is {label!r}, for which there is no transformation; "
                f"there are {', '.join(map(repr, stages))}"
            )
    return labels
