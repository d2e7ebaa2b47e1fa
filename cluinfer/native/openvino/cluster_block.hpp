// ClusterBlock: the mixer of FEC and Context Cluster between its 1x1 convolutions, as one operator.
//
// features, values: channels-last maps [B,H,W,C], heads * channels channels from first_feature and first_value
// (one convolution may give both). -> the mixed map [B,H,W,heads * channels] and, if `clusters`, int32
// [B,heads,H,W]: region * M + centre. With two more inputs, the 1x1 convolution that reads the mixed map (weight
// [heads * channels,width], bias [width]): what that makes of it, [B,H,W,width].
#pragma once

#include "adapter.hpp"

namespace cluinfer::ov_extension {

class ClusterBlock : public ov::op::Op {
public:
    OPENVINO_OP("ClusterBlock", "cluinfer");
    struct Attributes {
        Layout layout;
        std::int64_t first_feature = 0, first_value = 0;
        float alpha = 1.0f, beta = 0.0f;
        std::int64_t weighted = 0, clusters = 0;
    };
    ClusterBlock() = default;
    ClusterBlock(const ov::OutputVector& inputs, const Attributes& attributes);

    void validate_and_infer_types() override;
    bool visit_attributes(ov::AttributeVisitor& visitor) override;
    std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const override;
    bool has_evaluate() const override { return true; }
    bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override;

private:
    bool projects() const { return get_input_size() == 4; }
    Attributes is_;
};

}  // namespace cluinfer::ov_extension
