//! What loading promises and how it fails.

use std::{
    collections::VecDeque,
    fs::{self, OpenOptions},
    ops::Range,
};

use sparkherd_checkpoint::{Checkpoint, Dtype, Requantize, RowOrder};
use sparkherd_engine::backend::cases::Random;
use sparkherd_engine::{
    BackendChoice, LoadConfig, LoadError, LoadProgress,
    backend::{BackendError, Weight, arena::Arena},
    load_model,
    weights::{ModelDirectory, Placement, ReadError, Target, WEIGHT_BUFFERS_BYTES, WeightSink, read},
};
use sparkherd_footprint::{Backend, KvDtype};
use sparkherd_kernels::HostBuffer;
use tempfile::TempDir;

use crate::{
    checkpoint::{self, Tensors},
    session,
};

fn config(directory: &TempDir) -> LoadConfig {
    session::config(directory.path(), BackendChoice::Cpu, KvDtype::Bf16, 4)
}

fn written(change: impl FnOnce(&mut Tensors)) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let mut tensors = checkpoint::tensors(11);
    change(&mut tensors);
    checkpoint::write(directory.path(), &tensors);
    directory
}

#[test]
fn the_arenas_are_exactly_the_planned_bytes_and_all_held_when_loaded() {
    let directory = written(|_| {});
    let config = config(&directory);
    let mut reports: Vec<LoadProgress> = Vec::new();
    let model = load_model(&config, &mut |progress| reports.push(progress)).unwrap();
    let parts = config.footprint.parts;
    assert_eq!(model.held_bytes(), parts.weights_bytes + parts.kv_bytes + parts.workspace_bytes);
    assert_eq!(model.footprint(), config.footprint);
    let last = reports.last().unwrap();
    assert_eq!((last.bytes_done, last.held_bytes), (last.bytes_total, model.held_bytes()));
    assert!(reports.windows(2).all(|pair| pair[0].held_bytes <= pair[1].held_bytes));
}

#[test]
fn another_footprint_than_was_admitted_is_refused_with_both_numbers() {
    let directory = written(|_| {});
    let mut config = config(&directory);
    let planned = config.footprint.total_bytes();
    config.footprint.host_bytes -= 1;
    let error = session::load(&config).unwrap_err().to_string();
    let wanted = format!("this checkpoint takes {planned} bytes, it was admitted with {}", planned - 1);
    assert!(error.starts_with(&wanted), "{error}");
    config.platform.backend = Backend::Cuda;
    assert!(matches!(session::load(&config), Err(LoadError::Platform { platform: Backend::Cuda, .. })));
}

#[test]
fn missing_left_over_and_misshapen_tensors_are_named() {
    type Change = fn(&mut Tensors);
    let good = written(|_| {});
    let config = config(&good);
    let changes: [(Change, &str); 3] = [
        (
            |tensors| {
                tensors.remove("model.layers.1.mlp.up_proj.weight");
            },
            "model.layers.1.mlp.up_proj.weight",
        ),
        (
            |tensors| {
                tensors.insert("model.layers.0.self_attn.q_proj.bias".to_owned(), (vec![2], vec![0.0; 2]));
            },
            "model.layers.0.self_attn.q_proj.bias",
        ),
        (
            |tensors| {
                let (shape, _) = tensors.get_mut("model.layers.2.mlp.down_proj.weight").unwrap();
                shape.reverse();
            },
            "model.layers.2.mlp.down_proj.weight",
        ),
    ];
    for (change, named) in changes {
        let directory = written(change);
        let error = session::load(&LoadConfig { model_dir: directory.path().to_owned(), ..config.clone() });
        let message = error.unwrap_err().to_string();
        assert!(message.contains(named), "{message}");
    }
}

#[test]
fn a_file_cut_short_before_or_after_its_header_was_read_is_an_error() {
    let directory = written(|_| {});
    let config = config(&directory);
    let path = directory.path().join("model.safetensors");
    let checkpoint = Checkpoint::read(&ModelDirectory(directory.path().to_owned())).unwrap();
    let placement = Placement::new(&checkpoint.index, &checkpoint.config, Requantize::None).unwrap();
    let last = placement.tensors.iter().max_by_key(|tensor| tensor.file_offset_bytes).unwrap();
    let end = last.file_offset_bytes + last.bytes as u64 - 3;
    OpenOptions::new().write(true).open(&path).unwrap().set_len(end).unwrap();

    let mut arena = Arena::map(placement.arena_bytes as usize).unwrap();
    let error = read(directory.path(), &placement, Target::Arena(&mut arena), &mut |_| {}).unwrap_err();
    let wanted = format!("model.safetensors ends at byte {end}, inside tensor {}", last.name);
    assert_eq!(error.to_string(), wanted);

    let error = session::load(&config).unwrap_err();
    assert!(matches!(&error, LoadError::Checkpoint(_)), "{error}");
    assert!(error.to_string().contains("model.safetensors"), "{error}");

    fs::remove_file(&path).unwrap();
    let error = read(directory.path(), &placement, Target::Arena(&mut arena), &mut |_| {}).unwrap_err();
    assert!(error.to_string().starts_with("cannot open model.safetensors"), "{error}");
}

/// Longer than a few chunks, beginning and ending off every sector.
#[test]
fn the_arena_holds_the_files_bytes() {
    let mut random = Random::new(3);
    let directory = tempfile::tempdir().unwrap();
    checkpoint::write(directory.path(), &checkpoint::tensors(11));
    let checkpoint = Checkpoint::read(&ModelDirectory(directory.path().to_owned())).unwrap();
    let mut placement = Placement::new(&checkpoint.index, &checkpoint.config, Requantize::None).unwrap();
    placement.tensors.truncate(2);
    let content: Vec<u8> = (0..(11 << 20) + 12_345).map(|_| random.next_u64() as u8).collect();
    fs::write(directory.path().join("model.safetensors"), &content).unwrap();
    let (first, second) = ((777, 9 << 20), ((9 << 20) + 778, (1 << 20) + 5));
    let mut offset = 0;
    for (tensor, (start, bytes)) in placement.tensors.iter_mut().zip([first, second]) {
        (tensor.file_offset_bytes, tensor.file_bytes, tensor.bytes) = (start as u64, bytes, bytes);
        tensor.weight.offset_bytes = offset;
        offset += bytes.next_multiple_of(256);
    }
    placement.arena_bytes = offset as u64;
    let mut arena = Arena::map(offset).unwrap();
    let mut done = 0;
    read(directory.path(), &placement, Target::Arena(&mut arena), &mut |bytes| done += bytes).unwrap();
    assert_eq!(done as usize, first.1 + second.1);
    for (tensor, (start, bytes)) in placement.tensors.iter().zip([first, second]) {
        let held = &arena.as_slice::<u8>()[tensor.weight.offset_bytes..][..bytes];
        assert!(held == &content[start..start + bytes], "{}", tensor.name);
    }

    // In whatever order, each byte is sent once.
    let mut device = Copies { got: vec![0; offset], ..Copies::default() };
    read(directory.path(), &placement, Target::Sent(&mut device), &mut |_| {}).unwrap();
    assert!(device.sent_bytes == first.1 + second.1 && device.got == arena.as_slice::<u8>()[..offset]);
    assert!(device.under_way.is_empty(), "what is left is waited for");

    // Nobody waits for a buffer that does not come back.
    let mut broken = Copies { is_broken: true, ..Copies::default() };
    let error = read(directory.path(), &placement, Target::Sent(&mut broken), &mut |_| {}).unwrap_err();
    assert!(matches!(error, ReadError::Sent(BackendError::WorkerPanicked)), "{error}");
}

#[test]
fn what_is_converted_reaches_a_device_as_it_does_an_arena() {
    const ROWS: usize = 1500;
    const COLUMNS: usize = 2048;
    let directory = tempfile::tempdir().unwrap();
    checkpoint::write(directory.path(), &checkpoint::tensors(11));
    let checkpoint = Checkpoint::read(&ModelDirectory(directory.path().to_owned())).unwrap();
    let mut placement = Placement::new(&checkpoint.index, &checkpoint.config, Requantize::None).unwrap();
    placement.tensors.truncate(1);
    // Its second chunk of rows takes more in the arena than a buffer has.
    let tensor = &mut placement.tensors[0];
    tensor.stored = Dtype::Bf16;
    tensor.row_order = RowOrder::AsComputed;
    tensor.weight = Weight { offset_bytes: 0, dtype: Dtype::Q8_0, rows: ROWS, columns: COLUMNS };
    tensor.file_offset_bytes = 100;
    (tensor.file_bytes, tensor.bytes) = (ROWS * COLUMNS * 2, ROWS * COLUMNS / 32 * 34);
    placement.arena_bytes = tensor.bytes as u64;
    let (file_bytes, bytes) = (tensor.file_bytes, tensor.bytes);
    let mut random = Random::new(5);
    // BF16 from 0.5 to 1.
    let content: Vec<u8> = (0..100 + file_bytes)
        .map(|index| if index % 2 == 1 { 0x3f } else { random.next_u64() as u8 })
        .collect();
    fs::write(directory.path().join("model.safetensors"), &content).unwrap();

    let mut arena = Arena::map(bytes).unwrap();
    read(directory.path(), &placement, Target::Arena(&mut arena), &mut |_| {}).unwrap();
    let mut device = Copies { got: vec![0; bytes], ..Copies::default() };
    let mut done = 0;
    read(directory.path(), &placement, Target::Sent(&mut device), &mut |bytes| done += bytes).unwrap();
    assert_eq!((done as usize, device.sent_bytes), (file_bytes, bytes));
    assert!(device.got == arena.as_slice::<u8>());
    assert!(device.got.iter().any(|byte| *byte != 0));
}

/// A device that keeps a buffer for a while, and copies from it when it gives it back.
#[derive(Default)]
struct Copies {
    got: Vec<u8>,
    sent_bytes: usize,
    under_way: VecDeque<(usize, HostBuffer, Range<usize>)>,
    is_broken: bool,
}

impl Copies {
    fn copy_oldest(&mut self) -> Option<HostBuffer> {
        let (place, buffer, bytes) = self.under_way.pop_front()?;
        self.got[place..place + bytes.len()].copy_from_slice(&buffer.as_slice()[bytes]);
        Some(buffer)
    }
}

impl WeightSink for Copies {
    fn buffers(&mut self, count: usize, bytes: usize) -> Result<Vec<HostBuffer>, BackendError> {
        assert_eq!((count * bytes) as u64, WEIGHT_BUFFERS_BYTES);
        Ok((0..count).map(|_| HostBuffer::ordinary(bytes)).collect())
    }

    fn send(
        &mut self,
        place: usize,
        buffer: HostBuffer,
        bytes: Range<usize>,
    ) -> Result<Option<HostBuffer>, BackendError> {
        if self.is_broken {
            return Err(BackendError::WorkerPanicked);
        }
        self.sent_bytes += bytes.len();
        self.under_way.push_back((place, buffer, bytes));
        Ok(if self.under_way.len() < 2 { None } else { self.copy_oldest() })
    }

    fn finish(&mut self) -> Result<(), BackendError> {
        while self.copy_oldest().is_some() {}
        Ok(())
    }
}
