// Bias, ReLU, and the order in which maps lie. Paper section 3.1.
//
// The matrix product of filters and columns leaves the outputs of a batch as rows, one for each
// filter: (K, N, M) with M = OH OW pixels. A feature map is (N, K, M). Somebody must add the bias,
// and would read and write every element for that; it may as well change the order on the way, and
// cut off what is below zero, at no cost. Kernels that only pass over memory are worth joining:
// each pass costs what the memory costs, and the arithmetic between is free.


// y[n, k, m] = max(rows[n stride_n + k stride_k + m] + b[k], 0); without `relu` no maximum is
// taken, and without b (a null pointer) nothing is added. A fully-connected layer, whose rows lie
// as y does, has M = 1, stride_n = K, stride_k = 1, and may give y itself as rows.

extern "C" __global__
void bias_relu(const REAL* rows, const REAL* b, REAL* y, int K, int M, int stride_n, int stride_k,
               int relu, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n)
        return;
    int m = i % M, k = i / M % K, picture = i / (M * K);
    REAL value = rows[(long long)picture * stride_n + (long long)k * stride_k + m];
    if (b)
        value += b[k];
    y[i] = relu && value < 0 ? REAL(0) : value;      // NaN is not below 0: it stays, and is seen
}


// The way back: maps gy (N, K, M) as rows (K, N, M).

extern "C" __global__
void to_rows(const REAL* gy, REAL* rows, int N, int K, int M, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n)
        return;
    int m = i % M, picture = i / M % N, k = i / (M * N);
    rows[i] = gy[((long long)picture * K + k) * M + m];
}


// A ReLU by itself; y may be x.

extern "C" __global__
void relu(const REAL* x, REAL* y, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        y[i] = x[i] < 0 ? REAL(0) : x[i];
}


// The gradient of a ReLU: gx = gy [y > 0], for its outputs y.

extern "C" __global__
void relu_backward(const REAL* gy, const REAL* y, REAL* gx, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        gx[i] = gy[i] * REAL(y[i] > 0);
}
