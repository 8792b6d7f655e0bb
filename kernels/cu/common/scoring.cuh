// Which positions a query reads, and what becomes of its products with their keys before the softmax.
#pragma once
#include "formats.cuh"

struct Scoring {
    // A logit of each query head that takes part in the softmax and has no value, or none.
    Vector sinks;
    // Positions that a row reads at most: its own and those just before it.
    u32 window;
    float scale;
    // score = softcap · tanh(score / softcap), if above 0
    float softcap;
    u32 end;
};

// From `begin` on, the last of them the row's own.
struct Seen {
    u32 begin, count;
};

DEVICE Seen seen_of(const Scoring& scoring, u32 position) {
    const u32 all = position + 1, count = all < scoring.window ? all : scoring.window;
    return {all - count, count};
}

DEVICE float score_of(const Scoring& scoring, float product) {
    const float score = scoring.scale * product;
    return scoring.softcap > 0.0f ? scoring.softcap * tanhf(score / scoring.softcap) : score;
}

// What a head's sink adds to a sum of exponentials under a largest score. Infinite, it takes all of the attention, as it should.
DEVICE float sink_of(const Scoring& scoring, u32 head, float largest) {
    return scoring.sinks.values ? expf(Vector::at(scoring.sinks, head) - largest) : 0.0f;
}
