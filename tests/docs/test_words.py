# SPDX-License-Identifier: Apache-2.0
"""Every argument of a public function is explained: by a line under Args, or on the page of words."""

import inspect

import pytest

from support.public import public_names, unexplained, words

FUNCTIONS = {f"{place}.{name}": thing for place, name, thing in public_names() if inspect.isfunction(thing)}


@pytest.mark.parametrize("path", FUNCTIONS)
def test_arguments_are_explained(path: str):
    assert unexplained(FUNCTIONS[path]) == []


def test_functions_were_found():
    assert len(FUNCTIONS) > 400


def test_every_word_is_an_argument():
    assert words() <= {n for f in FUNCTIONS.values() for n in inspect.signature(f).parameters}
