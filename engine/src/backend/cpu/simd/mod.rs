//! Sixteen f32 lanes on every processor, with the same bits on each.
//!
//! A [`Simd`] value is proof that its instructions exist here, so its methods are safe to call; only the files of the
//! paths hold `unsafe`. Every path has the same sixteen lanes, fuses every multiply-add and sums lanes in the same
//! order, so a dot product has the same bits on AVX-512, AVX2, NEON and the portable path. Tests rely on it.
//!
//! Work is a [`Kernel`]: [`Path::run`] calls it inside a function compiled for the path's instructions. Everything a
//! kernel calls must be `#[inline(always)]`: code that is not inlined there is compiled without those instructions.
//! Lanes are loaded and stored by transmuting arrays: the load intrinsics carry checks in builds with debug assertions,
//! and with them no sum stays in a register.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod exp;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
#[cfg(test)]
mod tests;

use half::{bf16, f16};

pub(crate) use exp::exp;

/// Lanes of every path.
pub(crate) const LANES: usize = 16;

/// Proof of an instruction set, and its sixteen-lane arithmetic.
#[expect(clippy::inline_always, reason = "must be compiled for the path's instructions")]
pub(crate) trait Simd: Copy + Send + Sync {
    type Lanes: Copy;
    /// Sixteen i32.
    type Ints: Copy;
    /// Sixteen lanes of four bytes.
    type Bytes: Copy;
    /// Whether at least 30 `Lanes` fit in registers at once; else about 6 do.
    const WIDE: bool;
    /// What [`Simd::dot_signed`] adds to every weight: some instructions take one side without sign.
    const SIGNED_BIAS: i32;
    fn splat(self, value: f32) -> Self::Lanes;
    fn load(self, values: &[f32; LANES]) -> Self::Lanes;
    fn load_bf16(self, values: &[bf16; LANES]) -> Self::Lanes;
    fn load_f16(self, values: &[f16; LANES]) -> Self::Lanes;
    /// Even and odd values.
    fn load_bf16_pairs(self, values: &[bf16; 2 * LANES]) -> [Self::Lanes; 2];
    /// f16 as bytes, which need no alignment.
    fn load_f16_bytes(self, bytes: &[u8; 2 * LANES]) -> Self::Lanes;
    fn splat_ints(self, value: i32) -> Self::Ints;
    fn widen_ints(self, ints: Self::Ints) -> Self::Lanes;
    fn load_bytes(self, bytes: &[u8; 4 * LANES]) -> Self::Bytes;
    /// The low four bits of each byte.
    fn low_halves(self, bytes: Self::Bytes) -> Self::Bytes;
    /// The high four bits of each byte.
    fn high_halves(self, bytes: Self::Bytes) -> Self::Bytes;
    /// Adds to each lane the exact dot product of its four bytes, all below 128, with the four of `x`, all above −128.
    fn dot_unsigned(self, sums: Self::Ints, bytes: Self::Bytes, x: [i8; 4]) -> Self::Ints;
    /// As [`Simd::dot_unsigned`] with bytes that are i8, to each of which [`Simd::SIGNED_BIAS`] is added first.
    fn dot_signed(self, sums: Self::Ints, bytes: Self::Bytes, x: [i8; 4]) -> Self::Ints;
    /// Asks for the cache line at `address`, which need not be valid.
    fn prefetch(self, address: *const u8);
    fn to_array(self, lanes: Self::Lanes) -> [f32; LANES];
    fn add(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes;
    fn multiply(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes;
    /// Sum in one fixed order: lane `i` with lane `i + 8`, then 4, 2 and 1 apart.
    #[inline(always)]
    fn sum(self, lanes: Self::Lanes) -> f32 {
        tree(self.to_array(lanes), |a, b| a + b)
    }
    /// Largest lane; all are numbers.
    #[inline(always)]
    fn maximum(self, lanes: Self::Lanes) -> f32 {
        tree(self.to_array(lanes), f32::max)
    }
    /// `a · b + c`, rounded once.
    fn multiply_add(self, a: Self::Lanes, b: Self::Lanes, c: Self::Lanes) -> Self::Lanes;
}

/// A stored number that widens to f32 exactly.
pub(crate) trait Element: Copy + Send + Sync + 'static {
    fn widen(self) -> f32;
    /// Nearest stored value, ties to even.
    fn narrow(value: f32) -> Self;
    fn lanes<S: Simd>(simd: S, values: &[Self; LANES]) -> S::Lanes;
}

macro_rules! element {
    ($type:ty, $load:ident, $widen:expr, $narrow:expr) => {
        impl Element for $type {
            #[inline(always)]
            fn widen(self) -> f32 {
                $widen(self)
            }
            #[inline(always)]
            fn narrow(value: f32) -> Self {
                $narrow(value)
            }
            #[inline(always)]
            fn lanes<S: Simd>(simd: S, values: &[Self; LANES]) -> S::Lanes {
                simd.$load(values)
            }
        }
    };
}
element!(f32, load, |value| value, |value| value);
element!(bf16, load_bf16, bf16::to_f32, bf16::from_f32);
element!(f16, load_f16, f16::to_f32, f16::from_f32);

/// Work to run with a path's instructions.
pub(crate) trait Kernel {
    type Output;
    /// Implementations are `#[inline(always)]`.
    fn call<S: Simd>(self, simd: S) -> Self::Output;
}

/// An instruction set that this processor has.
#[derive(Clone, Copy, Debug)]
pub struct Path(Kind);

#[derive(Clone, Copy, Debug)]
enum Kind {
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Avx512),
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2),
    #[cfg(target_arch = "aarch64")]
    NeonDotprod(neon::Neon<neon::Dotprod>),
    #[cfg(target_arch = "aarch64")]
    Neon(neon::Neon<neon::Widening>),
    Portable(portable::Portable),
}

impl Path {
    /// Every path that runs here, the fastest first; the portable one is last and always there.
    pub fn available() -> Vec<Self> {
        [
            #[cfg(target_arch = "x86_64")]
            avx512::Avx512::detect().map(Kind::Avx512),
            #[cfg(target_arch = "x86_64")]
            avx2::Avx2::detect().map(Kind::Avx2),
            #[cfg(target_arch = "aarch64")]
            neon::Neon::<neon::Dotprod>::detect().map(Kind::NeonDotprod),
            #[cfg(target_arch = "aarch64")]
            neon::Neon::<neon::Widening>::detect().map(Kind::Neon),
            Some(Kind::Portable(portable::Portable)),
        ]
        .into_iter()
        .flatten()
        .map(Self)
        .collect()
    }

    /// The fastest path that runs here.
    pub fn best() -> Self {
        Self::available().first().copied().unwrap_or(Self(Kind::Portable(portable::Portable)))
    }

    /// As `--cpu-path` takes it.
    pub const fn name(self) -> &'static str {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512(_) => "avx512",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2(_) => "avx2",
            #[cfg(target_arch = "aarch64")]
            Kind::NeonDotprod(_) => "neon-dotprod",
            #[cfg(target_arch = "aarch64")]
            Kind::Neon(_) => "neon",
            Kind::Portable(_) => "portable",
        }
    }

    /// Whether its registers hold the sums of tall tiles, see [`Simd::WIDE`].
    pub(crate) const fn is_wide(self) -> bool {
        const fn of<S: Simd>(_simd: S) -> bool {
            S::WIDE
        }
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512(simd) => of(simd),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2(simd) => of(simd),
            #[cfg(target_arch = "aarch64")]
            Kind::NeonDotprod(simd) => of(simd),
            #[cfg(target_arch = "aarch64")]
            Kind::Neon(simd) => of(simd),
            Kind::Portable(simd) => of(simd),
        }
    }

    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512(simd) => simd.run(kernel),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2(simd) => simd.run(kernel),
            #[cfg(target_arch = "aarch64")]
            Kind::NeonDotprod(simd) => simd.run(kernel),
            #[cfg(target_arch = "aarch64")]
            Kind::Neon(simd) => simd.run(kernel),
            Kind::Portable(simd) => kernel.call(simd),
        }
    }
}

/// Lane `i` with lane `i + 8`, then 4, 2 and 1 apart.
#[expect(clippy::inline_always, reason = "must be compiled for the caller's instructions")]
#[inline(always)]
fn tree(mut lanes: [f32; LANES], combine: impl Fn(f32, f32) -> f32) -> f32 {
    for distance in [8, 4, 2, 1] {
        for lane in 0..distance {
            lanes[lane] = combine(lanes[lane], lanes[lane + distance]);
        }
    }
    lanes[0]
}
