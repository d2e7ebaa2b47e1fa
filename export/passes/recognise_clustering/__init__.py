"""Rewrite clusterings spelled out in plain operators (similarity, argmax, one-hot mask, sums) to cluinfer nodes.

What is recognised, in any layout and with any number of group dimensions:
- The similarity: MatMul or Einsum of two sides of vectors divided by max(norm, 1e-12), then a scale, a shift and a
  sigmoid, each or none. Scale and shift are single numbers fixed in the graph.
- The assignment: ArgMax, ReduceMax or TopK with k = 1 over one side, which is thereby the centres.
- The mask: ScatterElements into zeros, OneHot, Equal to 0..M-1, times the similarity or the weight.
- The mean (sum + base) / (mass + 1): sums by product and ReduceSum, MatMul, Einsum, ScatterElements or ScatterND, the
  index plain or with offsets into all groups' centres in one row; weighted or not.
- The way back: sums over the centres of mask times centres, GatherElements, GatherND; weighted or not.

It is rewritten where the result is the same but for rounding; near ties of the similarity may fall the other way, as
between any two engines. Whatever is found but is not provably the same is left as it is, with a remark that names
the layer and the reason. See `_rewrite` for how much of a clustering is replaced.
"""

from __future__ import annotations

import onnx_ir as ir


def run(model: ir.Model) -> tuple[int, list[str]]:
    """Rewrite in place; the number of cluinfer nodes made, and what was left."""
    from cluinfer.export.passes.recognise_clustering._rewrite import Rewriter
    from cluinfer.ops.schema import DOMAIN, VERSION

    rewriter = Rewriter(model)
    made = rewriter.run()
    if made:
        model.opset_imports[DOMAIN] = VERSION
    return made, rewriter.left
