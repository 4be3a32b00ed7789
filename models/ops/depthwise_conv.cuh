// Depthwise 3x3 convolution of channels-last pictures, after device.cuh: x [batch, height, width, channels], taps [9, channels], in float.

namespace {

// y = Σ x[i + r - 1, j + s - 1, :] · taps[r, s, :] + bias: a thread has one number of y. With the taps `turned` round, and no bias, this
// is also what takes dy to dx.
__global__ void depthwise_conv(const float* x, const float* taps, const float* bias, float* y, int64_t count, int height, int width,
                               int channels, bool turned) {
    int64_t index = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= count) return;
    int c = index % channels, j = index / channels % width, i = index / channels / width % height;
    float sum = bias ? bias[c] : 0;
    for (int k = 0; k < 9; k++) {
        int row = k / 3 - 1, column = k % 3 - 1;
        if (i + row >= 0 && i + row < height && j + column >= 0 && j + column < width)
            sum += x[index + (row * width + column) * (int64_t)channels] * taps[(turned ? 8 - k : k) * channels + c];
    }
    y[index] = sum;
}

// dtaps and dbias as sums [slices, 10, channels], each of a slice of the places. A block has 32 channels, one a lane, of one slice.
__global__ void depthwise_conv_sums(const float* x, const float* dy, float* sums, int64_t places, int height, int width, int channels,
                                    int slices) {
    float* partial = (float*)shared_memory();  // [10, warps, 32]
    int blocks = (channels + 31) / 32, c = blockIdx.x % blocks * 32 + threadIdx.x % 32, slice = blockIdx.x / blocks;
    int warps = blockDim.x / 32, warp = threadIdx.x / 32;
    float own[10] = {0};
    if (c < channels)
        for (int64_t place = places * slice / slices + warp; place < places * (slice + 1) / slices; place += warps) {
            int j = place % width, i = place / width % height;
            float d = dy[place * channels + c];
            own[9] += d;
            for (int k = 0; k < 9; k++) {
                int row = k / 3 - 1, column = k % 3 - 1;
                if (i + row >= 0 && i + row < height && j + column >= 0 && j + column < width)
                    own[k] += d * x[(place + row * width + column) * channels + c];
            }
        }
    for (int k = 0; k < 10; k++) partial[k * blockDim.x + threadIdx.x] = own[k];
    __syncthreads();
    for (int k = warp; k < 10 && c < channels; k += warps) {
        float sum = 0;
        for (int other = 0; other < warps; other++) sum += partial[k * blockDim.x + 32 * other + threadIdx.x % 32];
        sums[((int64_t)slice * 10 + k) * channels + c] = sum;
    }
}

__global__ void sum_slices(const float* sums, float* dtaps, float* dbias, int slices, int channels) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= 10 * channels) return;
    float sum = 0;
    for (int64_t slice = 0; slice < slices; slice++) sum += sums[slice * 10 * channels + i];
    (i < 9 * channels ? dtaps[i] : dbias[i - 9 * channels]) = sum;
}

}  // namespace
