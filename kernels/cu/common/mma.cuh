// Products of small matrices by a warp together.
#pragma once
#include "platform.cuh"

// sums += a · b: 16 × 16 by 16 × 8 of bf16, added up in f32.
//
// Which lane holds what (PTX, "Matrix Fragments for mma.m16n8k16"), with g = lane / 4 and t = lane % 4; each register of a and b
// is two bf16, the first in its lower half:
//   a[0] row g,     columns 2t, 2t + 1      a[2] row g,     columns 2t + 8, 2t + 9
//   a[1] row g + 8, columns 2t, 2t + 1      a[3] row g + 8, columns 2t + 8, 2t + 9
//   b[0] rows 2t, 2t + 1 of column g        b[1] rows 2t + 8, 2t + 9 of column g
//   sums[0], sums[1] row g, columns 2t, 2t + 1; sums[2], sums[3] row g + 8 of them
DEVICE void mma_16_8_16(float (&sums)[4], const u32 (&a)[4], const u32 (&b)[2]) {
#if defined(SPARKHERD_HOST_SHIM)
    shim::mma_16_8_16(sums, a, b);
#else
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// Four matrices of 8 × 8 values of 16 bits, out of shared memory. Lane i says where row i % 8 of matrix i / 8 is: 16 bytes, at a
// multiple of 16. Register j of lane i is of matrix j (PTX, "ldmatrix"): row i / 4, columns 2 · (i % 4) and the next; transposed,
// column i / 4, rows 2 · (i % 4) and the next. The first is in the lower half.
#if defined(SPARKHERD_HOST_SHIM)
// A row is read here, where the race detector sees it.
DEVICE void load_matrices(u32 (&to)[4], const u16* row) {
    const uint4 own = *reinterpret_cast<const uint4*>(row);
    shim::load_matrices(to, &own, false);
}

DEVICE void load_matrices_transposed(u32 (&to)[4], const u16* row) {
    const uint4 own = *reinterpret_cast<const uint4*>(row);
    shim::load_matrices(to, &own, true);
}
#else
DEVICE u32 address_in_shared(const u16* pointer) { return static_cast<u32>(__cvta_generic_to_shared(pointer)); }

DEVICE void load_matrices(u32 (&to)[4], const u16* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(address_in_shared(row))
                 : "memory");
}

DEVICE void load_matrices_transposed(u32 (&to)[4], const u16* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(address_in_shared(row))
                 : "memory");
}
#endif
