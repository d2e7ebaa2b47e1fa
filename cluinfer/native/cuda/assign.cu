// ClusterAssign: points [G,D,N], centers [G,D,M] -> index [G,N] of the centre most like each point, and that likeness.
//
// A block takes THREADS * PER_THREAD points of one group. A thread keeps its points as unit vectors in registers (WIDE:
// more channels than fit; it reads them again for every AT_ONCE centres) and goes through the centres, TILE at a time,
// which the block keeps as unit vectors in shared memory: each word read there serves all threads at once.
//
// - Each cosine is one sum in the order of the channels, so equal centres tie exactly, and the first of them wins.
// - CAREFUL: the sigmoid may saturate, or alpha or beta is not finite. Then s itself is compared, NaN counting as the
//   largest. Else the sigmoid is applied to the winner only, and NaN is settled apart: a NaN point beats no centre, and
//   the first NaN centre wins every other point.

struct alignas(16) Four {
    float x, y, z, w;
};

constexpr int PADDED = (CHANNELS + 3) / 4 * 4;
constexpr int ROW = PADDED + 4;  // spreads the rows over the banks of shared memory
constexpr float EPSILON = 1e-12f;

__device__ inline float inverse_norm(float square) {
    const float norm = sqrtf(square);
    return 1.0f / (norm > EPSILON ? norm : EPSILON);  // a NaN stays in the vector itself
}

__device__ inline float squashed(float t) { return SIGMOID ? 1.0f / (1.0f + expf(-t)) : t; }

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    cluster_assign(const Real* __restrict__ points, const Real* __restrict__ centers, int* __restrict__ index,
                   Real* __restrict__ weight) {
    alignas(16) __shared__ float tile[TILE * ROW];
    __shared__ int first_nan;

    const float alpha = __int_as_float(ALPHA), beta = __int_as_float(BETA);
    const long long group = blockIdx.x / BLOCKS;
    const int start = static_cast<int>(blockIdx.x % BLOCKS) * THREADS * PER_THREAD + static_cast<int>(threadIdx.x);
    points += group * CHANNELS * POINTS;
    centers += group * CHANNELS * CENTERS;
    index += group * POINTS;
    weight += group * POINTS;
    if (threadIdx.x == 0) first_nan = CENTERS;

    int place[PER_THREAD];  // those past the end repeat the last point and are not written
    float scale[PER_THREAD], best[PER_THREAD];
    int chosen[PER_THREAD];
    float point[WIDE ? 1 : PER_THREAD][WIDE ? 1 : PADDED];
#pragma unroll
    for (int j = 0; j < PER_THREAD; ++j) {
        place[j] = smaller(start + j * THREADS, POINTS - 1);
        best[j] = -__int_as_float(0x7f800000);
        chosen[j] = CAREFUL ? 0 : -1;
        float square = 0;
        if constexpr (WIDE) {
#pragma unroll 4
            for (int c = 0; c < CHANNELS; ++c) {
                const float value = load(points[static_cast<long long>(c) * POINTS + place[j]]);
                square += value * value;
            }
            scale[j] = inverse_norm(square);
        } else {
#pragma unroll
            for (int c = 0; c < PADDED; ++c) {
                point[j][c] = c < CHANNELS ? load(points[static_cast<long long>(c) * POINTS + place[j]]) : 0.0f;
                square += point[j][c] * point[j][c];
            }
            scale[j] = inverse_norm(square);
#pragma unroll
            for (int c = 0; c < PADDED; ++c) point[j][c] *= scale[j];
        }
    }

    for (int first = 0; first < CENTERS; first += TILE) {
        const int count = smaller(TILE, CENTERS - first);
        __syncthreads();
        for (int i = threadIdx.x; i < PADDED * TILE; i += THREADS) {
            const int c = i / TILE, m = i % TILE;
            const bool real = c < CHANNELS && m < count;
            tile[m * ROW + c] = real ? load(centers[static_cast<long long>(c) * CENTERS + first + m]) : 0.0f;
        }
        __syncthreads();
        for (int m = threadIdx.x; m < count; m += THREADS) {
            float* row = tile + m * ROW;
            float square = 0, nothing = 0;
            for (int c = 0; c < CHANNELS; ++c) square += row[c] * row[c];
            const float inverse = inverse_norm(square);
            for (int c = 0; c < CHANNELS; ++c) {
                row[c] *= inverse;
                nothing += row[c] * 0.0f;
            }
            if (nothing != nothing) atomicMin(&first_nan, first + m);
        }
        __syncthreads();

        for (int m = 0; m < count; m += AT_ONCE) {  // TILE is a multiple of AT_ONCE: the rows past the last are zeros
            float cosine[PER_THREAD][AT_ONCE] = {};
            if constexpr (WIDE) {
#pragma unroll 4
                for (int c = 0; c < CHANNELS; ++c) {
#pragma unroll
                    for (int j = 0; j < PER_THREAD; ++j) {
                        const float value = load(points[static_cast<long long>(c) * POINTS + place[j]]) * scale[j];
#pragma unroll
                        for (int k = 0; k < AT_ONCE; ++k) cosine[j][k] += value * tile[(m + k) * ROW + c];
                    }
                }
            } else {
#pragma unroll
                for (int c = 0; c < PADDED; c += 4) {
#pragma unroll
                    for (int k = 0; k < AT_ONCE; ++k) {
                        const Four center = *reinterpret_cast<const Four*>(tile + (m + k) * ROW + c);
#pragma unroll
                        for (int j = 0; j < PER_THREAD; ++j) {
                            cosine[j][k] += point[j][c] * center.x;
                            cosine[j][k] += point[j][c + 1] * center.y;
                            cosine[j][k] += point[j][c + 2] * center.z;
                            cosine[j][k] += point[j][c + 3] * center.w;
                        }
                    }
                }
            }
#pragma unroll
            for (int k = 0; k < AT_ONCE; ++k) {
                if (m + k >= count) continue;
#pragma unroll
                for (int j = 0; j < PER_THREAD; ++j) {
                    const float t = alpha * cosine[j][k] + beta;
                    const float s = CAREFUL ? squashed(t) : t;
                    if (CAREFUL ? best[j] == best[j] && !(s <= best[j]) : s > best[j]) {
                        best[j] = s;
                        chosen[j] = first + m + k;
                    }
                }
            }
        }
    }

#pragma unroll
    for (int j = 0; j < PER_THREAD; ++j) {
        if (start + j * THREADS >= POINTS) continue;
        if (!CAREFUL) {
            const bool nan = chosen[j] < 0 || first_nan < CENTERS;
            chosen[j] = chosen[j] < 0 ? 0 : first_nan < CENTERS ? first_nan : chosen[j];
            best[j] = nan ? __int_as_float(0x7fc00000) : squashed(best[j]);
        }
        index[place[j]] = chosen[j];
        weight[place[j]] = store(best[j]);
    }
}
