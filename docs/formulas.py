# SPDX-License-Identifier: Apache-2.0
"""Typesets the formulas of docstrings and pages: fenced blocks without a language, such as

    mu = b1 mu + (1 - b1) g           u = mu / (1 - b1^t)

They become MathML, which browsers set without scripts. Two spaces or more separate
statements; words that are no names of formulas are prose. `a / b c` is (a / b) c, `f(x)` a call and `f (x)` a product.
A block in which anything is not understood stays as it is written.
"""

import re
from html import escape
from typing import NamedTuple
from unicodedata import normalize

GREEK = dict(
    alpha="α", beta="β", gamma="γ", delta="δ", eps="ε", eta="η", theta="θ", kappa="κ", lambd="λ", mu="μ", nu="ν",
    pi="π", rho="ρ", sigma="σ", tau="τ", phi="φ",
)  # fmt: skip
# What else of more than one letter is part of a formula. Names with an underscore and calls always are.
NAMES = frozenset(
    """above atol ax before below decay exponent factor grad growth high inputs log low mask max min minimum mix
    momentum norm order outputs power radius rank rate rtol scale size slow steps threshold timescale tokens value
    values""".split()
)
FENCE = re.compile(r"^```\n((?:(?!```).*\n)+?)```$", re.MULTILINE)
TOKEN = re.compile(
    r"""(?P<code>`[^`]*`)
    | (?P<words>[^\W\d_²ᵀᵗᵖ]\w*(?:'s|-[^\W\d_]{2,})\b)
    | (?P<raised>[²ᵀᵗᵖ]) | (?P<root>√)
    | (?P<number>\d[\d,]*(?<!,)(?:\.\d+)?(?:e[-+]?\d+)?)
    | (?P<name>(?:[^\W\d_]|∇)(?:[^\W²ᵀᵗᵖ]|\u0302)*(?:'(?![a-z]))?)
    | (?P<dots>\.\.\.)
    | (?P<relation><=|>=|≤|≥|≠|←|=|(?<=\ )[<>](?=\ ))
    | (?P<sign>[-+])
    | (?P<times>\*(?!\*)) | (?P<over>/) | (?P<power>\^|\*\*)
    | (?P<open>[(\[<⟨⌊]) | (?P<close>[)\]>⟩⌋]) | (?P<bar>\||‖)
    | (?P<below>_) | (?P<dot>\.) | (?P<comma>[,;]) | (?P<colon>:)
    | (?P<space>\ ) | (?P<percent>%)""",
    re.VERBOSE,
)
RAISED = {"²": "<mn>2</mn>", "ᵀ": "<mi>T</mi>", "ᵗ": "<mi>t</mi>", "ᵖ": "<mi>p</mi>"}
LOWERED = "₀₁₂ₘₐₓ"
HAT = "\u0302"  # above the letter before
CLOSES = {"(": ")", "[": "]", "<": ">", "⟨": "⟩", "⌊": "⌋", "|": "|", "‖": "‖"}


class NoFormula(ValueError):
    """Something is not understood."""


class Token(NamedTuple):
    kind: str
    text: str
    spaced: bool  # whether a space stands in front


def tokens(text: str) -> list[Token]:
    text = text.replace("−", "-")
    found, at, spaced = [], 0, False
    while at < len(text):
        match = TOKEN.match(text, at)
        if match is None:
            raise NoFormula(f"{text[at]!r} in {text!r}")
        at, kind = match.end(), str(match.lastgroup)
        if kind != "space":
            found.append(Token(kind, match[0], spaced))
        spaced = kind == "space"
    return found


def is_prose(token: Token, after: Token | None) -> bool:
    if token.kind != "name":
        return token.kind in ("code", "words", "colon", "percent")
    letters = token.text.rstrip("'").rstrip("0123456789" + LOWERED).replace(HAT, "")
    calls = after is not None and after.text in ("(", "[") and not after.spaced
    return not (len(letters) == 1 or letters in GREEK or letters in NAMES or "_" in token.text or calls)


def grouped(line: list[Token]) -> list[Token]:
    """Brackets with words in them become one token of text."""
    out: list[Token] = []
    starts: list[int] = []
    for i, token in enumerate(line):
        after = line[i + 1] if i + 1 < len(line) else None
        out.append(Token("prose", token.text, token.spaced) if is_prose(token, after) else token)
        if token.text in "([":
            starts.append(len(out) - 1)
        elif token.text in ")]":
            if not starts:
                raise NoFormula("a bracket closes nothing")
            start = starts.pop()
            if any(t.kind in ("prose", "aside") for t in out[start:]):
                if start and out[start - 1].kind == "name" and not out[start].spaced:
                    start -= 1  # the call around it
                said = "".join(" " * (t.spaced and j > 0) + t.text for j, t in enumerate(out[start:]))
                out[start:] = [Token("aside", said, out[start].spaced)]
    if starts:
        raise NoFormula("a bracket is not closed")
    return out


def mi(text: str) -> str:
    return f"<mi>{escape(text)}</mi>"


def mo(text: str) -> str:
    return f"<mo>{escape(text)}</mo>"


def mspace() -> str:
    return '<mspace width="0.2em"></mspace>'


def row(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"<mrow>{''.join(parts)}</mrow>"


def name(text: str) -> str:
    """A variable: its index below, Greek letters as such, a prime."""
    bare = text.rstrip("'")
    split = re.fullmatch(rf"([^\W\d_{LOWERED}]+?{HAT}?)(\d+|_\w+|[{LOWERED}]+)?", bare)
    base, index = (split[1], normalize("NFKD", split[2] or "").lstrip("_")) if split else (bare, "")
    if len(base) > 1 and base not in GREEK and "_" in bare:
        base, index = bare, ""
    out = mo(base) if base == "Σ" else mi(GREEK.get(base.rstrip(HAT), base.rstrip(HAT)))
    out = f'<mover accent="true">{out}<mo stretchy="false">^</mo></mover>' if base.endswith(HAT) else out
    out = f"<msub>{out}{f'<mn>{index}</mn>' if index.isdigit() else mi(index)}</msub>" if index else out
    return f"<msup>{out}{mo('′')}</msup>" if bare != text else out


class Parser:
    """A run of tokens without prose, to MathML."""

    def __init__(self, run: list[Token]):
        self.run, self.at, self.closing, self.raised = run, 0, [""], 0

    def peek(self) -> Token:
        return self.run[self.at] if self.at < len(self.run) else Token("end", "", False)

    def take(self) -> Token:
        self.at += 1
        return self.run[self.at - 1]

    def statements(self) -> str:
        out = [self.relations()]
        while self.peek().kind == "comma":
            out += [mo(self.take().text), self.relations()]
        if self.peek().text != self.closing[-1]:
            raise NoFormula(f"{self.peek().text!r} is in the way")
        return row(out)

    def relations(self) -> str:
        out = [self.sum()] if self.peek().kind != "relation" else []
        while self.peek().kind == "relation":
            out.append(mo({"<=": "≤", ">=": "≥"}.get(text := self.take().text, text)))
            if self.peek().kind != "end":  # the rest may be prose
                out.append(self.sum())
        return row(out)

    def sum(self) -> str:
        out = []
        while True:
            out += [mo("−" if self.take().text == "-" else "+")] if self.peek().kind == "sign" else []
            if out and self.peek().kind == "end":
                return row(out)  # the rest is prose
            out.append(self.product())
            if self.peek().kind != "sign":
                return row(out)

    def product(self) -> str:
        out = [self.factor()]
        while True:
            token = self.peek()
            if token.kind == "over":
                self.take()
                if self.raised or self.peek().kind == "end":  # small, or the rest is prose
                    out += [mo("/")] + ([self.factor()] if self.raised else [])
                    continue
                out = [f"<mfrac>{bare(out)}{bare([self.factor()])}</mfrac>"]
            elif token.kind == "times":
                self.take()
                out += [mo("·")] + ([] if self.peek().kind == "end" else [self.factor()])
            elif self.begins(token):
                out += [mspace(), self.factor()]
            else:
                return row(out)

    def begins(self, token: Token) -> bool:
        if token.kind == "bar":
            return token.text != self.closing[-1]
        return token.kind in ("number", "name", "open", "root", "aside", "dots")

    def factors(self) -> list[str]:
        """What a sum sign stands before: up to the next operator."""
        out = []
        while self.begins(self.peek()):
            out += [mspace(), self.factor()]
        return out

    def factor(self) -> str:
        out = self.atom()
        while True:
            token = self.peek()
            if token.kind == "raised":
                self.take()
                out = raised(out, RAISED[token.text])
            elif token.kind == "power":
                self.take()
                out = raised(out, self.exponent())
            elif token.kind == "below":
                self.take()
                out = f"<msub>{out}{self.atom()}</msub>"
            elif token.kind == "dot":
                self.take()
                out = row([out, mo("."), mi(self.take().text)])
            elif token.text == "[" and not token.spaced:
                out = row([out, self.brackets()])
            else:
                return out

    def exponent(self) -> str:
        self.raised += 1
        sign = [mo("−" if self.take().text == "-" else "+")] if self.peek().kind == "sign" else []
        out = bare([*sign, self.atom()])
        self.raised -= 1
        if self.peek().kind in ("raised", "power"):
            raise NoFormula("a power of a power")
        return out

    def brackets(self) -> str:
        start = self.take().text
        end = CLOSES[start]
        self.closing.append(end)
        inner = self.statements()
        self.closing.pop()
        if self.peek().text != end:
            raise NoFormula(f"{start!r} is not closed")
        self.take()
        return f"<mrow class='in'>{mo({'<': '⟨'}.get(start, start))}{inner}{mo({'>': '⟩'}.get(end, end))}</mrow>"

    def atom(self) -> str:
        token = self.peek()
        if token.kind in ("open", "bar"):
            return self.brackets()
        self.at += 1
        if token.kind == "number":
            return f"<mn>{token.text}</mn>"
        if token.kind == "root":
            return f"<msqrt>{bare([self.factor()])}</msqrt>"
        if token.kind == "aside":
            return f"<mtext>{escape(token.text)}</mtext>"
        if token.kind == "dots":
            return mo("…")
        if token.text == "ᵀ":  # of an inverse, Q^(-ᵀ)
            return mi("T")
        if token.kind != "name":
            raise NoFormula(f"{token.text!r} is no operand")
        after = self.peek()
        if token.text in ("log", "max", "min") and after.text != "(":
            return row([name(token.text), mspace(), self.factor()])
        if token.text.startswith("Σ"):
            return row([name(token.text), *self.factors()])
        if after.text != "(" or after.spaced:
            return name(token.text)
        argument = self.brackets()
        if token.text in ("sqrt", "cbrt"):
            return (
                f"<msqrt>{bare([argument])}</msqrt>"
                if token.text == "sqrt"
                else f"<mroot>{bare([argument])}<mn>3</mn></mroot>"
            )
        return row([name(token.text), argument])


def bare(parts: list[str]) -> str:
    """Without the brackets around it, which a fraction, a root or a power makes needless."""
    if len(parts) == 1 and parts[0].startswith("<mrow class='in'><mo>(</mo>"):
        return (
            "<mrow>"
            + parts[0].removeprefix("<mrow class='in'><mo>(</mo>").removesuffix("<mo>)</mo></mrow>")
            + "</mrow>"
        )
    return row(parts)


def raised(base: str, exponent: str) -> str:
    if base.startswith("<msub>") and base.endswith("</msub>") and base.count("<msub>") == 1:
        return f"<msubsup>{base.removeprefix('<msub>').removesuffix('</msub>')}{exponent}</msubsup>"
    return f"<msup>{base}{exponent}</msup>"


def math(run: list[Token]) -> str:
    return f'<math displaystyle="true">{Parser(run).statements()}</math>'


def prose(run: list[Token]) -> str:
    said = "".join(" " * (t.spaced and i > 0) + t.text for i, t in enumerate(run))
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(said, quote=False))


def statement(text: str) -> tuple[str, bool]:
    """The HTML of one statement, and whether it is more than prose."""
    line = grouped(tokens(text))
    runs: list[tuple[bool, list[Token]]] = []
    for i, token in enumerate(line):
        words = token.kind == "prose" or (token.kind == "comma" and i + 1 < len(line) and line[i + 1].kind == "prose")
        words = words or (token.kind == "comma" and (i + 1 == len(line) or (bool(runs) and runs[-1][0])))
        if not runs or runs[-1][0] != words:
            runs.append((words, []))
        runs[-1][1].append(token)
    out, formulas = [], False
    for words, run in runs:
        # A single word among words: "if a gradient", "the norm of"; and text in brackets for itself.
        single = len(run) == 1 and (run[0].kind in ("aside", "comma") or len(runs) > 1 and run[0].text in NAMES | {"a"})
        out.append(" " * (run[0].spaced and bool(out)) + (prose(run) if words or single else math(run)))
        formulas = formulas or not words and any(t.kind in ("relation", "over", "times", "power") for t in run)
    return "".join(out), formulas


def block(text: str) -> str | None:
    """The HTML of a block, None where it is no formula."""
    lines, formulas = [], False
    try:
        for line in text.rstrip().splitlines():
            said = re.sub(r"\s+(=)\s+", r" \1 ", line.strip())
            parts = [statement(part) for part in re.split(r" {2,}", said) if part]
            formulas = formulas or any(more for _, more in parts)
            lines.append("".join(f"<span>{html}</span> " for html, _ in parts).rstrip())
    except (NoFormula, IndexError):
        return None
    return "".join(f"<div>{line}</div>" for line in lines) if formulas else None
