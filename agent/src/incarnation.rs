use std::fs;

use thiserror::Error;

/// The kernel makes one random UUID per read.
const RANDOM_UUID: &str = "/proc/sys/kernel/random/uuid";

#[derive(Debug, Error)]
#[error("cannot read {RANDOM_UUID}: {0}")]
pub struct IncarnationError(#[from] std::io::Error);

/// A new name for one life of one process.
pub fn new_incarnation() -> Result<String, IncarnationError> {
    Ok(fs::read_to_string(RANDOM_UUID)?.trim().to_owned())
}

/// A new seed: the last 60 bits of a random UUID.
pub fn new_seed() -> Result<u64, IncarnationError> {
    let digits: String = new_incarnation()?.chars().filter(char::is_ascii_hexdigit).collect();
    // Version and variant lie in the digits before these.
    let random = digits.get(digits.len().saturating_sub(15)..).unwrap_or_default();
    Ok(u64::from_str_radix(random, 16).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::{new_incarnation, new_seed};

    #[test]
    fn every_life_has_its_own_name() {
        let (one, other) = (new_incarnation().unwrap(), new_incarnation().unwrap());
        assert_eq!(one.len(), 36);
        assert_ne!(one, other);
        assert_ne!(new_seed().unwrap(), new_seed().unwrap());
    }
}
