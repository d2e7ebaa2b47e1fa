// ClusterScatter: values [G,C,N], index [G,N], base [G,C,M], weight [G,N] or none -> centers [G,C,M], each the sum of
// its points' values times weight, plus base, over the sum of their weights, plus one.
//
// A block takes ROWS channels of one group, a warp one channel at a time. Lanes take neighbouring points, so reads are
// coalesced, and add to bins in shared memory. No float is added atomically: same input, same bits.
// - COPIES == 32: every lane has bins of its own, [m][lane], in a bank of its own. In the end they are summed.
// - COPIES == 1, for more centres than that leaves room for: a warp shares its bins, and lanes that meet in one of them
//   take turns in the order of their points.
// The masses come first, each warp counting every WARPS-th stretch of points. More than TILE centres go in several
// rounds over all points. An index outside the round, or outside [0, M), adds nothing.

constexpr unsigned ALL = 0xffffffffu;

__device__ inline void clear(float* bins, int lane) {
    for (int i = lane; i < TILE * COPIES; i += 32) bins[i] = 0;
    __syncwarp();
}

__device__ inline void add(float* bins, unsigned slot, bool inside, float value, int lane) {
    if constexpr (COPIES == 32) {
        if (inside) bins[slot * 32 + lane] += value;
    } else {
        const unsigned own = ALL - static_cast<unsigned>(lane);  // no slot, and nobody else's
        const unsigned same = __match_any_sync(ALL, inside ? slot : own);
        const int before = __popc(same & ((1u << lane) - 1));
        for (int turn = 0; __any_sync(ALL, inside && before >= turn); ++turn) {
            if (inside && before == turn) bins[slot] += value;
            __syncwarp();
        }
    }
}

// The sum of a centre's copies; centres start at different lanes, so that reading them side by side meets no bank twice.
__device__ inline float total(const float* bins, int m) {
    float sum = 0;
    for (int i = 0; i < COPIES; ++i) sum += bins[m * COPIES + (i + m) % COPIES];
    return sum;
}

extern "C" __global__ void __launch_bounds__(THREADS)
    cluster_scatter(const Real* __restrict__ values, const int* __restrict__ index, const Real* __restrict__ base,
#if WEIGHTED
                    const Real* __restrict__ weight,
#endif
                    Real* __restrict__ centers) {
    constexpr int WARPS = THREADS / 32;
    __shared__ float bins[WARPS][TILE * COPIES];
    __shared__ float mass[TILE];

    const long long group = blockIdx.x / BLOCKS;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int from = static_cast<int>(blockIdx.x % BLOCKS) * ROWS, to = smaller(from + ROWS, CHANNELS);
    values += group * CHANNELS * POINTS;
    index += group * POINTS;
    base += group * CHANNELS * CENTERS;
    centers += group * CHANNELS * CENTERS;
#if WEIGHTED
    weight += group * POINTS;
#endif
    auto weight_of = [&](int n) {
#if WEIGHTED
        return load(weight[n]);
#else
        (void)n;
        return 1.0f;
#endif
    };

    for (int first = 0; first < CENTERS; first += TILE) {
        const int count = smaller(TILE, CENTERS - first);
        // also for a negative index, which as an unsigned number is beyond every centre
        auto slot_of = [&](int n) { return static_cast<unsigned>(index[n]) - static_cast<unsigned>(first); };

        clear(bins[warp], lane);
        for (int stretch = warp * 32; stretch < POINTS; stretch += THREADS) {
            const int n = smaller(stretch + lane, POINTS - 1);
            const unsigned slot = slot_of(n);
            add(bins[warp], slot, stretch + lane < POINTS && slot < static_cast<unsigned>(count), weight_of(n), lane);
        }
        __syncthreads();
        for (int m = threadIdx.x; m < count; m += THREADS) {
            float sum = 1;
            for (int w = 0; w < WARPS; ++w) sum += total(bins[w], m);
            mass[m] = sum;
        }
        __syncthreads();

        for (int c = from + warp; c < to; c += WARPS) {
            const Real* row = values + static_cast<long long>(c) * POINTS;
            clear(bins[warp], lane);
#pragma unroll 4
            for (int stretch = 0; stretch < POINTS; stretch += 32) {
                const int n = smaller(stretch + lane, POINTS - 1);
                const unsigned slot = slot_of(n);
                const bool inside = stretch + lane < POINTS && slot < static_cast<unsigned>(count);
                add(bins[warp], slot, inside, weight_of(n) * load(row[n]), lane);
            }
            __syncwarp();
            for (int m = lane; m < count; m += 32) {
                const long long at = static_cast<long long>(c) * CENTERS + first + m;
                centers[at] = store((load(base[at]) + total(bins[warp], m)) / mass[m]);
            }
            __syncwarp();
        }
        __syncthreads();
    }
}
