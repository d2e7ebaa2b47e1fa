#include "cluster_assign.hpp"

namespace cluinfer::ov_extension {

void Similarity::visit(ov::AttributeVisitor& visitor) {
    visitor.on_attribute("alpha", alpha);
    visitor.on_attribute("beta", beta);
    visitor.on_attribute("sigmoid", sigmoid);
}

ClusterAssign::ClusterAssign(const ov::OutputVector& inputs, const Similarity& similarity)
    : Op(inputs), similarity_(similarity) {
    constructor_validate_and_infer_types();
}

void ClusterAssign::validate_and_infer_types() {
    NODE_VALIDATION_CHECK(this, get_input_size() == 2, "two inputs wanted, got ", get_input_size());
    check_float32(this, {0, 1});
    const auto &points = get_input_partial_shape(0), &centers = get_input_partial_shape(1);
    ov::PartialShape shape = ov::PartialShape::dynamic(2);
    if (points.rank().is_static()) {
        NODE_VALIDATION_CHECK(this, points.size() == 3, "points must be [G,D,N], got ", points);
        shape = {points[0], points[2]};
    }
    if (centers.rank().is_static()) {
        NODE_VALIDATION_CHECK(this, centers.size() == 3, "centers must be [G,D,M], got ", centers);
        NODE_VALIDATION_CHECK(this, !centers[2].compatible(0) || centers[2].is_dynamic(), "no centers: ", centers);
        if (points.rank().is_static())
            NODE_VALIDATION_CHECK(this, points[0].compatible(centers[0]) && points[1].compatible(centers[1]),
                                  "points ", points, " and centers ", centers, " differ in G or D");
    }
    set_output_type(0, ov::element::i32, shape);
    set_output_type(1, ov::element::f32, shape);
}

bool ClusterAssign::visit_attributes(ov::AttributeVisitor& visitor) {
    similarity_.visit(visitor);
    return true;
}

std::shared_ptr<ov::Node> ClusterAssign::clone_with_new_inputs(const ov::OutputVector& inputs) const {
    return std::make_shared<ClusterAssign>(inputs, similarity_);
}

bool ClusterAssign::evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const {
    const ov::Shape &p = inputs[0].get_shape(), &c = inputs[1].get_shape();
    OPENVINO_ASSERT(p.size() == 3 && c.size() == 3 && p[0] == c[0] && p[1] == c[1] && c[2] > 0,
                    "ClusterAssign: points ", p, " and centers ", c, " do not fit together");
    const auto at = [&](std::size_t i) { return static_cast<std::int64_t>(p[i]); };
    const cluinfer_shape shape{at(0), 1, at(1), 1, at(2), 1, 1, 1, 1};
    const cluinfer_map points = columns(inputs[0]);
    for (auto& output : outputs) output.set_shape({p[0], p[2]});
    const cluinfer_run run = on_tbb();
    succeed(this, cluinfer_assign(&run, &shape, &points, columns(inputs[1]).data, static_cast<std::int64_t>(c[2]),
                                  similarity_.alpha, similarity_.beta, similarity_.sigmoid != 0,
                                  outputs[0].data<std::int32_t>(), outputs[1].data<float>()));
    return true;
}

ClusterMapAssign::ClusterMapAssign(const ov::OutputVector& inputs, const Layout& layout, std::int64_t first,
                                   const Similarity& similarity)
    : Op(inputs), layout_(layout), first_(first), similarity_(similarity) {
    constructor_validate_and_infer_types();
}

void ClusterMapAssign::validate_and_infer_types() {
    NODE_VALIDATION_CHECK(this, get_input_size() == 2, "two inputs wanted, got ", get_input_size());
    check_float32(this, {0, 1});
    layout_.check(this);
    const ov::PartialShape map = check_map(this, 0, first_, layout_.heads * layout_.channels);
    const auto& centers = get_input_partial_shape(1);
    if (centers.rank().is_static())
        NODE_VALIDATION_CHECK(this,
                              centers.size() == 3 && centers[0].compatible(groups_of(map, layout_)) &&
                                  centers[1].compatible(layout_.channels),
                              "centers ", centers, " do not fit the map ", map);
    const ov::PartialShape shape{groups_of(map, layout_), points_of(this, map, layout_)};
    set_output_type(0, ov::element::i32, shape);
    set_output_type(1, ov::element::f32, shape);
}

bool ClusterMapAssign::visit_attributes(ov::AttributeVisitor& visitor) {
    layout_.visit(visitor, false);
    visitor.on_attribute("first", first_);
    similarity_.visit(visitor);
    return true;
}

std::shared_ptr<ov::Node> ClusterMapAssign::clone_with_new_inputs(const ov::OutputVector& inputs) const {
    return std::make_shared<ClusterMapAssign>(inputs, layout_, first_, similarity_);
}

bool ClusterMapAssign::evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const {
    const cluinfer_shape shape = shape_of(inputs[0], layout_);
    const cluinfer_map points = slice(inputs[0], first_, layout_.heads * layout_.channels);
    const auto groups = static_cast<std::size_t>(shape.batch * layout_.heads * layout_.regions());
    const ov::Shape& c = inputs[1].get_shape();
    OPENVINO_ASSERT(c.size() == 3 && c[0] == groups && c[1] == static_cast<std::size_t>(layout_.channels) && c[2] > 0,
                    "ClusterMapAssign: centers ", c, " do not fit ", groups, " groups of ", layout_.channels);
    const auto points_count = static_cast<std::size_t>(shape.rows / layout_.fold[0] * (shape.columns / layout_.fold[1]));
    for (auto& output : outputs) output.set_shape({groups, points_count});
    const cluinfer_run run = on_tbb();
    succeed(this, cluinfer_assign(&run, &shape, &points, columns(inputs[1]).data, static_cast<std::int64_t>(c[2]),
                                  similarity_.alpha, similarity_.beta, similarity_.sigmoid != 0,
                                  outputs[0].data<std::int32_t>(), outputs[1].data<float>()));
    return true;
}

}  // namespace cluinfer::ov_extension
