#include "cluster_pool.hpp"

namespace cluinfer::ov_extension {

ClusterPool::ClusterPool(const ov::OutputVector& inputs, const Attributes& attributes) : Op(inputs), is_(attributes) {
    constructor_validate_and_infer_types();
}

void ClusterPool::validate_and_infer_types() {
    NODE_VALIDATION_CHECK(this, get_input_size() == 2, "two inputs wanted, got ", get_input_size());
    check_float32(this, {0, 1});
    const Layout& layout = is_.layout;
    layout.check(this);
    NODE_VALIDATION_CHECK(this, is_.value_channels > 0 && is_.value_channels < std::int64_t{1} << 31,
                          "value_channels must be positive, got ", is_.value_channels);
    const std::int64_t width = layout.heads * is_.value_channels;
    const ov::PartialShape map = check_map(this, 0, is_.first_feature, layout.heads * layout.channels);
    const ov::PartialShape values = check_map(this, 1, is_.first_value, width);
    for (int axis = 0; axis < 3; ++axis)
        NODE_VALIDATION_CHECK(this, map[axis].compatible(values[axis]), "maps differ: ", map, " and ", values);
    points_of(this, map, layout);
    set_output_type(0, ov::element::f32,
                    {map[0], layout.fold[0] * layout.grid[0], layout.fold[1] * layout.grid[1], width});
    if (is_.clusters) set_output_type(1, ov::element::i32, {map[0], layout.heads, map[1], map[2]});
}

bool ClusterPool::visit_attributes(ov::AttributeVisitor& visitor) {
    is_.layout.visit(visitor, true);
    visitor.on_attribute("value_channels", is_.value_channels);
    visitor.on_attribute("first_feature", is_.first_feature);
    visitor.on_attribute("first_value", is_.first_value);
    visitor.on_attribute("clusters", is_.clusters);
    return true;
}

std::shared_ptr<ov::Node> ClusterPool::clone_with_new_inputs(const ov::OutputVector& inputs) const {
    return std::make_shared<ClusterPool>(inputs, is_);
}

bool ClusterPool::evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const {
    const Layout& layout = is_.layout;
    const std::int64_t width = layout.heads * is_.value_channels;
    const ov::Shape &f = inputs[0].get_shape(), &v = inputs[1].get_shape();
    const cluinfer_shape shape = shape_of(inputs[0], layout);
    const cluinfer_map features = slice(inputs[0], is_.first_feature, layout.heads * layout.channels);
    const cluinfer_map values = slice(inputs[1], is_.first_value, width);
    OPENVINO_ASSERT(f[0] == v[0] && f[1] == v[1] && f[2] == v[2], "ClusterPool: maps ", f, " and ", v, " differ");
    outputs[0].set_shape({f[0], static_cast<std::size_t>(layout.fold[0] * layout.grid[0]),
                          static_cast<std::size_t>(layout.fold[1] * layout.grid[1]), static_cast<std::size_t>(width)});
    const cluinfer_map out = slice(outputs[0], 0, width);
    std::int32_t* clusters = nullptr;
    if (is_.clusters) {
        outputs.at(1).set_shape({f[0], static_cast<std::size_t>(layout.heads), f[1], f[2]});
        clusters = outputs[1].data<std::int32_t>();
    }
    const cluinfer_run run = on_tbb();
    succeed(this,
            cluinfer_cluster_pool(&run, &shape, &features, &values, is_.value_channels, &out, clusters));
    return true;
}

}  // namespace cluinfer::ov_extension
