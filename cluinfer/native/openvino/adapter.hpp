// What every operator of the extension needs: the kernels' view of OpenVINO tensors, checked, and TBB as their loop.
#pragma once

#include <cstdint>
#include <vector>

#include <openvino/op/op.hpp>

#include "api.h"

namespace cluinfer::ov_extension {

using Pair = std::vector<std::int64_t>;  // rows, columns; a vector, since OpenVINO stores that as an attribute

// How a map is clustered. The names are written into compiled models: changing one is a change of format.
struct Layout {
    std::int64_t heads = 1;
    std::int64_t channels = 0;  // of one head
    Pair fold{1, 1};            // regions along each side
    Pair grid{1, 1};            // centres along each side of a region

    void visit(ov::AttributeVisitor& visitor, bool with_grid);
    void check(const ov::Node* node) const;
    std::int64_t regions() const { return fold[0] * fold[1]; }
    std::int64_t centres() const { return grid[0] * grid[1]; }
};

// The operators compute in float32 whatever the precision of the model: they decide what belongs to which cluster.
void check_float32(const ov::Node* node, std::initializer_list<std::size_t> inputs);

// `channels` channels from `first` of the channels-last map [B, H, W, C] in `tensor` as the kernels see them;
// throws where the tensor has no such channels.
cluinfer_map slice(const ov::Tensor& tensor, std::int64_t first, std::int64_t channels);
// The same of a tensor [G, C, N], as a map of one row.
cluinfer_map columns(const ov::Tensor& tensor);

cluinfer_shape shape_of(const ov::Tensor& map, const Layout& layout);

// Checks at inference of shapes: rank 4, enough channels.
ov::PartialShape check_map(const ov::Node* node, std::size_t input, std::int64_t first, std::int64_t channels);
// Groups of a map: batch * heads * regions.
ov::Dimension groups_of(const ov::PartialShape& map, const Layout& layout);
// Points of one region; the sides must divide by the fold.
ov::Dimension points_of(const ov::Node* node, const ov::PartialShape& map, const Layout& layout);

// The kernels' loop on the threads of the arena that OpenVINO runs this operator in.
// Inputs `first` and `first` + 1, a projection of `channels` channels: weight [channels,width], bias [width]. `check`
// holds the node's shapes against that and gives the width, `read` the tensors.
ov::Dimension check_projection(const ov::Node* node, std::size_t first, std::int64_t channels);
cluinfer_projection read_projection(const ov::TensorVector& inputs, std::size_t first, std::int64_t channels);

cluinfer_run on_tbb();
// Throws what an error code says.
void succeed(const ov::Node* node, std::int32_t code);

}  // namespace cluinfer::ov_extension
