"""The sizes that depend on the batch, as torch writes them: `Mul(Integer(2), Symbol('s77', positive=True, ...))`.

torch hands these strings to sympy, which evaluates them as Python. So nothing passes but calls of the functions below
on integers, symbols and each other.

    expression = FUNCTION "(" expression {"," expression} ")" | "Integer(" digits ")" | symbol
    symbol     = "Symbol('s" digits "'" {", " ASSUMPTION "=" ("True" | "False")} ")"
"""

from __future__ import annotations

import re

from cluinfer.export.pt2.check import WrongError, show

LONGEST = 2000  # characters
DEEPEST = 12
SYMBOL = r"s[0-9]{1,6}"

_ATOM = re.compile(
    rf"Integer\(-?[0-9]{{1,18}}\)|Symbol\('{SYMBOL}'(?:, (?:positive|nonnegative|integer)=(?:True|False))*\)"
)
_CALL = re.compile(
    r"(Add|Mul|FloorDiv|CleanDiv|CeilDiv|Mod|PythonMod|ModularIndexing|Max|Min|Equality|Unequality|GreaterThan"
    r"|StrictGreaterThan|LessThan|StrictLessThan|And|Or|Not)\("
)
_UNBACKED = re.compile(r"Symbol\('[uz]")


def expression(value: object, where: str) -> str:
    """The expression as it is, if it is one."""
    if not isinstance(value, str) or len(value) > LONGEST:
        raise WrongError(f"{where}: wanted an expression of at most {LONGEST} characters, found {show(value)}")
    if _UNBACKED.search(value):
        raise WrongError(
            f"{where}: a size that depends on what is in the picture ({show(value)}), which cannot be compiled; "
            "leave out operators such as nonzero and item"
        )
    if _end(value, 0, 0) != len(value):
        raise WrongError(f"{where}: not an expression of sizes: {show(value)}")
    return value


def _end(value: str, start: int, depth: int) -> int:
    """Where the expression that begins here ends, -1 if none does."""
    atom = _ATOM.match(value, start)
    if atom:
        return atom.end()
    call = _CALL.match(value, start)
    if not call or depth == DEEPEST:
        return -1
    position = call.end()
    while True:
        position = _end(value, position, depth + 1)
        if position < 0:
            return -1
        if value.startswith(")", position):
            return position + 1
        if not value.startswith(", ", position):
            return -1
        position += 2
