"""What the pass knows of a value: its place in a clustering.

With s(g,m,n) the similarity of centre m and point n, a(g,n) the first maximum over m, w(g,n) that maximum, and
mask(g,m,n) = [m = a(g,n)], the facts are the terms that clusterings are written with. `power` 1 stands for a factor w
(s times the mask is w times the mask), 0 for none. A leaf is a value from outside, with its axes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx_ir as ir

from cluinfer.export.passes.recognise_clustering._axes import Dim, Dims


@dataclass(frozen=True)
class Leaf:
    """A value from outside, and what its dimensions run over."""

    value: ir.Value
    dims: Dims


@dataclass(eq=False)
class Cosine:
    """A product of two sides of unit vectors: `left` has the axes of `rows`, `right` those of `columns`."""

    node: ir.Node
    groups: Dim
    depth: Dim
    rows: Dim
    columns: Dim
    left: Leaf
    right: Leaf


@dataclass(eq=False)
class Cluster:
    """One assignment: its similarity, which axes are centres and which are points, what was found about it."""

    cosine: Cosine
    alpha: float
    beta: float
    sigmoid: bool
    m: Dim
    n: Dim
    layer: str
    assigns: bool = False  # whether the index is taken, not only the maximum
    notes: list[str] = field(default_factory=list)  # why something on it could not be rewritten

    @property
    def g(self) -> Dim:
        """The axes of the groups."""
        return self.cosine.groups

    @property
    def points(self) -> Leaf:
        """The side that is assigned."""
        return self.cosine.right if self.m == self.cosine.rows else self.cosine.left

    @property
    def centers(self) -> Leaf:
        """The side that is assigned to."""
        return self.cosine.left if self.m == self.cosine.rows else self.cosine.right

    def note(self, reason: str) -> None:
        """Remember why something could not be rewritten, once."""
        if reason not in self.notes:
            self.notes.append(reason)


@dataclass(frozen=True)
class Unit:
    """Vectors of length one along the axes `depth`, made from `source`; or nearly so, see `problem`."""

    dims: Dims
    source: Leaf
    depth: Dim
    problem: str | None = None


@dataclass(frozen=True)
class Similarity:
    """alpha · cos + beta, through a sigmoid or not."""

    dims: Dims
    cosine: Cosine
    alpha: float = 1.0
    beta: float = 0.0
    sigmoid: bool = False
    problem: str | None = None


@dataclass(frozen=True)
class Index:
    """a(g,n); with `offset`, a(g,n) + M·g, an index into all groups' centres in one row."""

    dims: Dims
    cluster: Cluster
    offset: bool = False


@dataclass(frozen=True)
class Product:
    """A product of mask, w and a leaf, each there or not; w alone is the weight."""

    dims: Dims
    cluster: Cluster
    mask: bool
    power: int
    leaf: Leaf | None = None


@dataclass(frozen=True)
class Sum:
    """Σ_n mask · w^power · leaf; with `plus`, that plus a leaf on centres. Without a leaf, the mass of each centre."""

    dims: Dims
    cluster: Cluster
    power: int
    leaf: Leaf | None
    plus: Leaf | None = None


@dataclass(frozen=True)
class Mass:
    """Σ_n mask · w^power + 1."""

    dims: Dims
    cluster: Cluster
    power: int


@dataclass(frozen=True)
class Mean:
    """(Σ_n mask · w^power · leaf + base) / (Σ_n mask · w^power + 1): a ClusterScatter."""

    dims: Dims
    cluster: Cluster
    power: int
    leaf: Leaf
    base: Leaf


@dataclass(frozen=True)
class Picked:
    """w^power · leaf at centre a(g,n): a ClusterGather."""

    dims: Dims
    cluster: Cluster
    power: int
    leaf: Leaf


Fact = Unit | Similarity | Index | Product | Sum | Mass | Mean | Picked


def is_weight(fact: Fact) -> bool:
    """Whether a fact is w(g,n) itself."""
    return isinstance(fact, Product) and not fact.mask and fact.power == 1 and fact.leaf is None
