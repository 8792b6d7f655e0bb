use super::{LIMITS, arrival, own_token, prompt};
use crate::{
    batch::Wants,
    kv::BlockPool,
    request::{ClientKey, Priority},
    schedule::{Arrival, Purpose, ScheduleLimits, SequenceId, State, Step},
};

/// (sequence, first position, tokens) of each part of a step.
fn shares(step: &Step) -> Vec<(u64, u32, u32)> {
    let pairs = step.parts.iter().zip(&step.batch.sequences);
    pairs.map(|(part, sequence)| (part.id.0, sequence.position, sequence.token_count)).collect()
}

/// Runs a step and samples a token for each sequence that is complete.
fn step(state: &mut State) -> Vec<(u64, u32, u32)> {
    let step = state.step();
    for part in step.parts.iter().filter(|part| part.complete) {
        state.append(part.id, own_token(part.id.0, 5_000));
    }
    shares(&step)
}

#[test]
fn decodes_come_first_and_prefill_gets_a_quarter_beside_them() {
    let mut state = State::new(ScheduleLimits { tokens_per_step: 40, ..LIMITS }, BlockPool::new(64));
    state.enqueue(arrival(0, prompt(0, 0, 0, 3)));
    assert_eq!(step(&mut state), [(0, 0, 3)]);
    state.enqueue(arrival(1, prompt(1, 0, 0, 100)));
    assert_eq!(step(&mut state), [(0, 3, 1), (1, 0, 10)]);
    assert_eq!(step(&mut state), [(0, 4, 1), (1, 10, 10)]);
}

#[test]
fn the_newest_of_the_lowest_priority_makes_room_and_finds_its_blocks_again() {
    let mut state = State::new(LIMITS, BlockPool::new(5));
    let batch = Arrival { priority: Priority::Batch, ..arrival(0, prompt(0, 0, 0, 33)) };
    state.enqueue(batch);
    state.enqueue(arrival(1, prompt(1, 0, 0, 16)));
    assert_eq!(step(&mut state), [(1, 0, 16), (0, 0, 33)]);
    // The other one needs a block for its 17th token; the fifth is still there.
    assert_eq!(step(&mut state), [(1, 16, 1), (0, 33, 1)]);
    assert_eq!(state.counts().preemptions, 0);
    for _ in 0..15 {
        step(&mut state);
    }
    // Its 33rd token needs one more, and the pool has none: the older one of lower priority goes.
    assert_eq!(step(&mut state), [(1, 32, 1)]);
    assert_eq!((state.running(), state.waiting(), state.counts().preemptions), (1, 1, 1));
    state.remove(SequenceId(1));
    // Two full blocks of it were left, of 49 tokens.
    assert_eq!(step(&mut state), [(0, 32, 17)]);
}

#[test]
fn a_common_beginning_is_computed_once_per_salt() {
    let mut state = State::new(LIMITS, BlockPool::new(64));
    state.enqueue(arrival(0, prompt(0, 7, 40, 50)));
    assert_eq!(step(&mut state), [(0, 0, 50)]);
    state.enqueue(arrival(1, prompt(1, 7, 40, 50)));
    state.enqueue(Arrival { cache_salt: 1, ..arrival(2, prompt(2, 7, 40, 50)) });
    // Two full blocks of 40 tokens; the other salt has its first quarter of the budget.
    assert_eq!(step(&mut state), [(0, 50, 1), (1, 32, 16)]);
    assert_eq!((state.counts().cache_queries, state.counts().cache_hits), (100, 32));
    assert_eq!(step(&mut state), [(0, 51, 1), (1, 48, 2), (2, 0, 14)]);
    assert_eq!(state.counts().cache_hits, 32);
}

/// A prompt that is known to its last token still needs that one's logits.
#[test]
fn the_last_token_of_a_prompt_is_always_computed() {
    let mut state = State::new(LIMITS, BlockPool::new(64));
    for id in 0..3 {
        state.enqueue(arrival(id, prompt(0, 0, 32, 32)));
        let expected = if id == 0 { (0, 0, 32) } else { (id, 16, 16) };
        assert_eq!(step(&mut state).last(), Some(&expected));
        state.remove(SequenceId(id));
    }
}

#[test]
fn what_was_generated_is_found_as_well() {
    let mut state = State::new(LIMITS, BlockPool::new(64));
    let mut conversation = prompt(0, 0, 10, 10);
    state.enqueue(arrival(0, conversation.clone()));
    for _ in 0..30 {
        step(&mut state);
        conversation.push(own_token(0, 5_000));
    }
    state.remove(SequenceId(0));
    conversation.extend([1, 2, 3]);
    state.enqueue(arrival(1, conversation));
    assert_eq!(step(&mut state), [(1, 32, 11)]);
}

#[test]
fn without_a_prefix_cache_everything_is_computed() {
    let mut state = State::new(ScheduleLimits { prefix_cache: false, ..LIMITS }, BlockPool::new(64));
    for id in 0..2 {
        state.enqueue(arrival(id, prompt(0, 0, 40, 40)));
        assert_eq!(step(&mut state), [(id, 0, 40)]);
        state.remove(SequenceId(id));
    }
    assert_eq!(state.counts().cache_hits, 0);
}

#[test]
fn a_higher_priority_goes_first_and_clients_take_turns() {
    let limits = ScheduleLimits { tokens_per_step: 1_000, sequences: 1, ..LIMITS };
    let mut state = State::new(limits, BlockPool::new(256));
    let from = |id: u64, client: u64, priority: Priority| Arrival {
        client: ClientKey(client),
        priority,
        ..arrival(id, prompt(id, 0, 0, 600))
    };
    state.enqueue(from(0, 1, Priority::Batch));
    (1..4).for_each(|id| state.enqueue(from(id, 1, Priority::Interactive)));
    state.enqueue(from(4, 2, Priority::Interactive));
    let mut order = Vec::new();
    while !state.is_empty() {
        let first = step(&mut state)[0].0;
        state.remove(SequenceId(first));
        order.push(first);
    }
    // The second client's only request waits for one of the first's.
    assert_eq!(order, [1, 4, 2, 3, 0]);
}

/// A prompt's rows of logits are told once, as many a step as there are, and whatever is known already.
#[test]
fn a_scored_prompt_is_computed_whole_and_told_once() {
    let limits = ScheduleLimits { logit_rows: 20, sequences: 2, ..LIMITS };
    let mut state = State::new(limits, BlockPool::new(5));
    state.enqueue(arrival(0, prompt(0, 0, 32, 32)));
    step(&mut state);
    state.remove(SequenceId(0));
    let (purpose, priority) = (Purpose::ScoreAndGenerate, Priority::Batch);
    state.enqueue(Arrival { priority, purpose, ..arrival(1, prompt(0, 0, 32, 40)) });
    let mut rows = Vec::new();
    let mut run = |state: &mut State| {
        let step = state.step();
        for (part, sequence) in step.parts.iter().zip(&step.batch.sequences) {
            if part.id == SequenceId(1) {
                rows.extend(sequence.wants.logits(sequence.token_count).map(|row| row + sequence.position));
            }
            if part.complete {
                state.append(part.id, 0);
            }
        }
        rows.len()
    };
    assert_eq!([run(&mut state), run(&mut state), run(&mut state)], [20, 40, 41]);
    state.enqueue(arrival(2, prompt(2, 0, 0, 15)));
    while state.counts().preemptions == 0 {
        run(&mut state);
    }
    state.remove(SequenceId(2));
    let told = run(&mut state);
    assert!(run(&mut state) > told);
    assert!(rows.iter().copied().eq(0..u32::try_from(rows.len()).unwrap()), "{rows:?}");
}

#[test]
fn an_embedding_wants_hidden_states_once() {
    let mut state = State::new(ScheduleLimits { tokens_per_step: 30, ..LIMITS }, BlockPool::new(9));
    let wants =
        |state: &mut State| state.step().batch.sequences.iter().map(|part| part.wants).collect::<Vec<_>>();
    state.enqueue(Arrival { purpose: Purpose::EmbedLast, ..arrival(0, prompt(0, 0, 0, 40)) });
    assert_eq!(wants(&mut state), [Wants::Nothing]);
    assert_eq!(wants(&mut state), [Wants::LastHidden]);
    state.remove(SequenceId(0));
    // Found tokens have no hidden state, so none is looked for.
    state.enqueue(Arrival { purpose: Purpose::EmbedMean, ..arrival(1, prompt(0, 0, 0, 40)) });
    assert_eq!(wants(&mut state), [Wants::EveryHidden]);
    assert_eq!(wants(&mut state), [Wants::EveryHidden]);
    assert!(wants(&mut state).is_empty());
}
