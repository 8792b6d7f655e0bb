//! Every path against the portable one: the same bits.

use half::{bf16, f16};

use super::{Kernel, LANES, Path, Simd};

/// Inputs of one call of every method.
#[derive(Clone, Copy, Debug)]
struct Methods {
    floats: [[f32; LANES]; 3],
    halves: [f16; LANES],
    brains: [bf16; 2 * LANES],
    bytes: [u8; 4 * LANES],
    x: [i8; 4],
    start: i32,
}

impl Methods {
    fn random(next: &mut impl FnMut() -> u32) -> Self {
        let x = std::array::from_fn(|_| next().to_le_bytes()[0].cast_signed().max(-127));
        Self {
            floats: [(); 3].map(|()| std::array::from_fn(|_| next() as f32 / 1e9 - 2.0)),
            halves: std::array::from_fn(|_| f16::from_f32(next() as f32 / 1e5 - 2e4)),
            brains: std::array::from_fn(|_| bf16::from_f32(next() as f32 - 2e9)),
            bytes: std::array::from_fn(|_| next().to_le_bytes()[0]),
            x,
            start: (next() >> 8).cast_signed(),
        }
    }

    fn check(self) {
        let paths = Path::available();
        let wanted = paths.last().map(|portable| portable.run(self));
        for path in &paths {
            assert_eq!(Some(path.run(self)), wanted, "{self:?} on {}", path.name());
        }
    }
}

#[expect(clippy::inline_always, reason = "must be compiled for the path's instructions")]
impl Kernel for Methods {
    type Output = Vec<[u32; LANES]>;

    #[inline(always)]
    fn call<S: Simd>(self, simd: S) -> Self::Output {
        let Self { floats, halves, brains, bytes, x, start } = self;
        let [a, b, c] = floats.map(|floats| simd.load(&floats));
        let [even, odd] = simd.load_bf16_pairs(&brains);
        let (mut half_bytes, mut first_brains) = ([0; 2 * LANES], [bf16::ZERO; LANES]);
        for (bytes, half) in half_bytes.as_chunks_mut::<2>().0.iter_mut().zip(halves) {
            *bytes = half.to_ne_bytes();
        }
        first_brains.copy_from_slice(&brains[..LANES]);
        let stored = simd.load_bytes(&bytes);
        let ints = simd.splat_ints(start);
        let x_sum: i32 = x.iter().map(|x| i32::from(*x)).sum();
        let unbiased = simd.splat_ints(start - S::SIGNED_BIAS * x_sum);
        [
            simd.load_f16(&halves),
            simd.load_f16_bytes(&half_bytes),
            simd.load_bf16(&first_brains),
            even,
            odd,
            simd.add(a, b),
            simd.multiply(a, b),
            simd.multiply_add(a, b, c),
            simd.splat(simd.sum(a)),
            simd.splat(simd.maximum(b)),
            simd.widen_ints(simd.dot_unsigned(ints, simd.low_halves(stored), x)),
            simd.widen_ints(simd.dot_unsigned(ints, simd.high_halves(stored), x)),
            simd.widen_ints(simd.dot_signed(unbiased, stored, x)),
        ]
        .map(|lanes| simd.to_array(lanes).map(f32::to_bits))
        .into()
    }
}

/// Numbers of one seed (xorshift).
fn random() -> impl FnMut() -> u32 {
    let mut state = 0x9e37_79b9_u32;
    move || {
        for (left, by) in [(true, 13), (false, 17), (true, 5)] {
            state ^= if left { state << by } else { state >> by };
        }
        state
    }
}

#[test]
fn every_method_gives_the_same_bits_on_every_path() {
    let mut next = random();
    for _ in 0..500 {
        Methods::random(&mut next).check();
    }
}

#[test]
fn every_f16_widens_to_the_same_f32() {
    let finite: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).filter(|value| !value.is_nan()).collect();
    let others = Methods::random(&mut random());
    for halves in finite.as_chunks().0 {
        Methods { halves: *halves, ..others }.check();
    }
}

#[test]
fn the_largest_bytes_do_not_overflow_on_the_way() {
    let others = Methods::random(&mut random());
    for byte in [-128_i8, -127, -1, 0, 1, 127] {
        for x in [-127, -1, 1, 127] {
            Methods { bytes: [byte.cast_unsigned(); 4 * LANES], x: [x; 4], start: 0, ..others }.check();
        }
    }
}
