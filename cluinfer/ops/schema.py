"""What the operators of the ONNX domain `cluinfer`, version 1, take and give: the one place that says so.

Symbols: G groups (batch x heads x regions), N points, M centres, D and C channels. T is float32, float16 or
bfloat16 on both sides; the arithmetic is float32 in every case. The meaning is defined by `reference.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

DOMAIN = "cluinfer"
VERSION = 1
EPSILON = 1e-12  # the cosine divides by max(norm, EPSILON)


@dataclass(frozen=True)
class Tensor:
    """One input or output: its name, its symbolic shape, and "T" or "int32"."""

    name: str
    shape: tuple[str, ...]
    dtype: str = "T"
    optional: bool = False


@dataclass(frozen=True)
class Attribute:
    """One attribute and its default. Nodes carry every attribute: onnx.inliner does not know defaults."""

    name: str
    default: float | int


@dataclass(frozen=True)
class Operator:
    """An operator: what it takes, what it gives, and in one line what it means."""

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    attributes: tuple[Attribute, ...]
    meaning: str


OPERATORS: dict[str, Operator] = {
    operator.name: operator
    for operator in (
        Operator(
            "ClusterAssign",
            inputs=(Tensor("points", ("G", "D", "N")), Tensor("centers", ("G", "D", "M"))),
            outputs=(Tensor("index", ("G", "N"), "int32"), Tensor("weight", ("G", "N"))),
            attributes=(Attribute("alpha", 1.0), Attribute("beta", 0.0), Attribute("sigmoid", 1)),
            meaning="s = alpha * cosine + beta, sigmoid if asked; index = first argmax of s over M, weight = that s",
        ),
        Operator(
            "ClusterScatter",
            inputs=(
                Tensor("values", ("G", "C", "N")),
                Tensor("index", ("G", "N"), "int32"),
                Tensor("base", ("G", "C", "M")),
                Tensor("weight", ("G", "N"), optional=True),
            ),
            outputs=(Tensor("centers", ("G", "C", "M")),),
            attributes=(),
            meaning="(sum of w * v over a centre's points + base) / (sum of w + 1), w = 1 if absent",
        ),
        Operator(
            "ClusterGather",
            inputs=(
                Tensor("centers", ("G", "C", "M")),
                Tensor("index", ("G", "N"), "int32"),
                Tensor("weight", ("G", "N"), optional=True),
            ),
            outputs=(Tensor("points", ("G", "C", "N")),),
            attributes=(),
            meaning="w(n) * centers(index(n)), w = 1 if absent, zero where the index is outside [0, M)",
        ),
    )
}
