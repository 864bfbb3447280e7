// The update of one parameter in one launch. Paper section 5.
//
// A kernel is a function that a graphics card runs many times at once. Each run is a thread;
// threads come in blocks, here of 256, and every thread finds out which one it is from three
// numbers:
//
//     i = number of its block * threads of a block + its number in the block
//
// Thread i looks after element i. The last block hangs over the end, so each thread asks first
// whether there is such an element. Neighboring threads read neighboring addresses: the card then
// fetches them in one go ("coalesced"), and that is most of what makes a kernel fast.
//
// REAL is float or double, fixed when the file is compiled.
//
// Written with array operations the rule takes five launches, and each reads and writes memory from
// end to end. Here w, g and v are read once, and v and w written once: nothing moves twice.

extern "C" __global__
void update(REAL* w, const REAL* g, REAL* v, REAL momentum, REAL lr, REAL decay, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n)
        return;
    // v <- momentum v - lr dL/dw - (weight decay) lr w;  w <- w + v.  `decay` is already times lr.
    REAL velocity = momentum * v[i] - lr * g[i] - decay * w[i];
    v[i] = velocity;
    w[i] += velocity;
}
