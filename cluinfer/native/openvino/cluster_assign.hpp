// ClusterAssign of the ONNX domain `cluinfer`: points [G,D,N], centers [G,D,M] -> index [G,N], weight [G,N].
// ClusterMapAssign: the same for points that are a channels-last map [B,H,W,C] from channel `first`.
#pragma once

#include "adapter.hpp"

namespace cluinfer::ov_extension {

struct Similarity {
    float alpha = 1.0f, beta = 0.0f;
    std::int64_t sigmoid = 1;

    void visit(ov::AttributeVisitor& visitor);
};

class ClusterAssign : public ov::op::Op {
public:
    OPENVINO_OP("ClusterAssign", "cluinfer");
    ClusterAssign() = default;
    ClusterAssign(const ov::OutputVector& inputs, const Similarity& similarity);

    void validate_and_infer_types() override;
    bool visit_attributes(ov::AttributeVisitor& visitor) override;
    std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const override;
    bool has_evaluate() const override { return true; }
    bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override;

private:
    Similarity similarity_;
};

class ClusterMapAssign : public ov::op::Op {
public:
    OPENVINO_OP("ClusterMapAssign", "cluinfer");
    ClusterMapAssign() = default;
    ClusterMapAssign(const ov::OutputVector& inputs, const Layout& layout, std::int64_t first,
                     const Similarity& similarity);

    void validate_and_infer_types() override;
    bool visit_attributes(ov::AttributeVisitor& visitor) override;
    std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const override;
    bool has_evaluate() const override { return true; }
    bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override;

private:
    Layout layout_;
    std::int64_t first_ = 0;
    Similarity similarity_;
};

}  // namespace cluinfer::ov_extension
