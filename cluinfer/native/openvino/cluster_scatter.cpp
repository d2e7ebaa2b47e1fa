#include "cluster_scatter.hpp"

namespace cluinfer::ov_extension {

ClusterScatter::ClusterScatter(const ov::OutputVector& inputs) : Op(inputs) { constructor_validate_and_infer_types(); }

void ClusterScatter::validate_and_infer_types() {
    NODE_VALIDATION_CHECK(this, get_input_size() == 3 || get_input_size() == 4, "three or four inputs wanted");
    check_float32(this, {0, 2});
    if (get_input_size() == 4) check_float32(this, {3});
    const auto& index = get_input_element_type(1);
    NODE_VALIDATION_CHECK(this, index.is_dynamic() || index == ov::element::i32, "index must be int32, got ", index);
    const auto& base = get_input_partial_shape(2);
    NODE_VALIDATION_CHECK(this, base.rank().compatible(3), "base must be [G,C,M], got ", base);
    set_output_type(0, ov::element::f32, base.rank().is_static() ? base : ov::PartialShape::dynamic(3));
}

std::shared_ptr<ov::Node> ClusterScatter::clone_with_new_inputs(const ov::OutputVector& inputs) const {
    return std::make_shared<ClusterScatter>(inputs);
}

bool ClusterScatter::evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const {
    const ov::Shape &v = inputs[0].get_shape(), &i = inputs[1].get_shape(), &b = inputs[2].get_shape();
    const bool weighted = inputs.size() == 4;
    const cluinfer_map values = columns(inputs[0]);
    OPENVINO_ASSERT(b.size() == 3 && v[0] == b[0] && v[1] == b[1] && b[2] > 0 && i == ov::Shape({v[0], v[2]}) &&
                        (!weighted || inputs[3].get_shape() == i),
                    "ClusterScatter: values ", v, ", index ", i, " and base ", b, " do not fit together");
    const auto at = [&](std::size_t axis) { return static_cast<std::int64_t>(v[axis]); };
    const cluinfer_shape shape{at(0), 1, at(1), 1, at(2), 1, 1, 1, 1};
    outputs[0].set_shape(b);
    const cluinfer_run run = on_tbb();
    succeed(this, cluinfer_scatter(&run, &shape, &values, inputs[1].data<const std::int32_t>(),
                                   weighted ? inputs[3].data<const float>() : nullptr, inputs[2].data<const float>(),
                                   static_cast<std::int64_t>(b[2]), outputs[0].data<float>()));
    return true;
}

}  // namespace cluinfer::ov_extension
