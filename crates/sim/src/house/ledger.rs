//! Numbers that are counted up, and rows of accounts between which money moves: what must come out is known whatever the
//! order was.
//!
//! ```text
//!   count:  cput 6 → 7       each number is written once, so the last one says how many increments there were
//!   bank:   cput turn 31 → 45, and with it two of four balances: every read of the row finds the same total
//! ```

use bytes::Bytes;
use model::random::Random;
use model::{Cell, Change, Row, Timestamp};

use super::client::{QUALIFIER, parse};
use super::world::{Checked, World};

/// The end of the key of a row with accounts.
pub(super) const BANK: &str = "#bank";
/// Likewise of one that is counted up.
pub(super) const COUNT: &str = "#count";
const ACCOUNTS: [&str; 4] = ["a", "b", "c", "d"];
/// What is in each account.
pub(super) type Balances = [u64; 4];
pub(super) const OPENING: Balances = [100; 4];
/// Numbers of counters, so that none is another one's value or that of any other write.
const COUNTS: u64 = 1 << 40;
/// In how many of 100 histories, and how many of 100 operations then.
pub(super) const HISTORIES: u64 = 50;
pub(super) const OPERATIONS: u64 = 25;

pub(super) fn is_bank(row: &[u8]) -> bool {
    row.ends_with(BANK.as_bytes())
}

pub(super) fn is_count(row: &[u8]) -> bool {
    row.ends_with(COUNT.as_bytes())
}

/// The number after the one that was seen.
pub(super) fn next_count(counter: u64, seen: Option<u64>) -> u64 {
    seen.unwrap_or(COUNTS + (counter << 32)) + 1
}

/// Balances after something has moved from one account to another.
pub(super) fn transfer(before: Balances, random: &mut Random) -> Balances {
    let (from, to) = (random.below(4) as usize, random.below(4) as usize);
    let amount = before[from].min(1 + random.below(30));
    let mut after = before;
    after[from] -= amount;
    after[to] += amount;
    after
}

/// Writes the accounts. The turn comes beside them.
pub(super) fn changes(balances: &Balances, family: &str) -> Vec<Change<String>> {
    let put = |(account, balance): (&str, &u64)| Change::Put {
        family: family.to_owned(),
        qualifier: Bytes::copy_from_slice(account.as_bytes()),
        timestamp: Timestamp::SERVER,
        value: Bytes::copy_from_slice(&balance.to_le_bytes()),
    };
    ACCOUNTS.into_iter().zip(balances).map(put).collect()
}

/// The cell that is the row's register: of a bank that which holds its turn, of any other row all that there is.
pub(super) fn register(row: &Row) -> &[Cell] {
    match row.cells.iter().position(|cell| cell.qualifier == QUALIFIER) {
        Some(place) if is_bank(&row.key) => &row.cells[place..=place],
        _ => &row.cells,
    }
}

/// The turn of a row with accounts, and what is in them.
pub(super) fn balances(row: &Row) -> Option<(u64, Balances)> {
    let of =
        |name: &str| row.cells.iter().find(|cell| cell.qualifier == name.as_bytes()).map(|cell| parse(&cell.value));
    let [a, b, c, d] = ACCOUNTS.map(of);
    let turn = row.cells.iter().find(|cell| cell.qualifier == QUALIFIER)?;
    is_bank(&row.key).then_some((parse(&turn.value), [a?, b?, c?, d?]))
}

/// Nothing is made and nothing is lost, at whatever moment and from whatever replica the row is read.
pub(super) fn check_total(row: &Row) -> Checked {
    let total = balances(row).map(|(_, balances)| balances.iter().sum::<u64>());
    match total == Some(OPENING.iter().sum()) && row.cells.len() == 5 {
        true => Ok(()),
        false => Err(format!("the accounts of {:?} hold {total:?} together: {:?}", row.key, row.cells)),
    }
}

/// What is known of a counter.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Count {
    /// Increments that were acknowledged, and those that may have happened.
    acknowledged: u64,
    unknown: u64,
    /// The highest number that anybody has seen.
    seen: u64,
}

impl Count {
    pub fn swapped(&mut self, acknowledged: bool) {
        if acknowledged {
            self.acknowledged += 1
        } else {
            self.unknown += 1
        };
    }

    pub fn saw(&mut self, value: u64) {
        self.seen = self.seen.max(value & 0xffff_ffff);
    }
}

impl World {
    /// In the end a counter has been counted up by whatever was acknowledged, and by no more than was asked for.
    pub(super) fn check_counts(&self) -> Checked {
        for (row, count) in &self.record.counts {
            let Count { acknowledged, unknown, seen } = *count;
            if !(acknowledged..=acknowledged + unknown).contains(&seen) {
                return Err(format!(
                    "{row:?} is {seen} after {acknowledged} increments and {unknown} that may have been"
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::client::Area;
    use super::*;

    fn row(turn: u64, balances: Balances) -> Row {
        let cell = |(qualifier, value): (&[u8], u64)| Cell {
            family: model::FamilyId(1),
            qualifier: Bytes::copy_from_slice(qualifier),
            timestamp: Timestamp(1),
            value: Bytes::copy_from_slice(&value.to_le_bytes()),
        };
        let accounts = ACCOUNTS.iter().map(|name| name.as_bytes()).zip(balances);
        let cells = accounts.chain([(QUALIFIER, turn)]).map(cell).collect();
        Row { key: Area::Bank.row(0), cells }
    }

    /// The checker is checked: half a transfer is found.
    #[test]
    fn half_a_transfer_is_found() {
        let after = transfer(OPENING, &mut Random::new(3));
        assert!(check_total(&row(1, OPENING)).is_ok() && check_total(&row(2, after)).is_ok());
        let torn = row(2, [after[0] + 1, after[1], after[2], after[3]]);
        assert!(check_total(&torn).is_err());
        let mut short = row(2, after);
        short.cells.remove(1);
        assert!(check_total(&short).is_err());
        assert_eq!(balances(&row(7, after)), Some((7, after)));
    }
}
