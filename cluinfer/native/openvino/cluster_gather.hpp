// ClusterGather of the ONNX domain `cluinfer`: centers [G,C,M], index [G,N], weight [G,N] or none -> points [G,C,N].
// ClusterMapGather: the same, into a channels-last map [B,rows,columns,heads * channels]. With two more inputs, the 1x1
// convolution that reads it (weight [heads * channels,width], bias [width]): into [B,rows,columns,width].
#pragma once

#include "adapter.hpp"

namespace cluinfer::ov_extension {

class ClusterGather : public ov::op::Op {
public:
    OPENVINO_OP("ClusterGather", "cluinfer");
    ClusterGather() = default;
    explicit ClusterGather(const ov::OutputVector& inputs);

    void validate_and_infer_types() override;
    bool visit_attributes(ov::AttributeVisitor&) override { return true; }
    std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const override;
    bool has_evaluate() const override { return true; }
    bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override;
};

class ClusterMapGather : public ov::op::Op {
public:
    OPENVINO_OP("ClusterMapGather", "cluinfer");
    ClusterMapGather() = default;
    ClusterMapGather(const ov::OutputVector& inputs, const Layout& layout, std::int64_t rows, std::int64_t columns);

    void validate_and_infer_types() override;
    bool visit_attributes(ov::AttributeVisitor& visitor) override;
    std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const override;
    bool has_evaluate() const override { return true; }
    bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override;

private:
    bool projects() const { return get_input_size() == 5; }
    Layout layout_;
    std::int64_t rows_ = 0, columns_ = 0;
};

}  // namespace cluinfer::ov_extension
