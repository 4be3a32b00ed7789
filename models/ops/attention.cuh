// Attention by tensor cores, after device.cuh: q, d_o [heads, n, D], k, v [heads, m, D] of type T, which is float, Half or BFloat16.
//
// Each kernel has its rows (queries, or keys) spread over the blocks, 16 to a warp, and goes through what they are multiplied by in tiles of
// COLUMNS. Scores live in registers, a tile at a time (Dao 2023, FlashAttention-2), and are in units that make exp2 their exponential. No
// sum depends on the order in which threads come: the same inputs give the same bits.

namespace {

// Rows of shared memory are 4 words longer than a multiple of 8, which spreads what a warp reads over all 32 banks.
template <class T, int D, int WARPS, int COLUMNS>
struct Shape {
    static const int PER_WORD = 4 / sizeof(T);
    static const int STEP = 8 * PER_WORD;                       // of the sum, in one product of tensor cores
    static const int PADDED = (D + STEP - 1) / STEP * STEP;     // D, filled up with zeros
    static const int ROWS = 16 * WARPS, THREADS = 32 * WARPS;   // of a block
    static const int ROW = PADDED / PER_WORD + 4;               // words of a row of D numbers
    static const int COLUMN = COLUMNS / PER_WORD + 4;           // words of a column of a tile
    static const int TILES = COLUMNS / 8, OUT_TILES = PADDED / 8;

    // Shared memory of the three kernels, in words.
    static const int FORWARD = (ROWS + COLUMNS) * ROW + PADDED * COLUMN;
    static const int BACKWARD_Q = 2 * (ROWS + COLUMNS) * ROW + PADDED * COLUMN;
    static const int BACKWARD_KV = 2 * (ROWS + COLUMNS) * ROW + 2 * PADDED * COLUMN + 2 * COLUMNS;
};

// 16 bytes of a row of x [count, D], zeros past its end.
template <class T, int D>
__device__ inline uint4 sixteen_bytes(const T* x, int count, int row, int start) {
    uint4 bytes = {0, 0, 0, 0};
    if (row < count && start < D) {
        if (D * sizeof(T) % 16 == 0)
            bytes = *(const uint4*)(x + (int64_t)row * D + start);
        else
            for (int i = 0; i < 16 / sizeof(T) && start + i < D; i++) ((T*)&bytes)[i] = x[(int64_t)row * D + start + i];
    }
    return bytes;
}

// `rows` rows of x [count, D] into shared memory, as they are.
template <class S, class T, int D>
__device__ inline void load_rows(uint32_t* out, const T* x, int count, int rows) {
    const int chunk = 16 / sizeof(T), chunks = S::PADDED / chunk;
    for (int i = threadIdx.x; i < rows * chunks; i += S::THREADS) {
        int row = i / chunks, start = i % chunks * chunk;
        *(uint4*)(out + row * S::ROW + start / S::PER_WORD) = sixteen_bytes<T, D>(x, count, row, start);
    }
}

// The same transposed. Where a word is one number, eight of a column are laid in the order 0 2 4 6 1 3 5 7: see `as_factor`.
template <class S, class T, int D>
__device__ inline void load_columns(uint32_t* out, const T* x, int count, int rows) {
    const int chunk = 16 / sizeof(T), chunks = S::PADDED / chunk;
    for (int i = threadIdx.x; i < rows * chunks; i += S::THREADS) {
        int row = i / chunks, start = i % chunks * chunk;
        int place = S::PER_WORD == 2 ? row : (row & ~7) + (row & 7) / 2 + (row & 1) * 4;
        uint4 bytes = sixteen_bytes<T, D>(x, count, row, start);
        for (int j = 0; j < chunk; j++) ((T*)(out + (start + j) * S::COLUMN))[place] = ((T*)&bytes)[j];
    }
}

// c [16, COLUMNS] = a [16, D] · b [COLUMNS, D]ᵀ, both rows in shared memory.
template <class S, class T>
__device__ inline void scores(float (&c)[S::TILES][4], const uint32_t* a, const uint32_t* b) {
    int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    for (int j = 0; j < S::TILES; j++)
        for (int i = 0; i < 4; i++) c[j][i] = 0;
#pragma unroll
    for (int step = 0; step < S::PADDED / S::STEP; step++) {
        const uint32_t *left = a + g * S::ROW + 8 * step + t, *right = b + g * S::ROW + 8 * step + t;
        uint32_t rows[4] = {left[0], left[8 * S::ROW], left[4], left[8 * S::ROW + 4]};
#pragma unroll
        for (int j = 0; j < S::TILES; j++) {
            uint32_t columns[2] = {right[8 * j * S::ROW], right[8 * j * S::ROW + 4]};
            multiply(T(), c[j], rows, columns);
        }
    }
}

template <class T>
__device__ inline uint32_t word(T, float first, float second) {
    T pair[2];
    store(pair, first), store(pair + 1, second);
    return *(uint32_t*)pair;
}

// What a product left in c, as the first factor of the next. Lanes hold neighbours 2t and 2t + 1 of a row: one word of 16-bit numbers, as
// the factor wants them. Of floats it wants t and t + 4: it gets 2t and 2t + 1, and the second factor's columns are laid out to fit.
template <class T>
__device__ inline void as_factor(T, uint32_t* a, const float (*c)[4], int step) {
    const float *first = c[2 * step], *second = c[2 * step + 1];
    a[0] = word(T(), first[0], first[1]), a[1] = word(T(), first[2], first[3]);
    a[2] = word(T(), second[0], second[1]), a[3] = word(T(), second[2], second[3]);
}

__device__ inline void as_factor(float, uint32_t* a, const float (*c)[4], int step) {
    const uint32_t* bits = (const uint32_t*)c[step];
    a[0] = bits[0], a[1] = bits[2], a[2] = bits[1], a[3] = bits[3];
}

// out [16, D] += c [16, COLUMNS] · b [COLUMNS, D], b transposed in shared memory.
template <class S, class T>
__device__ inline void accumulate(float (&out)[S::OUT_TILES][4], const float (&c)[S::TILES][4], const uint32_t* b) {
    int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int step = 0; step < 8 * S::TILES / S::STEP; step++) {
        uint32_t rows[4];
        as_factor(T(), rows, c, step);
        const uint32_t* right = b + g * S::COLUMN + 8 * step + t;
#pragma unroll
        for (int j = 0; j < S::OUT_TILES; j++) {
            uint32_t columns[2] = {right[8 * j * S::COLUMN], right[8 * j * S::COLUMN + 4]};
            multiply(T(), out[j], rows, columns);
        }
    }
}

template <class S>
__device__ inline void clear(float (&out)[S::OUT_TILES][4]) {
    for (int j = 0; j < S::OUT_TILES; j++)
        for (int i = 0; i < 4; i++) out[j][i] = 0;
}

// x summed over the four lanes that share a row, for all of them.
__device__ inline float row_sum(float x) {
    x += across_lanes(x, 1);
    return x + across_lanes(x, 2);
}

// The warp's 16 rows of y [count, D] = out · scale, of which the lane has rows g (scale[0]) and g + 8 (scale[1]).
template <class S, class T, int D>
__device__ inline void write(T* y, int count, int first_row, const float (&out)[S::OUT_TILES][4], const float* scale) {
    int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int j = 0; j < S::OUT_TILES; j++)
        for (int i = 0; i < 4; i++) {
            int row = first_row + g + i / 2 * 8, column = 8 * j + 2 * t + i % 2;
            if (row < count && column < D) store(y + (int64_t)row * D + column, out[j][i] * scale[i / 2]);
        }
}

// o, and the binary logarithm of each query's Σ exp2(score). The rows are queries.
template <class T, int D, int WARPS, int COLUMNS>
__global__ void __launch_bounds__(32 * WARPS)
attention_forward(const T* q, const T* k, const T* v, T* o, float* logsumexp, int n, int m, float scale) {
    typedef Shape<T, D, WARPS, COLUMNS> S;
    uint32_t *q_rows = shared_memory(), *k_rows = q_rows + S::ROWS * S::ROW, *v_columns = k_rows + COLUMNS * S::ROW;
    int blocks = (n + S::ROWS - 1) / S::ROWS, first = blockIdx.x % blocks * S::ROWS;
    int64_t head = blockIdx.x / blocks, row = head * n + first;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, t = lane % 4;
    float out[S::OUT_TILES][4], top[2] = {-1e30f, -1e30f}, total[2] = {0, 0};
    clear<S>(out);
    load_rows<S, T, D>(q_rows, q + row * D, n - first, S::ROWS);
    for (int start = 0; start < m; start += COLUMNS) {
        int64_t key = (head * m + start) * D;
        __syncthreads();
        load_rows<S, T, D>(k_rows, k + key, m - start, COLUMNS);
        load_columns<S, T, D>(v_columns, v + key, m - start, COLUMNS);
        __syncthreads();
        float c[S::TILES][4];
        scores<S, T>(c, q_rows + 16 * warp * S::ROW, k_rows);
        float new_top[2] = {top[0], top[1]};
#pragma unroll
        for (int j = 0; j < S::TILES; j++)
            for (int i = 0; i < 4; i++) {
                c[j][i] = start + 8 * j + 2 * t + i % 2 < m ? c[j][i] * scale : -1e30f;
                new_top[i / 2] = fmaxf(new_top[i / 2], c[j][i]);
            }
        // Everything so far is relative to the largest score so far: bring it to the new one.
        for (int r = 0; r < 2; r++) {
            new_top[r] = fmaxf(new_top[r], across_lanes(new_top[r], 1));  // the four lanes of a row
            new_top[r] = fmaxf(new_top[r], across_lanes(new_top[r], 2));
            float shrink = exp2f(top[r] - new_top[r]);
            total[r] *= shrink;
#pragma unroll
            for (int j = 0; j < S::OUT_TILES; j++) out[j][2 * r] *= shrink, out[j][2 * r + 1] *= shrink;
            top[r] = new_top[r];
        }
#pragma unroll
        for (int j = 0; j < S::TILES; j++)
            for (int i = 0; i < 4; i++) {
                c[j][i] = exp2f(c[j][i] - top[i / 2]);
                total[i / 2] += c[j][i];
            }
        accumulate<S, T>(out, c, v_columns);
    }
    float over_total[2];
    for (int r = 0; r < 2; r++) {
        total[r] = row_sum(total[r]);
        over_total[r] = 1 / total[r];
        int query = 16 * warp + lane / 4 + 8 * r;
        if (t == 0 && first + query < n) logsumexp[row + query] = top[r] + log2f(total[r]);
    }
    write<S, T, D>(o + row * D, n - first, 16 * warp, out, over_total);
}

// dq, and delta [heads, n]: a query's Σ p · dp, which is its do · o. The rows are queries.
template <class T, int D, int WARPS, int COLUMNS>
__global__ void __launch_bounds__(32 * WARPS)
attention_backward_q(const T* q, const T* k, const T* v, const T* o, const float* logsumexp, const T* d_o, T* dq, float* delta,
                     int n, int m, float scale, float gradient_scale) {
    typedef Shape<T, D, WARPS, COLUMNS> S;
    uint32_t *q_rows = shared_memory(), *d_o_rows = q_rows + S::ROWS * S::ROW, *k_rows = d_o_rows + S::ROWS * S::ROW;
    uint32_t *v_rows = k_rows + COLUMNS * S::ROW, *k_columns = v_rows + COLUMNS * S::ROW;
    int blocks = (n + S::ROWS - 1) / S::ROWS, first = blockIdx.x % blocks * S::ROWS;
    int64_t head = blockIdx.x / blocks, row = head * n + first;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, t = lane % 4;
    float out[S::OUT_TILES][4], lse[2], own_delta[2];
    clear<S>(out);
    load_rows<S, T, D>(q_rows, q + row * D, n - first, S::ROWS);
    load_rows<S, T, D>(d_o_rows, d_o + row * D, n - first, S::ROWS);
    for (int r = 0; r < 2; r++) {
        int query = 16 * warp + lane / 4 + 8 * r;
        bool there = first + query < n;
        float sum = 0;
        for (int e = t; there && e < D; e += 4) sum += to_float(d_o[(row + query) * D + e]) * to_float(o[(row + query) * D + e]);
        sum = row_sum(sum);
        own_delta[r] = sum, lse[r] = there ? logsumexp[row + query] : 0;
        if (t == 0 && there) delta[row + query] = sum;
    }
    for (int start = 0; start < m; start += COLUMNS) {
        int64_t key = (head * m + start) * D;
        __syncthreads();
        load_rows<S, T, D>(k_rows, k + key, m - start, COLUMNS);
        load_rows<S, T, D>(v_rows, v + key, m - start, COLUMNS);
        load_columns<S, T, D>(k_columns, k + key, m - start, COLUMNS);
        __syncthreads();
        float p[S::TILES][4], dp[S::TILES][4];
        scores<S, T>(p, q_rows + 16 * warp * S::ROW, k_rows);
        scores<S, T>(dp, d_o_rows + 16 * warp * S::ROW, v_rows);
#pragma unroll
        for (int j = 0; j < S::TILES; j++)
            for (int i = 0; i < 4; i++) {
                bool there = start + 8 * j + 2 * t + i % 2 < m;
                dp[j][i] = there ? exp2f(p[j][i] * scale - lse[i / 2]) * (dp[j][i] - own_delta[i / 2]) : 0;
            }
        accumulate<S, T>(out, dp, k_columns);
    }
    float scales[2] = {gradient_scale, gradient_scale};
    write<S, T, D>(dq + row * D, n - first, 16 * warp, out, scales);
}

// dk and dv, after dq. The rows are keys.
template <class T, int D, int WARPS, int COLUMNS>
__global__ void __launch_bounds__(32 * WARPS)
attention_backward_kv(const T* q, const T* k, const T* v, const float* logsumexp, const T* d_o, const float* delta, T* dk, T* dv,
                      int n, int m, float scale, float gradient_scale) {
    typedef Shape<T, D, WARPS, COLUMNS> S;
    uint32_t *k_rows = shared_memory(), *v_rows = k_rows + S::ROWS * S::ROW, *q_rows = v_rows + S::ROWS * S::ROW;
    uint32_t *d_o_rows = q_rows + COLUMNS * S::ROW, *q_columns = d_o_rows + COLUMNS * S::ROW;
    uint32_t* d_o_columns = q_columns + S::PADDED * S::COLUMN;
    float *lse = (float*)(d_o_columns + S::PADDED * S::COLUMN), *deltas = lse + COLUMNS;
    int blocks = (m + S::ROWS - 1) / S::ROWS, first = blockIdx.x % blocks * S::ROWS;
    int64_t head = blockIdx.x / blocks, row = head * m + first;
    int warp = threadIdx.x / 32, t = threadIdx.x % 4;
    float dk_out[S::OUT_TILES][4], dv_out[S::OUT_TILES][4];
    clear<S>(dk_out), clear<S>(dv_out);
    load_rows<S, T, D>(k_rows, k + row * D, m - first, S::ROWS);
    load_rows<S, T, D>(v_rows, v + row * D, m - first, S::ROWS);
    for (int start = 0; start < n; start += COLUMNS) {
        int64_t query = head * n + start;
        __syncthreads();
        load_rows<S, T, D>(q_rows, q + query * D, n - start, COLUMNS);
        load_rows<S, T, D>(d_o_rows, d_o + query * D, n - start, COLUMNS);
        load_columns<S, T, D>(q_columns, q + query * D, n - start, COLUMNS);
        load_columns<S, T, D>(d_o_columns, d_o + query * D, n - start, COLUMNS);
        for (int i = threadIdx.x; i < COLUMNS; i += S::THREADS) {
            bool there = start + i < n;
            lse[i] = there ? logsumexp[query + i] : 0;  // what is not there adds nothing, for its do is zero
            deltas[i] = there ? delta[query + i] : 0;
        }
        __syncthreads();
        float p[S::TILES][4], dp[S::TILES][4];
        scores<S, T>(p, k_rows + 16 * warp * S::ROW, q_rows);
        scores<S, T>(dp, v_rows + 16 * warp * S::ROW, d_o_rows);
#pragma unroll
        for (int j = 0; j < S::TILES; j++)
            for (int i = 0; i < 4; i++) {
                int column = 8 * j + 2 * t + i % 2;
                p[j][i] = exp2f(p[j][i] * scale - lse[column]);
                dp[j][i] = p[j][i] * (dp[j][i] - deltas[column]);
            }
        accumulate<S, T>(dv_out, p, d_o_columns);
        accumulate<S, T>(dk_out, dp, q_columns);
    }
    float ones[2] = {1, 1}, scales[2] = {gradient_scale, gradient_scale};
    write<S, T, D>(dv + row * D, m - first, 16 * warp, dv_out, ones);
    write<S, T, D>(dk + row * D, m - first, 16 * warp, dk_out, scales);
}

}  // namespace
