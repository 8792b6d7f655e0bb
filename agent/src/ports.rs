use std::collections::BTreeSet;
use std::str::FromStr;

use thiserror::Error;

#[derive(Debug, Error, PartialEq, Eq)]
pub enum PortRangeError {
    #[error("{text:?} is not a port range such as 8100-8163")]
    Malformed { text: String },
    #[error("port range {first}-{last} is empty")]
    Empty { first: u16, last: u16 },
}

/// Ports engines may listen on, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl FromStr for PortRange {
    type Err = PortRangeError;

    fn from_str(text: &str) -> Result<Self, PortRangeError> {
        let malformed = || PortRangeError::Malformed { text: text.to_owned() };
        let (first, last) = text.split_once('-').ok_or_else(malformed)?;
        let first: u16 = first.parse().map_err(|_| malformed())?;
        let last: u16 = last.parse().map_err(|_| malformed())?;
        if first == 0 || first > last {
            return Err(PortRangeError::Empty { first, last });
        }
        Ok(Self { first, last })
    }
}

impl PortRange {
    /// The first port that no engine of ours has and `is_free` agrees to.
    pub fn pick(&self, taken: &BTreeSet<u16>, is_free: impl Fn(u16) -> bool) -> Option<u16> {
        (self.first..=self.last).find(|port| !taken.contains(port) && is_free(*port))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{PortRange, PortRangeError};

    #[test]
    fn parses_and_picks() {
        let range: PortRange = "8100-8102".parse().unwrap();
        assert_eq!(range.pick(&BTreeSet::new(), |_| true), Some(8100));
        assert_eq!(range.pick(&BTreeSet::from([8100]), |port| port != 8101), Some(8102));
        assert_eq!(range.pick(&BTreeSet::from([8100, 8101, 8102]), |_| true), None);
    }

    #[test]
    fn refuses_nonsense() {
        for text in ["", "8100", "a-b", "1-70000"] {
            assert!(matches!(text.parse::<PortRange>(), Err(PortRangeError::Malformed { .. })), "{text}");
        }
        assert_eq!("9-8".parse::<PortRange>(), Err(PortRangeError::Empty { first: 9, last: 8 }));
        assert!("0-8".parse::<PortRange>().is_err());
    }
}
