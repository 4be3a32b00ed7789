"""Scaled dot-product attention, fused: the [N, M] probabilities are never stored (Dao et al. 2022, FlashAttention).

On the CPU, where Jittor's batched product is a plain loop and its softmax scalar, one kernel goes forward and one backward, for every
shape, in float32. On GPUs from compute capability 8.0 on, tensor cores compute heads of up to 160 channels (attention.cuh). Elsewhere
the plain-Jittor reference computes the same.
"""

import math

import jittor as jt

from models.ops.kernels import code, cuda_header, has_tensor_cores, on_cuda
from models.ops.transpose import swap_last_axes

# Queries are taken in blocks of 64, which lie along the vector lanes: scores are kept as Sᵀ [keys, queries] and the output as Oᵀ
# [D, queries], so that softmax is elementwise over lanes and D may be anything. The last block is filled up with zero queries. Vectors
# and the exponential are written out: left to itself, the compiler takes half as many lanes as processors with AVX-512 have.
CPU_HEADER = r"""
#include <algorithm>
#include <cmath>
#include <vector>

namespace {

const int64_t QUERIES = 64, KEYS = 64;  // of a block
const float LOG_2 = 0.69314718f;  // scores are to the base of 2
const int32_t INFINITE = 0x7f800000;  // the bits of an exponent

#ifdef __AVX512F__
const int LANES = 16, ROWS = 8;  // 8 rows of two vectors each, of 32 registers
#else
const int LANES = 8, ROWS = 4;  // of 16
#endif
typedef float Vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t Integers __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

// R rows and two vectors of columns of c += a · b, where a's elements are a_row apart down and a_column apart along.
template <int R>
inline void multiply_tile(float* c, int64_t c_row, const float* a, int64_t a_row, int64_t a_column,
                          const float* b, int64_t b_row, int64_t depth) {
    Vector left[R], right[R];
    for (int r = 0; r < R; r++) left[r] = *(Vector*)(c + r * c_row), right[r] = *(Vector*)(c + r * c_row + LANES);
    for (int64_t k = 0; k < depth; k++) {
        Vector b_left = *(const Vector*)(b + k * b_row), b_right = *(const Vector*)(b + k * b_row + LANES);
        for (int r = 0; r < R; r++) {
            float scalar = a[r * a_row + k * a_column];
            left[r] += scalar * b_left, right[r] += scalar * b_right;
        }
    }
    for (int r = 0; r < R; r++) *(Vector*)(c + r * c_row) = left[r], *(Vector*)(c + r * c_row + LANES) = right[r];
}

// c [rows, columns] += a [rows, depth] · b [depth, columns]; columns is a multiple of two vectors.
void multiply(float* c, int64_t c_row, const float* a, int64_t a_row, int64_t a_column, const float* b, int64_t b_row,
              int64_t rows, int64_t columns, int64_t depth) {
    for (int64_t j = 0; j < columns; j += 2 * LANES) {
        int64_t i = 0;
        for (; i + ROWS <= rows; i += ROWS)
            multiply_tile<ROWS>(c + i * c_row + j, c_row, a + i * a_row, a_row, a_column, b + j, b_row, depth);
        for (; i < rows; i++)
            multiply_tile<1>(c + i * c_row + j, c_row, a + i * a_row, a_row, a_column, b + j, b_row, depth);
    }
}

// x <= 0 becomes 2^x: that of the nearest integer, by the exponent's bits, times a Taylor series of what is left. What is
// less than -126, or no number, becomes 2^-126.
inline void raise_two(Vector& x) {
    Vector least = Vector{} - 126, nearest;
    Integers whole;
    x = x > least ? x : least;
    for (int i = 0; i < LANES; i++) whole[i] = (int32_t)(x[i] - 0.5f);  // which cuts off towards 0
    for (int i = 0; i < LANES; i++) nearest[i] = (float)whole[i];
    x = (x - nearest) * LOG_2;
    x = 1 + x * (1 + x * (1 / 2.f + x * (1 / 6.f + x * (1 / 24.f + x * (1 / 120.f + x * (1 / 720.f))))));
    x = (Vector)((Integers)x + (whole << 23));
}

// A block of rows x [count, D] · scale as columns, [D, QUERIES]; columns past count are zero.
void load_columns(float* out, const float* x, int64_t count, int64_t d, float scale) {
    for (int64_t k = 0; k < d; k++)
        for (int64_t i = 0; i < QUERIES; i++) out[k * QUERIES + i] = i < count ? x[i * d + k] * scale : 0;
}

// The same as rows, [QUERIES, padded_d].
void load_rows(float* out, const float* x, int64_t count, int64_t d, int64_t padded_d, float scale) {
    for (int64_t i = 0; i < QUERIES; i++)
        for (int64_t k = 0; k < padded_d; k++) out[i * padded_d + k] = i < count && k < d ? x[i * d + k] * scale : 0;
}

// o [count, D] and the logarithm, to the base of 2, of each query's Σ 2^score, from all keys k and values v [m, D].
void forward_block(const float* q, const float* k, const float* v, float* o, float* logsumexp,
                   int64_t count, int64_t m, int64_t d, float scale, std::vector<float>& scratch) {
    scratch.resize(2 * d * QUERIES + KEYS * QUERIES);
    float *qt = scratch.data(), *ot = qt + d * QUERIES, *st = ot + d * QUERIES;
    float top[QUERIES], total[QUERIES];
    load_columns(qt, q, count, d, scale / LOG_2);
    std::fill_n(ot, d * QUERIES, 0.f);
    std::fill_n(top, QUERIES, -1e30f);
    std::fill_n(total, QUERIES, 0.f);
    for (int64_t start = 0; start < m; start += KEYS) {
        int64_t keys = std::min(KEYS, m - start);
        std::fill_n(st, keys * QUERIES, 0.f);
        multiply(st, QUERIES, k + start * d, d, 1, qt, QUERIES, keys, QUERIES, d);
        // Everything so far is relative to the largest score so far: bring it to the new one.
        for (int64_t i = 0; i < QUERIES; i += LANES) {
            Vector before = *(Vector*)(top + i), now = before, all = {};
            for (int64_t j = 0; j < keys; j++) {
                Vector score = *(Vector*)(st + j * QUERIES + i);
                now = score > now ? score : now;
                all += score;
            }
            // The compiler takes all for finite. Where a score is not, bits of 1 alone make the sum no number, and so the output.
            Integers broken = ((Integers)all & INFINITE) == INFINITE;
            Vector shrink = before - now;
            raise_two(shrink);
            Vector sum = (Vector)((Integers)(*(Vector*)(total + i) * shrink) | broken);
            for (int64_t e = 0; e < d; e++) *(Vector*)(ot + e * QUERIES + i) *= shrink;
            for (int64_t j = 0; j < keys; j++) {
                Vector& score = *(Vector*)(st + j * QUERIES + i);
                score -= now;
                raise_two(score);
                sum += score;
            }
            *(Vector*)(top + i) = now, *(Vector*)(total + i) = sum;
        }
        multiply(ot, QUERIES, v + start * d, 1, d, st, QUERIES, d, QUERIES, keys);
    }
    for (int64_t i = 0; i < count; i++) {
        logsumexp[i] = top[i] + log2f(total[i]);
        for (int64_t e = 0; e < d; e++) o[i * d + e] = ot[e * QUERIES + i] / total[i];
    }
}

// dq [n, D], dk and dv [m, D] of one head: query blocks in order, each recomputing its probabilities from logsumexp.
void backward_head(const float* q, const float* k, const float* v, const float* o, const float* logsumexp, const float* d_o,
                   float* dq, float* dk, float* dv, int64_t n, int64_t m, int64_t d, float scale) {
    int64_t tile = 2 * LANES, padded_d = (d + tile - 1) / tile * tile;
    int64_t columns = d * QUERIES, rows = QUERIES * padded_d, block = KEYS * QUERIES;
    std::vector<float> scratch(3 * columns + 2 * rows + 2 * block + 2 * m * padded_d, 0.f);
    float *qt = scratch.data(), *d_ot = qt + columns, *dqt = d_ot + columns, *q_rows = dqt + columns, *d_o_rows = q_rows + rows;
    float *st = d_o_rows + rows, *dst = st + block, *dk_rows = dst + block, *dv_rows = dk_rows + m * padded_d;
    float lse[QUERIES], delta[QUERIES];  // delta: Σ p · dp of a query, which is its do · o
    for (int64_t first = 0; first < n; first += QUERIES) {
        int64_t count = std::min(QUERIES, n - first);
        load_columns(qt, q + first * d, count, d, scale / LOG_2);
        load_columns(d_ot, d_o + first * d, count, d, 1);
        load_rows(q_rows, q + first * d, count, d, padded_d, scale);
        load_rows(d_o_rows, d_o + first * d, count, d, padded_d, 1);
        for (int64_t i = 0; i < QUERIES; i++) {
            lse[i] = i < count ? logsumexp[first + i] : 0;
            delta[i] = 0;
            for (int64_t e = 0; i < count && e < d; e++) delta[i] += d_o[(first + i) * d + e] * o[(first + i) * d + e];
        }
        std::fill_n(dqt, columns, 0.f);
        for (int64_t start = 0; start < m; start += KEYS) {
            int64_t keys = std::min(KEYS, m - start);
            std::fill_n(st, 2 * block, 0.f);
            multiply(st, QUERIES, k + start * d, d, 1, qt, QUERIES, keys, QUERIES, d);
            multiply(dst, QUERIES, v + start * d, d, 1, d_ot, QUERIES, keys, QUERIES, d);
            for (int64_t j = 0; j < keys; j++)
                for (int64_t i = 0; i < QUERIES; i += LANES) {
                    Vector &score = *(Vector*)(st + j * QUERIES + i), &d_score = *(Vector*)(dst + j * QUERIES + i);
                    score -= *(Vector*)(lse + i);
                    raise_two(score);
                    d_score = score * (d_score - *(Vector*)(delta + i));
                }
            multiply(dqt, QUERIES, k + start * d, 1, d, dst, QUERIES, d, QUERIES, keys);
            multiply(dv_rows + start * padded_d, padded_d, st, QUERIES, 1, d_o_rows, padded_d, keys, padded_d, QUERIES);
            multiply(dk_rows + start * padded_d, padded_d, dst, QUERIES, 1, q_rows, padded_d, keys, padded_d, QUERIES);
        }
        for (int64_t i = 0; i < count; i++)
            for (int64_t e = 0; e < d; e++) dq[(first + i) * d + e] = dqt[e * QUERIES + i] * scale;
    }
    for (int64_t j = 0; j < m; j++) {
        std::copy_n(dk_rows + j * padded_d, d, dk + j * d);
        std::copy_n(dv_rows + j * padded_d, d, dv + j * d);
    }
}

}  // namespace
"""

FORWARD = r"""
    int64_t heads = in0_shape0, n = in0_shape1, d = in0_shape2, m = in1_shape1;
    int64_t blocks = (n + QUERIES - 1) / QUERIES;
    float scale = 1 / std::sqrt((double)d);
    #pragma omp parallel
    {
        std::vector<float> scratch;
        #pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < heads * blocks; task++) {
            int64_t head = task / blocks, first = task % blocks * QUERIES, row = head * n + first;
            forward_block(in0_p + row * d, in1_p + head * m * d, in2_p + head * m * d, out0_p + row * d, out1_p + row,
                          std::min(QUERIES, n - first), m, d, scale, scratch);
        }
    }
"""

BACKWARD = r"""
    int64_t heads = in0_shape0, n = in0_shape1, d = in0_shape2, m = in1_shape1;
    float scale = 1 / std::sqrt((double)d);
    #pragma omp parallel for schedule(dynamic)
    for (int64_t head = 0; head < heads; head++) {
        int64_t query = head * n * d, key = head * m * d;
        backward_head(in0_p + query, in1_p + key, in2_p + key, in3_p + query, in4_p + head * n, in5_p + query,
                      out0_p + query, out1_p + key, out2_p + key, n, m, d, scale);
    }
"""


CUDA_FORWARD = r"""
    int64_t heads = in0_shape0;
    int n = in0_shape1, m = in1_shape1;
    float scale = 1 / (std::sqrt((double)D) * std::log(2.));
    typedef Shape<T, D, WARPS, COLUMNS> S;
    launch(attention_forward<T, D, WARPS, COLUMNS>, heads * ((n + S::ROWS - 1) / S::ROWS), S::THREADS, 4 * S::FORWARD,
           (const T*)in0_p, (const T*)in1_p, (const T*)in2_p, (T*)out0_p, (float*)out1_p, n, m, scale);
"""

CUDA_BACKWARD = r"""
    int64_t heads = in0_shape0;
    int n = in0_shape1, m = in1_shape1;
    float gradient_scale = 1 / std::sqrt((double)D), scale = gradient_scale / std::log(2.);
    typedef Shape<T, D, WARPS, COLUMNS> S;
    launch(attention_backward_q<T, D, WARPS, COLUMNS>, heads * ((n + S::ROWS - 1) / S::ROWS), S::THREADS, 4 * S::BACKWARD_Q,
           (const T*)in0_p, (const T*)in1_p, (const T*)in2_p, (const T*)in3_p, (const float*)in4_p, (const T*)in5_p, (T*)out0_p,
           (float*)out3_p, n, m, scale, gradient_scale);
    launch(attention_backward_kv<T, D, WARPS, COLUMNS>, heads * ((m + S::ROWS - 1) / S::ROWS), S::THREADS, 4 * S::BACKWARD_KV,
           (const T*)in0_p, (const T*)in1_p, (const T*)in2_p, (const float*)in4_p, (const T*)in5_p, (const float*)out3_p, (T*)out1_p,
           (T*)out2_p, n, m, scale, gradient_scale);
"""

LARGEST_CUDA_HEAD = 160  # of what a block's registers and 99 KiB of shared memory hold


def kernels(dtype: str, head_size: int) -> str:
    """attention.cuh for one type and head size: the more words a row takes, the fewer rows a block has."""
    halves, small = dtype != "float32", head_size <= 80
    warps = 4 if halves or small else 2
    columns = (64 if head_size <= 64 else 32) if halves else (32 if small else 16)
    return cuda_header("attention.cuh", dtype, D=head_size, WARPS=warps, COLUMNS=columns)


class FusedAttention(jt.Function):
    """The kernels, on q [heads, N, D], k and v [heads, M, D]; on the CPU all float32. First derivatives only, and once."""

    def execute(self, q, k, v):
        cuda = kernels(str(q.dtype), q.shape[-1]), CUDA_FORWARD
        o, logsumexp = code([q.shape, q.shape[:2]], [q.dtype, "float32"], [q, k, v], (CPU_HEADER, FORWARD), cuda)
        self._saved = q, k, v, o, logsumexp
        return o

    def grad(self, d_o):
        (q, k, v, o, logsumexp), self._saved = self._saved, None  # this object may live longer than they need to
        shapes, dtypes = [q.shape, k.shape, v.shape, q.shape[:2]], [q.dtype] * 3 + ["float32"]  # the last is the CUDA kernels' own
        cuda = kernels(str(q.dtype), q.shape[-1]), CUDA_BACKWARD
        return code(shapes, dtypes, [q, k, v, o, logsumexp, d_o.cast(q.dtype)], (CPU_HEADER, BACKWARD), cuda)[:3]


def attention_reference(q: jt.Var, k: jt.Var, v: jt.Var) -> jt.Var:
    """Attention of q [heads, N, D] to k and v [heads, M, D], all float32, in plain Jittor."""
    scores = jt.matmul(q, swap_last_axes(k)) / math.sqrt(q.shape[-1])  # [heads, N, M]
    weights = jt.exp(scores - scores.max(dim=-1, keepdims=True).stop_grad())  # any constant would do: it cancels
    return jt.matmul(weights / weights.sum(dim=-1, keepdims=True), v)


def scaled_dot_product_attention(q: jt.Var, k: jt.Var, v: jt.Var) -> jt.Var:
    """softmax(q kᵀ / √D) v (Vaswani et al. 2017, equation 1): q [B, heads, N, D], k and v [B, heads, M, D] → [B, heads, N, D].

    Sums and softmax are computed in float32, the result is returned in q's dtype. Raises ValueError if the shapes do not go together.

    Where it is fused the gradient cannot itself be differentiated; `attention_reference` can.
    """
    if k.shape != v.shape or q.shape[:2] != k.shape[:2] or q.shape[-1] != k.shape[-1]:
        raise ValueError(f"attention: q {q.shape}, k {k.shape} and v {v.shape} do not go together")
    by_tensor_cores = has_tensor_cores() and q.shape[-1] <= LARGEST_CUDA_HEAD
    rows = [t.cast(q.dtype if by_tensor_cores else "float32").reshape(-1, *t.shape[2:]) for t in (q, k, v)]
    compute = FusedAttention.apply if by_tensor_cores or not on_cuda() else attention_reference
    return compute(*rows).reshape(q.shape).cast(q.dtype)
