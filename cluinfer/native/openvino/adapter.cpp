#include "adapter.hpp"

#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>

namespace cluinfer::ov_extension {

void Layout::visit(ov::AttributeVisitor& visitor, bool with_grid) {
    visitor.on_attribute("heads", heads);
    visitor.on_attribute("channels", channels);
    visitor.on_attribute("fold", fold);
    if (with_grid) visitor.on_attribute("grid", grid);
}

void Layout::check(const ov::Node* node) const {
    const std::int64_t most = std::int64_t{1} << 31;
    const auto small = [](std::int64_t size) { return size > 0 && size < most; };
    NODE_VALIDATION_CHECK(node, small(heads) && small(channels), "heads and channels must be positive, got ", heads,
                          " and ", channels);
    for (const Pair* pair : {&fold, &grid})
        NODE_VALIDATION_CHECK(node, pair->size() == 2 && small((*pair)[0]) && small((*pair)[1]),
                              "fold and grid must be two positive numbers");
    NODE_VALIDATION_CHECK(node, small(fold[0] * fold[1]) && small(grid[0] * grid[1]), "fold or grid is too large");
}

void check_float32(const ov::Node* node, std::initializer_list<std::size_t> inputs) {
    for (const std::size_t i : inputs) {
        const auto& type = node->get_input_element_type(i);
        NODE_VALIDATION_CHECK(node, type.is_dynamic() || type == ov::element::f32, "input ", i,
                              " must be float32, got ", type);
    }
}

cluinfer_map slice(const ov::Tensor& tensor, std::int64_t first, std::int64_t channels) {
    const ov::Shape& s = tensor.get_shape();
    OPENVINO_ASSERT(s.size() == 4 && tensor.get_element_type() == ov::element::f32, "wanted a float32 map, got ", s);
    const auto width = static_cast<std::int64_t>(s[3]), columns = static_cast<std::int64_t>(s[2]);
    OPENVINO_ASSERT(first >= 0 && channels >= 0 && first <= width && channels <= width - first, "channels ", first,
                    " to ", first + channels, " wanted, the map has ", width);
    auto* data = static_cast<float*>(const_cast<void*>(std::as_const(tensor).data()));
    return {data + first, static_cast<std::int64_t>(s[1]) * columns * width, 1, columns * width, width};
}

cluinfer_map columns(const ov::Tensor& tensor) {
    const ov::Shape& s = tensor.get_shape();
    OPENVINO_ASSERT(s.size() == 3 && tensor.get_element_type() == ov::element::f32, "wanted float32 [G,C,N], got ", s);
    auto* data = static_cast<float*>(const_cast<void*>(std::as_const(tensor).data()));
    const auto channels = static_cast<std::int64_t>(s[1]), points = static_cast<std::int64_t>(s[2]);
    return {data, channels * points, points, points, 1};
}

cluinfer_shape shape_of(const ov::Tensor& map, const Layout& layout) {
    const ov::Shape& s = map.get_shape();
    OPENVINO_ASSERT(s.size() == 4, "wanted a map, got ", s);
    const auto at = [&](std::size_t i) { return static_cast<std::int64_t>(s[i]); };
    return {at(0),          layout.heads,   layout.channels, at(1),         at(2),
            layout.fold[0], layout.fold[1], layout.grid[0],  layout.grid[1]};
}

ov::PartialShape check_map(const ov::Node* node, std::size_t input, std::int64_t first, std::int64_t channels) {
    const ov::PartialShape& shape = node->get_input_partial_shape(input);
    if (shape.rank().is_dynamic()) return ov::PartialShape::dynamic(4);
    NODE_VALIDATION_CHECK(node, shape.size() == 4, "input ", input, " must be a map [B,H,W,C], got ", shape);
    NODE_VALIDATION_CHECK(node,
                          first >= 0 && (shape[3].is_dynamic() || (first <= shape[3].get_length() &&
                                                                   channels <= shape[3].get_length() - first)),
                          "input ", input, " needs channels ", first, " to ", first + channels, ", got ", shape);
    return shape;
}

ov::Dimension groups_of(const ov::PartialShape& map, const Layout& layout) {
    return map[0] * (layout.heads * layout.regions());
}

ov::Dimension points_of(const ov::Node* node, const ov::PartialShape& map, const Layout& layout) {
    if (map[1].is_dynamic() || map[2].is_dynamic()) return ov::Dimension::dynamic();
    const std::int64_t rows = map[1].get_length(), columns = map[2].get_length();
    NODE_VALIDATION_CHECK(node, rows % layout.fold[0] == 0 && columns % layout.fold[1] == 0, "a map of ", rows, "x",
                          columns, " does not split into ", layout.fold[0], "x", layout.fold[1], " regions");
    return rows / layout.fold[0] * (columns / layout.fold[1]);
}

ov::Dimension check_projection(const ov::Node* node, std::size_t first, std::int64_t channels) {
    check_float32(node, {first, first + 1});
    const ov::PartialShape &weight = node->get_input_partial_shape(first), &bias = node->get_input_partial_shape(first + 1);
    NODE_VALIDATION_CHECK(node, weight.is_static() && weight.size() == 2 && weight[0] == channels && weight[1] != 0 &&
                                    bias == ov::PartialShape({weight[1]}),
                          "a projection must be of shapes [", channels, ",width] and [width], got ", weight, " and ",
                          bias);
    return weight[1];
}

cluinfer_projection read_projection(const ov::TensorVector& inputs, std::size_t first, std::int64_t channels) {
    const ov::Shape &weight = inputs[first].get_shape(), &bias = inputs[first + 1].get_shape();
    OPENVINO_ASSERT(weight.size() == 2 && weight[0] == static_cast<std::size_t>(channels) &&
                        bias == ov::Shape({weight[1]}),
                    "a projection of ", channels, " channels cannot be ", weight, " and ", bias);
    return {static_cast<std::int64_t>(weight[1]), inputs[first].data<const float>(),
            inputs[first + 1].data<const float>()};
}

cluinfer_run on_tbb() {
    const cluinfer_parallel_for loop = [](void*, std::size_t jobs, void (*job)(void*, std::size_t), void* argument) {
        tbb::parallel_for(std::size_t{0}, jobs, [=](std::size_t i) { job(argument, i); });
    };
    return {-1, tbb::this_task_arena::max_concurrency(), loop, nullptr};
}

void succeed(const ov::Node* node, std::int32_t code) {
    OPENVINO_ASSERT(code == CLUINFER_OK, node->get_type_name(), " ", node->get_friendly_name(), ": ",
                    code == CLUINFER_BAD_SIZE    ? "these sizes do not fit together"
                    : code == CLUINFER_NO_MEMORY ? "out of memory"
                                                 : "failed");
}

}  // namespace cluinfer::ov_extension
