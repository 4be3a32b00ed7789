// Upsampling by a kernel of its own at each place, after device.cuh: x [batch, channels, rows / 2, columns / 2], kernels
// [batch, size · size, rows, columns], y [batch, channels, rows, columns], all float. Place (i, j) of y meets place
// (i + r - size / 2, j + s - size / 2) of the doubled x by tap (r, s). A thread has one number of the result.

namespace {

__global__ void reassemble(const float* x, const float* kernels, float* y, int64_t count, int channels, int rows, int columns, int size) {
    int64_t index = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= count) return;
    int j = index % columns, i = index / columns % rows, reach = size / 2;
    int64_t map = index / columns / rows, area = (int64_t)rows * columns;
    x += map * area / 4;
    kernels += (map / channels * size * size * rows + i) * columns + j;
    float sum = 0;
    for (int r = 0; r < size; r++)
        for (int s = 0; s < size; s++) {
            int row = i + r - reach, column = j + s - reach;
            if (row >= 0 && row < rows && column >= 0 && column < columns)
                sum += kernels[(r * size + s) * area] * x[(int64_t)(row / 2) * (columns / 2) + column / 2];
        }
    y[index] = sum;
}

__global__ void reassemble_to_features(const float* dy, const float* kernels, float* dx, int64_t count, int channels, int rows,
                                       int columns, int size) {
    int64_t index = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= count) return;
    int q = index % (columns / 2), p = index / (columns / 2) % (rows / 2), reach = size / 2;
    int64_t map = index / (columns / 2) / (rows / 2), area = (int64_t)rows * columns;
    dy += map * area;
    kernels += map / channels * size * size * area;
    float sum = 0;
    for (int row = 2 * p; row < 2 * p + 2; row++)
        for (int column = 2 * q; column < 2 * q + 2; column++)
            for (int r = 0; r < size; r++)
                for (int s = 0; s < size; s++) {
                    int i = row - r + reach, j = column - s + reach;
                    if (i >= 0 && i < rows && j >= 0 && j < columns) {
                        int64_t place = (int64_t)i * columns + j;
                        sum += kernels[(r * size + s) * area + place] * dy[place];
                    }
                }
    dx[index] = sum;
}

__global__ void reassemble_to_kernels(const float* x, const float* dy, float* dkernels, int64_t count, int channels, int rows,
                                      int columns, int size) {
    int64_t index = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= count) return;
    int j = index % columns, i = index / columns % rows;
    int64_t area = (int64_t)rows * columns, tap = index / area % (size * size), b = index / area / (size * size);
    int row = i + tap / size - size / 2, column = j + tap % size - size / 2;
    float sum = 0;
    if (row >= 0 && row < rows && column >= 0 && column < columns) {
        x += b * channels * area / 4 + (int64_t)(row / 2) * (columns / 2) + column / 2;
        dy += b * channels * area + (int64_t)i * columns + j;
        for (int c = 0; c < channels; c++) sum += dy[c * area] * x[c * area / 4];
    }
    dkernels[index] = sum;
}

}  // namespace
