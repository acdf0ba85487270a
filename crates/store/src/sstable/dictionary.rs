//! Whether the blocks of a table have so much in common that a dictionary pays.
//!
//! The first blocks are kept until there are enough of them. Half of them train a dictionary, and the other half, which it
//! has not seen, tell what it saves. What all blocks say again and again, such as names of fields, is in it; the smaller
//! the blocks, the more it saves.

use model::storage::Compression;

use super::codec::Encoder;

/// Bytes of payloads that are enough to tell.
const ENOUGH: usize = 1 << 20;
/// With fewer blocks than this there is nothing to learn, and too little to save.
const FEWEST: usize = 32;
/// Bytes of a dictionary at most.
const MOST: usize = 16 << 10;
/// It has to save one part in so many.
const WORTH: usize = 20;

/// The first payloads of a table.
#[derive(Default)]
pub struct Samples {
    payloads: Vec<Vec<u8>>,
    bytes: usize,
}

impl Samples {
    pub fn add(&mut self, payload: Vec<u8>) {
        self.bytes += payload.len();
        self.payloads.push(payload);
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn are_enough(&self) -> bool {
        self.bytes >= ENOUGH
    }

    /// A dictionary, if it pays.
    pub fn train(&self) -> Option<Vec<u8>> {
        if self.payloads.len() < FEWEST {
            return None;
        }
        let taught: Vec<&[u8]> = self.payloads.iter().step_by(2).map(|payload| &payload[..]).collect();
        let most = MOST.min(self.bytes / 32);
        let dictionary = zstd::dict::from_samples(&taught, most).ok()?;
        let (mut without, mut with) = (Encoder::new(Compression::Zstd), Encoder::with_dictionary(&dictionary));
        let asked = || self.payloads.iter().skip(1).step_by(2);
        let before: usize = asked().map(|payload| without.measure(payload)).sum();
        let after: usize = asked().map(|payload| with.measure(payload)).sum();
        (after + before / WORTH <= before).then_some(dictionary)
    }

    pub fn into_payloads(self) -> Vec<Vec<u8>> {
        self.payloads
    }
}
