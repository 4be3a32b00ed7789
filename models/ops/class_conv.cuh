// A convolution for each class of a mask, after device.cuh: x [batch, h, w, channels], mask [batch, h, w], y [batch, classes · outputs,
// h - size + 1, w - size + 1], with size x size taps. Place (i, j) of y meets place (i + r, j + s) of x by tap (r, s) of its class.

namespace {

// A thread has place (i, j) of all maps. weights [classes, size, channels, size · outputs].
template <int size, int outputs, int channels>
__global__ void class_conv(const float* x, const unsigned char* mask, const float* weights, float* y, int batch, int h, int w,
                           int classes) {
    int rows = h - size + 1, columns = w - size + 1, area = rows * columns;
    int64_t index = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= (int64_t)batch * area) return;
    int b = index / area, i = index % area / columns, j = index % columns;
    y += (int64_t)b * classes * outputs * area + index % area;
    for (int map = 0; map < classes * outputs; map++) y[(int64_t)map * area] = 0;
    for (int r = 0; r < size; r++)
        for (int s = 0; s < size; s++) {
            int64_t place = ((int64_t)b * h + i + r) * w + j + s;
            int label = mask[place];
            if (label >= classes) continue;
            const float* taps = weights + (int64_t)(label * size + r) * channels * size * outputs + s * outputs;
            float sums[outputs] = {0};
            for (int c = 0; c < channels; c++)
                for (int o = 0; o < outputs; o++) sums[o] += x[place * channels + c] * taps[c * size * outputs + o];
            for (int o = 0; o < outputs; o++) y[(int64_t)(label * outputs + o) * area] += sums[o];
        }
}

// A thread has one number of dx. weights [classes, size, size, outputs, channels].
template <int size, int outputs, int channels>
__global__ void class_conv_to_features(const float* dy, const unsigned char* mask, const float* weights, float* dx, int batch, int h,
                                       int w, int classes) {
    int rows = h - size + 1, columns = w - size + 1, area = rows * columns;
    int64_t index = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= (int64_t)batch * h * w * channels) return;
    int c = index % channels, q = index / channels % w, p = index / channels / w % h, b = index / channels / w / h;
    int label = mask[index / channels];
    float sum = 0;
    if (label < classes) {
        dy += (int64_t)(b * classes + label) * outputs * area;
        weights += (int64_t)label * size * size * outputs * channels + c;
        for (int r = 0; r < size; r++)
            for (int s = 0; s < size; s++) {
                int i = p - r, j = q - s;
                if (i < 0 || i >= rows || j < 0 || j >= columns) continue;
                for (int o = 0; o < outputs; o++)
                    sum += dy[(int64_t)o * area + i * columns + j] * weights[((r * size + s) * outputs + o) * channels];
            }
    }
    dx[index] = sum;
}

// A thread has one number of dweights [classes, size, size, outputs, channels], and looks for the places of its class: threads of a warp
// have neighbouring channels, so that they find the same.
template <int size, int outputs, int channels>
__global__ void class_conv_to_weights(const float* x, const unsigned char* mask, const float* dy, float* dweights, int batch, int h,
                                      int w, int classes) {
    int rows = h - size + 1, columns = w - size + 1, area = rows * columns;
    int index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= classes * size * size * outputs * channels) return;
    int c = index % channels, o = index / channels % outputs, s = index / channels / outputs % size;
    int r = index / channels / outputs / size % size, label = index / channels / outputs / size / size;
    float sum = 0;
    for (int b = 0; b < batch; b++) {
        const float* own = dy + (int64_t)((b * classes + label) * outputs + o) * area;
        for (int i = 0; i < rows; i++)
            for (int j = 0; j < columns; j++) {
                int64_t place = ((int64_t)b * h + i + r) * w + j + s;
                if (mask[place] == label) sum += own[i * columns + j] * x[place * channels + c];
            }
    }
    dweights[index] = sum;
}

}  // namespace
