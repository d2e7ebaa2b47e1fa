#include "cluster_gather.hpp"

namespace cluinfer::ov_extension {

namespace {

void check_inputs(const ov::Node* node) {
    check_float32(node, {0});
    if (node->get_input_size() > 2) check_float32(node, {2});
    const auto& index = node->get_input_element_type(1);
    NODE_VALIDATION_CHECK(node, index.is_dynamic() || index == ov::element::i32, "index must be int32, got ", index);
    NODE_VALIDATION_CHECK(node,
                          node->get_input_partial_shape(0).rank().compatible(3) &&
                              node->get_input_partial_shape(1).rank().compatible(2),
                          "centers must be [G,C,M] and index [G,N]");
}

// The points of a group, checked against everything that the kernel reads.
const std::int32_t* checked_index(const ov::TensorVector& inputs, std::size_t groups, std::size_t points) {
    const ov::Shape &c = inputs[0].get_shape(), &i = inputs[1].get_shape();
    OPENVINO_ASSERT(c.size() == 3 && c[0] == groups && c[2] > 0 && i == ov::Shape({groups, points}) &&
                        (inputs.size() < 3 || inputs[2].get_shape() == i),
                    "ClusterGather: centers ", c, " and index ", i, " do not fit ", groups, " groups of ", points,
                    " points");
    return inputs[1].data<const std::int32_t>();
}

const float* weight_of(const ov::TensorVector& inputs) {
    return inputs.size() > 2 ? inputs[2].data<const float>() : nullptr;
}

}  // namespace

ClusterGather::ClusterGather(const ov::OutputVector& inputs) : Op(inputs) { constructor_validate_and_infer_types(); }

void ClusterGather::validate_and_infer_types() {
    NODE_VALIDATION_CHECK(this, get_input_size() == 2 || get_input_size() == 3, "two or three inputs wanted");
    check_inputs(this);
    const auto &centers = get_input_partial_shape(0), &index = get_input_partial_shape(1);
    ov::PartialShape shape = ov::PartialShape::dynamic(3);
    if (centers.rank().is_static()) shape[0] = centers[0], shape[1] = centers[1];
    if (index.rank().is_static()) shape[2] = index[1];
    set_output_type(0, ov::element::f32, shape);
}

std::shared_ptr<ov::Node> ClusterGather::clone_with_new_inputs(const ov::OutputVector& inputs) const {
    return std::make_shared<ClusterGather>(inputs);
}

bool ClusterGather::evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const {
    const ov::Shape &c = inputs[0].get_shape(), &i = inputs[1].get_shape();
    OPENVINO_ASSERT(c.size() == 3 && i.size() == 2, "ClusterGather: centers ", c, " and index ", i);
    const std::int32_t* index = checked_index(inputs, c[0], i[1]);
    const auto channels = static_cast<std::int64_t>(c[1]), points = static_cast<std::int64_t>(i[1]);
    const cluinfer_shape shape{static_cast<std::int64_t>(c[0]), 1, channels, 1, points, 1, 1, 1, 1};
    outputs[0].set_shape({c[0], c[1], i[1]});
    const cluinfer_map out = columns(outputs[0]);
    const cluinfer_run run = on_tbb();
    succeed(this, cluinfer_gather(&run, &shape, inputs[0].data<const float>(), static_cast<std::int64_t>(c[2]), index,
                                  weight_of(inputs), &out, nullptr));
    return true;
}

ClusterMapGather::ClusterMapGather(const ov::OutputVector& inputs, const Layout& layout, std::int64_t rows,
                                   std::int64_t columns)
    : Op(inputs), layout_(layout), rows_(rows), columns_(columns) {
    constructor_validate_and_infer_types();
}

void ClusterMapGather::validate_and_infer_types() {
    NODE_VALIDATION_CHECK(this, get_input_size() == 2 || get_input_size() == 3 || projects(),
                          "two, three or five inputs wanted");
    check_inputs(this);
    layout_.check(this);
    const std::int64_t each = layout_.heads * layout_.regions();
    ov::Dimension batch = ov::Dimension::dynamic();
    if (const auto& index = get_input_partial_shape(1); index.rank().is_static() && index[0].is_static()) {
        NODE_VALIDATION_CHECK(this, index[0].get_length() % each == 0, index[0], " groups are no multiple of ", each);
        batch = index[0].get_length() / each;
    }
    const std::int64_t width = layout_.heads * layout_.channels;
    ov::PartialShape map{batch, rows_, columns_, width};
    points_of(this, map, layout_);
    if (projects()) map[3] = check_projection(this, 3, width);
    set_output_type(0, ov::element::f32, map);
}

bool ClusterMapGather::visit_attributes(ov::AttributeVisitor& visitor) {
    layout_.visit(visitor, false);
    visitor.on_attribute("rows", rows_);
    visitor.on_attribute("columns", columns_);
    return true;
}

std::shared_ptr<ov::Node> ClusterMapGather::clone_with_new_inputs(const ov::OutputVector& inputs) const {
    return std::make_shared<ClusterMapGather>(inputs, layout_, rows_, columns_);
}

bool ClusterMapGather::evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const {
    const auto each = static_cast<std::size_t>(layout_.heads * layout_.regions());
    const ov::Shape& c = inputs[0].get_shape();
    OPENVINO_ASSERT(c.size() == 3 && c[0] % each == 0 && c[1] == static_cast<std::size_t>(layout_.channels),
                    "ClusterMapGather: centers ", c, " do not fit ", each, " groups an image of ", layout_.channels);
    const auto points = static_cast<std::size_t>(rows_ / layout_.fold[0] * (columns_ / layout_.fold[1]));
    const std::int32_t* index = checked_index(inputs, c[0], points);
    const std::int64_t width = layout_.heads * layout_.channels;
    const cluinfer_projection projection = projects() ? read_projection(inputs, 3, width) : cluinfer_projection{};
    const std::int64_t channels = projects() ? projection.width : width;
    outputs[0].set_shape({c[0] / each, static_cast<std::size_t>(rows_), static_cast<std::size_t>(columns_),
                          static_cast<std::size_t>(channels)});
    const cluinfer_shape shape = shape_of(outputs[0], layout_);
    const cluinfer_map out = slice(outputs[0], 0, channels);
    const cluinfer_run run = on_tbb();
    succeed(this, cluinfer_gather(&run, &shape, inputs[0].data<const float>(), static_cast<std::int64_t>(c[2]), index,
                                  weight_of(inputs), &out, projects() ? &projection : nullptr));
    return true;
}

}  // namespace cluinfer::ov_extension
