// From the bytes of pictures to what the net sees: window, mirror, mean, color noise. Section 4.1.
//
// A picture crosses to the card as bytes, a quarter of what floats would take. The pictures of a
// batch lie one after the other, each (height, width, 3), of any sizes. The table tells of each
// window:
//
//     offset, height, width   where its picture begins, and its size
//     y, x, mirrored          the window's corner in the picture, perhaps outside, and whether it
//                             is turned around
//     mean                    what is subtracted: 0 the mean color; 1 the middle of the mean picture
//                             by the place in the window; 2 the mean picture by that in it
//
// Outside of the picture the result is 0 instead of pixel - mean, as if padded with the mean;
// noise, a color for each window, is added everywhere. One thread for each element of images (N,
// 3, S, S).
//
// There are no products to be rounded together with sums here, so NumPy gets the same bits.

extern "C" __global__
void crop(const unsigned char* bytes, const long long* table, const float* mean,
          const float* central, const float* color, const float* noise, float* images,
          int S, int mean_width, float divisor, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n)
        return;
    int column = i % S, row = i / S % S, channel = i / (S * S) % 3, window = i / (3 * S * S);
    const long long* entry = table + 7 * window;
    long long offset = entry[0], height = entry[1], width = entry[2], kind = entry[6];
    long long h = entry[3] + row, w = entry[4] + (entry[5] ? S - 1 - column : column);

    float value = 0;
    if (h >= 0 && h < height && w >= 0 && w < width) {
        float average = kind == 0 ? color[channel]
                      : kind == 1 ? central[(row * S + column) * 3 + channel]
                                  : mean[(h * mean_width + w) * 3 + channel];
        value = bytes[offset + (h * width + w) * 3 + channel] - average;
    }
    if (noise)
        value += noise[3 * window + channel];
    images[i] = value / divisor;
}
