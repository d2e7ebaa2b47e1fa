"""Size expressions: those that torch writes pass as they are, everything else that sympy would evaluate does not."""

from __future__ import annotations

import pytest

from cluinfer.export.pt2.check import WrongError
from cluinfer.export.pt2.symbols import expression

S = "Symbol('s77', positive=True, integer=True)"


@pytest.mark.parametrize(
    "text",
    [
        S,
        "Symbol('s0')",
        "Integer(-3)",
        f"Mul(Integer(2), {S})",
        f"Add(Integer(1), FloorDiv(Add(Integer(-1), {S}), Integer(2)))",
        f"And(Equality(Mod({S}, Integer(4)), Integer(0)), Not(LessThan({S}, Integer(7))))",
    ],
)
def test_what_torch_writes(text: str) -> None:
    assert expression(text, "here") == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "s77",
        "__import__('os')",
        f"{S}; 1",
        f"{S}\n",
        f" {S}",
        f"{S}.func",
        f"{S}({S})",
        f"Mul({S}, __import__('os'))",
        f"Mul({S},{S})",
        f"Mul({S}, )",
        f"Mul({S}",
        "Mul()",
        "Symbol('s77', commutative=print())",
        "Symbol('s77\\x27')",
        "Symbol('s77')if(1)else(2)",
        "Symbol('eval')",
        "Symbol('s\N{FULLWIDTH DIGIT NINE}')",
        "Integer(1e9)",
        "Integer(99999999999999999999)",
        "Pow(Integer(9), Integer(999999999999))",
        "Lambda(x, x)",
        "Function('eval')",
        "Add(" * 400 + "Integer(1)" + ")" * 400,
        f"Add({', '.join([S] * 100)})",
        None,
        7,
        [S],
    ],
)
def test_everything_else(text: object) -> None:
    with pytest.raises(WrongError, match=r"^here: (not an expression of sizes|wanted an expression)"):
        expression(text, "here")


def test_a_size_that_depends_on_the_picture() -> None:
    with pytest.raises(WrongError, match="depends on what is in the picture"):
        expression("Symbol('u0', integer=True)", "here")
