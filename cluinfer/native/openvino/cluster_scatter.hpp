// ClusterScatter of the ONNX domain `cluinfer`: values [G,C,N], index [G,N], base [G,C,M], weight [G,N] or none
// -> centers [G,C,M].
#pragma once

#include "adapter.hpp"

namespace cluinfer::ov_extension {

class ClusterScatter : public ov::op::Op {
public:
    OPENVINO_OP("ClusterScatter", "cluinfer");
    ClusterScatter() = default;
    explicit ClusterScatter(const ov::OutputVector& inputs);

    void validate_and_infer_types() override;
    bool visit_attributes(ov::AttributeVisitor&) override { return true; }
    std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const override;
    bool has_evaluate() const override { return true; }
    bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override;
};

}  // namespace cluinfer::ov_extension
