// ClusterMapNorm: a norm over the channels of a channels-last map, [B,H,W,C] -> the same.
//
// Each point less its mean, over the root of its variance + epsilon. With two maps, their sum is normed, and is the
// first output: a residual and what is added to it. (Where OpenVINO adds it within a convolution, it copies the map
// once more before an operator of ours.) OpenVINO 2026.4 has no operator that does this
// where the map lies: its own norm of the last axis copies the map twice, and means and differences one by one cost
// five passes over it.
#pragma once

#include "adapter.hpp"

namespace cluinfer::ov_extension {

class ClusterMapNorm : public ov::op::Op {
public:
    OPENVINO_OP("ClusterMapNorm", "cluinfer");
    ClusterMapNorm() = default;
    ClusterMapNorm(const ov::OutputVector& inputs, float epsilon);

    void validate_and_infer_types() override;
    bool visit_attributes(ov::AttributeVisitor& visitor) override;
    std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const override;
    bool has_evaluate() const override { return true; }
    bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override;

private:
    float epsilon_ = 1e-5f;
};

}  // namespace cluinfer::ov_extension
