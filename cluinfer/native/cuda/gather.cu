// ClusterGather: centers [G,C,M], index [G,N], weight [G,N] or none -> points [G,C,N], each its centre times its weight,
// and zero where the index is outside [0, M).
//
// A thread takes one point and ROWS of its channels: index and weight are read once, writes are coalesced, and a row of
// centres is small enough to be read from the cache. Without a weight, bits are copied.

extern "C" __global__ void __launch_bounds__(THREADS)
    cluster_gather(const Real* __restrict__ centers, const int* __restrict__ index,
#if WEIGHTED
                   const Real* __restrict__ weight,
#endif
                   Real* __restrict__ points) {
    constexpr int ACROSS = (POINTS + THREADS - 1) / THREADS;
    const long long group = blockIdx.x / BLOCKS;
    const int block = static_cast<int>(blockIdx.x % BLOCKS);
    const int n = block % ACROSS * THREADS + static_cast<int>(threadIdx.x);
    const int from = block / ACROSS * ROWS, to = smaller(from + ROWS, CHANNELS);
    if (n >= POINTS) return;

    const int slot = index[group * POINTS + n];
    const bool inside = slot >= 0 && slot < CENTERS;
#if WEIGHTED
    const float w = load(weight[group * POINTS + n]);
#endif
    centers += group * CHANNELS * CENTERS;
    points += group * CHANNELS * POINTS;
#pragma unroll 4
    for (int c = from; c < to; ++c) {
        Real made = 0;
        if (inside) {
            made = centers[static_cast<long long>(c) * CENTERS + slot];
#if WEIGHTED
            made = store(w * load(made));
#endif
        }
        points[static_cast<long long>(c) * POINTS + n] = made;
    }
}
