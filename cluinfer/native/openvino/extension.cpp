// The one registration of all operators. Only those of the ONNX domain `cluinfer` may stand in an ONNX file; the
// fused ones are made from them by cluinfer.engines, and are found in compiled models only.
#include <openvino/core/extension.hpp>
#include <openvino/core/op_extension.hpp>
#include <openvino/frontend/onnx/extension/op.hpp>

#include "cluster_aggregate.hpp"
#include "cluster_assign.hpp"
#include "cluster_block.hpp"
#include "cluster_gather.hpp"
#include "cluster_map_norm.hpp"
#include "cluster_pool.hpp"
#include "cluster_scatter.hpp"

using namespace cluinfer::ov_extension;
using ov::frontend::onnx::OpExtension;

OPENVINO_CREATE_EXTENSIONS(std::vector<ov::Extension::Ptr>({
    std::make_shared<ov::OpExtension<ClusterAssign>>(),
    std::make_shared<ov::OpExtension<ClusterScatter>>(),
    std::make_shared<ov::OpExtension<ClusterGather>>(),
    std::make_shared<OpExtension<ClusterAssign>>("ClusterAssign", "cluinfer"),
    std::make_shared<OpExtension<ClusterScatter>>("ClusterScatter", "cluinfer"),
    std::make_shared<OpExtension<ClusterGather>>("ClusterGather", "cluinfer"),
    std::make_shared<ov::OpExtension<ClusterMapAssign>>(),
    std::make_shared<ov::OpExtension<ClusterMapGather>>(),
    std::make_shared<ov::OpExtension<ClusterBlock>>(),
    std::make_shared<ov::OpExtension<ClusterPool>>(),
    std::make_shared<ov::OpExtension<ClusterAggregate>>(),
    std::make_shared<ov::OpExtension<ClusterMapNorm>>(),
}))
