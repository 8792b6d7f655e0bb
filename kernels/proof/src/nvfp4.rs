//! Products of 4-bit numbers: tensor cores as modelled, and one by one, against the format's own definition.

use sparkherd_kernels::{Device, DeviceMemory, LinearNvfp4, Nvfp4Path};

use crate::report::Check;
use sparkherd_engine::backend::cases::Random;

const E2M1: [f64; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
/// Sums of up to 192 products in f32, in another order.
const BOUND: f64 = 1e-5;

struct Matrix {
    rows: usize,
    inputs: usize,
    values: Vec<u8>,
    scales: Vec<u8>,
}

impl Matrix {
    fn new(random: &mut Random, rows: usize, inputs: usize) -> Self {
        let values = (0..rows * inputs / 2).map(|_| random.below(256) as u8).collect();
        // Up to 1.875, subnormal ones included.
        let scales = (0..rows * inputs / 16).map(|_| random.below(64) as u8).collect();
        Self { rows, inputs, values, scales }
    }

    fn at(&self, row: usize, column: usize) -> f64 {
        let index = row * self.inputs + column;
        let nibble = self.values[index / 2] >> (index % 2 * 4) & 15;
        let size = E2M1[usize::from(nibble & 7)];
        let scale = self.scales[index / 16];
        let (exponent, mantissa) = (i32::from(scale >> 3), f64::from(scale & 7));
        let scale = if exponent == 0 {
            mantissa / 512.0
        } else {
            (1.0 + mantissa / 8.0) * 2.0_f64.powi(exponent - 7)
        };
        if nibble & 8 == 0 { size * scale } else { -size * scale }
    }
}

fn on_device(device: &mut dyn Device, bytes: &[u8]) -> DeviceMemory {
    let memory = device.allocate(bytes.len()).unwrap();
    device.write(memory, bytes).unwrap();
    memory
}

fn run(mut device: impl Device, path: Nvfp4Path, x: &Matrix, weight: &Matrix, scale: f32) -> Vec<f32> {
    let out_bytes = x.rows * weight.rows * size_of::<f32>();
    let out = device.allocate(out_bytes).unwrap();
    let launch = LinearNvfp4 {
        path,
        x: on_device(&mut device, &x.values),
        x_scales: on_device(&mut device, &x.scales),
        weight: on_device(&mut device, &weight.values),
        weight_scales: on_device(&mut device, &weight.scales),
        out,
        rows: x.rows as u32,
        inputs: x.inputs as u32,
        outputs: weight.rows as u32,
        scale,
    };
    launch.launch(&mut device).unwrap();
    let mut read = vec![0; out_bytes];
    device.read(out, &mut read).unwrap();
    read.as_chunks().0.iter().map(|value| f32::from_ne_bytes(*value)).collect()
}

/// By tensor cores where a chip has them for this format, and one by one.
pub fn check<D: Device>(device: impl Fn() -> D) -> Check {
    let mut check =
        Check { name: "products of 4-bit numbers as the format says", passed: 0, wrong: Vec::new() };
    let mut random = Random::new(11);
    for (rows, inputs, outputs) in [(1, 64, 1), (16, 64, 8), (21, 192, 70)] {
        let (x, weight) = (Matrix::new(&mut random, rows, inputs), Matrix::new(&mut random, outputs, inputs));
        let wanted: Vec<f64> = (0..rows * outputs)
            .map(|index| {
                let (row, output) = (index / outputs, index % outputs);
                0.25 * (0..inputs).map(|k| x.at(row, k) * weight.at(output, k)).sum::<f64>()
            })
            .collect();
        let largest = wanted.iter().fold(1.0_f64, |largest, value| largest.max(value.abs()));
        for path in [Nvfp4Path::Fastest, Nvfp4Path::Portable] {
            let got = run(device(), path, &x, &weight, 0.25);
            let is_off = |(got, wanted): &(&f32, &f64)| {
                let error = (f64::from(**got) - **wanted).abs() / largest;
                error.is_nan() || error > BOUND
            };
            match got.iter().zip(&wanted).find(is_off) {
                None => check.passed += 1,
                Some((got, wanted)) => {
                    let case = format!("{path:?} {rows} × {inputs} → {outputs}: {got} is not {wanted}");
                    check.wrong.push(case);
                }
            }
        }
    }
    check
}
