//! Runs on levels, each ten times as large as the one above, of which small parts are merged at a time.
//!
//! ```text
//!   level 0   flushes, each a run
//!   level 5   ▒▒▒▒▒       a tenth of level 6        the first level that has room is where level 0 is merged into;
//!   level 6   ▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒  sizes follow from that of the last level, so little room is wasted
//! ```
//!
//! Of a level that is too large, that table moves down which has the least to be merged with there for its size.

use model::{Bytes, RunId};

use super::{Choice, Piece, Sorted, Urgency};

/// The last level.
const LAST: u8 = 6;
/// A level has so many times the bytes of the one above.
const GROWTH: u64 = 10;
/// The first level that is used is at most so large.
const BASE: u64 = 256 << 20;
/// So many flushes are merged at once.
const FLUSHES: usize = 4;

/// What to merge next.
pub fn choose(runs: &[Sorted], urgency: Urgency) -> Option<Choice> {
    let locality = runs.first()?.id.locality;
    let first = first_level(runs);
    let young = runs.iter().filter(|run| run.id.level == 0).count();
    let fewest = if urgency == Urgency::Idle { 1 } else { FLUSHES };
    // What an older first level has above the present one is moved along, or it would be in the way of time.
    let above = runs.iter().filter(|run| run.id.level < first);
    if young >= fewest || (young == 0 && above.clone().count() > 0) {
        return Some(down(runs, above.flat_map(|run| &run.pieces), RunId::on_level(locality, first)));
    }
    (first..LAST).rev().find_map(|level| {
        let run = at(runs, level).filter(|run| run.bytes() > target(runs, level))?;
        let below = RunId::on_level(locality, level + 1);
        let cost = |piece: &&Piece| {
            let met = at(runs, level + 1)
                .map_or(0, |lower| lower.overlapping(&piece.first, &piece.last).map(|piece| piece.bytes).sum::<u64>());
            met * 1_000 / piece.bytes.max(1)
        };
        run.pieces.iter().min_by_key(cost).map(|piece| down(runs, [piece].into_iter(), below))
    })
}

/// Bytes that are above their place.
pub fn debt(runs: &[Sorted]) -> u64 {
    let young: u64 = runs.iter().filter(|run| run.id.level == 0).map(Sorted::bytes).sum();
    let over = |level| at(runs, level).map_or(0, |run| run.bytes().saturating_sub(target(runs, level)));
    young + (first_level(runs)..LAST).map(over).sum::<u64>()
}

/// These pieces, and all that lies where they go and has rows in their range.
fn down<'a>(runs: &'a [Sorted], pieces: impl Iterator<Item = &'a Piece>, into: RunId) -> Choice {
    let pieces: Vec<&Piece> = pieces.collect();
    let first = pieces.iter().map(|piece| &piece.first).min().cloned().unwrap_or_default();
    let last = pieces.iter().map(|piece| &piece.last).max().cloned().unwrap_or_else(Bytes::new);
    let met = at(runs, into.level).into_iter().flat_map(|run| run.overlapping(&first, &last));
    let inputs = pieces.iter().copied().chain(met).map(|piece| piece.number).collect();
    Choice { inputs, into, rewrite: false }
}

fn at(runs: &[Sorted], level: u8) -> Option<&Sorted> {
    runs.iter().find(|run| run.id.level == level && level > 0)
}

/// How large the level should be.
fn target(runs: &[Sorted], level: u8) -> u64 {
    let last = at(runs, LAST).map_or(0, Sorted::bytes);
    (level..LAST).fold(last, |bytes, _| bytes / GROWTH)
}

/// The level that flushes are merged into: the lowest one that is not too large to be that.
fn first_level(runs: &[Sorted]) -> u8 {
    (1..=LAST).rev().find(|&level| target(runs, level) <= BASE).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use model::{LocalityId, Lsn};

    use super::*;

    fn row(number: u64) -> Bytes {
        Bytes::from(format!("{number:08}"))
    }

    fn piece(number: u64, bytes: u64, first: u64, last: u64) -> Piece {
        let (first, last) = (row(first), row(last));
        Piece { number, bytes, entries: 1, deletions: 0, first, last, foreign: false }
    }

    const MIB: u64 = 1 << 20;

    /// Tables over all rows, for ever: levels keep their proportions, no row lies twice on a level, each byte is written a
    /// bounded number of times, and little room is taken by what is not on the last level.
    #[test]
    fn levels_keep_their_proportions() {
        let mut levels: BTreeMap<RunId, Vec<Piece>> = BTreeMap::new();
        let (mut number, mut written, mut flushed) = (0, 0, 0);
        for flush in 1..1_500 {
            number += 1;
            let id = RunId { locality: LocalityId(0), level: 0, age: Lsn(flush) };
            levels.insert(id, vec![piece(number, 32 * MIB, 0, 9_999)]);
            flushed += 32 * MIB;
            written += 32 * MIB;
            loop {
                let runs: Vec<Sorted> =
                    levels.iter().map(|(id, pieces)| Sorted { id: *id, pieces: pieces.clone() }).collect();
                let Some(choice) = choose(&runs, Urgency::Busy) else { break };
                let taken: Vec<Piece> =
                    levels.values().flatten().filter(|piece| choice.inputs.contains(&piece.number)).cloned().collect();
                assert_eq!(taken.len(), choice.inputs.len());
                for pieces in levels.values_mut() {
                    pieces.retain(|piece| !choice.inputs.contains(&piece.number));
                }
                levels.retain(|_, pieces| !pieces.is_empty());
                let bytes: u64 = taken.iter().map(|piece| piece.bytes).sum();
                let parse = |row: &Bytes| std::str::from_utf8(row).unwrap().parse::<u64>().unwrap();
                let first = taken.iter().map(|piece| parse(&piece.first)).min().unwrap();
                let last = taken.iter().map(|piece| parse(&piece.last)).max().unwrap();
                written += bytes;
                let parts = bytes.div_ceil(64 * MIB).min(last - first + 1);
                let run = levels.entry(choice.into).or_default();
                for part in 0..parts {
                    let at = |part| first + (last + 1 - first) * part / parts;
                    number += 1;
                    run.push(piece(number, bytes / parts, at(part), at(part + 1) - 1));
                }
                run.sort_by(|a, b| a.first.cmp(&b.first));
                assert!(run.windows(2).all(|pair| pair[0].last < pair[1].first), "{:?}", choice.into);
            }
        }
        let all: u64 = levels.values().flatten().map(|piece| piece.bytes).sum();
        let last: u64 = levels[&RunId::on_level(LocalityId(0), LAST)].iter().map(|piece| piece.bytes).sum();
        assert!(all - last < last / 5, "{all} bytes, {last} of them on the last level");
        assert!(written < flushed * 25, "{written} bytes written for {flushed}");
    }

    #[test]
    fn the_cheapest_table_moves_down() {
        let of = |level, pieces| Sorted { id: RunId::on_level(LocalityId(0), level), pieces };
        let last = (0..40).map(|n| piece(100 + n, 100 * MIB, n * 100, n * 100 + 99)).collect();
        let above = vec![piece(1, 200 * MIB, 0, 950), piece(2, 200 * MIB, 1000, 1010), piece(3, 200 * MIB, 2000, 3000)];
        let choice = choose(&[of(6, last), of(5, above)], Urgency::Busy).unwrap();
        assert_eq!((choice.into.level, choice.inputs.into_iter().collect::<Vec<_>>()), (6, vec![2, 110]));
    }
}
