//! What measures a chip reads and multiplies all that it says.

use sparkherd_kernels::{Device, DeviceMemory, Multiply, ReadWords};

fn numbers(device: &mut dyn Device, memory: DeviceMemory) -> Vec<u32> {
    let mut bytes = vec![0; memory.bytes()];
    device.read(memory, &mut bytes).unwrap();
    bytes.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect()
}

#[test]
fn every_word_is_read_once() {
    let blocks = 2;
    // Whole rounds of all threads' loads, some single words, and a rest that is none.
    for words in [0, 1, 511, 513, 512 * 8, 512 * 8 + 700] {
        let mut device = crate::device();
        let from = device.allocate(16 * words + 7).unwrap();
        let bytes: Vec<u8> = (0..from.bytes()).map(|index| (index * 37 + index / 256) as u8).collect();
        device.write(from, &bytes).unwrap();
        let out = device.allocate(blocks as usize * 256 * 4).unwrap();
        let read = ReadWords { from, out, blocks };
        assert_eq!(read.bytes(), 16 * words as u64);
        read.launch(&mut device).unwrap();
        let xor = |numbers: Vec<u32>| numbers.into_iter().fold(0, |sum, number| sum ^ number);
        let of_host = bytes[..16 * words].as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes));
        assert_eq!(xor(numbers(&mut device, out)), xor(of_host.collect()), "{words} words");
        let beyond = ReadWords { out: out.part(0, out.bytes() - 1).unwrap(), ..read };
        assert!(beyond.launch(&mut device).is_err());
    }
}

#[test]
fn every_round_adds_to_every_sum() {
    let mut device = crate::device();
    let out = device.allocate(3 * 256 * 4).unwrap();
    let multiply = Multiply { out, blocks: 3, rounds: 5 };
    multiply.launch(&mut device).unwrap();
    let sums: Vec<f32> = numbers(&mut device, out).into_iter().map(f32::from_bits).collect();
    let wanted = vec![5.0 * 8.0 * 4.0 * 16.0; 3 * 256];
    assert_eq!(sums, wanted);
    // 24 warps, 5 rounds of 8 products of 4096.
    assert_eq!(multiply.operations(), 24 * 5 * 8 * 4096);
}
