//! Attention of a step's sequences.

use sparkherd_kernels as kernels;
use sparkherd_kernels::Device;

use super::{
    AttentionLimits, Cuda,
    numbers::List,
    operands::{self, count},
};
use crate::backend::{Attention, AttentionOptions, BackendError, SequenceRows};

impl<D: Device> Cuda<D> {
    pub(super) fn launch_attention(&mut self, args: Attention<'_>) -> Result<(), BackendError> {
        args.check(&self.kv)?;
        let [queries, out] = self.memory.disjoint("attention", [args.queries, args.out])?;
        let (device, numbers) = (&mut self.device, &mut self.numbers);
        let positions = list_positions(&mut self.of_rows, args.sequences)?;
        let positions = numbers.place(device, List::Positions, positions)?;
        let first_blocks = list_first_blocks(&mut self.of_rows, args.sequences)?;
        let first_blocks = numbers.place(device, List::FirstBlocks, first_blocks)?;
        let block_tables = numbers.place(device, List::BlockTables, args.block_tables)?;
        let launch = kernels::Attention {
            pool: self.layer(args.layer)?,
            queries,
            out,
            positions,
            first_blocks,
            block_tables,
            rows: count("attention", args.queries.rows)?,
            table_entries: count("attention", args.block_tables.len())?,
            query_heads: count("attention", args.queries.columns / self.kv.head_dim.max(1))?,
            scoring: self.scoring(args.scale, args.options)?,
            split: self.split_of(args.queries.rows),
        };
        operands::attention(&mut self.device, launch)
    }

    fn split_of(&self, rows: usize) -> Option<kernels::AttentionSplit> {
        let (AttentionLimits { run_min, splits, .. }, partial) =
            self.attention.filter(|(limits, _)| rows <= limits.rows)?;
        Some(kernels::AttentionSplit { partial, run_min, splits })
    }

    fn scoring(&self, scale: f32, options: AttentionOptions) -> Result<kernels::Scoring, BackendError> {
        let AttentionOptions { window, sinks, softcap } = options;
        let window = window.map(|window| count("attention", window)).transpose()?;
        Ok(kernels::Scoring { scale, window, sinks: self.vector(sinks)?, softcap })
    }
}

pub(super) fn list_positions<'a>(
    list: &'a mut Vec<u32>,
    sequences: &[SequenceRows],
) -> Result<&'a [u32], BackendError> {
    list_rows(list, sequences, |sequence, row| sequence.position + row)
}

pub(super) fn list_first_blocks<'a>(
    list: &'a mut Vec<u32>,
    sequences: &[SequenceRows],
) -> Result<&'a [u32], BackendError> {
    list_rows(list, sequences, |sequence, _| sequence.first_block)
}

/// A number for each row of the sequences.
fn list_rows<'a>(
    list: &'a mut Vec<u32>,
    sequences: &[SequenceRows],
    of: impl Fn(&SequenceRows, usize) -> usize,
) -> Result<&'a [u32], BackendError> {
    list.clear();
    for sequence in sequences {
        for row in 0..sequence.rows {
            list.push(count("attention", of(sequence, row))?);
        }
    }
    Ok(list)
}
