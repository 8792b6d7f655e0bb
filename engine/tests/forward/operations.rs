use sparkherd_checkpoint::Dtype;
use sparkherd_engine::backend::{
    Activation, Add, Attention, AttentionOptions, Backend, BackendError, Embed, HostMemory, KvShape, Linear,
    SequenceRows, Weight,
    arena::Arena,
    cases::{Case, all, decode_beside_a_prompt, fused_and_one_by_one},
    cpu::{Cpu, Path},
    oracle::Oracle,
};
use sparkherd_footprint::KvDtype;

/// More than this machine may have, so that pieces really go to several threads.
const THREADS: usize = 3;

/// Keys and values in 8 bits are a GPU's alone, and so are windows, sinks and capped scores.
fn is_of_the_cpu(case: &Case) -> bool {
    case.kv.dtype != KvDtype::Fp8 && !case.has_options
}

fn cases() -> impl Iterator<Item = Case> {
    all().into_iter().filter(is_of_the_cpu)
}

fn cpu(case: &Case, path: Path) -> Vec<f32> {
    case.run(|memory, kv| Cpu::new(memory, kv, path, THREADS)).unwrap()
}

#[test]
fn every_instruction_path_is_within_the_bound_of_the_oracle() {
    for case in cases() {
        let wanted = case.run(Oracle::new).unwrap();
        let largest = wanted.iter().fold(1.0_f32, |largest, value| largest.max(value.abs()));
        for path in Path::available() {
            let got = cpu(&case, path);
            assert_eq!(got.len(), wanted.len());
            for (index, (got, wanted)) in got.iter().zip(&wanted).enumerate() {
                let error = (got - wanted).abs() / largest;
                let named = format!("{} on {}, element {index}", case.name, path.name());
                assert!(error <= case.bound, "{named}: {got} is not {wanted}, error {error:e}");
            }
        }
    }
}

#[test]
fn every_instruction_path_gives_the_same_bits() {
    let portable = *Path::available().last().unwrap();
    for case in cases() {
        let wanted: Vec<u32> = cpu(&case, portable).into_iter().map(f32::to_bits).collect();
        for path in Path::available() {
            let got: Vec<u32> = cpu(&case, path).into_iter().map(f32::to_bits).collect();
            assert_eq!(got, wanted, "{} on {}", case.name, path.name());
        }
    }
}

#[test]
fn attention_of_an_answer_has_the_same_bits_beside_a_prompt() {
    for path in Path::available() {
        for case in [10, 20].map(decode_beside_a_prompt) {
            let bits: Vec<u32> = cpu(&case, path).into_iter().map(f32::to_bits).collect();
            let (alone, beside) = bits.split_at(bits.len() / 2);
            assert!(!alone.is_empty() && alone == beside, "{} on {}", case.name, path.name());
        }
    }
}

#[test]
fn what_is_one_operation_gives_the_same_bits_as_its_parts() {
    for ways in fused_and_one_by_one().into_iter().filter(|ways| is_of_the_cpu(&ways[0])) {
        let bits = |case: &Case| cpu(case, Path::best()).into_iter().map(f32::to_bits).collect::<Vec<u32>>();
        assert_eq!(bits(&ways[0]), bits(&ways[1]), "{}", ways[0].name);
    }
}

/// Backends choose other ways for few rows than for many; the list has to lead into both.
#[test]
fn products_of_few_rows_and_of_many_are_among_the_cases() {
    let rows: Vec<usize> = all().iter().map(|case| case.linear_rows).filter(|rows| *rows > 0).collect();
    assert!([1, 2, 8, 9, 200].iter().all(|wanted| rows.contains(wanted)), "{rows:?}");
}

fn small(make: impl FnOnce(HostMemory, KvShape) -> Box<dyn Backend>) -> Box<dyn Backend> {
    let kv = KvShape { layers: 1, blocks: 1, kv_heads: 1, head_dim: 2, dtype: KvDtype::F32 };
    let arena = |bytes| Arena::map(bytes).unwrap();
    make(
        HostMemory { weights: arena(256), kv: arena(kv.bytes()), workspace: arena(256), packed: arena(4096) },
        kv,
    )
}

#[test]
fn wrong_shapes_places_and_tokens_are_errors_that_name_them() {
    let backends = [
        small(|memory, kv| Box::new(Oracle::new(memory, kv).unwrap())),
        small(|memory, kv| Box::new(Cpu::new(memory, kv, Path::best(), 2).unwrap())),
    ];
    for mut backend in backends {
        let at = |offset, rows, columns| Activation { offset, rows, columns };
        let table = Weight { offset_bytes: 0, dtype: Dtype::F32, rows: 4, columns: 4 };
        let linear = backend.linear(Linear { x: at(0, 2, 4), weight: table, out: at(8, 2, 3) });
        assert_eq!(linear.unwrap_err().to_string(), "linear: columns of out is 3, must be 4");
        let token = backend.embed(Embed { tokens: &[4], table, out: at(0, 1, 4) });
        assert_eq!(token.unwrap_err().to_string(), "embed: token 4 is not below 4");
        let overlap = backend.add(Add { x: at(0, 2, 4), delta: at(4, 2, 4) });
        assert!(matches!(overlap, Err(BackendError::Overlap { operation: "add", .. })));
        let outside = Weight { rows: 17, ..table };
        let beyond = backend.embed(Embed { tokens: &[16], table: outside, out: at(0, 1, 4) });
        assert!(matches!(beyond, Err(BackendError::Weight { rows: 17, arena_bytes: 256, .. })));
    }
}

#[test]
fn what_attention_the_cpu_has_not_is_refused_and_so_is_what_makes_no_sense() {
    let with = |options| {
        let mut backend = small(|memory, kv| Box::new(Cpu::new(memory, kv, Path::best(), 2).unwrap()));
        let at = |offset| Activation { offset, rows: 1, columns: 2 };
        let sequences = [SequenceRows { first_row: 0, rows: 1, position: 0, first_block: 0 }];
        let (queries, out, block_tables) = (at(0), at(2), &[0]);
        let args =
            Attention { layer: 0, queries, scale: 1.0, options, sequences: &sequences, block_tables, out };
        backend.attention(args).map_err(|error| error.to_string())
    };
    let none = AttentionOptions::default();
    assert_eq!(with(none), Ok(()));
    let sinks = |columns| Weight { offset_bytes: 0, dtype: Dtype::F32, rows: 1, columns };
    for (options, told) in [
        (
            AttentionOptions { window: Some(8), ..none },
            "attention with a window, sinks or a cap of scores is not supported here",
        ),
        (
            AttentionOptions { sinks: Some(sinks(1)), ..none },
            "attention with a window, sinks or a cap of scores is not supported here",
        ),
        (
            AttentionOptions { window: Some(0), ..none },
            "attention with a window of no positions is not supported here",
        ),
        (
            AttentionOptions { softcap: Some(0.0), ..none },
            "attention with a cap of scores that is not above 0 is not supported here",
        ),
        (AttentionOptions { sinks: Some(sinks(2)), ..none }, "attention: columns of sinks is 2, must be 1"),
    ] {
        assert_eq!(with(options), Err(told.to_owned()));
    }
}

#[test]
fn a_pool_of_another_size_or_type_is_refused() {
    let kv = KvShape { layers: 1, blocks: 2, kv_heads: 1, head_dim: 2, dtype: KvDtype::F32 };
    let memory = |bytes| HostMemory {
        weights: Arena::map(0).unwrap(),
        kv: Arena::map(bytes).unwrap(),
        workspace: Arena::map(0).unwrap(),
        packed: Arena::map(0).unwrap(),
    };
    let wrong = Cpu::new(memory(kv.bytes() - 4), kv, Path::best(), 1).unwrap_err();
    assert_eq!(wrong.to_string(), "arena of keys and values has 508 bytes, its shape needs 512");
    let fp8 = KvShape { dtype: KvDtype::Fp8, ..kv };
    assert!(matches!(Cpu::new(memory(fp8.bytes()), fp8, Path::best(), 1), Err(BackendError::KvDtype("FP8"))));
}

/// `cargo xtask arm64` knows which processor it emulates, and says which paths must be found: `CPU_PATHS` is their names.
#[test]
fn the_paths_that_this_processor_must_have_are_there() {
    let available: Vec<_> = Path::available().iter().map(|path| path.name()).collect();
    let wanted = std::env::var("CPU_PATHS").unwrap_or_else(|_| available.join(","));
    assert_eq!(available.join(","), wanted);
    assert_eq!(available.last(), Some(&"portable"));
}
