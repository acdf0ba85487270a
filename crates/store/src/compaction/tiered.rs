//! Runs of similar size are merged into one.
//!
//! Merged are runs that end at the youngest one. They grow towards the older ones as long as the next one is not much larger
//! than all of them together: so every byte is rewritten about log2(runs) times, and there are about that many runs. When
//! nothing is written, the rest is merged too, as soon as the younger runs are a fifth of the oldest: what they replace or
//! delete takes room until then.

use model::RunId;

use super::{Choice, Sorted, Urgency};

/// Fewer runs are not worth a merge.
const FEWEST: usize = 4;
/// With more runs than this the youngest are merged, whatever their sizes.
const MOST: usize = 16;
/// When idle, younger runs may have one byte of so many of the oldest.
const IDLE_SHARE: u64 = 5;

/// What to merge next.
pub fn choose(runs: &[Sorted], urgency: Urgency) -> Option<Choice> {
    let sizes: Vec<u64> = runs.iter().map(Sorted::bytes).collect();
    let idle = || (urgency == Urgency::Idle && is_worth(&sizes)).then_some(0);
    let start = suffix(&sizes).or_else(idle)?;
    let into = runs.last().map_or_else(RunId::default, |run| run.id);
    Some(Sorted::all(&runs[start..], into))
}

/// Bytes that the next merges write.
pub fn debt(runs: &[Sorted]) -> u64 {
    let sizes: Vec<u64> = runs.iter().map(Sorted::bytes).collect();
    match suffix(&sizes) {
        Some(start) => sizes[start..].iter().sum(),
        None if is_worth(&sizes) => sizes.iter().sum(),
        None => 0,
    }
}

fn is_worth(sizes: &[u64]) -> bool {
    sizes.split_first().is_some_and(|(oldest, younger)| younger.iter().sum::<u64>() * IDLE_SHARE > *oldest)
}

/// From which run on, of which these are the sizes, oldest first, runs should be merged now.
fn suffix(sizes: &[u64]) -> Option<usize> {
    let mut start = sizes.len().checked_sub(FEWEST)?;
    let sum = |start: usize| sizes[start..].iter().sum::<u64>();
    let similar = |at: usize| sizes[at] <= sum(at + 1) * 2;
    let due = (start..sizes.len() - 1).all(similar) || sizes.len() > MOST;
    while due && start > 0 && sizes[start - 1] <= sum(start) / 5 * 6 {
        start -= 1;
    }
    due.then_some(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similar_runs_are_merged_and_a_large_one_is_left() {
        assert_eq!(suffix(&[]), None);
        assert_eq!(suffix(&[10, 10, 10]), None);
        assert_eq!(suffix(&[10, 10, 10, 10]), Some(0));
        assert_eq!(suffix(&[70, 10, 10, 10]), None);
        assert_eq!(suffix(&[45, 10, 10, 10, 10]), Some(0));
        assert_eq!(suffix(&[100, 10, 10, 10, 10]), Some(1));
    }

    /// Equal flushes for ever: few runs, and each byte written a few times.
    #[test]
    fn runs_stay_few_and_bytes_are_written_seldom() {
        let (mut sizes, mut written) = (Vec::new(), 0u64);
        for _ in 0..1000 {
            sizes.push(10);
            written += 10;
            if let Some(start) = suffix(&sizes) {
                let merged = sizes[start..].iter().sum();
                sizes.truncate(start);
                sizes.push(merged);
                written += merged;
            }
            assert!(sizes.len() <= 12, "{sizes:?}");
        }
        assert!(written < 10_000 * 10, "{written}");
    }

    #[test]
    fn too_many_runs_are_merged_whatever_their_sizes() {
        let sizes: Vec<u64> = (0..17).rev().map(|n| 1 << (2 * n)).collect();
        assert!(suffix(&sizes).is_some());
        assert_eq!(suffix(&sizes[1..]), None);
    }

    /// At rest, no more than a fifth lies beside the oldest run.
    #[test]
    fn what_is_left_is_merged_when_idle() {
        assert!(is_worth(&[100, 30]) && is_worth(&[10, 10]));
        assert!(!is_worth(&[100, 10, 5]) && !is_worth(&[100]) && !is_worth(&[]));
    }
}
