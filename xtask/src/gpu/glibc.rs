//! The C library that a program needs, as its version needs tell (System V ABI, "Sections"; LSB, "Symbol Versioning").

use std::fmt;

/// Of glibc.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub major: u32,
    pub minor: u32,
}

/// `SHT_GNU_verneed`
const VERSION_NEEDS: u32 = 0x6fff_fffe;
/// `VER_FLG_WEAK`: a program starts without what it needs so.
const WEAK: u16 = 2;
const SECTION_HEADER_BYTES: usize = 64;

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)
    }
}

/// The newest version that a 64-bit little-endian program needs.
pub fn newest(elf: &[u8]) -> Option<Version> {
    let sections = sections(elf)?;
    let needs = sections.iter().find(|section| section.kind == VERSION_NEEDS)?;
    let names = sections.get(needs.link)?;
    let mut newest = None;
    let mut need = needs.offset;
    loop {
        let mut name = need + word(elf, need + 8)? as usize;
        for _ in 0..half(elf, need + 2)? {
            let text = text(elf, names.offset + word(elf, name + 8)? as usize)?;
            if half(elf, name + 4)? & WEAK == 0 {
                newest = newest.max(version(text));
            }
            name += word(elf, name + 12)? as usize;
        }
        match word(elf, need + 12)? as usize {
            0 => return newest,
            next => need += next,
        }
    }
}

/// `GLIBC_2.34`; what others name is not glibc's.
fn version(text: &str) -> Option<Version> {
    let (major, minor) = text.strip_prefix("GLIBC_")?.split_once('.')?;
    // `2.2.5` is older than all that matter.
    let minor = minor.split('.').next()?;
    Some(Version { major: major.parse().ok()?, minor: minor.parse().ok()? })
}

struct Section {
    kind: u32,
    offset: usize,
    link: usize,
}

fn sections(elf: &[u8]) -> Option<Vec<Section>> {
    if elf.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let start = long(elf, 40)?;
    let of_number = |number: u16| {
        let at = start.checked_add(usize::from(number) * SECTION_HEADER_BYTES)?;
        Some(Section {
            kind: word(elf, at + 4)?,
            offset: long(elf, at + 24)?,
            link: word(elf, at + 40)? as usize,
        })
    };
    (0..half(elf, 60)?).map(of_number).collect()
}

fn bytes<const COUNT: usize>(elf: &[u8], at: usize) -> Option<[u8; COUNT]> {
    elf.get(at..at.checked_add(COUNT)?)?.try_into().ok()
}

fn half(elf: &[u8], at: usize) -> Option<u16> {
    bytes(elf, at).map(u16::from_le_bytes)
}

fn word(elf: &[u8], at: usize) -> Option<u32> {
    bytes(elf, at).map(u32::from_le_bytes)
}

fn long(elf: &[u8], at: usize) -> Option<usize> {
    usize::try_from(bytes(elf, at).map(u64::from_le_bytes)?).ok()
}

fn text(elf: &[u8], at: usize) -> Option<&str> {
    let bytes = elf.get(at..)?;
    std::str::from_utf8(bytes.split(|byte| *byte == 0).next()?).ok()
}

#[cfg(test)]
mod tests {
    use super::{Version, newest};

    /// A program that needs these of one library, each with its flags.
    fn elf(needs: &[(&str, u16)]) -> Vec<u8> {
        let mut names = vec![0];
        let mut table = Vec::new();
        table.extend(1_u16.to_le_bytes());
        table.extend(u16::try_from(needs.len()).unwrap().to_le_bytes());
        for word in [0, 16, 0_u32] {
            table.extend(word.to_le_bytes());
        }
        for (name, flags) in needs {
            table.extend(0_u32.to_le_bytes());
            table.extend(flags.to_le_bytes());
            table.extend(0_u16.to_le_bytes());
            table.extend(u32::try_from(names.len()).unwrap().to_le_bytes());
            table.extend(16_u32.to_le_bytes());
            names.extend(name.bytes().chain([0]));
        }
        let mut elf = b"\x7fELF\x02\x01".to_vec();
        elf.resize(64, 0);
        elf[40..48].copy_from_slice(&64_u64.to_le_bytes());
        elf[60..62].copy_from_slice(&2_u16.to_le_bytes());
        let table_start = 64 + 2 * 64_u64;
        for (kind, offset, link) in
            [(super::VERSION_NEEDS, table_start, 1_u32), (3, table_start + table.len() as u64, 0)]
        {
            let mut header = [0; 64];
            header[4..8].copy_from_slice(&kind.to_le_bytes());
            header[24..32].copy_from_slice(&offset.to_le_bytes());
            header[40..44].copy_from_slice(&link.to_le_bytes());
            elf.extend(header);
        }
        elf.extend(table);
        elf.extend(names);
        elf
    }

    #[test]
    fn the_newest_version_counts_as_numbers_do() {
        let needs = [("GLIBC_2.9", 0), ("GLIBC_2.34", 0), ("GLIBC_2.2.5", 0), ("GCC_4.2.0", 0)];
        assert_eq!(newest(&elf(&needs)), Some(Version { major: 2, minor: 34 }));
        assert!(Version { major: 2, minor: 9 } < Version { major: 2, minor: 34 });
    }

    #[test]
    fn what_is_needed_weakly_is_not_needed() {
        assert_eq!(
            newest(&elf(&[("GLIBC_2.17", 0), ("GLIBC_2.39", 2)])),
            Some(Version { major: 2, minor: 17 })
        );
    }

    #[test]
    fn what_is_cut_or_no_program_has_none() {
        let whole = elf(&[("GLIBC_2.17", 0)]);
        assert!((0..whole.len() - 11).all(|end| newest(&whole[..end]).is_none()));
        assert_eq!(newest(&elf(&[("GCC_3.0", 0)])), None);
    }
}
