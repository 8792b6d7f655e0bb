// Rows of the embedding: out[t] = table[tokens[t]], widened.
//
//   tokens [rows], table [vocabulary, width] in any format, out [rows, width] f32
//
// A block for each row. Bound by the latency of a few hundred reads, on every architecture.
#include "formats.cuh"

struct EmbedArguments {
    const u32* tokens;
    const u8* table;
    float* out;
    u32 width;
};

template <class Format>
DEVICE void embed(const EmbedArguments& arguments) {
    const u8* row = arguments.table + arguments.tokens[blockIdx.x] * Format::row_bytes(arguments.width);
    float* out = arguments.out + static_cast<u64>(blockIdx.x) * arguments.width;
    for (u32 column = threadIdx.x; column < arguments.width; column += blockDim.x) out[column] = Format::at(row, column);
}

#define DEFINE(name, Format) \
    KERNEL(embed_##name, 256, EmbedArguments) { embed<Format>(arguments); }
FOR_EACH_FORMAT(DEFINE)
