// Convolution as a matrix product needs each window of the picture as a column. Paper section 3.5.
//
// The columns of a batch stand side by side, one for each window (n, o, p):
//
//     cols[(c, a, b), (n, o, p)] = x[n, c, o SH - PT + a, p SW - PL + b]     0 outside the picture
//
// so that one product with the filters (K, C KH KW) does a whole batch. Shapes: x (N, C, H, W);
// channels `first` to first + (n / windows) - 1 are taken, those of one group of filters.


// One thread for `some` rows of a channel's window: it writes the pixels that these rows see, about
// nine of them, whatever the filter. One for each pixel would spend its time finding out where it
// is, for divisions are slow; one for all 121 pixels of an 11x11 window would leave the card idle,
// for there would not be enough of them. Each pixel goes to another row of the matrix, but the
// neighboring thread, whose window is one step to the right, writes the neighboring address of the
// same row: the writes are coalesced. The reads overlap, as windows do, and come from the cache.

extern "C" __global__
void im2col(const REAL* x, REAL* cols, int first, int N, int C, int H, int W, int KH, int KW,
            int OH, int OW, int SH, int SW, int PT, int PL, int some, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n)
        return;
    int windows = N * OH * OW;                       // of all pictures: the columns of the matrix
    int parts = (KH + some - 1) / some;              // of a window
    int column = i % windows, start = i / windows % parts * some, c = i / windows / parts;
    int picture = column / (OH * OW), o = column / OW % OH, p = column % OW;
    int top = o * SH - PT, left = p * SW - PL;       // the window's corner, perhaps outside

    const REAL* map = x + (long long)(picture * C + first + c) * H * W;
    REAL* out = cols + (long long)(c * KH + start) * KW * windows + column;
    for (int a = start; a < min(start + some, KH); a++) {
        int h = top + a;
        bool row = h >= 0 && h < H;
        for (int b = 0; b < KW; b++) {
            int w = left + b;
            *out = row && w >= 0 && w < W ? map[h * W + w] : REAL(0);
            out += windows;                          // the next row
        }
    }
}


// The adjoint: what the columns hold is added back to the pixels it came from. A pixel lies in up
// to KH KW windows. If each column's thread added to the pixels ("scatter"), several threads would
// add to one address at once; atomics would keep the sum right but not its order, nor its last
// bits. So the question is turned around ("gather"): one thread for each pixel asks which windows
// hold it, and adds in the order of their taps, every time the same.
//
// Tap (a, b) of window (o, p) meets pixel (h, w) where  o SH = h + PT - a  and  p SW = w + PL - b.
// Of the taps only every SH-th can meet a row at all, and each meets it in the window before.

extern "C" __global__
void col2im(const REAL* cols, REAL* x, int first, int N, int C, int H, int W, int KH, int KW,
            int OH, int OW, int SH, int SW, int PT, int PL, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n)
        return;
    int w = i % W, h = i / W % H, picture = i / (H * W) % N, c = i / (H * W * N);
    long long windows = N * OH * OW;

    REAL sum = 0;
    for (int a = (h + PT) % SH, o = (h + PT) / SH; a < KH && o >= 0; a += SH, o--) {
        if (o >= OH)
            continue;
        for (int b = (w + PL) % SW, p = (w + PL) / SW; b < KW && p >= 0; b += SW, p--)
            if (p < OW)
                sum += cols[((c * KH + a) * KW + b) * windows + (picture * OH + o) * OW + p];
    }
    x[((long long)(picture * C + first + c) * H + h) * W + w] = sum;
}
