/* The C interface of the CPU kernels. Every function returns CLUINFER_OK or an error code and never throws.
 *
 * Strides count floats. A channels-last tensor [B, H, W, heads * d] has channel = 1, column = heads * d,
 * row = W * column, batch = H * row; a channel-first one column = 1, row = W, channel = H * W,
 * batch = heads * d * channel. Maps that are slices of a wider one (f and v of one convolution) keep its strides.
 */
#ifndef CLUINFER_CPU_API_H
#define CLUINFER_CPU_API_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define CLUINFER_API __declspec(dllexport)
#else
#define CLUINFER_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

enum { CLUINFER_OK = 0, CLUINFER_BAD_SIZE = 1, CLUINFER_BAD_ISA = 2, CLUINFER_NO_MEMORY = 3, CLUINFER_FAILED = 4 };

#define CLUINFER_ABI 2

typedef void (*cluinfer_parallel_for)(void* context, size_t jobs, void (*job)(void*, size_t), void* argument);

/* How to run: which instruction set (-1: the best that this CPU has), how many jobs are worth making, and the
 * caller's parallel loop; without one, threads are started for the call. Results do not depend on the threads. */
typedef struct {
    int32_t isa;
    int32_t threads;
    cluinfer_parallel_for parallel_for;
    void* context;
} cluinfer_run;

typedef struct {
    float* data;
    int64_t batch, channel, row, column;
} cluinfer_map;

/* channels: of one head. fold: regions along rows and columns, which must divide. grid: centres of a region along
 * rows and columns (cluinfer_assign, _scatter, _gather take the number of centres and ignore the grid). */
typedef struct {
    int64_t batch, heads, channels, rows, columns;
    int64_t fold_rows, fold_columns, grid_rows, grid_columns;
} cluinfer_shape;

CLUINFER_API int32_t cluinfer_abi(void);
/* The name of instruction set `isa` (from 0, best last), or null where this CPU or build has no such. */
CLUINFER_API const char* cluinfer_isa_name(int32_t isa);

/* The 1x1 convolution that reads a mixer's map: weight [heads * channels, width], bias [width] or null. Given one, an
 * operator writes what the convolution would, a channels-last map of `width` channels; it convolves the centres, of
 * which there are few, and each point sums over its heads. Null to leave it out. */
typedef struct {
    int64_t width;
    const float *weight, *bias;
} cluinfer_projection;

/* ClusterAssign, ClusterScatter, ClusterGather; G = batch * heads * fold_rows * fold_columns, index and weight
 * [G, points of a region], centres [G, channels, M]. Weights may be null where the operator has them optional. */
CLUINFER_API int32_t cluinfer_assign(const cluinfer_run*, const cluinfer_shape*, const cluinfer_map* points,
                                     const float* centres, int64_t m, float alpha, float beta, int32_t sigmoid,
                                     int32_t* index, float* weight);
CLUINFER_API int32_t cluinfer_scatter(const cluinfer_run*, const cluinfer_shape*, const cluinfer_map* values,
                                      const int32_t* index, const float* weight, const float* base, int64_t m,
                                      float* centres);
CLUINFER_API int32_t cluinfer_gather(const cluinfer_run*, const cluinfer_shape*, const float* centres, int64_t m,
                                     const int32_t* index, const float* weight, const cluinfer_map* out,
                                     const cluinfer_projection*);

/* The FEC (weighted = 0) and Context Cluster (weighted = 1) mixer between its 1x1 convolutions. `clusters`, if not
 * null, is [batch, heads, rows, columns]: region * M + centre. */
CLUINFER_API int32_t cluinfer_cluster_block(const cluinfer_run*, const cluinfer_shape*, const cluinfer_map* features,
                                            const cluinfer_map* values, float alpha, float beta, int32_t weighted,
                                            const cluinfer_map* out, int32_t* clusters, const cluinfer_projection*);

/* The FEC and CLUENet reduction: out is a map of fold * grid rows and columns, value_channels channels a head. */
CLUINFER_API int32_t cluinfer_cluster_pool(const cluinfer_run*, const cluinfer_shape*, const cluinfer_map* features,
                                           const cluinfer_map* values, int64_t value_channels,
                                           const cluinfer_map* out, int32_t* clusters);

/* The gate of CLUENet's centres, a small network for each head:
 * g = sigmoid(second . gelu(first . [gathered, own] + bias) + shift), and the centre is (1 - g) gathered + g own.
 * first [heads, hidden, 2 * channels], bias and second [heads, hidden], shift [heads]. */
typedef struct {
    int64_t hidden;
    const float *first, *bias, *second, *shift;
} cluinfer_gates;

/* CLUENet's soft aggregation with centres pooled from the keys: aggregated [G, channels, M]; the pooled values
 * go to `features` [G, channels, M] if not null. scale is finite and not negative. With gates, which may be null,
 * aggregated holds the gated centres and `features` must be null. */
CLUINFER_API int32_t cluinfer_aggregate(const cluinfer_run*, const cluinfer_shape*, const cluinfer_map* keys,
                                        const cluinfer_map* values, float scale, const cluinfer_gates*,
                                        float* aggregated, float* features);

/* Each of `count` rows of `channels` floats less its mean, over the root of its variance + epsilon. Where `other` is
 * not null, it is added first, and `sum` receives the sum. */
CLUINFER_API int32_t cluinfer_norm(const cluinfer_run*, const float* rows, const float* other, int64_t count,
                                   int64_t channels, float epsilon, float* sum, float* out);

#ifdef __cplusplus
}
#endif
#endif
