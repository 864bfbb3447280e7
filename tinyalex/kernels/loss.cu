// Softmax and cross-entropy. Paper section 3.5.
//
// A row of logits has a maximum and a sum, and each needs all of the row: threads must work
// together. The 256 threads of a block share a small fast memory. Each first reduces its own part
// of the row; then half of them add what the other half has, then a quarter, and so on: eight
// steps. Before each step all wait for all (__syncthreads), else one would read what another has
// not yet written. The order of the additions is fixed, so the sum has the same bits every time.

#define THREADS 256

__device__ REAL larger(REAL a, REAL b) { return a > b || a != a ? a : b; }       // NaN wins

__device__ REAL all_max(REAL value, REAL* shared)
{
    int t = threadIdx.x;
    shared[t] = value;
    for (int half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (t < half)
            shared[t] = larger(shared[t], shared[t + half]);
    }
    __syncthreads();
    REAL result = shared[0];
    __syncthreads();                                 // before anyone writes there again
    return result;
}

__device__ REAL all_sum(REAL value, REAL* shared)
{
    int t = threadIdx.x;
    shared[t] = value;
    for (int half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (t < half)
            shared[t] += shared[t + half];
    }
    __syncthreads();
    REAL result = shared[0];
    __syncthreads();
    return result;
}


// One block for each row of x (n, C): logp = x - max - ln sum e^(x - max), where no exponent is
// above zero, and the row's loss, -logp at its label.

extern "C" __global__
void forward(const REAL* x, const long long* labels, REAL* logp, REAL* loss, int C, int n)
{
    __shared__ REAL shared[THREADS];
    int row = blockIdx.x, t = threadIdx.x;
    x += (long long)row * C;
    logp += (long long)row * C;

    REAL largest = x[0];
    for (int c = t; c < C; c += THREADS)
        largest = larger(x[c], largest);
    largest = all_max(largest, shared);
    REAL sum = 0;
    for (int c = t; c < C; c += THREADS)
        sum += exp(x[c] - largest);
    REAL log_sum = log(all_sum(sum, shared));
    for (int c = t; c < C; c += THREADS) {
        logp[c] = x[c] - largest - log_sum;
        if (c == labels[row])
            loss[row] = -logp[c];
    }
}


// dL/dx = (p - [c is the label]) gy / N: what was said minus what is true. gy is one number and
// stays on the card: to read it here would make the host wait.

extern "C" __global__
void backward(const REAL* logp, const long long* labels, const REAL* gy, REAL* gx, int N, int C,
              int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n)
        return;
    REAL truth = i % C == labels[i / C];
    gx[i] = (exp(logp[i]) - truth) * (gy[0] / N);
}
