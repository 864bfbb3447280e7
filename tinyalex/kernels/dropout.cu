// Dropout's masks, from a counter instead of a generator's state. Paper section 4.2.
//
// A generator with a state hands out numbers one after the other: a thousand threads would queue.
// Philox is a function instead, from a key and a counter to 256 random bits: any thread computes
// any of them by itself. Here the key is (seed, place) and the counter (position, 0, use, step),
// exactly as in tinyalex/random.py, so a GPU draws the same masks as NumPy, bit for bit.
//
// Philox4x64-10: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011.

typedef unsigned long long word;                     // 64 bits

// Ten rounds. A product of two 64-bit numbers has 128 bits; its halves are mixed with the others.

__device__ void philox(word counter[4], word key0, word key1)
{
    for (int round = 0; round < 10; round++) {
        word low0 = 0xD2E7470EE14C6C93ULL * counter[0];
        word high0 = __umul64hi(0xD2E7470EE14C6C93ULL, counter[0]);
        word low1 = 0xCA5A826395121157ULL * counter[2];
        word high1 = __umul64hi(0xCA5A826395121157ULL, counter[2]);
        counter[0] = high1 ^ counter[1] ^ key0;
        counter[1] = low1;
        counter[2] = high0 ^ counter[3] ^ key1;
        counter[3] = low0;
        key0 += 0x9E3779B97F4A7C15ULL;
        key1 += 0xBB67AE8584CAA73BULL;
    }
}


// mask[row, unit] for `own` units of each row, which are `start` and the following ones of the
// joined layer's `units`; row 0 is row `first_row` of the global batch. Element (row, unit) owns
// 32 bits: it is 1 where they are not below `threshold`. Eight neighbors share a block of 256
// bits, and each thread computes it anew: cheaper than to pass it on.

extern "C" __global__
void draw_mask(unsigned char* mask, word seed, word place, word use, word step, word threshold,
               word first_row, word units, word start, int own, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n)
        return;
    word index = (first_row + i / own) * units + start + i % own;
    word block[4] = {index / 8 + 1, 0, use, step};
    philox(block, seed, place);
    word bits = block[index / 2 % 4] >> (index % 2 * 32) & 0xFFFFFFFFULL;
    mask[i] = bits >= threshold;
}
