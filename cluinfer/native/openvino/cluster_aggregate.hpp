// ClusterAggregate: CLUENet's soft aggregation, as one operator.
//
// keys, values: channels-last maps [B,H,W,C], heads * channels channels from first_key and first_value. Centres are
// means of the keys over the cells of a grid; softmax over the points of scale * cosine. -> the points' values so
// weighted [G,channels,M], and the values' own means [G,channels,M].
//
// With four more inputs, the gates of CLUENet (first [E,hidden,2*channels], bias [E,hidden,1], second [E,1,hidden],
// shift [E,1,1]), there is one output: the mixture of the two.
#pragma once

#include "adapter.hpp"

namespace cluinfer::ov_extension {

class ClusterAggregate : public ov::op::Op {
public:
    OPENVINO_OP("ClusterAggregate", "cluinfer");
    struct Attributes {
        Layout layout;
        std::int64_t first_key = 0, first_value = 0;
        float scale = 1.0f;
    };
    ClusterAggregate() = default;
    ClusterAggregate(const ov::OutputVector& inputs, const Attributes& attributes);

    void validate_and_infer_types() override;
    bool visit_attributes(ov::AttributeVisitor& visitor) override;
    std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const override;
    bool has_evaluate() const override { return true; }
    bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override;

private:
    bool gated() const { return get_input_size() == 6; }
    void check_gates() const;
    Attributes is_;
};

}  // namespace cluinfer::ov_extension
