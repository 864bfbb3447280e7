// Sums into places that an index names, some of them several times: y = x[index], and its gradient.
//
// The obvious kernel adds gy[j] to gx[index[j]] with an atomic addition: right, but in whatever
// order the threads arrive, so that the last bits change from run to run. Instead the positions
// are sorted first, by a stable sort; those that belong to one place then stand together, in their
// old order, and one thread for each place adds them up.
//
// order (count) lists the elements of gy by the place they belong to; those of place i are
// order[begin[i]] to order[begin[i + 1] - 1].

extern "C" __global__
void add(const REAL* gy, const long long* order, const long long* begin, REAL* gx, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n)
        return;
    REAL sum = 0;
    for (long long k = begin[i]; k < begin[i + 1]; k++)
        sum += gy[order[k]];
    gx[i] = sum;
}
