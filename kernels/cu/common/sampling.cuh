// What is asked of a row of logits, and what is answered. The same as in kernels/src/sample.rs.
#pragma once
#include "select.cuh"

constexpr u32 TOP_LOGPROBS_MAX = 20;
constexpr u32 NO_LOGPROBS = 0xffffffffu;

// Flags of a request: something may change logits, or a mask may forbid tokens.
constexpr u32 IS_ADJUSTED = 1, IS_MASKED = 2;

struct SampleRequest {
    u64 seed;
    // Of the chosen token in its sequence.
    u64 position;
    u32 row;
    u32 flags;
    float temperature;
    float top_p;
    float min_p;
    u32 top_k;
    float repetition;
    float presence;
    float frequency;
    // Where the changes begin among the words of all requests, and how many there are of each kind, one kind after the other.
    u32 first_change;
    u32 biases;
    u32 seen;
    u32 banned;
    u32 first_mask_word;
    u32 mask_words;
    u32 top_logprobs;
};

// Of one token: its bias, or how often the answer has it.
struct Change {
    u32 token;
    u32 value;
    // What the logit was before.
    float before;
};

// `value` is a token, of NO_FINITE a number of tokens.
constexpr u32 CHOSEN = 0, NOT_A_NUMBER = 1, NO_FINITE = 2, NOTHING_ALLOWED = 3;

struct Outcome {
    u32 kind;
    u32 value;
};

struct SampleResult {
    Outcome outcome;
    // By the logits as they are.
    u32 likeliest;
    float logprob;
    u32 top_tokens[TOP_LOGPROBS_MAX];
    float top_logprobs[TOP_LOGPROBS_MAX];
};

struct SampleArguments {
    float* logits;
    // Requests, then their changes and masks.
    u32* words;
    SampleResult* results;
    u64 vocabulary;
};

DEVICE const SampleRequest& request_of(const SampleArguments& arguments) {
    return reinterpret_cast<const SampleRequest*>(arguments.words)[blockIdx.x];
}
