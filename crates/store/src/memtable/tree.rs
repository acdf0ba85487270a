//! A B+-tree over an arena: nodes hold where keys lie, and of each key the eight bytes that matter there.
//!
//! ```text
//!   inner   prefix | separator | child     separators are addresses too: no key is written twice
//!     │
//!   leaf    prefix | address                linked both ways
//! ```
//!
//! Between the separators around a node (its fences) all keys begin alike, by `skip` bytes; the prefixes are what follows.
//! So most steps of a search compare two numbers, however long the part is that all rows share. The outermost nodes
//! lack a fence: there `skip` is what all keys of the tree share, and is corrected when that becomes less.
//!
//! Nothing is removed. Keys that come in order leave full nodes behind, and are found a place without a search from the
//! root, also if what they stand between was there before: the leaf of the last one is tried first.

use std::cmp::Ordering;

use super::arena::{Address, Arena, Value};

/// Keys of a node.
const FAN: usize = 64;

/// So many keys near each other are taken for an order: more than the columns of most rows.
const NEAR: u8 = 16;

/// Sorted keys of a node.
struct Slots {
    len: usize,
    /// So many first bytes all keys share that can ever come here.
    skip: usize,
    /// All keys are at or after the first, and before the second, if there are such.
    fences: [Address; 2],
    prefixes: [u64; FAN],
    keys: [Address; FAN],
}

struct Leaf {
    slots: Slots,
    before: u32,
    after: u32,
}

/// Child `n + 1` has what is at or after key `n`, up to the next one.
struct Inner {
    slots: Slots,
    children: [u32; FAN + 1],
}

const NOWHERE: u32 = u32::MAX;

/// Where an entry stands, until something is inserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    leaf: u32,
    slot: u32,
}

#[derive(Default)]
#[expect(clippy::vec_box, reason = "a vector of nodes would copy them all when it grows")]
pub(super) struct Tree {
    arena: Arena,
    leaves: Vec<Box<Leaf>>,
    inners: Vec<Box<Inner>>,
    /// Floors above the leaves; with none, the root is leaf 0.
    height: u32,
    root: u32,
    last_leaf: u32,
    entries: u64,
    /// Some key of it, and how many first bytes of that all share.
    any: Option<Address>,
    shared: usize,
    /// The inner nodes passed on the way to a leaf, and which child was taken.
    path: Vec<(u32, usize)>,
    /// Where that way led, if it still does.
    finger: Option<u32>,
    /// So many keys after each other went to the leaf of the one before.
    near: u8,
}

impl Tree {
    pub fn len(&self) -> u64 {
        self.entries
    }

    /// Bytes of memory that it takes.
    pub fn taken(&self) -> usize {
        let pointer = size_of::<usize>();
        let leaves = self.leaves.len() * (size_of::<Leaf>() + pointer);
        self.arena.taken() + leaves + self.inners.len() * (size_of::<Inner>() + pointer)
    }

    /// Adds an entry, unless the key is there.
    pub fn insert(&mut self, key: &[u8], value: Value<'_>) {
        let Some(any) = self.any else {
            let address = self.arena.push(key, value);
            let mut slots = Slots::new([Address::NONE; 2], key.len());
            slots.insert(0, 0, address);
            self.leaves.push(Box::new(Leaf { slots, before: NOWHERE, after: NOWHERE }));
            (self.any, self.shared, self.entries) = (Some(address), key.len(), 1);
            return;
        };
        let shared = common(&self.arena.key(any)[..self.shared], key);
        if shared < self.shared {
            self.share(shared);
        }
        let leaf = self.leaf_for(key);
        let slots = &self.leaves[leaf as usize].slots;
        let (slot, found) = slots.find(&self.arena, key);
        if found {
            return;
        }
        let prefix = prefix(key, slots.skip);
        let full = slots.len == FAN;
        let address = self.arena.push(key, value);
        self.entries += 1;
        if full {
            self.finger = None;
            self.split_leaf(leaf, slot, address);
        } else {
            self.leaves[leaf as usize].slots.insert(slot, prefix, address);
        }
    }

    /// The leaf in which the key belongs.
    fn leaf_for(&mut self, key: &[u8]) -> u32 {
        // Where rows come at random it is not worth looking.
        let likely = self.finger.filter(|_| self.near >= NEAR);
        if let Some(leaf) = likely.filter(|&leaf| self.leaves[leaf as usize].slots.may_hold(&self.arena, key)) {
            return leaf;
        }
        let leaf = self.descend(key);
        self.near = match self.finger {
            Some(last) if last != leaf => 0,
            _ => self.near.saturating_add(1),
        };
        self.finger = Some(leaf);
        leaf
    }

    /// To the leaf in which the key belongs; the path is noted.
    fn descend(&mut self, key: &[u8]) -> u32 {
        self.path.clear();
        let last = &self.leaves[self.last_leaf as usize].slots;
        let comes_last = last.len > 0 && self.arena.key(last.keys[last.len - 1]) < key;
        let mut node = self.root;
        for _ in 0..self.height {
            let inner = &self.inners[node as usize];
            let child = if comes_last { inner.slots.len } else { inner.slots.child(&self.arena, key) };
            self.path.push((node, child));
            node = inner.children[child];
        }
        node
    }

    /// All keys share only so many bytes now.
    fn share(&mut self, shared: usize) {
        self.shared = shared;
        for outermost in [(|_| 0) as fn(usize) -> usize, |len| len] {
            let mut node = self.root;
            for _ in 0..self.height {
                let inner = &mut self.inners[node as usize];
                inner.slots.set_skip(&self.arena, shared);
                node = inner.children[outermost(inner.slots.len)];
            }
            self.leaves[node as usize].slots.set_skip(&self.arena, shared);
        }
    }

    fn split_leaf(&mut self, left: u32, slot: usize, address: Address) {
        let right = number(self.leaves.len());
        let leaf = &mut self.leaves[left as usize];
        let after = std::mem::replace(&mut leaf.after, right);
        let comes_last = slot == FAN && after == NOWHERE;
        let middle = if comes_last { FAN } else { FAN / 2 };
        let separator = if comes_last { address } else { leaf.slots.keys[middle] };
        let mut slots = leaf.slots.split(&self.arena, self.shared, middle, separator);
        let key = self.arena.key(address);
        if comes_last || slot > middle {
            slots.insert(slot - middle, prefix(key, slots.skip), address);
        } else {
            leaf.slots.insert(slot, prefix(key, leaf.slots.skip), address);
        }
        self.leaves.push(Box::new(Leaf { slots, before: left, after }));
        match self.leaves.get_mut(after as usize) {
            Some(leaf) => leaf.before = right,
            None => self.last_leaf = right,
        }
        self.add_child(left, separator, right);
    }

    /// After a split: the part from `separator` on is `right` now.
    fn add_child(&mut self, mut left: u32, mut separator: Address, mut right: u32) {
        while let Some((node, child)) = self.path.pop() {
            let inner = &mut self.inners[node as usize];
            if inner.slots.len < FAN {
                inner.insert(&self.arena, child, separator, right);
                return;
            }
            let comes_last = child == FAN && inner.slots.fences[1] == Address::NONE;
            let middle = if comes_last { FAN } else { FAN / 2 };
            // The middle one goes up; its child becomes the first on the right.
            let up = if comes_last { separator } else { inner.slots.keys[middle] };
            let mut children = [NOWHERE; FAN + 1];
            let mut slots = inner.slots.split(&self.arena, self.shared, middle, up);
            if comes_last {
                children[0] = right;
                self.inners.push(Box::new(Inner { slots, children }));
            } else {
                slots.remove_first();
                children[..=slots.len].copy_from_slice(&inner.children[middle + 1..]);
                let mut half = Box::new(Inner { slots, children });
                if child > middle {
                    half.insert(&self.arena, child - middle - 1, separator, right);
                } else {
                    inner.insert(&self.arena, child, separator, right);
                }
                self.inners.push(half);
            }
            (left, separator, right) = (node, up, number(self.inners.len() - 1));
        }
        let mut root = Inner { slots: Slots::new([Address::NONE; 2], self.shared), children: [NOWHERE; FAN + 1] };
        root.children[0] = left;
        root.insert(&self.arena, 0, separator, right);
        self.root = number(self.inners.len());
        self.inners.push(Box::new(root));
        self.height += 1;
    }

    /// Where the first entry is whose key is not below the target; `None` if there is none.
    pub fn first_from(&self, target: &[u8]) -> Option<Place> {
        let (leaf, slot) = self.find(target)?;
        let next = Place { leaf: self.leaves[leaf as usize].after, slot: 0 };
        let within = slot < self.leaves[leaf as usize].slots.len;
        let place = if within { Place { leaf, slot: number(slot) } } else { next };
        (place.leaf != NOWHERE).then_some(place)
    }

    /// Has it a key from `start` on and before `end`? Mostly the prefixes tell, and no key is looked at.
    pub fn holds(&self, start: &[u8], end: &[u8]) -> bool {
        let (Some(any), Some((leaf, slot))) = (self.any, self.find(start)) else { return false };
        let slots = &self.leaves[leaf as usize].slots;
        let in_leaf = start.starts_with(&self.arena.key(any)[..self.shared]);
        if in_leaf && slot < slots.len && end.get(..slots.skip) == start.get(..slots.skip) {
            match slots.prefixes[slot].cmp(&prefix(end, slots.skip)) {
                Ordering::Less => return true,
                Ordering::Greater => return false,
                Ordering::Equal => {}
            }
        }
        self.first_from(start).is_some_and(|place| self.entry(place).0 < end)
    }

    /// Where the last entry is whose key is below the target; `None` if there is none.
    pub fn last_before(&self, target: &[u8]) -> Option<Place> {
        let (leaf, slot) = self.find(target)?;
        self.before(Place { leaf, slot: number(slot) })
    }

    /// The last entry.
    pub fn last(&self) -> Option<(&[u8], Value<'_>)> {
        let slots = &self.leaves.get(self.last_leaf as usize)?.slots;
        Some(self.arena.entry(slots.keys[slots.len - 1]))
    }

    /// The first leaf and slot that the target's successors have, if it were there.
    fn find(&self, target: &[u8]) -> Option<(u32, usize)> {
        let all_share = &self.arena.key(self.any?)[..self.shared];
        let common = common(all_share, target);
        if common < self.shared {
            // No node knows what to do with it; but it is before or after all.
            let first = target.get(common).is_none_or(|byte| *byte < all_share[common]);
            let last = || (self.last_leaf, self.leaves[self.last_leaf as usize].slots.len);
            return Some(if first { (self.first_leaf(), 0) } else { last() });
        }
        let mut node = self.root;
        for _ in 0..self.height {
            let inner = &self.inners[node as usize];
            node = inner.children[inner.slots.child(&self.arena, target)];
        }
        let (slot, _) = self.leaves[node as usize].slots.find(&self.arena, target);
        Some((node, slot))
    }

    /// A leaf is split to the right, so the first one stays the first.
    fn first_leaf(&self) -> u32 {
        0
    }

    /// The entry there.
    pub fn entry(&self, place: Place) -> (&[u8], Value<'_>) {
        self.arena.entry(self.leaves[place.leaf as usize].slots.keys[place.slot as usize])
    }

    /// The place after.
    pub fn after(&self, place: Place) -> Option<Place> {
        let leaf = &self.leaves[place.leaf as usize];
        if (place.slot as usize) + 1 < leaf.slots.len {
            return Some(Place { slot: place.slot + 1, ..place });
        }
        // Every leaf but the very first is made with an entry in it.
        (leaf.after != NOWHERE).then_some(Place { leaf: leaf.after, slot: 0 })
    }

    /// The place before.
    pub fn before(&self, place: Place) -> Option<Place> {
        if let Some(slot) = place.slot.checked_sub(1) {
            return Some(Place { slot, ..place });
        }
        let leaf = self.leaves[place.leaf as usize].before;
        let before = self.leaves.get(leaf as usize)?;
        Some(Place { leaf, slot: number(before.slots.len - 1) })
    }
}

impl Inner {
    /// What was in this child is from the separator on in `right`.
    fn insert(&mut self, arena: &Arena, child: usize, separator: Address, right: u32) {
        self.children.copy_within(child + 1..=self.slots.len, child + 2);
        self.children[child + 1] = right;
        self.slots.insert(child, prefix(arena.key(separator), self.slots.skip), separator);
    }
}

impl Slots {
    fn new(fences: [Address; 2], skip: usize) -> Slots {
        Slots { len: 0, skip, fences, prefixes: [0; FAN], keys: [Address::NONE; FAN] }
    }

    /// Does the key lie between the fences?
    fn may_hold(&self, arena: &Arena, key: &[u8]) -> bool {
        let [first, last] = self.fences;
        (first == Address::NONE || arena.key(first) <= key) && (last == Address::NONE || key < arena.key(last))
    }

    /// Where the key is or belongs, and whether it is there.
    fn find(&self, arena: &Arena, key: &[u8]) -> (usize, bool) {
        let prefix = prefix(key, self.skip);
        let first = self.prefixes[..self.len].partition_point(|&other| other < prefix);
        let alike = self.alike(first, prefix);
        if alike == 0 {
            return (first, false);
        }
        let keys = &self.keys[first..first + alike];
        let at = keys.partition_point(|&other| arena.key(other)[self.skip..] < key[self.skip..]);
        let found = keys.get(at).is_some_and(|&other| arena.key(other)[self.skip..] == key[self.skip..]);
        (first + at, found)
    }

    /// In which child the key belongs.
    fn child(&self, arena: &Arena, key: &[u8]) -> usize {
        let prefix = prefix(key, self.skip);
        let first = self.prefixes[..self.len].partition_point(|&other| other < prefix);
        let keys = &self.keys[first..first + self.alike(first, prefix)];
        first + keys.partition_point(|&other| arena.key(other)[self.skip..] <= key[self.skip..])
    }

    /// How many from `first` on have this prefix.
    fn alike(&self, first: usize, prefix: u64) -> usize {
        match self.prefixes[first..self.len].first() {
            Some(&other) if other == prefix => self.prefixes[first..self.len].partition_point(|&other| other == prefix),
            _ => 0,
        }
    }

    fn insert(&mut self, at: usize, prefix: u64, key: Address) {
        self.prefixes.copy_within(at..self.len, at + 1);
        self.keys.copy_within(at..self.len, at + 1);
        self.prefixes[at] = prefix;
        self.keys[at] = key;
        self.len += 1;
    }

    fn remove_first(&mut self) {
        self.prefixes.copy_within(1..self.len, 0);
        self.keys.copy_within(1..self.len, 0);
        self.len -= 1;
    }

    /// Keeps what is before `middle`, and returns the rest. All of that is at or after the separator.
    fn split(&mut self, arena: &Arena, shared: usize, middle: usize, separator: Address) -> Slots {
        let mut right = Slots::new([separator, self.fences[1]], self.skip);
        right.len = self.len - middle;
        right.prefixes[..right.len].copy_from_slice(&self.prefixes[middle..self.len]);
        right.keys[..right.len].copy_from_slice(&self.keys[middle..self.len]);
        self.len = middle;
        self.fences[1] = separator;
        self.narrow(arena, shared);
        right.narrow(arena, shared);
        right
    }

    /// The fences have come nearer: more may be shared. Prefixes that still have four bytes to tell keys apart do.
    fn narrow(&mut self, arena: &Arena, shared: usize) {
        let skip = match self.fences {
            [first, last] if first != Address::NONE && last != Address::NONE => {
                common(arena.key(first), arena.key(last))
            }
            _ => shared,
        };
        if skip >= self.skip + size_of::<u32>() {
            self.set_skip(arena, skip);
        }
    }

    fn set_skip(&mut self, arena: &Arena, skip: usize) {
        self.skip = skip;
        for (slot, &key) in self.prefixes.iter_mut().zip(&self.keys[..self.len]) {
            *slot = prefix(arena.key(key), skip);
        }
    }
}

/// The key's next eight bytes, as a number of the same order; what is missing counts as zero.
#[inline]
fn prefix(key: &[u8], skip: usize) -> u64 {
    let rest = &key[skip..];
    match rest.first_chunk() {
        Some(bytes) => u64::from_be_bytes(*bytes),
        None => {
            let mut bytes = [0; 8];
            bytes[..rest.len()].copy_from_slice(rest);
            u64::from_be_bytes(bytes)
        }
    }
}

/// How many first bytes are the same.
fn common(a: &[u8], b: &[u8]) -> usize {
    let (words, _) = a.as_chunks::<8>();
    let (others, _) = b.as_chunks::<8>();
    let same = words.iter().zip(others).take_while(|(a, b)| a == b).count() * 8;
    same + a[same..].iter().zip(&b[same..]).take_while(|(a, b)| a == b).count()
}

fn number(len: usize) -> u32 {
    u32::try_from(len).expect("the arena has fewer addresses")
}
