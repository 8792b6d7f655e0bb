use proptest::prelude::*;

use crate::text::stop::{StopMatcher, Stopped};

fn matcher(stops: &[&str]) -> StopMatcher {
    StopMatcher::new(stops.iter().map(ToString::to_string).collect())
}

fn sure(text: &str) -> Stopped {
    Stopped { text: text.to_owned(), stopped: false }
}

#[test]
fn what_may_begin_a_stop_string_is_withheld() {
    let mut stops = matcher(&["\nUser:"]);
    assert_eq!(stops.push("Hi"), sure("Hi"));
    assert_eq!(stops.push(" there\n"), sure(" there"));
    assert_eq!(stops.push("Us"), sure(""));
    assert_eq!(stops.push("ual"), sure("\nUsual"));
    assert_eq!(stops.push("\nUser"), sure(""));
    assert_eq!(stops.push(":more"), Stopped { text: String::new(), stopped: true });
}

#[test]
fn what_was_withheld_comes_out_at_the_end() {
    let mut stops = matcher(&["abc"]);
    assert_eq!(stops.push("xab"), sure("x"));
    assert_eq!(stops.finish(), "ab");
}

#[test]
fn the_stop_string_complete_first_wins() {
    assert_eq!(matcher(&["abcd", "bc"]).push("abcd"), Stopped { text: "a".to_owned(), stopped: true });
    assert_eq!(matcher(&["bc", "abc"]).push("xabc"), Stopped { text: "x".to_owned(), stopped: true });
}

#[test]
fn characters_of_several_bytes_are_not_cut() {
    let mut stops = matcher(&["éà"]);
    assert_eq!(stops.push("é"), sure(""));
    assert_eq!(stops.push("è"), sure("éè"));
}

/// Character by character, looking at the whole text each time.
fn reference(text: &str, stops: &[String]) -> (String, bool) {
    for (end, character) in text.char_indices() {
        let so_far = &text[..end + character.len_utf8()];
        if let Some(stop) = stops.iter().filter(|stop| so_far.ends_with(*stop)).max_by_key(|stop| stop.len())
        {
            return (so_far[..so_far.len() - stop.len()].to_owned(), true);
        }
    }
    (text.to_owned(), false)
}

proptest! {
    /// However the text is cut into pieces, the answer ends where the reference says, and nothing is let out that the
    /// stop string takes back.
    #[test]
    fn pieces_do_not_matter(
        pieces in prop::collection::vec("[abé]{0,5}", 0..12),
        stops in prop::collection::vec("[abé]{1,4}", 0..4),
    ) {
        let mut matcher = StopMatcher::new(stops.clone());
        let (mut text, mut stopped) = (String::new(), false);
        for piece in &pieces {
            let next = matcher.push(piece);
            text += &next.text;
            if next.stopped {
                stopped = true;
                break;
            }
        }
        text += &matcher.finish();
        prop_assert_eq!((text, stopped), reference(&pieces.concat(), &stops));
    }
}
