//! A row's result does not depend on the other rows of an operation (I20).

use sparkherd_checkpoint::Dtype;
use sparkherd_engine::backend::{
    Activation, Backend, HostMemory, KvShape, Linear, Weight,
    arena::Arena,
    cpu::{Cpu, Path},
};
use sparkherd_footprint::KvDtype;

use crate::{random::Random, session::bits};

const INPUTS: usize = 301;
const OUTPUTS: usize = 77;
const ROWS: usize = 45;

#[test]
fn a_product_is_bit_equal_alone_and_among_any_number_of_rows() {
    let x = Activation { offset: 0, rows: ROWS, columns: INPUTS };
    let out = Activation { offset: ROWS * INPUTS, rows: ROWS, columns: OUTPUTS };
    let weight = Weight { offset_bytes: 0, dtype: Dtype::Bf16, rows: OUTPUTS, columns: INPUTS };
    let kv = KvShape { layers: 0, blocks: 0, kv_heads: 0, head_dim: 0, dtype: KvDtype::F32 };
    for path in Path::available() {
        let mut random = Random(5);
        let mut memory = HostMemory {
            weights: Arena::map(INPUTS * OUTPUTS * 2).unwrap(),
            kv: Arena::map(0).unwrap(),
            workspace: Arena::map(ROWS * (INPUTS + OUTPUTS) * 4).unwrap(),
        };
        for value in memory.weights.as_mut_slice::<half::bf16>() {
            *value = half::bf16::from_f32(random.value());
        }
        let mut cpu = Cpu::new(memory, kv, path, 3).unwrap();
        cpu.write(x, &random.values(ROWS * INPUTS)).unwrap();
        let mut run = |first: usize, rows: usize| {
            let x = x.row(first);
            let (x, out) = (Activation { rows, ..x }, Activation { rows, ..out });
            cpu.linear(Linear { x, weight, out }).unwrap();
            bits(cpu.read(out).unwrap())
        };
        let alone: Vec<Vec<u32>> = (0..ROWS).map(|row| run(row, 1)).collect();
        for rows in [2, 3, 4, 5, 7, 8, 9, 12, 16, 31, ROWS] {
            for first in [0, ROWS - rows] {
                let together = run(first, rows);
                assert_eq!(together, alone[first..first + rows].concat(), "{rows} rows on {}", path.name());
            }
        }
    }
}
