// Log-probabilities of chosen tokens and of the likeliest, by the logits as the model gave them.
//
//   logprob = max(l − (highest + ln Σ exp(l − highest)), −9999), the sum with 44 bits behind the point
//
//   logits [rows, vocabulary] f32; requests and results as `sample` left them
//
// A block for each row, which is done at once where none are wanted: reads its row once for the sum, and for the likeliest, up
// to 20, five times more. Among equal logits the lower token is the likelier; −0 equals 0.
#include "sampling.cuh"

// What is told of a token that cannot be.
constexpr float LEAST_LOGPROB = -9999.0f;

DEVICE float logprob_of(float logit, double total) {
    const float logprob = static_cast<float>(static_cast<double>(logit) - total);
    return logprob < LEAST_LOGPROB ? LEAST_LOGPROB : logprob;
}

// ln Σ exp
DEVICE double log_sum(const float* logits, u32 vocabulary, float highest, SelectScratch& scratch) {
    u64 sum = 0;
    for (u32 token = threadIdx.x; token < vocabulary; token += SELECT_THREADS) sum += mass_of(expf(logits[token] - highest));
    sum = block_merge(sum, scratch, [](u64 a, u64 b) { return a + b; });
    return static_cast<double>(highest) + log(static_cast<double>(sum) / static_cast<double>(1ull << MASS_BITS));
}

// The `count` likeliest, likeliest first, as ranks.
DEVICE void list_likeliest(const float* logits, u32 vocabulary, u32 count, u64* sorted, SelectScratch& scratch) {
    SHARED u64 found[TOP_LOGPROBS_MAX];
    SHARED u32 places;
    const auto order = [&](u32 token) { return order_of(logits[token] + 0.0f); };
    const auto entry = [&](u32 token) { return Entry{order(token), 1}; };
    const Selected last = select(vocabulary, 32, scratch, entry, [&](u64) { return static_cast<u64>(count); });
    const auto is_last = [&](u32 token) { return order(token) == last.key ? 1ull : 0ull; };
    const u32 last_token = find(vocabulary, scratch, is_last, [&](u64) { return last.rest; }).index;
    if (threadIdx.x == 0) places = 0;
    __syncthreads();
    // In any order; they are as many as there is room for.
    for (u32 token = threadIdx.x; token < vocabulary; token += SELECT_THREADS) {
        const u64 rank = rank_of(order(token), token);
        if (rank >= rank_of(last.key, last_token)) found[atomicAdd(&places, 1u)] = rank;
    }
    __syncthreads();
    if (threadIdx.x < count) {
        u32 likelier = 0;
        for (u32 other = 0; other < count; ++other) likelier += found[other] > found[threadIdx.x] ? 1 : 0;
        sorted[likelier] = found[threadIdx.x];
    }
    __syncthreads();
}

KERNEL(logprobs, SELECT_THREADS, SampleArguments) {
    SHARED SelectScratch scratch;
    SHARED u64 likeliest[TOP_LOGPROBS_MAX];
    const SampleRequest& request = request_of(arguments);
    SampleResult& result = arguments.results[blockIdx.x];
    if (request.top_logprobs == NO_LOGPROBS || result.outcome.kind != CHOSEN) return;
    const u32 vocabulary = static_cast<u32>(arguments.vocabulary);
    const float* logits = arguments.logits + request.row * arguments.vocabulary;
    const double total = log_sum(logits, vocabulary, logits[result.likeliest], scratch);
    const u32 count = request.top_logprobs < vocabulary ? request.top_logprobs : vocabulary;
    if (count > 0) list_likeliest(logits, vocabulary, count, likeliest, scratch);
    if (threadIdx.x < count) {
        const u32 token = token_of(likeliest[threadIdx.x]);
        result.top_tokens[threadIdx.x] = token;
        result.top_logprobs[threadIdx.x] = logprob_of(logits[token], total);
    }
    if (threadIdx.x == 0) result.logprob = logprob_of(logits[result.outcome.value], total);
}
