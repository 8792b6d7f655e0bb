// Chooses a token by a row of logits.
//
//   logits + bias ─► penalties ─► banned tokens ─► mask ─► temperature ─► top_k ─► min_p ─► top_p ─► token
//
//   repetition:  l > 0 ? l / repetition : l · repetition, of each token that prompt or answer has
//   the others:  l − (frequency · count + presence), of each that the answer has `count` times
//   weight:      exp((l − highest) / temperature), with 44 bits behind the point
//   token:       the first at which the running sum of weights is above fraction · their sum, in the order of tokens, or with
//                top_p, of weights from the greatest down and then of tokens; fraction is splitmix64's (sample/random.rs)
//
//   logits [rows, vocabulary] f32: changed on the way, and in the end as they were; vocabulary up to 2^19
//   words: requests [rows], then changes and masks; results [rows]
//
// The steps, their order and what wins a tie are those of the engine's `Sampler`, on the host. It adds weights up as f64, so both
// choose the same but where the fraction is within 10^-8 of the border between two tokens, or of what a filter keeps.
//
// A block for each row, which reads its row from the L2 cache once to find the likeliest token, three times for top_k, and once
// to draw, or with top_p six times. Rows of 152 thousand are 600 KB; that is little beside the head's weights, which were read to
// make them: 270 MB of the smallest model that has so many tokens.
#include "sampling.cuh"

// What of a row may be chosen, by the filters so far.
struct Row {
    const float* logits;
    u32 vocabulary;
    // Null where every token is allowed.
    const u32* mask;
    u32 mask_words;
    float highest, temperature, min_p;
    // The order of the last logit that top_k keeps, and the last token of those that have it.
    u32 last_order, last_token;
};

DEVICE bool is_allowed(const Row& row, u32 token) {
    if (row.mask == nullptr) return true;
    return token / 32 < row.mask_words && (row.mask[token / 32] >> token % 32 & 1u) != 0;
}

// Of a token that cannot be.
DEVICE float minus_infinity() { return __uint_as_float(0xff800000u); }

// 0 of a token that is not kept.
DEVICE float weight_of(const Row& row, u32 token) {
    if (!is_allowed(row, token)) return 0.0f;
    const float logit = row.logits[token];
    const u32 order = order_of(logit);
    if (order < row.last_order || (order == row.last_order && token > row.last_token)) return 0.0f;
    const float weight = expf((logit - row.highest) / row.temperature);
    return weight < row.min_p ? 0.0f : weight;
}

// By the logits as they are. −0 is no less than 0 here, as plain comparisons have it.
DEVICE Outcome likeliest_of(const Row& row, SelectScratch& scratch) {
    u64 best = 0, faulty = ~0ull;
    for (u32 token = threadIdx.x; token < row.vocabulary; token += SELECT_THREADS) {
        const float logit = row.logits[token];
        const u64 rank = rank_of(order_of(logit + 0.0f), token);
        best = rank > best ? rank : best;
        if (logit != logit && token < faulty) faulty = token;
    }
    faulty = block_merge(faulty, scratch, [](u64 a, u64 b) { return a < b ? a : b; });
    best = block_merge(best, scratch, [](u64 a, u64 b) { return a > b ? a : b; });
    const bool is_finite = isfinite(row.logits[token_of(best)]);
    // Every thread has read before one goes on and changes the row: all of them decide the same.
    __syncthreads();
    if (faulty != ~0ull) return {NOT_A_NUMBER, static_cast<u32>(faulty)};
    if (!is_finite) return {NO_FINITE, row.vocabulary};
    return {CHOSEN, token_of(best)};
}

// Among those that are allowed, after changes; `allowed` is how many they are.
DEVICE Outcome likeliest_allowed(const Row& row, u32& allowed, SelectScratch& scratch) {
    u64 best = 0, count = 0;
    for (u32 token = threadIdx.x; token < row.vocabulary; token += SELECT_THREADS) {
        if (!is_allowed(row, token)) continue;
        const u64 rank = rank_of(order_of(row.logits[token]), token);
        best = rank > best ? rank : best;
        ++count;
    }
    best = block_merge(best, scratch, [](u64 a, u64 b) { return a > b ? a : b; });
    allowed = static_cast<u32>(block_merge(count, scratch, [](u64 a, u64 b) { return a + b; }));
    if (allowed == 0) return {NOTHING_ALLOWED, 0};
    const float highest = row.logits[token_of(best)];
    __syncthreads();
    if (!(highest > minus_infinity())) return {NOTHING_ALLOWED, 0};
    if (!isfinite(highest)) return {NO_FINITE, allowed};
    return {CHOSEN, token_of(best)};
}

// Keeps the `count` likeliest, which are fewer than are allowed.
DEVICE void keep_top(Row& row, u32 count, SelectScratch& scratch) {
    const auto entry = [&](u32 token) { return Entry{order_of(row.logits[token]), is_allowed(row, token) ? 1u : 0u}; };
    const Selected last = select(row.vocabulary, 32, scratch, entry, [&](u64) { return static_cast<u64>(count); });
    const auto is_last = [&](u32 token) {
        const Entry other = entry(token);
        return other.key == last.key ? other.measure : 0;
    };
    row.last_token = find(row.vocabulary, scratch, is_last, [&](u64) { return last.rest; }).index;
    row.last_order = last.key;
}

// splitmix64's output function, as sample/random.rs has it.
DEVICE u64 mix(u64 state) {
    state = (state ^ (state >> 30)) * 0xbf58476d1ce4e5b9ull;
    state = (state ^ (state >> 27)) * 0x94d049bb133111ebull;
    return state ^ (state >> 31);
}

// As much of a sum as a whole number of 53 bits is of 2^53, rounded down.
DEVICE u64 part_of(u64 random, u64 sum) { return __umul64hi(random << 11, sum); }

// The least that is at least top_p of a sum.
DEVICE u64 nucleus_of(float top_p, u64 sum) {
    const double wanted = ceil(static_cast<double>(top_p) * static_cast<double>(sum));
    if (wanted >= static_cast<double>(sum)) return sum;
    return wanted < 1.0 ? 1 : static_cast<u64>(wanted);
}

// How many masses of one weight reach what is left.
DEVICE u64 count_for(const Selected& selected, u64 mass) { return (selected.rest + mass - 1) / mass; }

DEVICE u64 mass_of_key(u32 key) { return mass_of(__uint_as_float(key + LEAST_WEIGHT)); }

// The row has a token of weight 1.
DEVICE u32 draw(const Row& row, float top_p, u64 random, SelectScratch& scratch) {
    if (!(top_p < 1.0f)) {
        const auto mass = [&](u32 token) { return mass_of(weight_of(row, token)); };
        return find(row.vocabulary, scratch, mass, [&](u64 sum) { return part_of(random, sum) + 1; }).index;
    }
    const auto entry = [&](u32 token) {
        const float weight = weight_of(row, token);
        const u64 mass = mass_of(weight);
        return Entry{mass > 0 ? __float_as_uint(weight) - LEAST_WEIGHT : 0u, mass};
    };
    // First the sum of the nucleus, which ends among equals, then the weight drawn in it.
    u64 nucleus = 0;
    Selected selected = {0, 0, 0};
    for (u32 turn = 0; turn < 2; ++turn) {
        const auto wanted = [&](u64 sum) { return turn == 0 ? nucleus_of(top_p, sum) : part_of(random, nucleus) + 1; };
        selected = select(row.vocabulary, WEIGHT_KEY_BITS, scratch, entry, wanted);
        const u64 mass = mass_of_key(selected.key);
        nucleus = selected.above + count_for(selected, mass) * mass;
    }
    const u64 count = count_for(selected, mass_of_key(selected.key));
    const auto is_drawn = [&](u32 token) {
        const Entry other = entry(token);
        return other.measure > 0 && other.key == selected.key ? 1ull : 0ull;
    };
    return find(row.vocabulary, scratch, is_drawn, [&](u64) { return count; }).index;
}

// `likeliest` is that of the logits as they were.
DEVICE Outcome choose(const SampleRequest& request, Row& row, u32 likeliest, SelectScratch& scratch) {
    u32 allowed = row.vocabulary;
    Outcome best = {CHOSEN, likeliest};
    if (request.flags & IS_ADJUSTED) best = likeliest_allowed(row, allowed, scratch);
    // Nothing but the likeliest is kept where it is not likely enough itself.
    if (best.kind != CHOSEN || !(request.temperature > 0.0f) || request.min_p > 1.0f) return best;
    row.highest = row.logits[best.value];
    if (request.top_k > 0 && request.top_k < allowed) keep_top(row, request.top_k, scratch);
    const u64 state = mix(request.seed) + (request.position + 1) * 0x9e3779b97f4a7c15ull;
    return {CHOSEN, draw(row, request.top_p, mix(state) >> 11, scratch)};
}

DEVICE float penalised(const SampleRequest& request, float logit, u32 count) {
    const float repeated = logit > 0.0f ? logit / request.repetition : logit * request.repetition;
    return count > 0 ? repeated - (request.frequency * static_cast<float>(count) + request.presence) : repeated;
}

// Changes the logits of `count` tokens, each another; a list may have tokens that the row has not.
template <class Changed>
DEVICE void change(float* logits, u32 vocabulary, Change* changes, u32 count, Changed changed) {
    for (u32 index = threadIdx.x; index < count; index += SELECT_THREADS) {
        Change& change = changes[index];
        if (change.token >= vocabulary) continue;
        change.before = logits[change.token];
        logits[change.token] = changed(change.before, change.value);
    }
    // The next list may have the same tokens.
    __syncthreads();
}

DEVICE void undo(float* logits, u32 vocabulary, const Change* changes, u32 count) {
    __syncthreads();
    for (u32 index = threadIdx.x; index < count; index += SELECT_THREADS)
        if (changes[index].token < vocabulary) logits[changes[index].token] = changes[index].before;
    __syncthreads();
}

KERNEL(sample, SELECT_THREADS, SampleArguments) {
    SHARED SelectScratch scratch;
    const SampleRequest& request = request_of(arguments);
    const u32 vocabulary = static_cast<u32>(arguments.vocabulary);
    float* logits = arguments.logits + request.row * arguments.vocabulary;
    const u32* mask = request.flags & IS_MASKED ? arguments.words + request.first_mask_word : nullptr;
    Row row = {logits, vocabulary, mask, request.mask_words, 0.0f, request.temperature, request.min_p, 0, 0xffffffffu};
    Outcome outcome = likeliest_of(row, scratch);
    const u32 likeliest = outcome.value;
    if (outcome.kind == CHOSEN) {
        Change* biases = reinterpret_cast<Change*>(arguments.words + request.first_change);
        Change *seen = biases + request.biases, *banned = seen + request.seen;
        change(logits, vocabulary, biases, request.biases, [](float logit, u32 bits) { return logit + __uint_as_float(bits); });
        change(logits, vocabulary, seen, request.seen, [&](float logit, u32 count) { return penalised(request, logit, count); });
        change(logits, vocabulary, banned, request.banned, [](float, u32) { return minus_infinity(); });
        for (u32 left = request.banned;; left = 0) {
            outcome = choose(request, row, likeliest, scratch);
            undo(logits, vocabulary, banned, left);
            // A grammar that allows nothing but an end overrules who bans it.
            if (left == 0 || mask == nullptr || outcome.kind != NOTHING_ALLOWED) break;
        }
        undo(logits, vocabulary, seen, request.seen);
        undo(logits, vocabulary, biases, request.biases);
    }
    if (threadIdx.x == 0) {
        arguments.results[blockIdx.x].outcome = outcome;
        arguments.results[blockIdx.x].likeliest = likeliest;
    }
}
