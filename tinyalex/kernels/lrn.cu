// Response normalization across channels. Paper section 3.3.
//
//     y_c = x_c d_c^-beta,   d_c = k + alpha * sum of x_j^2 over the SIZE channels around c
//
// Written with array operations this is a dozen passes over the maps. Here it is one: a thread
// walks along the channels of one pixel, as one walks along a street, and keeps the squares of the
// SIZE houses around it in hand. At each step it drops the square behind, takes up the one ahead,
// and has all it needs for the house where it stands. Every x is read once.
//
// What is kept in hand lies in registers, and registers have no addresses: an array stays in them
// only if each index is known when the program is compiled. That is why SIZE is a macro, and why
// the loops over it are unrolled.
//
// Pixels lie side by side in memory, channels H W apart, so neighboring threads take neighboring
// pixels. So that there are enough threads, channels are cut into strips: a thread walks STRIP of
// them and begins a little before its strip, to have its hands full when it arrives.

#ifndef SIZE
#define SIZE 5                    // channels in a window: c - SIZE / 2 and the SIZE - 1 after it
#endif
#define STRIP 32

__device__ REAL power(REAL d, REAL beta)
{
    // The paper's 0.75 by square roots, which take a fraction of the time.
    return beta == REAL(0.75) ? sqrt(d) * sqrt(sqrt(d)) : pow(d, beta);
}


// x, y (N, C, M) with M = H W pixels. d is kept for backward, unless it is a null pointer.
// A thread for each (picture, strip, pixel).

extern "C" __global__
void forward(const REAL* x, REAL* y, REAL* d, int C, int M, REAL alpha, REAL beta, REAL k, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n)
        return;
    int strips = (C + STRIP - 1) / STRIP;
    int pixel = i % M, start = i / M % strips * STRIP, picture = i / (M * strips);
    long long corner = (long long)picture * C * M + pixel;           // of channel 0
    const int ahead = SIZE - 1 - SIZE / 2;

    REAL square[SIZE];
    #pragma unroll
    for (int j = 0; j < SIZE; j++)
        square[j] = 0;
    for (int c = start - SIZE + 1; c < min(start + STRIP, C); c++) {
        #pragma unroll
        for (int j = 0; j + 1 < SIZE; j++)
            square[j] = square[j + 1];
        int next = c + ahead;                        // the channel that comes into the window
        REAL value = next >= 0 && next < C ? x[corner + (long long)next * M] : REAL(0);
        square[SIZE - 1] = value * value;
        if (c < start)
            continue;                                // on the way to the strip
        REAL sum = 0;
        #pragma unroll
        for (int j = 0; j < SIZE; j++)
            sum += square[j];
        long long here = corner + (long long)c * M;
        REAL scale = alpha * sum + k;
        y[here] = x[here] / power(scale, beta);
        if (d)
            d[here] = scale;
    }
}


// With g_c = gy_c d_c^-beta:   gx_c = g_c - 2 alpha beta x_c * sum of g_j x_j / d_j
//
// The sum runs over those j whose window holds c: j - SIZE / 2 <= c <= j - SIZE / 2 + SIZE - 1,
// which is the window the other way round. In hand are g, x and the summand of each channel
// around.

extern "C" __global__
void backward(const REAL* x, const REAL* d, const REAL* gy, REAL* gx, int C, int M,
              REAL alpha, REAL beta, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n)
        return;
    int strips = (C + STRIP - 1) / STRIP;
    int pixel = i % M, start = i / M % strips * STRIP, picture = i / (M * strips);
    long long corner = (long long)picture * C * M + pixel;
    const int ahead = SIZE / 2, here = SIZE - 1 - ahead;             // where c stands in the arrays

    REAL g[SIZE], x_[SIZE], term[SIZE];
    #pragma unroll
    for (int j = 0; j < SIZE; j++)
        g[j] = x_[j] = term[j] = 0;
    for (int c = start - SIZE + 1; c < min(start + STRIP, C); c++) {
        #pragma unroll
        for (int j = 0; j + 1 < SIZE; j++) {
            g[j] = g[j + 1];
            x_[j] = x_[j + 1];
            term[j] = term[j + 1];
        }
        int next = c + ahead;
        g[SIZE - 1] = x_[SIZE - 1] = term[SIZE - 1] = 0;
        if (next >= 0 && next < C) {
            long long there = corner + (long long)next * M;
            g[SIZE - 1] = gy[there] / power(d[there], beta);
            x_[SIZE - 1] = x[there];
            term[SIZE - 1] = g[SIZE - 1] * x_[SIZE - 1] / d[there];
        }
        if (c < start)
            continue;
        REAL sum = 0;
        #pragma unroll
        for (int j = 0; j < SIZE; j++)
            sum += term[j];
        gx[corner + (long long)c * M] = g[here] - 2 * alpha * beta * x_[here] * sum;
    }
}
