// Depthwise convolution of channels-last pictures, after device.cuh: x [batch, height, width, channels], taps [size · size, channels], in
// float. Row i of the result meets rows i · stride - before + r of x, r < size; columns likewise.

namespace {

// A thread has one number of the result [batch, rows, columns, channels], a sum over the source [batch, height, width, channels]: of y from
// x, or as `gradient` of dx from dy, where tap r takes row i to (i + before - r) / stride if that is a whole number.
template <bool gradient>
__global__ void depthwise_conv(const float* source, const float* taps, const float* bias, float* result, int64_t count, int height,
                               int width, int rows, int columns, int channels, int size, int stride, int before) {
    int64_t index = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= count) return;
    int c = index % channels, j = index / channels % columns, i = index / channels / columns % rows;
    source += index / channels / columns / rows * height * width * channels + c;
    float sum = bias ? bias[c] : 0;
    for (int r = gradient ? (i + before) % stride : 0; r < size; r += gradient ? stride : 1)
        for (int s = gradient ? (j + before) % stride : 0; s < size; s += gradient ? stride : 1) {
            int row = gradient ? (i + before - r) / stride : i * stride - before + r;
            int column = gradient ? (j + before - s) / stride : j * stride - before + s;
            // both divisions are without remainder
            if (row >= 0 && row < height && column >= 0 && column < width)
                sum += source[((int64_t)row * width + column) * channels] * taps[(r * size + s) * channels + c];
        }
    result[index] = sum;
}

// dtaps and dbias as sums [slices, size · size + 1, channels], each of a slice of the places of dy [batch, rows, columns, channels]. A
// block has 32 channels, one a lane, of one slice.
template <int size>
__global__ void depthwise_conv_sums(const float* x, const float* dy, float* sums, int64_t places, int height, int width, int rows,
                                    int columns, int channels, int stride, int before, int slices) {
    const int taps = size * size;
    float* partial = (float*)shared_memory();  // [taps + 1, warps, 32]
    int blocks = (channels + 31) / 32, c = blockIdx.x % blocks * 32 + threadIdx.x % 32, slice = blockIdx.x / blocks;
    int warps = blockDim.x / 32, warp = threadIdx.x / 32;
    float own[taps + 1] = {0};
    if (c < channels)
        for (int64_t place = places * slice / slices + warp; place < places * (slice + 1) / slices; place += warps) {
            int j = place % columns, i = place / columns % rows;
            const float* picture = x + place / columns / rows * height * width * channels + c;
            float d = dy[place * channels + c];
            own[taps] += d;
            for (int k = 0; k < taps; k++) {
                int row = i * stride - before + k / size, column = j * stride - before + k % size;
                if (row >= 0 && row < height && column >= 0 && column < width)
                    own[k] += d * picture[((int64_t)row * width + column) * channels];
            }
        }
    for (int k = 0; k <= taps; k++) partial[k * blockDim.x + threadIdx.x] = own[k];
    __syncthreads();
    for (int k = warp; k <= taps && c < channels; k += warps) {
        float sum = 0;
        for (int other = 0; other < warps; other++) sum += partial[k * blockDim.x + 32 * other + threadIdx.x % 32];
        sums[((int64_t)slice * (taps + 1) + k) * channels + c] = sum;
    }
}

// Σ over slices of `count` sums a channel: the last is dbias, those before it are dtaps.
__global__ void sum_slices(const float* sums, float* dtaps, float* dbias, int slices, int channels, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count * channels) return;
    float sum = 0;
    for (int slice = 0; slice < slices; slice++) sum += sums[slice * count * channels + i];
    (i < (count - 1) * channels ? dtaps[i] : dbias[i - (count - 1) * channels]) = sum;
}

}  // namespace
