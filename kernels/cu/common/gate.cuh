// What a gate becomes before it multiplies; numbers as in src/gate.rs.
//
//   silu: g · sigmoid(g)
//   gelu: 0.5 · g · (1 + tanh(√(2/π) · (g + 0.044715 · g³))), which is g · sigmoid of twice what tanh is of
#pragma once
#include "numbers.cuh"

constexpr u32 GATE_GELU = 1;

DEVICE float gate_value(u32 function, float gate) {
    // 2 · √(2/π), and 0.044715 of it.
    const float of = function == GATE_GELU ? gate * fmaf(0.071354814f, gate * gate, 1.5957692f) : gate;
    return gate / (1.0f + expf(-of));
}
