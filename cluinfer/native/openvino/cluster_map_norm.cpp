#include "cluster_map_norm.hpp"

namespace cluinfer::ov_extension {

ClusterMapNorm::ClusterMapNorm(const ov::OutputVector& inputs, float epsilon) : Op(inputs), epsilon_(epsilon) {
    constructor_validate_and_infer_types();
}

void ClusterMapNorm::validate_and_infer_types() {
    const std::size_t maps = get_input_size();
    NODE_VALIDATION_CHECK(this, maps == 1 || maps == 2, "one or two inputs wanted, got ", maps);
    NODE_VALIDATION_CHECK(this, epsilon_ >= 0.0f, "epsilon must not be negative, got ", epsilon_);
    for (std::size_t i = 0; i < maps; ++i) {
        check_float32(this, {i});
        const ov::PartialShape shape = check_map(this, i, 0, 1);
        NODE_VALIDATION_CHECK(this, shape.compatible(get_input_partial_shape(0)), "maps differ: ", shape, " and ",
                              get_input_partial_shape(0));
        set_output_type(i, ov::element::f32, shape);
    }
}

bool ClusterMapNorm::visit_attributes(ov::AttributeVisitor& visitor) {
    visitor.on_attribute("epsilon", epsilon_);
    return true;
}

std::shared_ptr<ov::Node> ClusterMapNorm::clone_with_new_inputs(const ov::OutputVector& inputs) const {
    return std::make_shared<ClusterMapNorm>(inputs, epsilon_);
}

bool ClusterMapNorm::evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const {
    const ov::Shape& shape = inputs[0].get_shape();
    const bool two = inputs.size() == 2;
    OPENVINO_ASSERT(inputs.back().get_shape() == shape, "ClusterMapNorm: maps ", shape, " and ",
                    inputs.back().get_shape(), " differ");
    for (auto& output : outputs) output.set_shape(shape);
    const cluinfer_run run = on_tbb();
    succeed(this, cluinfer_norm(&run, slice(inputs[0], 0, 1).data, two ? slice(inputs[1], 0, 1).data : nullptr,
                                static_cast<std::int64_t>(shape[0] * shape[1] * shape[2]),
                                static_cast<std::int64_t>(shape[3]), epsilon_,
                                two ? outputs[0].data<float>() : nullptr, outputs[two].data<float>()));
    return true;
}

}  // namespace cluinfer::ov_extension
