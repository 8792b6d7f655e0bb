//! A SentencePiece vocabulary with scores as the merges of a byte-pair encoding.
//!
//! SentencePiece joins, again and again, the two neighbours whose joint piece has the best score. That is byte-pair
//! encoding where a merge's rank is the order of those scores, so each piece gives one merge for every way to cut it into
//! two pieces that exist.

use std::collections::HashMap;

/// A merge: ids of the left and right piece, and of their joint piece.
struct Merge {
    left: u32,
    right: u32,
    joint: u32,
}

/// All merges, best first, as pairs of pieces. `scores` has one entry for each of `pieces`; only those in `mergeable`
/// (ordinary pieces, not controls or bytes) are made by merging.
pub(super) fn merges<'a>(
    pieces: &'a [String],
    scores: &[f64],
    mergeable: impl Fn(usize) -> bool,
) -> Vec<[&'a str; 2]> {
    let ids: HashMap<&str, u32> = (0..).zip(pieces).map(|(id, piece)| (piece.as_str(), id)).collect();
    let mut merges = Vec::new();
    for ((joint, piece), index) in (0..).zip(pieces).zip(0..) {
        if !mergeable(index) {
            continue;
        }
        for (cut, _) in piece.char_indices().skip(1) {
            let (left, right) = piece.split_at(cut);
            if let (Some(left), Some(right)) = (ids.get(left), ids.get(right)) {
                merges.push(Merge { left: *left, right: *right, joint });
            }
        }
    }
    // Equal scores keep the vocabulary's order, so that every run gives the same merges.
    merges.sort_by(|a, b| {
        scores[b.joint as usize]
            .total_cmp(&scores[a.joint as usize])
            .then_with(|| (a.joint, a.left, a.right).cmp(&(b.joint, b.left, b.right)))
    });
    let piece = |id: u32| pieces[id as usize].as_str();
    merges.iter().map(|merge| [piece(merge.left), piece(merge.right)]).collect()
}
