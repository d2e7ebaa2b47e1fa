// ClusterPool: the reduction of FEC and CLUENet, as one operator.
//
// features: a channels-last map [B,H,W,C], heads * channels channels from first_feature; values: likewise,
// heads * value_channels from first_value. -> the map of centres [B,fold * grid,heads * value_channels] and, if
// `clusters`, int32 [B,heads,H,W]: region * M + centre.
#pragma once

#include "adapter.hpp"

namespace cluinfer::ov_extension {

class ClusterPool : public ov::op::Op {
public:
    OPENVINO_OP("ClusterPool", "cluinfer");
    struct Attributes {
        Layout layout;
        std::int64_t value_channels = 0;
        std::int64_t first_feature = 0, first_value = 0, clusters = 0;
    };
    ClusterPool() = default;
    ClusterPool(const ov::OutputVector& inputs, const Attributes& attributes);

    void validate_and_infer_types() override;
    bool visit_attributes(ov::AttributeVisitor& visitor) override;
    std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const override;
    bool has_evaluate() const override { return true; }
    bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override;

private:
    Attributes is_;
};

}  // namespace cluinfer::ov_extension
