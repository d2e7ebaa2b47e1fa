"""Inner values of a graph shown: margins as the reference of the operators has them, each clustering once."""

from __future__ import annotations

import calibration_cases as cases
import numpy as np
import onnx
import pytest
from onnx import helper, parser

from cluinfer.calibration.watch import Watched, run_with
from cluinfer.errors import GraphError
from cluinfer.ops.functions import functions

HEAD = '<ir_version: 9, opset_import: ["": 18, "cluinfer": 1]>'


def clustering(attributes: str, centres: int) -> onnx.ModelProto:
    """Images [G, D, N] whose first points are the centres."""
    text = f"""{HEAD} main (float[G, D, N] image) => (float[G, N] weight)
    <int64[1] start = {{0}}, int64[1] end = {{{centres}}}, int64[1] axis = {{2}}> {{
        centers = Slice (image, start, end, axis)
        index, weight = cluinfer.ClusterAssign <{attributes}> (image, centers)
    }}"""
    model: onnx.ModelProto = parser.parse_model(text)
    model.functions.extend(functions({"ClusterAssign": 2}))
    return model


def plain_margin(points: np.ndarray, centers: np.ndarray, alpha: float, beta: float, sigmoid: bool) -> np.ndarray:
    """Point by point, in float64."""
    found = np.zeros((points.shape[0], points.shape[2]))
    for g in range(points.shape[0]):
        for n in range(points.shape[2]):
            x, similarities = points[g, :, n].astype(float), []
            for m in range(centers.shape[2]):
                c = centers[g, :, m].astype(float)
                s = alpha * (x @ c) / (max(np.linalg.norm(x), 1e-12) * max(np.linalg.norm(c), 1e-12)) + beta
                similarities.append(1 / (1 + np.exp(-s)) if sigmoid else s)
            best = sorted(similarities)
            found[g, n] = best[-1] - best[-2] if len(best) > 1 else np.inf
    return found


@pytest.mark.parametrize(("alpha", "beta", "sigmoid"), [(1.0, 0.0, True), (2.5, -0.5, True), (1.0, 0.0, False)])
@pytest.mark.parametrize("centres", [1, 2, 7])
def test_margins_are_those_of_the_definition(alpha: float, beta: float, sigmoid: bool, centres: int) -> None:
    points = np.random.default_rng(0).standard_normal((3, 5, 20)).astype(np.float32)
    points[0, :, 3] = 0  # a point without a direction is a tie
    watched = Watched(clustering(f"alpha = {alpha}, beta = {beta}, sigmoid = {int(sigmoid)}", centres), margins=True)
    outputs, margins = watched.run(points)
    (name,) = margins
    wanted = plain_margin(points, points[:, :, :centres], alpha, beta, sigmoid)
    np.testing.assert_allclose(margins[name].reshape(3, 20), wanted, atol=1e-6)
    unit = points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-12)
    ids = (unit[:, :, :centres].swapaxes(1, 2) @ unit).argmax(1)
    clear = wanted > 1e-5
    np.testing.assert_array_equal(outputs[name].reshape(3, 20)[clear], ids[clear])


@pytest.mark.parametrize("family", ["fec", "cluenet"])
def test_each_clustering_once_whatever_was_exported(family: str) -> None:
    proto, bare = cases.graph(family), onnx.ModelProto()
    bare.CopyFrom(proto)
    for port in [port for port in bare.graph.output if port.name.startswith("clusters/")]:
        bare.graph.output.remove(port)
    with_maps, without = Watched(proto), Watched(bare)
    assert len(without.assigned) == len(cases.nodes(proto, "ClusterAssign"))
    one, other = with_maps.run(cases.images()[:2])[0], without.run(cases.images()[:2])[0]
    assert one.keys() == other.keys()
    assert len([name for name in one if name.startswith("clusters/")]) == len(without.assigned)
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name])
        assert name == "logits" or array.ndim == 3


def test_values_are_shown_as_they_are() -> None:
    proto = cases.graph("fec")
    (conv,) = [node for node in proto.graph.node if "image" in node.input]
    image = cases.images()[0]
    shown = run_with(proto, ["image", conv.output[0]])(image)
    assert list(shown) == [conv.output[0]]
    assert shown[conv.output[0]].shape == (1, 16, 8, 12)
    assert run_with(proto, ["image"])(image) == {}


def test_what_onnx_runtime_does_not_take() -> None:
    bad = helper.make_model(parser.parse_graph("main (float[N] image) => (float[N] y) { y = Strange (image) }"))
    with pytest.raises(GraphError, match="ONNX Runtime cannot load the graph: "):
        run_with(bad, ["y"])
    with pytest.raises(GraphError, match="ONNX Runtime cannot run the graph: "):
        Watched(cases.graph("fec")).run(np.zeros((1, 3, 7, 7), np.float32))
