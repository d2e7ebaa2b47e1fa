// The operators, each in its own file. Sizes have been checked by the caller (api.cpp); they may throw bad_alloc.
#pragma once

#include "run.hpp"

namespace cluinfer {

// The gates of all heads, one behind another; null pointers nowhere.
struct Gates {
    const float *first, *bias, *second, *shift;  // [heads][hidden][2 * channels], [heads][hidden] twice, [heads]
    std::int64_t hidden;
    Gate of(std::int64_t head, std::int64_t channels) const {
        return {first + head * hidden * 2 * channels, bias + head * hidden, second + head * hidden, shift[head],
                hidden};
    }
};

// Index arrays are [groups][points of a region]; centre arrays are [groups][channels][centres], as in the domain.
void assign(const Run&, const Shape&, const Map& points, const float* centres, std::int64_t count,
            const Similarity&, std::int32_t* index, float* weight);
void scatter(const Run&, const Shape&, const Map& values, const std::int32_t* index, const float* weight,
             const float* base, std::int64_t count, float* centres);
void gather(const Run&, const Shape&, const float* centres, std::int64_t count, const std::int32_t* index,
            const float* weight, const Map& out, const Projection*);

// The fused operators write `clusters` as a [batch, heads, rows, columns] map of region * centres + centre; null to
// leave it out.
void cluster_block(const Run&, const Shape&, const Map& features, const Map& values, const Similarity&, bool weighted,
                   const Map& out, std::int32_t* clusters, const Projection*);
void cluster_pool(const Run&, const Shape&, const Map& features, const Map& values, std::int64_t value_channels,
                  const Map& out, std::int32_t* clusters);
void aggregate(const Run&, const Shape&, const Map& keys, const Map& values, float scale, const Gates*,
               float* aggregated, float* features);
// Rows of channels, each of mean 0 and variance 1; those of `other` are added before, if it is not null.
void norm(const Run&, const float* rows, const float* other, std::int64_t count, std::int64_t channels, float epsilon,
          float* sum, float* out);

// Local indices [first, first + count) of group g as ids of the clusters map.
void write_clusters(const Shape&, std::int64_t g, std::int64_t first, std::int64_t count, const std::int32_t* index,
                    std::int32_t* clusters);

}  // namespace cluinfer
