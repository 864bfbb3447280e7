// Max-pooling with overlapping windows: 3x3 pixels, 2 apart. Paper section 3.4.
//
// Backward needs to know which pixel of a window won. It is kept as the number of its tap, row by
// row, in one byte: a window has at most 256 pixels here.


// One thread for each window (map, o, p): it looks for the largest pixel; of equals the first wins,
// and NaN wins over all. Padding is never looked at. Without `winner` (a null pointer: no backward
// will ask) only the maximum is written.

extern "C" __global__
void max_pool_forward(const REAL* x, REAL* y, unsigned char* winner, int H, int W, int KH, int KW,
                      int OH, int OW, int SH, int SW, int PT, int PL, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n)
        return;
    int p = i % OW, o = i / OW % OH, map = i / (OH * OW);
    int top = o * SH - PT, left = p * SW - PL;
    const REAL* pixels = x + (long long)map * H * W;

    REAL best = 0;
    int first = -1;
    for (int a = max(0, -top); a < KH && top + a < H; a++)
        for (int b = max(0, -left); b < KW && left + b < W; b++) {
            REAL value = pixels[(top + a) * W + left + b];
            if (first < 0 || value > best || (value != value && best == best)) {
                best = value;
                first = a * KW + b;
            }
        }
    y[i] = best;
    if (winner)
        winner[i] = first;
}


// dL/dx: windows overlap, so a pixel may win several times and receives a sum. One thread for each
// pixel asks the windows that hold it whether it won there ("gather", as in im2col.cu): no two
// threads write to one address, and the order of the sum is that of the taps.

extern "C" __global__
void max_pool_backward(const REAL* gy, const unsigned char* winner, REAL* gx, int H, int W,
                       int KH, int KW, int OH, int OW, int SH, int SW, int PT, int PL, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n)
        return;
    int w = i % W, h = i / W % H, map = i / (H * W);
    long long windows = (long long)map * OH * OW;

    REAL sum = 0;
    for (int a = (h + PT) % SH, o = (h + PT) / SH; a < KH && o >= 0; a += SH, o--) {
        if (o >= OH)
            continue;
        for (int b = (w + PL) % SW, p = (w + PL) / SW; b < KW && p >= 0; b += SW, p--)
            if (p < OW && winner[windows + o * OW + p] == a * KW + b)
                sum += gy[windows + o * OW + p];
    }
    gx[i] = sum;
}
