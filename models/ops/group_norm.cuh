// Group norm with or without SiLU, after device.cuh: x [batch, channels, positions] of type T, everything in float.
//
// A block has one row: the channels of one group of one sample. Sums are taken in an order that the shape alone decides: the same inputs
// give the same bits.

namespace {

const int PIECE = 1024;  // positions of a channel that a warp takes at a time

// x summed over the lanes of the warp, for all of them.
__device__ inline float warp_sum(float x) {
    for (int lane_bits = 16; lane_bits; lane_bits /= 2) x += across_lanes(x, lane_bits);
    return x;
}

// x summed over the threads of the block, for all of them. `scratch` is 32 floats of shared memory.
__device__ inline float block_sum(float x, float* scratch) {
    x = warp_sum(x);
    __syncthreads();  // whoever still reads what was there
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = x;
    __syncthreads();
    float total = 0;
    for (int warp = 0; warp < blockDim.x / 32; warp++) total += scratch[warp];
    return total;
}

// SiLU's exponential, kept below the overflow of float.
__device__ inline float sigmoid(float x) { return 1 / (1 + expf(fminf(-x, 80.f))); }

// y, and of each row its mean, 1 / std, and what is left to take from normalised values because a float cannot hold a large mean exactly.
template <class T, bool SILU>
__global__ void group_norm_forward(const T* x, const float* weight, const float* bias, T* y, float* statistics, int groups, int width,
                                   int positions, float eps) {
    float* scratch = (float*)shared_memory();
    int64_t row = blockIdx.x;
    int n = width * positions, first_channel = row % groups * width;
    x += row * n, y += row * n;
    float sum = 0, error = 0, squares = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) sum += to_float(x[i]);
    float mean = block_sum(sum, scratch) / n;
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        float centred = to_float(x[i]) - mean;
        error += centred, squares += centred * centred;
    }
    error = block_sum(error, scratch) / n;
    float variance = fmaxf(block_sum(squares, scratch) / n - error * error, 0.f);
    float rstd = 1 / sqrtf(variance + eps), shift = error * rstd;
    if (threadIdx.x == 0) statistics[3 * row] = mean, statistics[3 * row + 1] = rstd, statistics[3 * row + 2] = shift;
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        int channel = first_channel + i / positions;
        float z = ((to_float(x[i]) - mean) * rstd - shift) * weight[channel] + bias[channel];
        store(y + i, SILU ? z * sigmoid(z) : z);
    }
}

// dz, the derivative by the output before SiLU.
template <bool SILU>
__device__ inline float before_silu(float dy, float normalized, float weight, float bias) {
    float z = normalized * weight + bias, s = sigmoid(z);
    return SILU ? dy * s * (1 + z * (1 - s)) : dy;
}

// dx, and of each sample [batch, channels, 2] Σ dz · normalised x and Σ dz over a channel's positions: its part of dweight and dbias.
template <class T, bool SILU>
__global__ void group_norm_backward(const T* x, const float* weight, const float* bias, const T* dy, const float* statistics, T* dx,
                                    float* sums, int groups, int width, int positions) {
    float *scratch = (float*)shared_memory(), *partial = scratch + 32;
    int64_t row = blockIdx.x;
    int n = width * positions, first_channel = row % groups * width, pieces = (positions + PIECE - 1) / PIECE;
    float mean = statistics[3 * row], rstd = statistics[3 * row + 1], shift = statistics[3 * row + 2];
    x += row * n, dy += row * n, dx += row * n, sums += 2 * row * width, weight += first_channel, bias += first_channel;
    for (int first = 0; first < width * pieces; first += blockDim.x / 32) {
        int task = first + threadIdx.x / 32, channel = task / pieces, start = task % pieces * PIECE;
        float dw = 0, db = 0;
        if (task < width * pieces)
            for (int i = start + threadIdx.x % 32; i < min(start + PIECE, positions); i += 32) {
                float normalized = (to_float(x[channel * positions + i]) - mean) * rstd - shift;
                float dz = before_silu<SILU>(to_float(dy[channel * positions + i]), normalized, weight[channel], bias[channel]);
                dw += dz * normalized, db += dz;
            }
        dw = warp_sum(dw), db = warp_sum(db);
        if (threadIdx.x % 32 == 0 && task < width * pieces) partial[2 * task] = dw, partial[2 * task + 1] = db;
    }
    __syncthreads();
    float mean_d = 0, mean_dx = 0;  // of weight · dz, and of weight · dz · normalised x
    for (int channel = threadIdx.x; channel < width; channel += blockDim.x) {
        float dw = 0, db = 0;
        for (int task = channel * pieces; task < (channel + 1) * pieces; task++) dw += partial[2 * task], db += partial[2 * task + 1];
        sums[2 * channel] = dw, sums[2 * channel + 1] = db;
        mean_d += weight[channel] * db, mean_dx += weight[channel] * dw;
    }
    mean_d = block_sum(mean_d, scratch) / n, mean_dx = block_sum(mean_dx, scratch) / n;
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        int channel = i / positions;
        float normalized = (to_float(x[i]) - mean) * rstd - shift;
        float dz = before_silu<SILU>(to_float(dy[i]), normalized, weight[channel], bias[channel]);
        store(dx + i, rstd * (weight[channel] * dz - mean_d - normalized * mean_dx));
    }
}

// dx where a channel has one position and there is one group, as in layer norm: threads go over channels.
template <class T, bool SILU>
__global__ void layer_norm_backward(const T* x, const float* weight, const float* bias, const T* dy, const float* statistics, T* dx,
                                    int channels) {
    float* scratch = (float*)shared_memory();
    int64_t row = blockIdx.x;
    float mean = statistics[3 * row], rstd = statistics[3 * row + 1], shift = statistics[3 * row + 2], mean_d = 0, mean_dx = 0;
    x += row * channels, dy += row * channels, dx += row * channels;
    for (int c = threadIdx.x; c < channels; c += blockDim.x) {
        float normalized = (to_float(x[c]) - mean) * rstd - shift;
        float d = weight[c] * before_silu<SILU>(to_float(dy[c]), normalized, weight[c], bias[c]);
        mean_d += d, mean_dx += d * normalized;
    }
    mean_d = block_sum(mean_d, scratch) / channels, mean_dx = block_sum(mean_dx, scratch) / channels;
    for (int c = threadIdx.x; c < channels; c += blockDim.x) {
        float normalized = (to_float(x[c]) - mean) * rstd - shift;
        float d = weight[c] * before_silu<SILU>(to_float(dy[c]), normalized, weight[c], bias[c]);
        store(dx + c, rstd * (d - mean_d - normalized * mean_dx));
    }
}

// Its sums [slices, channels, 2], each of a slice of the rows. A block has 32 channels, one a lane, of one slice.
template <class T, bool SILU>
__global__ void layer_norm_sums(const T* x, const float* weight, const float* bias, const T* dy, const float* statistics, float* sums,
                                int64_t rows, int channels, int slices) {
    float* partial = (float*)shared_memory();  // [warps, 32, 2]
    int blocks = (channels + 31) / 32, c = blockIdx.x % blocks * 32 + threadIdx.x % 32, slice = blockIdx.x / blocks;
    int warps = blockDim.x / 32, warp = threadIdx.x / 32;
    float dw = 0, db = 0;
    if (c < channels)
        for (int64_t row = rows * slice / slices + warp; row < rows * (slice + 1) / slices; row += warps) {
            const float* s = statistics + 3 * row;
            float normalized = (to_float(x[row * channels + c]) - s[0]) * s[1] - s[2];
            float dz = before_silu<SILU>(to_float(dy[row * channels + c]), normalized, weight[c], bias[c]);
            dw += dz * normalized, db += dz;
        }
    partial[2 * threadIdx.x] = dw, partial[2 * threadIdx.x + 1] = db;
    __syncthreads();
    if (warp == 0 && c < channels) {
        for (int other = 1; other < warps; other++)
            dw += partial[2 * (32 * other + threadIdx.x)], db += partial[2 * (32 * other + threadIdx.x) + 1];
        sums[2 * ((int64_t)slice * channels + c)] = dw, sums[2 * ((int64_t)slice * channels + c) + 1] = db;
    }
}

// dweight and dbias [channels] from sums [slices, channels, 2].
__global__ void sum_slices(const float* sums, float* dweight, float* dbias, int slices, int channels) {
    int c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= channels) return;
    float dw = 0, db = 0;
    for (int64_t slice = 0; slice < slices; slice++) dw += sums[2 * (slice * channels + c)], db += sums[2 * (slice * channels + c) + 1];
    dweight[c] = dw, dbias[c] = db;
}

}  // namespace
