"""Blocks to build clustering models from: the published families are made of these, a user's own model can be too."""

from cluinfer.export.nn.attention import (
    AttentionConsistency,
    AttentionSeparation,
    IcascLoss,
    IcascTerms,
    class_attention,
    separability,
)
from cluinfer.export.nn.backbone import ClusterNet
from cluinfer.export.nn.blocks import (
    ChannelLayerNorm,
    ClusterBlock,
    DepthwisePosition,
    MapGroupNorm,
    PointEmbed,
    PointMlp,
    SharedClusterStage,
)
from cluinfer.export.nn.clustering import ClusterAttention, ClusterPool, ContextClustering, SharedClusterPool
from cluinfer.export.nn.layout import Layout
from cluinfer.export.nn.watch import Assignment, watch_clusters
from cluinfer.export.torch_ops import cluster_assign, cluster_gather, cluster_scatter

__all__ = [
    "Assignment",
    "AttentionConsistency",
    "AttentionSeparation",
    "ChannelLayerNorm",
    "ClusterAttention",
    "ClusterBlock",
    "ClusterNet",
    "ClusterPool",
    "ContextClustering",
    "DepthwisePosition",
    "IcascLoss",
    "IcascTerms",
    "Layout",
    "MapGroupNorm",
    "PointEmbed",
    "PointMlp",
    "SharedClusterPool",
    "SharedClusterStage",
    "class_attention",
    "cluster_assign",
    "cluster_gather",
    "cluster_scatter",
    "separability",
    "watch_clusters",
]
