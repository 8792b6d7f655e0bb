//! A row's result does not depend on the other rows of an operation (I20).

use half::f16;
use sparkherd_checkpoint::Dtype;
use sparkherd_engine::backend::cases::Random;
use sparkherd_engine::backend::{
    Activation, Backend, HostMemory, KvShape, Linear, Weight,
    arena::Arena,
    cpu::{Cpu, Path},
};
use sparkherd_footprint::KvDtype;

use crate::session::bits;

const OUTPUTS: usize = 77;
/// More than go through the inputs together.
const ROWS: usize = 101;

/// Weights whose bytes are random, with scales of some size 0.01.
fn weights(dtype: Dtype, inputs: usize) -> Arena {
    let bytes = OUTPUTS * dtype.row_bytes(inputs as u64).unwrap() as usize;
    let mut random = Random::new(5);
    let mut arena = Arena::map(bytes).unwrap();
    match dtype {
        Dtype::F32 => arena.as_mut_slice::<f32>().fill_with(|| random.value()),
        Dtype::F16 => arena.as_mut_slice::<f16>().fill_with(|| f16::from_f32(random.value())),
        Dtype::Bf16 => {
            arena.as_mut_slice::<half::bf16>().fill_with(|| half::bf16::from_f32(random.value()));
        }
        Dtype::Q8_0 | Dtype::Q4_0 | Dtype::Q4K | Dtype::Q6K => {
            for block in arena.as_mut_slice::<u8>().chunks_exact_mut(dtype.block_bytes() as usize) {
                block.fill_with(|| random.next_u64() as u8);
                let scales: &[usize] = if dtype == Dtype::Q6K { &[208] } else { &[0, 2] };
                for place in &scales[..if dtype == Dtype::Q4K { 2 } else { 1 }] {
                    block[*place..place + 2].copy_from_slice(&f16::from_f32(0.01).to_le_bytes());
                }
            }
        }
    }
    arena
}

fn is_the_same_in_any_company(path: Path, dtype: Dtype, inputs: usize) {
    let x = Activation { offset: 0, rows: ROWS, columns: inputs };
    let out = Activation { offset: ROWS * inputs, rows: ROWS, columns: OUTPUTS };
    let weight = Weight { offset_bytes: 0, dtype, rows: OUTPUTS, columns: inputs };
    let kv = KvShape { layers: 0, blocks: 0, kv_heads: 0, head_dim: 0, dtype: KvDtype::F32 };
    let memory = HostMemory {
        weights: weights(dtype, inputs),
        kv: Arena::map(0).unwrap(),
        workspace: Arena::map(ROWS * (inputs + OUTPUTS) * 4).unwrap(),
        packed: Arena::map((ROWS + 16) * inputs * 4).unwrap(),
    };
    let mut cpu = Cpu::new(memory, kv, path, 3).unwrap();
    cpu.prepare(&[weight]).unwrap();
    cpu.write(x, &Random::new(6).values(ROWS * inputs)).unwrap();
    let mut run = |first: usize, rows: usize| {
        let x = x.row(first);
        let (x, out) = (Activation { rows, ..x }, Activation { rows, ..out });
        cpu.linear(Linear { x, weight, out }).unwrap();
        bits(cpu.read(out).unwrap())
    };
    let alone: Vec<Vec<u32>> = (0..ROWS).map(|row| run(row, 1)).collect();
    for rows in (2..=17).chain([31, 45, ROWS]) {
        for first in [0, ROWS - rows] {
            let together = run(first, rows);
            let wanted = alone[first..first + rows].concat();
            assert_eq!(together, wanted, "{rows} rows of {} on {}", dtype.name(), path.name());
        }
    }
}

#[test]
fn a_product_is_bit_equal_alone_and_among_any_number_of_rows() {
    for path in Path::available() {
        for dtype in Dtype::ALL {
            is_the_same_in_any_company(path, dtype, 768);
        }
        for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
            is_the_same_in_any_company(path, dtype, 301);
        }
    }
}
