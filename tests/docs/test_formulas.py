# SPDX-License-Identifier: Apache-2.0
"""Typeset formulas say what the docstrings say: the same letters in the same order, and the same values."""

import ast
import math
import random
import re
import xml.etree.ElementTree as etree
from html import unescape
from unicodedata import normalize

import pytest

from support.site import DOCS, script

formulas, reference = script("formulas"), script("reference")
LETTERS = {letter: name for name, letter in formulas.GREEK.items()}


def docstrings() -> dict[str, str]:
    found = {}
    for name in reference.public():
        for node in ast.parse(reference.source(name.module)).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name.name:
                found[name.path] = ast.get_docstring(node) or ""
    return found


BLOCKS = {f"{path}-{i}": b for path, d in docstrings().items() for i, b in enumerate(formulas.FENCE.findall(d))}
PROTOCOLS = {
    key
    for key in BLOCKS
    if re.search(r"\.(Accumulator|spread_matrices|per_matrix|per_parameter|groups|GuardRule)-0$", key)
}
"""Blocks that are no formulas but signatures, code or a diagram."""


def test_what_is_typeset():
    assert len(BLOCKS) > 130
    left = {path for path, text in BLOCKS.items() if formulas.block(text) is None}
    assert left <= PROTOCOLS


def letters(text: str) -> str:
    """Without what typesetting does by other means: spaces, brackets, signs of operations."""
    text = "".join(LETTERS.get(c, c) for c in text.replace("²", "2").replace("³", "3").replace("ᵀ", "T"))
    return re.sub(r"[\W_]", "", text)


@pytest.mark.parametrize("path", sorted(BLOCKS.keys() - PROTOCOLS))
def test_no_letter_is_lost(path: str):
    html = formulas.block(BLOCKS[path])
    assert html is not None, "a word in it is prose: use letters, arguments and the NAMES of docs/formulas.py"
    html = html.replace("<mn>3</mn></mroot>", "</mroot>")
    source = re.sub(r"\b(sqrt|cbrt)\b", "", BLOCKS[path])
    assert letters(unescape(re.sub("<[^>]*>", "", html)).replace("sqrt", "")) == letters(source)


class Values(dict):
    """A number for each name, and a function that is not symmetric."""

    def __missing__(self, name: str):
        if name.startswith("f_"):
            weight = self[name[2:]]
            return lambda *x: weight + sum((i + 1.3) * math.sin(v) for i, v in enumerate(x))
        return random.Random(name).uniform(0.5, 1.5)


def of_source(text: str) -> str:
    """Python for a formula, in which Python's own rules of precedence hold."""
    for bar, function in (("‖", "norm"), ("|", "bar")):
        parts = text.split(bar)
        text = "".join(p + ([f" {function}(", ")"][i % 2] if i < len(parts) - 1 else "") for i, p in enumerate(parts))
    text = re.sub(r"<(?=\S)([^<>]*)(?<=\S)>|⟨([^⟩]*)⟩", lambda m: f" inner({m[1] or m[2]})", text)
    text = re.sub(
        r"√(\w[\w\u0302]*)", r"sqrt(\1)", text.replace("√(", "sqrt(").replace("^(-ᵀ)", "**(-tr)").replace("ᵀ", "**tr ")
    )
    text = normalize("NFKD", text.replace("²", "^2").replace("ᵗ", "^t").replace("ᵖ", "^p").replace("−", "-"))
    text = (
        text.replace("\u0302", "hat").replace("⌊", " floor(").replace("⌋", ")").replace("'", "prime").replace("^", "**")
    )
    text = re.sub(r"(\w+)(?=\()", lambda m: m[0] if m[0][0].isdigit() else f"f_{m[0]}", text)
    text = re.sub(r"\)_1", ")", text)
    text = re.sub(r"([\w)])\s+(?=[\w(])|(?<=\))(?=[\w(])|(?<=\d)(?=[a-zA-Z](?!-?\d))", r"\1*", text)
    return canonical(text)


def canonical(text: str) -> str:
    """Greek as words, no underscores in names, and each side of a relation an item of a tuple."""
    text = normalize("NFKD", "".join(LETTERS.get(c, c) for c in text)).replace("\u0302", "hat")
    text = re.sub(r"(?<!\*)(<=|>=|≤|≥|←|=|<|>)", ",", text)
    return re.sub(r"(?<![a-z])f_|_", lambda m: m[0] if len(m[0]) > 1 else "", text)


def of_mathml(node: etree.Element) -> str:
    inner = [of_mathml(child) for child in node]
    if node.tag in ("mi", "mn", "mtext"):
        return (node.text or "").replace("′", "prime")
    if node.tag == "mo":
        return {"−": "-", "·": "*", "′": "prime"}.get(node.text or "", node.text or "")
    if node.tag == "mspace":
        return "*"
    if node.tag == "mfrac":
        return f"(({inner[0]})/({inner[1]}))"
    if node.tag in ("msqrt", "mroot"):
        return f"f_{'sqrt' if node.tag == 'msqrt' else 'cbrt'}({inner[0]})"
    if node.tag == "mover":
        return inner[0] + "hat"
    if node.tag == "msub":
        return inner[0] if inner[0].endswith(")") else inner[0] + inner[1]
    if node.tag == "msubsup":
        return f"({inner[0]}{inner[1]})**({inner[2].replace('T', 'tr') if inner[2] in ('T', '-T') else inner[2]})"
    if node.tag == "msup":
        if inner[1] == "prime":
            return inner[0] + "prime"
        return f"({inner[0]})**({inner[1].replace('T', 'tr') if inner[1] in ('T', '-T') else inner[1]})"
    if node.get("class") == "in":
        function = {"‖": "f_norm", "|": "f_bar", "⟨": "f_inner", "(": "", "[": "", "⌊": "f_floor"}[inner[0]]
        return f"{function}({''.join(inner[1:-1])})"
    out = ""
    for i, (child, said) in enumerate(zip(node, inner, strict=True)):
        follows = node[i + 1] if i + 1 < len(node) else None
        called = follows is not None and follows.get("class") == "in" and child.tag in ("mi", "msub", "msup", "mover")
        out += f"f_{said}" if called else said
    return out


# Prose, dots and indices are not evaluated; a sum sign, `log x` and `max |x|` bind by rules that Python does not have.
NOT_EVALUATED = re.compile(r"\.\.\.|\[|Σ|`|:|\*\*|%|\.Q|\*$|(log|max|min) ")
TEXTBOOK = [
    row[2].strip().replace("\\|", "|")
    for line in (DOCS / "coming_from.md").read_text().partition("## PyTorch")[0].splitlines()
    if len(row := re.split(r"(?<!\\)\|", line)) == 5
]
STATEMENTS = sorted(
    {
        part
        for text in [
            *(text for path, text in BLOCKS.items() if path not in PROTOCOLS),
            *(part for cell in TEXTBOOK for part in cell.split("; ")),
        ]
        if formulas.block(text)
        for line in text.splitlines()
        for part in re.split(r" {2,}", re.sub(r"\s+(=)\s+", r" \1 ", line.strip()))
        if not NOT_EVALUATED.search(part)
        and len(formulas.tokens(part)) > 1
        and not any(t.kind in ("prose", "aside") for t in formulas.grouped(formulas.tokens(part)))
    }
)


def test_the_formulas_of_textbooks_are_typeset():
    left = [text for text in TEXTBOOK[2:] if formulas.block(text) is None]
    assert len(TEXTBOOK) > 30
    assert left == [
        "rates + κ where ḡ g > 0, × (1 − φ) where < 0",
        "max(min(g, c), −c)",
        "the same, ‖g‖ over all parameters",
        "one update from the mean of k gradients",
    ]


def test_most_statements_are_evaluated():
    assert len(STATEMENTS) > 200


@pytest.mark.parametrize("text", STATEMENTS)
def test_typeset_formulas_have_the_same_values(text: str):
    html = re.search(r"<math.*</math>", formulas.statement(text.rstrip(",;"))[0])
    assert html is not None
    set_in_type = canonical(of_mathml(etree.fromstring(html[0])))
    written = of_source(text.rstrip(",;"))
    assert evaluated(set_in_type) == pytest.approx(evaluated(written), rel=1e-9), (set_in_type, written)


def evaluated(code: str) -> list[complex]:
    value = eval(code.replace(";", ","), {"__builtins__": {}}, Values())
    return [complex(v) for v in (value if isinstance(value, tuple) else (value,))]


@pytest.mark.parametrize(
    ("text", "mathml"),
    [
        ("a / b c", "<mrow><mfrac><mi>a</mi><mi>b</mi></mfrac>~<mi>c</mi></mrow>"),
        ("a / Σ b c", "<mfrac><mi>a</mi><mrow><mo>Σ</mo>~<mi>b</mi>~<mi>c</mi></mrow></mfrac>"),
        (
            "a / max |g|",
            "<mfrac><mi>a</mi><mrow><mi>max</mi>~<mrow class='in'><mo>|</mo><mi>g</mi><mo>|</mo></mrow></mrow></mfrac>",
        ),
        ("b1^t = c", "<mrow><msubsup><mi>b</mi><mn>1</mn><mi>t</mi></msubsup><mo>=</mo><mi>c</mi></mrow>"),
        ("2 ** (a / b)", "<msup><mn>2</mn><mrow><mrow><mi>a</mi><mo>/</mo><mi>b</mi></mrow></mrow></msup>"),
        ("v * w", "<mrow><mi>v</mi><mo>·</mo><mi>w</mi></mrow>"),
    ],
)
def test_the_form(text: str, mathml: str):
    assert formulas.statement(text)[0] == f'<math displaystyle="true">{mathml.replace("~", formulas.mspace())}</math>'


@pytest.mark.parametrize(
    "text", ["pip install .", "init(p) -> slots", "tx = f()", "a = (b", "x = y)", "a = b^c²", '"a" = b']
)
def test_what_is_no_formula_stays(text: str):
    assert formulas.block(text) is None


def test_words_stay_words():
    html, _ = formulas.statement("P = the first k columns of a matrix, if a > 0, else `base`")
    assert re.sub("<math.*?</math>", "~", html) == "~ the first ~ columns of a matrix, if ~, else <code>base</code>"


def test_which_blocks_of_pages_are_formulas():
    found = {}
    for page in DOCS.rglob("*.md"):
        fences = re.findall(r"^```(.*)\n((?:(?!```).*\n)*)```$", page.read_text(), re.MULTILINE)
        typeset = [text for language, text in fences if not language and formulas.block(text)]
        found |= {page.name: len(typeset)} if typeset else {}
    assert found == {"write_your_own.md": 3}
