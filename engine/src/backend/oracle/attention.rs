//! Attention as its formula: all scores of a query, their softmax, the weighted sum.
//! Pool layout here: `[token slot][kv_head][head_dim]` for keys and values alike.

use sparkherd_footprint::BLOCK_TOKENS;

use crate::backend::{
    Attention, AttentionOptions, BackendError, HostMemory, KvShape, KvWrite,
    arena::Plain,
    check::{WeightValues, disjoint},
};

pub(super) fn kv_write<T: Plain>(
    memory: &mut HostMemory,
    kv: &KvShape,
    args: KvWrite<'_>,
    narrow: impl Fn(f32) -> T,
) -> Result<(), BackendError> {
    let [keys, values] = disjoint(memory.workspace.as_mut_slice(), "kv_write", [args.keys, args.values])?;
    let (pool_keys, pool_values) = kv.layer_mut::<T>(&mut memory.kv, args.layer);
    let width = kv.token_elements();
    for (row, slot) in args.slots.iter().enumerate() {
        let (from, to) = (row * width, *slot as usize * width);
        for column in 0..width {
            pool_keys[to + column] = narrow(keys[from + column]);
            pool_values[to + column] = narrow(values[from + column]);
        }
    }
    Ok(())
}

pub(super) fn attention<T: Plain>(
    memory: &mut HostMemory,
    kv: &KvShape,
    args: Attention<'_>,
    widen: impl Fn(T) -> f32,
) -> Result<(), BackendError> {
    let AttentionOptions { window, sinks, softcap } = args.options;
    let sinks = sinks.map(|sinks| WeightValues::of(&memory.weights, "attention", sinks)).transpose()?;
    let [queries, out] = disjoint(memory.workspace.as_mut_slice(), "attention", [args.queries, args.out])?;
    let (pool_keys, pool_values) = kv.layer::<T>(&memory.kv, args.layer);
    let head_dim = kv.head_dim;
    let query_heads = args.queries.columns / head_dim;
    let group = query_heads / kv.kv_heads;
    let block_tokens = BLOCK_TOKENS as usize;
    for sequence in args.sequences {
        let blocks = &args.block_tables[sequence.first_block..];
        let first_element = |position: usize, kv_head: usize| {
            let slot = blocks[position / block_tokens] as usize * block_tokens + position % block_tokens;
            slot * kv.token_elements() + kv_head * head_dim
        };
        for row in 0..sequence.rows {
            let position = sequence.position + row;
            let first_position = (position + 1).saturating_sub(window.unwrap_or(usize::MAX));
            for head in 0..query_heads {
                let from = (sequence.first_row + row) * args.queries.columns + head * head_dim;
                let query = &queries[from..from + head_dim];
                let score = |position: usize| {
                    let key = first_element(position, head / group);
                    let dot: f32 =
                        query.iter().zip(&pool_keys[key..]).map(|(query, key)| query * widen(*key)).sum();
                    let score = dot * args.scale;
                    softcap.map_or(score, |softcap| softcap * (score / softcap).tanh())
                };
                let scores: Vec<f32> = (first_position..=position).map(score).collect();
                let sink = sinks.map_or(f32::NEG_INFINITY, |sinks| sinks.at(head));
                let largest = scores.iter().copied().fold(sink, f32::max);
                let weights: Vec<f32> = scores.iter().map(|score| (score - largest).exp()).collect();
                let total = weights.iter().sum::<f32>() + (sink - largest).exp();
                for column in 0..head_dim {
                    let weighted = |(position, weight): (usize, &f32)| {
                        weight * widen(pool_values[first_element(position, head / group) + column])
                    };
                    let weights = (first_position..).zip(&weights);
                    out[from + column] = weights.map(weighted).sum::<f32>() / total;
                }
            }
        }
    }
    Ok(())
}
