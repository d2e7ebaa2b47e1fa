"""Operators by name: what is listed is there in torch; what can do more than arithmetic is not listed."""

from __future__ import annotations

import _operator as operator_module
import math

import pytest
import torch

from cluinfer.export.pt2.check import WrongError
from cluinfer.export.pt2.operators import ATEN, GRAD_MODE, SIZES, operator


@pytest.mark.parametrize(
    "name",
    [
        "torch.ops.aten.conv2d.default",
        "torch.ops.aten.relu_.default",
        "torch.ops.aten.add.Tensor",
        "torch.ops.cluinfer.cluster_assign.default",
        "_operator.floordiv",
        GRAD_MODE,
    ],
)
def test_what_models_call(name: str) -> None:
    assert operator(name, "here") == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "torch.os.system",
        "torch.hub.load",
        "torch.load",
        "torch.ops.load_library",
        "torch.ops.aten.add",
        "torch.ops.aten.add.out",
        "torch.ops.aten.add.Tensor.__call__",
        "torch.ops.aten.add.__init__",
        "torch.ops.aten.add.nothing",
        "torch.ops.aten.__init__.default",
        "torch.ops.aten.from_file.default",
        "torch.ops.aten.set_.source_Storage",
        "torch.ops.aten.resize_.default",
        "torch.ops.aten.bernoulli.p",
        "torch.ops.aten._sparse_coo_tensor_unsafe.default",
        "torch.ops.cluinfer.other.default",
        "torch.ops.higher_order.cond",
        "torch.ops.inductor.resize_storage_bytes_.default",
        "_operator.attrgetter",
        "_operator.methodcaller",
        "_operator.pow",
        "_operator.__class__",
        "_operatorx.add",
        "math.factorial",
        "#extension:op",
        "builtins.eval",
    ],
)
def test_what_is_refused(name: str) -> None:
    with pytest.raises(WrongError, match="not among the operators that are read from files"):
        operator(name, "here")


def test_every_listed_operator_is_there() -> None:
    assert [name for name in sorted(ATEN) if not hasattr(torch.ops.aten, name)] == []
    for name in SIZES:
        module, _, function = name.partition(".")
        assert callable(getattr({"_operator": operator_module, "math": math, "torch": torch}[module], function))


def test_no_listed_operator_depends_on_chance() -> None:
    """But dropout, which is refused where it is of training, and attention, which drops nothing by default."""
    random = {
        name
        for name in ATEN
        for overload in getattr(torch.ops.aten, name).overloads()
        if torch.Tag.nondeterministic_seeded in getattr(getattr(torch.ops.aten, name), overload).tags
    }
    assert random == {"alpha_dropout", "dropout", "feature_dropout", "scaled_dot_product_attention"}
