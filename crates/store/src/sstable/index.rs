//! Where the blocks of a table lie.
//!
//! ```text
//!   top                 always in memory
//!    └─▶ group          index block of about two hundred data blocks: in memory or in the cache
//!         └─▶ data block
//! ```
//!
//! Groups of a small table stay in memory, and so do those of larger ones as long as `Cache::pin` grants room for them.

use std::sync::{Arc, OnceLock};

use model::Bytes;

use super::ahead::{Ahead, Purpose};
use super::block::Malformed;
use super::cache::Charge;
use super::fences::Fences;
use super::source::Source;
use super::{PLACE, Place};
use crate::Error;

/// Data blocks that lie end to end, each with a key that is not below its last one, and below the first one of the next.
pub type Group = Fences<Place>;

/// What the top says of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Top {
    /// Where its own block lies.
    pub place: Place,
    /// Where its first data block does.
    pub data: u64,
    /// How many data blocks come before that one.
    pub before: u32,
}

/// Bytes of a [`Top`].
const TOP: usize = PLACE + 8 + 4;

impl Top {
    /// As it lies in the file.
    pub fn to_bytes(self) -> [u8; TOP] {
        let mut bytes = [0; TOP];
        bytes[..PLACE].copy_from_slice(&self.place.to_bytes());
        bytes[PLACE..PLACE + 8].copy_from_slice(&self.data.to_le_bytes());
        bytes[PLACE + 8..].copy_from_slice(&self.before.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Top> {
        let (place, rest) = bytes.split_at_checked(PLACE)?;
        let (data, before) = rest.split_first_chunk()?;
        let (data, before) = (u64::from_le_bytes(*data), u32::from_le_bytes(before.try_into().ok()?));
        Some(Top { place: Place::from_bytes(place)?, data, before })
    }
}

/// See the module.
#[derive(Debug)]
pub struct Index {
    top: Fences<Top>,
    /// All groups, once they are in memory.
    groups: OnceLock<Vec<Arc<Group>>>,
    /// Where the data blocks end.
    data_end: u64,
    /// How many there are.
    blocks: u32,
    charge: OnceLock<Charge>,
}

impl PartialEq for Index {
    fn eq(&self, other: &Index) -> bool {
        (&self.top, self.data_end, self.blocks) == (&other.top, other.data_end, other.blocks)
    }
}

impl Index {
    /// Of a table of which nothing can be read.
    pub fn empty() -> Index {
        Index::of(Fences::default(), 0, 0)
    }

    fn of(top: Fences<Top>, data_end: u64, blocks: u32) -> Index {
        Index { top, groups: OnceLock::new(), data_end, blocks, charge: OnceLock::new() }
    }

    /// Reads the top. The groups lie end to end from `groups_at` to `groups_end`, and their blocks up to `data_end`.
    pub fn decode(
        top: Bytes,
        (groups_at, groups_end): (u64, u64),
        data_end: u64,
        blocks: u32,
    ) -> Result<Index, Malformed> {
        let wrong = Malformed("the index blocks do not fit the file");
        let (mut end, mut least) = (groups_at, (0, 0));
        let top = Fences::decode(top, |value| {
            let top = Top::from_bytes(value).ok_or(Malformed("an index entry does not decode"))?;
            if top.place.offset != end || top.data < least.0 || top.before < least.1 || top.data >= data_end {
                return Err(wrong);
            }
            end = top.place.end().ok_or(wrong)?;
            least = (top.data + 1, top.before + 1);
            Ok(top)
        })?;
        let first = top.things().first().is_none_or(|first| (first.data, first.before) == (0, 0));
        let empty = top.len() == 0 && (data_end, blocks) != (0, 0);
        if !first || empty || end != groups_end || blocks < least.1 {
            return Err(wrong);
        }
        Ok(Index::of(top, data_end, blocks))
    }

    /// Reads the index of version 1, which has one group and no top.
    pub fn decode_v1(payload: Bytes, place: Place, data_end: u64) -> Result<Index, Malformed> {
        let mut end = 0;
        let group = Fences::decode(payload, |value| {
            let place = Place::from_bytes(value).ok_or(Malformed("an index entry does not decode"))?;
            if place.offset != end || place.len == 0 {
                return Err(Malformed("the data blocks do not fill the file"));
            }
            end = place.end().ok_or(Malformed("a data block lies beyond the file"))?;
            Ok(place)
        })?;
        if end != data_end {
            return Err(Malformed("the data blocks do not fill the file"));
        }
        let blocks = group.len() as u32;
        let top = match group.len().checked_sub(1) {
            Some(last) => Fences::single(group.key(last), Top { place, data: 0, before: 0 }),
            None => Fences::default(),
        };
        let index = Index::of(top, data_end, blocks);
        let groups = if blocks == 0 { Vec::new() } else { vec![Arc::new(group)] };
        Ok(Index { groups: OnceLock::from(groups), ..index })
    }

    /// How many groups there are.
    pub fn len(&self) -> usize {
        self.top.len()
    }

    /// How many data blocks there are.
    pub fn blocks(&self) -> u32 {
        self.blocks
    }

    /// Where they end.
    pub fn data_end(&self) -> u64 {
        self.data_end
    }

    /// Not below any key of the group, and below all of the next one.
    pub fn key(&self, group: usize) -> &[u8] {
        self.top.key(group)
    }

    /// How many data blocks come before those of the group.
    pub fn before(&self, group: usize) -> usize {
        self.top.things()[group].before as usize
    }

    /// In which group keys from `target` on begin.
    pub fn find(&self, target: &[u8]) -> usize {
        self.top.find(target)
    }

    /// Which group has the data block at `offset`.
    pub fn group_at(&self, offset: u64) -> usize {
        self.top.things().partition_point(|top| top.data <= offset).saturating_sub(1)
    }

    fn data_of(&self, group: usize) -> (u64, u64) {
        let tops = self.top.things();
        (tops[group].data, tops.get(group + 1).map_or(self.data_end, |next| next.data))
    }

    /// Keeps all groups in memory if they are small, or if there is room.
    pub fn pin(&self, source: &Source, ahead: &mut Ahead) -> Result<(), Error> {
        let stored: u64 = self.top.things().iter().map(|top| u64::from(top.place.len)).sum();
        // Their beginnings are not shared any more.
        if let Some(charge) = source.cache.pin(stored * 2) {
            let _ = self.charge.set(charge);
            self.load(source, ahead)?;
        }
        Ok(())
    }

    /// Keeps all groups in memory.
    pub fn load(&self, source: &Source, ahead: &mut Ahead) -> Result<(), Error> {
        if self.groups.get().is_none() {
            let groups = (0..self.len()).map(|group| self.read(source, group, ahead)).collect::<Result<_, _>>()?;
            let _ = self.groups.set(groups);
        }
        Ok(())
    }

    /// The group, if it is in memory.
    pub fn in_memory(&self, source: &Source, group: usize) -> Option<Arc<Group>> {
        match self.groups.get() {
            Some(groups) => groups.get(group).cloned(),
            None => source.cache.peek_group(source.number, self.top.things()[group].place.offset),
        }
    }

    /// The group, from wherever it is.
    pub fn group(&self, source: &Source, group: usize, purpose: Purpose) -> Result<Arc<Group>, Error> {
        if let Some(groups) = self.groups.get() {
            return Ok(Arc::clone(&groups[group]));
        }
        let offset = self.top.things()[group].place.offset;
        if purpose == Purpose::Background {
            return self.read(source, group, &mut Ahead::default());
        }
        if let Some(found) = source.cache.get_group(source.number, offset) {
            return Ok(found);
        }
        let found = self.read(source, group, &mut Ahead::default())?;
        source.cache.insert_group(source.number, offset, &found);
        Ok(found)
    }

    /// Reads the group from the file.
    pub fn read(&self, source: &Source, group: usize, ahead: &mut Ahead) -> Result<Arc<Group>, Error> {
        let top = self.top.things()[group];
        let (mut end, data_end) = self.data_of(group);
        let payload = source.payload(top.place, None, ahead)?;
        let wrong = Malformed("the data blocks do not fill the file");
        let decoded = Fences::decode(payload, |value| {
            let len =
                value.try_into().map(u32::from_le_bytes).map_err(|_| Malformed("an index entry does not decode"))?;
            let place = Place { offset: end, len };
            end = place.end().filter(|_| len > 0).ok_or(wrong)?;
            Ok(place)
        });
        let group_of = |decoded: Group| {
            let next = self.top.things().get(group + 1).map_or(self.blocks, |next| next.before);
            let last = decoded.len().checked_sub(1).map(|last| decoded.key(last));
            let fits = end == data_end && decoded.len() as u64 == u64::from(next - top.before);
            if fits && last == Some(self.key(group)) { Ok(Arc::new(decoded)) } else { Err(wrong) }
        };
        decoded.and_then(group_of).map_err(|malformed| source.corrupt(top.place, malformed))
    }

    /// Where the data block begins, or at least its group, in which keys from `target` on begin.
    pub fn start_of(&self, target: &[u8]) -> u64 {
        let group = self.find(target);
        if group == self.len() {
            return self.data_end;
        }
        let blocks = self.groups.get().map(|groups| &groups[group]);
        blocks.map_or(self.data_of(group).0, |blocks| blocks.things()[blocks.find(target)].offset)
    }

    /// Where the data block ends, or at least its group, in which keys from `target` on begin.
    pub fn end_of(&self, target: &[u8]) -> u64 {
        let group = self.find(target);
        if group == self.len() {
            return self.data_end;
        }
        let blocks = self.groups.get().map(|groups| &groups[group]);
        let place = blocks.map(|blocks| blocks.things()[blocks.find(target)]);
        place.and_then(Place::end).unwrap_or(self.data_of(group).1)
    }

    /// The key and the bytes of each data block that is known without reading, or else of its whole group.
    pub fn weights(&self) -> impl Iterator<Item = (&[u8], u64)> {
        let whole = |group: usize| {
            let (start, end) = self.data_of(group);
            (self.key(group), end - start)
        };
        let groups = self.groups.get();
        let fine = groups.into_iter().flatten().flat_map(|group| {
            let weight = |at: usize| (group.key(at), u64::from(group.things()[at].len));
            (0..group.len()).map(weight)
        });
        let coarse = if groups.is_some() { 0 } else { self.len() };
        fine.chain((0..coarse).map(whole))
    }
}
