"""The cluinfer operators: their schema, the NumPy reference that defines them, and their ONNX function bodies."""

from cluinfer.ops.reference import cluster_assign, cluster_gather, cluster_scatter
from cluinfer.ops.schema import DOMAIN, OPERATORS, VERSION, Operator

__all__ = ["DOMAIN", "OPERATORS", "VERSION", "Operator", "cluster_assign", "cluster_gather", "cluster_scatter"]
