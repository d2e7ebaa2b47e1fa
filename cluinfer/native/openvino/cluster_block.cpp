#include "cluster_block.hpp"

namespace cluinfer::ov_extension {

ClusterBlock::ClusterBlock(const ov::OutputVector& inputs, const Attributes& attributes) : Op(inputs), is_(attributes) {
    constructor_validate_and_infer_types();
}

void ClusterBlock::validate_and_infer_types() {
    NODE_VALIDATION_CHECK(this, get_input_size() == 2 || projects(), "two or four inputs wanted, got ",
                          get_input_size());
    check_float32(this, {0, 1});
    is_.layout.check(this);
    const std::int64_t width = is_.layout.heads * is_.layout.channels;
    const ov::PartialShape map = check_map(this, 0, is_.first_feature, width);
    const ov::PartialShape values = check_map(this, 1, is_.first_value, width);
    for (int axis = 0; axis < 3; ++axis)
        NODE_VALIDATION_CHECK(this, map[axis].compatible(values[axis]), "maps differ: ", map, " and ", values);
    points_of(this, map, is_.layout);
    const ov::Dimension out = projects() ? check_projection(this, 2, width) : ov::Dimension(width);
    set_output_type(0, ov::element::f32, {map[0], map[1], map[2], out});
    if (is_.clusters) set_output_type(1, ov::element::i32, {map[0], is_.layout.heads, map[1], map[2]});
}

bool ClusterBlock::visit_attributes(ov::AttributeVisitor& visitor) {
    is_.layout.visit(visitor, true);
    visitor.on_attribute("first_feature", is_.first_feature);
    visitor.on_attribute("first_value", is_.first_value);
    visitor.on_attribute("alpha", is_.alpha);
    visitor.on_attribute("beta", is_.beta);
    visitor.on_attribute("weighted", is_.weighted);
    visitor.on_attribute("clusters", is_.clusters);
    return true;
}

std::shared_ptr<ov::Node> ClusterBlock::clone_with_new_inputs(const ov::OutputVector& inputs) const {
    return std::make_shared<ClusterBlock>(inputs, is_);
}

bool ClusterBlock::evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const {
    const std::int64_t width = is_.layout.heads * is_.layout.channels;
    const ov::Shape &f = inputs[0].get_shape(), &v = inputs[1].get_shape();
    const cluinfer_shape shape = shape_of(inputs[0], is_.layout);
    const cluinfer_map features = slice(inputs[0], is_.first_feature, width);
    const cluinfer_map values = slice(inputs[1], is_.first_value, width);
    OPENVINO_ASSERT(f[0] == v[0] && f[1] == v[1] && f[2] == v[2], "ClusterBlock: maps ", f, " and ", v, " differ");
    const cluinfer_projection projection = projects() ? read_projection(inputs, 2, width) : cluinfer_projection{};
    const std::int64_t channels = projects() ? projection.width : width;
    outputs[0].set_shape({f[0], f[1], f[2], static_cast<std::size_t>(channels)});
    const cluinfer_map out = slice(outputs[0], 0, channels);
    std::int32_t* clusters = nullptr;
    if (is_.clusters) {
        outputs.at(1).set_shape({f[0], static_cast<std::size_t>(is_.layout.heads), f[1], f[2]});
        clusters = outputs[1].data<std::int32_t>();
    }
    const cluinfer_run run = on_tbb();
    succeed(this, cluinfer_cluster_block(&run, &shape, &features, &values, is_.alpha, is_.beta, is_.weighted != 0, &out,
                                         clusters, projects() ? &projection : nullptr));
    return true;
}

}  // namespace cluinfer::ov_extension
