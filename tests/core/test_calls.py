# SPDX-License-Identifier: Apache-2.0
"""How the arguments of a factory are bound, checked, kept and printed."""

import functools
import inspect
import pickle
import typing
from collections.abc import Callable
from typing import Annotated, Any, Literal

import pytest

import gradtx
from gradtx.core._arguments import Arguments, Printed
from gradtx.core._ranges import Range
from support.public import public_names


def every_kind(a, /, b, c=3, *rest, d, e=5, **more):
    pass


def plain(a, b=2, *, c=3):
    pass


def _unknown(function: Callable, kwargs: dict) -> list[str]:
    parameters = inspect.signature(function).parameters.values()
    by_name = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return [n for n in kwargs if n not in by_name and not any(p.kind is p.VAR_KEYWORD for p in parameters)]


@pytest.mark.parametrize("function", [every_kind, plain])
@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((1, 2), {"d": 4}),
        ((1, 2, 3, 4, 5), {"d": 4, "f": 6, "g": 7}),
        ((1,), {}),
        ((1,), {"b": 2, "d": 4}),
        ((1,), {"c": 0}),
        ((1, 2), {"b": 2}),
        ((), {"a": 1}),
        ((), {}),
        ((1, 2, 3), {}),
        ((1,), {"x": 1}),
    ],
)
def test_arguments_are_bound_as_python_binds_them(function: Callable, args: tuple, kwargs: dict):
    arguments = Arguments(function.__name__, function, schedules=True)
    try:
        bound = inspect.signature(function).bind(*args, **kwargs)
    except TypeError as error:
        with pytest.raises(TypeError) as raised:
            arguments.bind(args, kwargs)
        # Python says what is missing rather than which argument is not known.
        wrong = (
            f"got an unexpected keyword argument {unknown[0]!r}" if (unknown := _unknown(function, kwargs)) else error
        )
        assert str(raised.value) == f"{function.__name__}: {wrong}; the call is {arguments}"
        return
    bound.apply_defaults()
    found = arguments.bind(args, kwargs)
    assert list(found.items()) == list(bound.arguments.items())
    by_place, by_keyword = arguments.apart(found)
    assert arguments.bind(tuple(by_place), by_keyword) == found


def test_a_default_is_checked_when_the_factory_is_made():
    with pytest.raises(ValueError, match=r"wrong: decay must be in \[0, 1\), got 1.5"):

        @gradtx.transformation
        def wrong(decay: gradtx.typing.Decay = 1.5):
            return gradtx.identity()


def test_the_signatures_of_gradtx_are_all_in_order():
    """They are read at the first call, so an import does not find a default that is out of range."""
    functions = [x for _, _, x in public_names() if isinstance(getattr(x, "__signature__", None), Printed)]
    assert len(functions) > 400
    for function in functions:
        arguments = function.__signature__._arguments
        assert list(arguments.defaults) == list(inspect.signature(function).parameters)


def test_a_signature_that_is_read_late_is_one_like_others():
    def printed():
        return Arguments("plain", plain, schedules=True).printed()

    whole = inspect.signature(plain)
    assert printed() == whole and hash(printed()) == hash(whole) and str(printed()) == "(a, b=2, *, c=3)"
    assert printed().replace(parameters=()) == inspect.Signature()
    assert pickle.loads(pickle.dumps(printed())) == whole and printed().bind(1).arguments == {"a": 1}
    assert not inspect.signature(functools.partial(gradtx.scale, 2.0)).parameters
    assert not hasattr(printed(), "nothing") and not hasattr(printed().replace(), "nothing")


def test_what_the_caller_does_to_his_containers_later_changes_nothing():
    mask = {"w": True, "b": [False]}
    tx = gradtx.adamw(0.1, mask=mask)
    same = gradtx.adamw(0.1, mask={"w": True, "b": [False]})
    mask["b"][0], mask["w"] = True, False
    tx.arguments["mask"]["w"] = False
    tx.arguments["mask"]["b"].append(True)
    assert tx == same and hash(tx) == hash(same) and tx.arguments["mask"] == {"b": [False], "w": True}


Annotation = Annotated[Any, Range(low=0.0, high=1.0, high_open=True, example=0.3)]
Whole = Annotated[int, Range(low=1, high=8, integer=True)]


@gradtx.transformation
def example(
    learning_rate: gradtx.typing.ScalarOrSchedule,
    decay: gradtx.typing.Decay = 0.9,
    limit: gradtx.typing.Positive | None = None,
    odd: Annotation = 0.5,
    whole: Whole | str = 2,
    dtype: gradtx.typing.DType = None,
    flag: bool = False,
    kind: Literal["a", "b"] = "a",
    mask: Any | Callable = None,
):
    return gradtx.identity()


def test_ranges_are_printed_by_their_names():
    printed = {n: inspect.formatannotation(p.annotation) for n, p in inspect.signature(example).parameters.items()}
    del printed["learning_rate"], printed["mask"]
    assert printed == {
        "decay": "Decay",
        "limit": "Positive | None",
        "odd": "a number in [0, 1)",
        "whole": "a whole number in [1, 8] | str",
        "dtype": "DType",
        "flag": "bool",
        "kind": "Literal['a', 'b']",
    }
    assert "b1: Decay = 0.9" in str(inspect.signature(gradtx.adam))


def test_annotations_stay_what_they_are():
    hints, parameters = typing.get_type_hints(example, include_extras=True), inspect.signature(example).parameters
    assert parameters["learning_rate"].annotation is gradtx.typing.ScalarOrSchedule
    assert parameters["mask"].annotation == Any | Callable and parameters["flag"].annotation is bool
    assert hints["decay"] == gradtx.typing.Decay == example.__annotations__["decay"]
    assert inspect.signature(gradtx.adam).parameters["b1"].default == 0.9


@pytest.mark.parametrize("name", [n for n in list(vars(gradtx)) if hasattr(getattr(gradtx, n), "factory")])
def test_no_signature_shows_the_fields_of_a_range(name: str):
    text = str(inspect.signature(getattr(gradtx, name)))
    assert "Range(" not in text and "Annotated" not in text and "Floating" not in text


def test_what_is_no_transformation_is_refused_at_the_call():
    @gradtx.transformation
    def wrong():
        return 3

    with pytest.raises(
        TypeError, match="wrong: what the body of the factory returns must be a transformation .*, got 3"
    ):
        wrong()
