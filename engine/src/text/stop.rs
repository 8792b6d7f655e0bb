//! Ends an answer at the first stop string, and never lets a part of one out.

use super::withhold::possible_beginning;

/// Looks for stop strings in a text that arrives in pieces.
///
/// The result does not depend on where the pieces end: the stop string that is complete first ends the text, the longest
/// one if several are complete at the same place.
#[derive(Debug, Default)]
pub(crate) struct StopMatcher {
    stops: Vec<String>,
    /// Text not let out, because a stop string may begin in it.
    withheld: String,
}

/// What a piece of text led to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stopped {
    /// Text that is sure.
    pub(crate) text: String,
    /// Whether a stop string ended it; nothing comes after.
    pub(crate) stopped: bool,
}

impl StopMatcher {
    /// `stops` has no empty string.
    pub(crate) fn new(stops: Vec<String>) -> Self {
        Self { stops, withheld: String::new() }
    }

    /// Takes the next piece.
    pub(crate) fn push(&mut self, piece: &str) -> Stopped {
        self.withheld.push_str(piece);
        if let Some(start) = self.first_stop() {
            self.withheld.truncate(start);
            return Stopped { text: std::mem::take(&mut self.withheld), stopped: true };
        }
        let withheld = possible_beginning(&self.withheld, self.stops.iter().map(String::as_str));
        let sure = self.withheld.len() - withheld;
        let rest = self.withheld.split_off(sure);
        Stopped { text: std::mem::replace(&mut self.withheld, rest), stopped: false }
    }

    /// What was withheld, when nothing can follow it.
    pub(crate) fn finish(&mut self) -> String {
        std::mem::take(&mut self.withheld)
    }

    /// Where the stop string that is complete first begins.
    fn first_stop(&self) -> Option<usize> {
        let found = self
            .stops
            .iter()
            .filter_map(|stop| self.withheld.find(stop).map(|start| (start + stop.len(), start)));
        found.min().map(|(_, start)| start)
    }
}
