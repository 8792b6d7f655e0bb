// What a warp computes together, lane by lane from the PTX manual's tables.
#include "shim.hpp"

namespace shim {

namespace {

struct Fragments {
    unsigned a[4], b[2];
};

float bf16_of(unsigned word, unsigned half) {
    const unsigned bits = (half ? word >> 16 : word & 0xffffu) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

Fragments of_lane(const unsigned char* slots, unsigned lane) {
    Fragments fragments;
    std::memcpy(&fragments, slots + SLOT_BYTES * lane, sizeof fragments);
    return fragments;
}

// a[row][k], from the lane and register that hold it.
float a_at(const unsigned char* slots, unsigned row, unsigned k) {
    const unsigned lane = row % 8 * 4 + k % 8 / 2;
    return bf16_of(of_lane(slots, lane).a[row / 8 + k / 8 * 2], k % 2);
}

float b_at(const unsigned char* slots, unsigned k, unsigned column) {
    const unsigned lane = column * 4 + k % 8 / 2;
    return bf16_of(of_lane(slots, lane).b[k / 8], k % 2);
}

// The registers of a product of 4-bit numbers.
struct Nvfp4Fragments {
    unsigned a[4], b[2], scales_a, scales_b;
};

Nvfp4Fragments nvfp4_of_lane(const unsigned char* slots, unsigned lane) {
    Nvfp4Fragments fragments;
    std::memcpy(&fragments, slots + SLOT_BYTES * lane, sizeof fragments);
    return fragments;
}

unsigned nibble(unsigned word, unsigned index) { return word >> 4 * index & 15; }

unsigned byte(unsigned word, unsigned index) { return word >> 8 * index & 255; }

}  // namespace

void mma_nvfp4_16_8_64(float (&sums)[4], const unsigned (&a)[4], const unsigned (&b)[2], unsigned scales_a,
                       unsigned scales_b, float (*number)(unsigned), float (*scale)(unsigned)) {
    Nvfp4Fragments own = {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}, scales_a, scales_b};
    const unsigned char* slots = exchange("nvfp4 mma", 0xffffffffu, &own, sizeof own);
    const unsigned g = lane() / 4, t = lane() % 4;
    for (unsigned i = 0; i < 4; ++i) {
        const unsigned row = g + i / 2 * 8, column = 2 * t + i % 2;
        for (unsigned k = 0; k < 64; ++k) {
            const unsigned holder = k % 32 / 8;
            const unsigned of_a = nvfp4_of_lane(slots, row % 8 * 4 + holder).a[row / 8 + k / 32 * 2];
            const unsigned of_b = nvfp4_of_lane(slots, column * 4 + holder).b[k / 32];
            const unsigned scale_a = byte(nvfp4_of_lane(slots, row % 8 * 4 + row / 8).scales_a, k / 16);
            const unsigned scale_b = byte(nvfp4_of_lane(slots, column * 4).scales_b, k / 16);
            sums[i] += number(nibble(of_a, k % 8)) * scale(scale_a) * number(nibble(of_b, k % 8)) * scale(scale_b);
        }
    }
}

void mma_16_8_16(float (&sums)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    Fragments own;
    std::memcpy(own.a, a, sizeof own.a);
    std::memcpy(own.b, b, sizeof own.b);
    const unsigned char* slots = exchange("mma", 0xffffffffu, &own, sizeof own);
    const unsigned g = lane() / 4, t = lane() % 4;
    for (unsigned i = 0; i < 4; ++i) {
        const unsigned row = g + i / 2 * 8, column = 2 * t + i % 2;
        for (unsigned k = 0; k < 16; ++k) sums[i] += a_at(slots, row, k) * b_at(slots, k, column);
    }
}

void load_matrices(unsigned (&to)[4], const void* row, bool transposed) {
    constexpr size_t ROW_BYTES = 16;
    const unsigned char* slots = exchange(transposed ? "ldmatrix.trans" : "ldmatrix", 0xffffffffu, row, ROW_BYTES);
    for (unsigned matrix = 0; matrix < 4; ++matrix) {
        to[matrix] = 0;
        for (unsigned half = 0; half < 2; ++half) {
            const unsigned first = lane() / 4, second = lane() % 4 * 2 + half;
            const unsigned from = transposed ? second : first, column = transposed ? first : second;
            unsigned short value;
            std::memcpy(&value, slots + SLOT_BYTES * (8 * matrix + from) + sizeof value * column, sizeof value);
            to[matrix] |= static_cast<unsigned>(value) << 16 * half;
        }
    }
}

}  // namespace shim
