// What a block finds in a row without sorting it: the place where a running sum reaches something, along the row or along keys
// from the greatest down.
//
// Everything that is added up is a whole number. So sums are exact, and the order in which threads come has no part in them.
#pragma once
#include "platform.cuh"

constexpr u32 SELECT_THREADS = 1024;
// Loops over them are not unrolled whole: all their sums at once would take registers that rows need.
constexpr u32 SELECT_WARPS = SELECT_THREADS / WARP;
// Of a key, looked at in one pass: three passes for 32 bits, with bins of 16 KiB.
constexpr u32 DIGIT_BITS = 11;
constexpr u32 BINS = 1u << DIGIT_BITS;

struct SelectScratch {
    u64 sums[SELECT_WARPS];
    // The two halves of each bin's sum: shared memory adds 32 bits at once.
    u32 low[BINS], high[BINS];
};

// All threads get the result.
template <class Merge>
DEVICE u64 block_merge(u64 value, SelectScratch& scratch, Merge merge) {
    for (u32 distance = WARP / 2; distance > 0; distance /= 2)
        value = merge(value, __shfl_xor_sync(ALL_LANES, value, distance));
    if (threadIdx.x % WARP == 0) scratch.sums[threadIdx.x / WARP] = value;
    __syncthreads();
    u64 merged = scratch.sums[0];
#pragma unroll 4
    for (u32 warp = 1; warp < SELECT_WARPS; ++warp) merged = merge(merged, scratch.sums[warp]);
    __syncthreads();
    return merged;
}

// Where a running sum reaches what was wanted: the index, and the sum of all before it.
struct Place {
    u32 index;
    u64 before;
    u64 wanted;
};

// Of `length` indices the first at which the sum of `measure` over it and all before is at least `wanted(sum of all)`, which is
// from 1 to that sum. Each warp adds up its share, in order; then the share that has the place is cut into as many again.
template <class Measure, class Wanted>
DEVICE Place find(u32 length, SelectScratch& scratch, Measure measure, Wanted wanted) {
    Place place = {0, 0, 0};
    for (bool whole = true; whole || length > 1; whole = false) {
        const u32 share = (length + SELECT_WARPS - 1) / SELECT_WARPS, end = place.index + length;
        const u32 first = place.index + threadIdx.x / WARP * share, last = first + share < end ? first + share : end;
        u64 sum = 0;
        for (u32 index = first + threadIdx.x % WARP; index < last; index += WARP) sum += measure(index);
        for (u32 distance = WARP / 2; distance > 0; distance /= 2)
            sum += __shfl_xor_sync(ALL_LANES, sum, distance);
        if (threadIdx.x % WARP == 0) scratch.sums[threadIdx.x / WARP] = sum;
        __syncthreads();
        if (whole) {
            u64 all = 0;
#pragma unroll 4
            for (u32 warp = 0; warp < SELECT_WARPS; ++warp) all += scratch.sums[warp];
            place.wanted = wanted(all);
        }
        const u32 shares = (length + share - 1) / share;
        u32 part = 0;
#pragma unroll 1
        while (part + 1 < shares && place.before + scratch.sums[part] < place.wanted) place.before += scratch.sums[part++];
        // The sums are read before the next are written.
        __syncthreads();
        place.index += part * share;
        length = end - place.index < share ? end - place.index : share;
    }
    return place;
}

// What an index counts for; nothing if its measure is 0.
struct Entry {
    u32 key;
    u64 measure;
};

// A key, the sum over all greater ones, and what those equal to it still have to give.
struct Selected {
    u32 key;
    u64 above;
    u64 rest;
};

DEVICE void add_to_bin(SelectScratch& scratch, u32 bin, u64 measure) {
    const u32 low = static_cast<u32>(measure), before = atomicAdd(&scratch.low[bin], low);
    const u32 high = static_cast<u32>(measure >> 32) + (before + low < before ? 1u : 0u);
    if (high > 0) atomicAdd(&scratch.high[bin], high);
}

// The greatest key at which the sum of `measure` over it and all greater ones is at least `wanted(sum of all)`, as in `find`. Keys
// have `key_bits`; they are found digit by digit, each by a pass over those that have the digits found before.
template <class EntryOf, class Wanted>
DEVICE Selected select(u32 length, u32 key_bits, SelectScratch& scratch, EntryOf entry_of, Wanted wanted) {
    Selected selected = {0, 0, 0};
    for (u32 known = key_bits; known > 0;) {
        const u32 shift = known > DIGIT_BITS ? known - DIGIT_BITS : 0;
        for (u32 bin = threadIdx.x; bin < BINS; bin += SELECT_THREADS) {
            scratch.low[bin] = 0;
            scratch.high[bin] = 0;
        }
        __syncthreads();
        for (u32 index = threadIdx.x; index < length; index += SELECT_THREADS) {
            const Entry entry = entry_of(index);
            const bool is_like = static_cast<u64>(entry.key ^ selected.key) >> known == 0;
            if (entry.measure > 0 && is_like) add_to_bin(scratch, entry.key >> shift & (BINS - 1), entry.measure);
        }
        __syncthreads();
        const auto from_greatest = [&](u32 place) {
            const u32 bin = BINS - 1 - place;
            return static_cast<u64>(scratch.high[bin]) << 32 | scratch.low[bin];
        };
        const u64 rest = selected.rest;
        const auto reached = [&](u64 all) { return known == key_bits ? wanted(all) : rest; };
        const Place digit = find(BINS, scratch, from_greatest, reached);
        selected.key |= (BINS - 1 - digit.index) << shift;
        selected.above += digit.before;
        selected.rest = digit.wanted - digit.before;
        known = shift;
    }
    return selected;
}

// The order of numbers as whole numbers, −0 below 0.
DEVICE u32 order_of(float value) {
    const u32 bits = __float_as_uint(value);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// Likelier tokens have greater ones, and of equally likely tokens the lowest.
DEVICE u64 rank_of(u32 order, u32 token) { return static_cast<u64>(order) << 32 | (0xffffffffu - token); }

DEVICE u32 token_of(u64 rank) { return 0xffffffffu - static_cast<u32>(rank); }

// Weights are from 0 to 1. As many of them as a vocabulary has tokens, at most 2^19, add up to less than 2^64; what is cut off
// adds up to less than 2^-25.
constexpr u32 MASS_BITS = 44;
// The least weight that counts, 2^-44, and how many bits weights above have once its bits are taken off.
constexpr u32 LEAST_WEIGHT = (127 - MASS_BITS) << 23;
constexpr u32 WEIGHT_KEY_BITS = 29;
static_assert(MASS_BITS << 23 < 1u << WEIGHT_KEY_BITS, "the key of weight 1");

DEVICE u64 mass_of(float weight) { return static_cast<u64>(weight * static_cast<float>(1ull << MASS_BITS)); }
