//! Attention of a step's sequences: those of many rows in tiles, the others row by row.

use std::ops::Range;

use sparkherd_footprint::{ATTENTION_SPLITS_MAX, Workspace};
use sparkherd_kernels as kernels;
use sparkherd_kernels::{Device, DeviceMemory, RowsOfSequence, attention_tiles};

use super::{
    Cuda,
    numbers::List,
    operands::{self, count},
};
use crate::{
    backend::{Attention, AttentionOptions, BackendError, SequenceRows},
    model::StepLimits,
};

/// Rows of sequences that have few in a step, as when they decode: the positions of each are shared among blocks, so many rows at a
/// time. A row gets the same whatever the others are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionLimits {
    pub rows: usize,
    /// Positions of one block, at least.
    pub run_min: u32,
    /// Blocks for each row.
    pub splits: u32,
    /// What they write, in all.
    pub partial_elements: usize,
}

/// Fewer positions than this are not worth a block of their own: its eight warps have 32 each.
const RUN_MIN: u32 = 256;

/// Operands of a step's attention, whatever launches it takes.
#[derive(Clone, Copy, Debug)]
struct Operands {
    pool: kernels::KvLayer,
    queries: DeviceMemory,
    out: DeviceMemory,
    block_tables: DeviceMemory,
    rows: u32,
    table_entries: u32,
    query_heads: u32,
    scoring: kernels::Scoring,
}

/// Numbers of each row, on the device.
#[derive(Clone, Copy, Debug)]
struct RowNumbers {
    positions: DeviceMemory,
    first_blocks: DeviceMemory,
}

impl AttentionLimits {
    /// None where one block is enough for any sequence, or there is no room.
    pub(super) fn of_steps(steps: &StepLimits, workspace: &Workspace) -> Option<Self> {
        let partial_elements = usize::try_from(workspace.partial.elements).ok()?;
        let is_long = u32::try_from(steps.context).is_ok_and(|context| context > RUN_MIN);
        (is_long && partial_elements > 0).then_some(Self {
            rows: steps.sequences,
            run_min: RUN_MIN,
            splits: ATTENTION_SPLITS_MAX,
            partial_elements,
        })
    }
}

impl<D: Device> Cuda<D> {
    pub(super) fn launch_attention(&mut self, args: Attention<'_>) -> Result<(), BackendError> {
        args.check(&self.kv)?;
        let [queries, out] = self.memory.disjoint("attention", [args.queries, args.out])?;
        let operands = Operands {
            pool: self.layer(args.layer)?,
            queries,
            out,
            block_tables: self.numbers.place(&mut self.device, List::BlockTables, args.block_tables)?,
            rows: count("attention", args.queries.rows)?,
            table_entries: count("attention", args.block_tables.len())?,
            query_heads: count("attention", args.queries.columns / self.kv.head_dim.max(1))?,
            scoring: self.scoring(args.scale, args.options)?,
        };
        self.launch_tiles(operands, args.sequences)?;
        if args.sequences.iter().all(has_many_rows) {
            return Ok(());
        }
        let (device, numbers) = (&mut self.device, &mut self.numbers);
        let positions = list_positions(&mut self.of_rows, args.sequences)?;
        let positions = numbers.place(device, List::Positions, positions)?;
        let first_blocks = list_first_blocks(&mut self.of_rows, args.sequences)?;
        let first_blocks = numbers.place(device, List::FirstBlocks, first_blocks)?;
        let numbers = RowNumbers { positions, first_blocks };
        let rows_max = self.attention.map_or(usize::MAX, |(limits, _)| limits.rows.max(1));
        runs_of_few(args.sequences)
            .flat_map(|run| pieces(run, rows_max))
            .try_for_each(|rows| self.launch_rows(operands, numbers, rows))
    }

    /// Of the sequences of many rows, in one launch.
    fn launch_tiles(&mut self, operands: Operands, sequences: &[SequenceRows]) -> Result<(), BackendError> {
        let Operands { pool, queries, out, block_tables, rows, table_entries, query_heads, scoring } =
            operands;
        let tiles_of = |rows| attention_tiles(rows, query_heads, pool.kv_heads);
        let (list, tiles) = list_tiles(&mut self.of_rows, sequences, tiles_of)?;
        if tiles == 0 {
            return Ok(());
        }
        let launch = kernels::AttentionRows {
            pool,
            queries,
            out,
            sequence_count: count("attention", list.len() / RowsOfSequence::NUMBERS)?,
            sequences: self.numbers.place(&mut self.device, List::Sequences, list)?,
            block_tables,
            rows,
            tiles,
            table_entries,
            query_heads,
            scoring,
        };
        operands::attention_rows(&mut self.device, launch)
    }

    /// Of rows that follow one another, of sequences of few: as they would be in a step by themselves.
    fn launch_rows(
        &mut self,
        operands: Operands,
        numbers: RowNumbers,
        rows: Range<usize>,
    ) -> Result<(), BackendError> {
        let Operands { pool, queries, out, block_tables, table_entries, query_heads, scoring, .. } = operands;
        let row_bytes = query_heads as usize * self.kv.head_dim * size_of::<f32>();
        let part = |memory: DeviceMemory, bytes: usize| memory.part(rows.start * bytes, rows.len() * bytes);
        let launch = kernels::Attention {
            pool,
            queries: part(queries, row_bytes)?,
            out: part(out, row_bytes)?,
            positions: part(numbers.positions, size_of::<u32>())?,
            first_blocks: part(numbers.first_blocks, size_of::<u32>())?,
            block_tables,
            rows: count("attention", rows.len())?,
            table_entries,
            query_heads,
            scoring,
            split: self.split(),
        };
        operands::attention(&mut self.device, launch)
    }

    fn split(&self) -> Option<kernels::AttentionSplit> {
        let (AttentionLimits { run_min, splits, .. }, partial) = self.attention?;
        Some(kernels::AttentionSplit { partial, run_min, splits })
    }

    fn scoring(&self, scale: f32, options: AttentionOptions) -> Result<kernels::Scoring, BackendError> {
        let AttentionOptions { window, sinks, softcap } = options;
        let window = window.map(|window| count("attention", window)).transpose()?;
        Ok(kernels::Scoring { scale, window, sinks: self.vector(sinks)?, softcap })
    }
}

const fn has_many_rows(sequence: &SequenceRows) -> bool {
    sequence.rows >= kernels::ATTENTION_ROWS_MIN as usize
}

/// Rows that follow one another and are of sequences of few rows: as long runs as there are.
fn runs_of_few(sequences: &[SequenceRows]) -> impl Iterator<Item = Range<usize>> {
    let runs = sequences.chunk_by(|sequence, next| has_many_rows(sequence) == has_many_rows(next));
    runs.filter(|run| !has_many_rows(&run[0])).map(|run| {
        let rows: usize = run.iter().map(|sequence| sequence.rows).sum();
        run[0].first_row..run[0].first_row + rows
    })
}

/// Of so many rows at most.
fn pieces(run: Range<usize>, rows_max: usize) -> impl Iterator<Item = Range<usize>> {
    run.clone().step_by(rows_max).map(move |start| start..run.end.min(start.saturating_add(rows_max)))
}

/// What tiles are told of the sequences of many rows, and how many tiles there are.
fn list_tiles<'a>(
    list: &'a mut Vec<u32>,
    sequences: &[SequenceRows],
    tiles_of: impl Fn(u32) -> Option<u32>,
) -> Result<(&'a [u32], u32), BackendError> {
    let too_large = kernels::DeviceError::TooLarge { kernel: "attention_rows" };
    list.clear();
    let mut tiles = 0_u32;
    for sequence in sequences.iter().filter(|sequence| has_many_rows(sequence)) {
        let rows = count("attention", sequence.rows)?;
        let sequence = RowsOfSequence {
            first_tile: tiles,
            first_row: count("attention", sequence.first_row)?,
            rows,
            position: count("attention", sequence.position)?,
            first_block: count("attention", sequence.first_block)?,
        };
        list.extend(sequence.numbers());
        tiles = tiles_of(rows).and_then(|more| tiles.checked_add(more)).ok_or_else(|| too_large.clone())?;
    }
    Ok((list, tiles))
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

#[cfg(test)]
mod tests {
    use super::{list_tiles, runs_of_few};
    use crate::backend::SequenceRows;

    fn sequences(rows: &[usize]) -> Vec<SequenceRows> {
        let mut first_row = 0;
        let of = |(index, rows): (usize, &usize)| {
            let first = first_row;
            first_row += rows;
            SequenceRows { first_row: first, rows: *rows, position: 100 * index, first_block: 7 * index }
        };
        rows.iter().enumerate().map(of).collect()
    }

    #[test]
    fn rows_of_few_are_taken_in_the_longest_runs() {
        let runs = |rows: &[usize]| runs_of_few(&sequences(rows)).collect::<Vec<_>>();
        assert_eq!(runs(&[1, 15, 16, 1, 40, 17, 3, 2]), [0..16, 32..33, 90..95]);
        assert_eq!(runs(&[1, 1, 16, 2]), [0..2, 18..20]);
        assert!(runs(&[16]).is_empty() && runs(&[]).is_empty());
    }

    #[test]
    fn tiles_are_counted_over_the_sequences_of_many_rows() {
        let mut list = Vec::new();
        let (numbers, tiles) =
            list_tiles(&mut list, &sequences(&[2, 33, 5, 16]), |rows| Some(rows.div_ceil(10))).unwrap();
        assert_eq!((numbers, tiles), ([0, 2, 33, 100, 7, 4, 40, 16, 300, 21].as_slice(), 6));
        assert!(list_tiles(&mut list, &sequences(&[33]), |_| None).is_err());
    }
}
