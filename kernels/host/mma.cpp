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

}  // namespace

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

}  // namespace shim
