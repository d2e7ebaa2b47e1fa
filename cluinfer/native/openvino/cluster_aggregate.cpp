#include "cluster_aggregate.hpp"

namespace cluinfer::ov_extension {

ClusterAggregate::ClusterAggregate(const ov::OutputVector& inputs, const Attributes& attributes)
    : Op(inputs), is_(attributes) {
    constructor_validate_and_infer_types();
}

void ClusterAggregate::validate_and_infer_types() {
    NODE_VALIDATION_CHECK(this, get_input_size() == 2 || gated(), "two or six inputs wanted, got ", get_input_size());
    check_float32(this, {0, 1});
    is_.layout.check(this);
    const std::int64_t width = is_.layout.heads * is_.layout.channels;
    const ov::PartialShape map = check_map(this, 0, is_.first_key, width);
    const ov::PartialShape values = check_map(this, 1, is_.first_value, width);
    for (int axis = 0; axis < 3; ++axis)
        NODE_VALIDATION_CHECK(this, map[axis].compatible(values[axis]), "maps differ: ", map, " and ", values);
    points_of(this, map, is_.layout);
    const ov::PartialShape centres{groups_of(map, is_.layout), is_.layout.channels, is_.layout.centres()};
    set_output_type(0, ov::element::f32, centres);
    if (gated())
        check_gates();
    else
        set_output_type(1, ov::element::f32, centres);
}

void ClusterAggregate::check_gates() const {
    check_float32(this, {2, 3, 4, 5});
    const ov::PartialShape& first = get_input_partial_shape(2);
    NODE_VALIDATION_CHECK(this, first.is_static() && first.size() == 3, "gates of fixed size wanted, got ", first);
    const ov::Dimension heads = is_.layout.heads, hidden = first[1];
    const ov::PartialShape wanted[] = {
        {heads, hidden, 2 * is_.layout.channels}, {heads, hidden, 1}, {heads, 1, hidden}, {heads, 1, 1}};
    for (std::size_t i = 0; i < 4; ++i)
        NODE_VALIDATION_CHECK(this, get_input_partial_shape(2 + i) == wanted[i], "input ", 2 + i, " must be ", wanted[i],
                              ", got ", get_input_partial_shape(2 + i));
}

bool ClusterAggregate::visit_attributes(ov::AttributeVisitor& visitor) {
    is_.layout.visit(visitor, true);
    visitor.on_attribute("first_key", is_.first_key);
    visitor.on_attribute("first_value", is_.first_value);
    visitor.on_attribute("scale", is_.scale);
    return true;
}

std::shared_ptr<ov::Node> ClusterAggregate::clone_with_new_inputs(const ov::OutputVector& inputs) const {
    return std::make_shared<ClusterAggregate>(inputs, is_);
}

bool ClusterAggregate::evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const {
    const std::int64_t width = is_.layout.heads * is_.layout.channels;
    const ov::Shape &k = inputs[0].get_shape(), &v = inputs[1].get_shape();
    const cluinfer_shape shape = shape_of(inputs[0], is_.layout);
    const cluinfer_map keys = slice(inputs[0], is_.first_key, width);
    const cluinfer_map values = slice(inputs[1], is_.first_value, width);
    OPENVINO_ASSERT(k[0] == v[0] && k[1] == v[1] && k[2] == v[2], "ClusterAggregate: maps ", k, " and ", v, " differ");
    const auto groups = static_cast<std::size_t>(shape.batch * is_.layout.heads * is_.layout.regions());
    for (auto& output : outputs)
        output.set_shape({groups, static_cast<std::size_t>(is_.layout.channels),
                          static_cast<std::size_t>(is_.layout.centres())});
    cluinfer_gates gates{};
    if (gated()) {
        // sizes were checked with the node; here again, since these are the memory that will be read
        const std::int64_t hidden = static_cast<std::int64_t>(inputs[2].get_shape().at(1));
        const auto heads = static_cast<std::size_t>(is_.layout.heads), each = static_cast<std::size_t>(hidden) * heads;
        OPENVINO_ASSERT(inputs[2].get_size() == each * 2 * static_cast<std::size_t>(is_.layout.channels) &&
                            inputs[3].get_size() == each && inputs[4].get_size() == each &&
                            inputs[5].get_size() == heads,
                        "ClusterAggregate: gates do not fit ", is_.layout.heads, " heads");
        const auto at = [&](std::size_t i) { return static_cast<const float*>(inputs[i].data(ov::element::f32)); };
        gates = {hidden, at(2), at(3), at(4), at(5)};
    }
    const cluinfer_run run = on_tbb();
    succeed(this, cluinfer_aggregate(&run, &shape, &keys, &values, is_.scale, gated() ? &gates : nullptr,
                                     outputs[0].data<float>(), gated() ? nullptr : outputs[1].data<float>()));
    return true;
}

}  // namespace cluinfer::ov_extension
