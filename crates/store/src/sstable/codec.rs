//! How a block lies in the file: compressed or not, under a checksum.
//!
//! ```text
//!   sealed block:  stored | codec u8 | crc u32
//!   stored:        0  payload as it is
//!                  1  length of the payload u32 | LZ4 block
//!                  2  length of the payload u32 | Zstandard frame
//!                  3  length of the payload u32 | Zstandard frame, with the table's dictionary
//! ```
//!
//! The checksum is CRC-32C of stored, codec and the block's own offset in the file (u64), so that a block that was written
//! to the wrong place shows, and nothing is decompressed that is not what was written. What passes is still not trusted: a
//! length beyond what a writer makes is [`Malformed`] before any memory is taken for it.

use std::cell::RefCell;

use model::storage::Compression;
use model::{Bytes, limits};
use zstd::bulk::Compressor;
use zstd::dict::DecoderDictionary;
use zstd::zstd_safe::{CParameter, DCtx};

use super::block::{Malformed, crc};

/// Bytes that sealing adds to what is stored.
pub const SEAL: usize = 1 + 4;
const AS_IT_IS: u8 = 0;
const LZ4: u8 = 1;
const ZSTD: u8 = 2;
const ZSTD_WITH_DICTIONARY: u8 = 3;
/// No payload is longer: a block that is not yet full, and then the largest value with its key.
const MOST_PAYLOAD: usize = 112 << 20;
const _: () = assert!(MOST_PAYLOAD > limits::VALUE + super::writer::MOST_BLOCK as usize + (1 << 20));
/// LZ4 cannot say more than this many times its own length.
const MOST_LZ4: usize = 256;
/// Of Zstandard. Compaction has the time that a faster one would spare, and a block is read more often than it is written.
const LEVEL: i32 = 3;

thread_local! {
    /// What Zstandard needs to decompress: a hundred kilobytes that are not worth making for each block.
    static DECOMPRESSOR: RefCell<DCtx<'static>> = RefCell::new(DCtx::create());
}

/// What blocks of a table have in common, for Zstandard to begin with.
pub struct Dictionary(DecoderDictionary<'static>);

impl Dictionary {
    /// From its bytes.
    pub fn new(bytes: &[u8]) -> Result<Dictionary, Malformed> {
        DecoderDictionary::try_copy(bytes).map(Dictionary).map_err(|_| Malformed("the dictionary does not decode"))
    }
}

/// Compresses blocks for a table.
pub struct Encoder {
    compression: Compression,
    zstd: Option<(Compressor<'static>, u8)>,
}

impl Encoder {
    /// One without a dictionary.
    pub fn new(compression: Compression) -> Encoder {
        let zstd = (compression == Compression::Zstd).then(|| (compressor(None), ZSTD));
        Encoder { compression, zstd }
    }

    /// One for Zstandard with a dictionary.
    pub fn with_dictionary(dictionary: &[u8]) -> Encoder {
        let zstd = Some((compressor(Some(dictionary)), ZSTD_WITH_DICTIONARY));
        Encoder { compression: Compression::Zstd, zstd }
    }

    /// Appends the payload to `out`, sealed for `offset`. It is left as it is if compressing would not save a sixteenth.
    pub fn seal(&mut self, payload: &[u8], offset: u64, out: &mut Vec<u8>) {
        let start = out.len();
        let codec = self.compress(payload, out).filter(|_| out.len() - start <= payload.len() / 16 * 15);
        if codec.is_none() {
            out.truncate(start);
            out.extend_from_slice(payload);
        }
        out.push(codec.unwrap_or(AS_IT_IS));
        let crc = crc(&[&out[start..], &offset.to_le_bytes()]);
        out.extend_from_slice(&crc.to_le_bytes());
    }

    /// How many bytes a payload comes to.
    pub fn measure(&mut self, payload: &[u8]) -> usize {
        let mut out = Vec::new();
        self.seal(payload, 0, &mut out);
        out.len()
    }

    /// Appends the payload's length and its compressed form, if it has any.
    fn compress(&mut self, payload: &[u8], out: &mut Vec<u8>) -> Option<u8> {
        if payload.len() > MOST_PAYLOAD || self.compression == Compression::None {
            return None;
        }
        out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        let start = out.len();
        match &mut self.zstd {
            None => {
                out.resize(start + lz4_flex::block::get_maximum_output_size(payload.len()), 0);
                let len = lz4_flex::block::compress_into(payload, &mut out[start..]).ok()?;
                out.truncate(start + len);
                Some(LZ4)
            }
            Some((zstd, codec)) => {
                out.resize(start + zstd::zstd_safe::compress_bound(payload.len()), 0);
                let len = zstd.compress_to_buffer(payload, &mut out[start..]).ok()?;
                out.truncate(start + len);
                Some(*codec)
            }
        }
    }
}

fn compressor(dictionary: Option<&[u8]>) -> Compressor<'static> {
    let mut zstd = match dictionary {
        Some(dictionary) => Compressor::with_dictionary(LEVEL, dictionary),
        None => Compressor::new(LEVEL),
    }
    .expect("the level is one of Zstandard's, and any bytes will do as a dictionary");
    // Both stand elsewhere.
    for parameter in [CParameter::ContentSizeFlag(false), CParameter::DictIdFlag(false)] {
        zstd.set_parameter(parameter).expect("Zstandard has these parameters");
    }
    zstd
}

/// The payload of the block that was sealed for `offset`.
pub fn unseal(sealed: &Bytes, offset: u64, dictionary: Option<&Dictionary>) -> Result<Bytes, Malformed> {
    match open(sealed, offset, dictionary)? {
        Opened::There(len) => Ok(sealed.slice(..len)),
        Opened::Made(payload) => Ok(Bytes::from(payload)),
    }
}

/// As [`unseal`], in memory of its own.
pub fn unseal_apart(sealed: &[u8], offset: u64, dictionary: Option<&Dictionary>) -> Result<Vec<u8>, Malformed> {
    match open(sealed, offset, dictionary)? {
        Opened::There(len) => Ok(sealed[..len].to_vec()),
        Opened::Made(payload) => Ok(payload),
    }
}

/// A payload: so many of the sealed bytes, or what was decompressed.
enum Opened {
    There(usize),
    Made(Vec<u8>),
}

fn open(sealed: &[u8], offset: u64, dictionary: Option<&Dictionary>) -> Result<Opened, Malformed> {
    let (body, stored) = sealed.split_last_chunk().ok_or(Malformed("a block is too short"))?;
    if crc(&[body, &offset.to_le_bytes()]) != u32::from_le_bytes(*stored) {
        return Err(Malformed("a block's checksum is wrong"));
    }
    let (&codec, stored) = body.split_last().ok_or(Malformed("a block is too short"))?;
    if codec == AS_IT_IS {
        return Ok(Opened::There(stored.len()));
    }
    let (len, compressed) = stored.split_first_chunk().ok_or(Malformed("a block is too short"))?;
    let len = u32::from_le_bytes(*len) as usize;
    if len > MOST_PAYLOAD || (codec == LZ4 && len > compressed.len().saturating_mul(MOST_LZ4)) {
        return Err(Malformed("a block says that it is larger than any"));
    }
    // What prepares it adds to it.
    let mut payload = Vec::with_capacity(len + len / 32 + 64);
    payload.resize(len, 0);
    let got = match (codec, dictionary) {
        (LZ4, _) => lz4_flex::block::decompress_into(compressed, &mut payload).ok(),
        (ZSTD, _) => DECOMPRESSOR.with_borrow_mut(|zstd| zstd.decompress(&mut payload[..], compressed).ok()),
        (ZSTD_WITH_DICTIONARY, Some(Dictionary(dictionary))) => DECOMPRESSOR.with_borrow_mut(|zstd| {
            zstd.decompress_using_ddict(&mut payload[..], compressed, dictionary.as_ddict()).ok()
        }),
        (ZSTD_WITH_DICTIONARY, None) => return Err(Malformed("a block needs a dictionary that is not there")),
        _ => return Err(Malformed("a block has an unknown codec")),
    };
    if got != Some(len) {
        return Err(Malformed("a block does not decompress"));
    }
    Ok(Opened::Made(payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(mut encoder: Encoder, payload: &[u8]) -> Bytes {
        let mut out = Vec::new();
        encoder.seal(payload, 100, &mut out);
        Bytes::from(out)
    }

    fn text(len: usize) -> Vec<u8> {
        (0..len).map(|at| b"one two three four five "[(at * at / 7) % 24]).collect()
    }

    #[test]
    fn a_block_in_another_place_is_not_the_block() {
        for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
            let sealed = sealed(Encoder::new(compression), &text(5000));
            assert_eq!(unseal(&sealed, 100, None).unwrap(), text(5000));
            assert_eq!(unseal(&sealed, 101, None).unwrap_err(), Malformed("a block's checksum is wrong"));
        }
    }

    #[test]
    fn what_does_not_shrink_is_left_as_it_is() {
        let noise: Vec<u8> =
            (0..512u64).flat_map(|at| xxhash_rust::xxh3::xxh3_64(&at.to_le_bytes()).to_le_bytes()).collect();
        for compression in [Compression::Lz4, Compression::Zstd] {
            let sealed = sealed(Encoder::new(compression), &noise);
            assert_eq!(sealed.len(), noise.len() + SEAL);
            assert_eq!(unseal(&sealed, 100, None).unwrap(), noise);
        }
    }

    #[test]
    fn a_dictionary_is_needed_by_those_who_were_written_with_it() {
        let dictionary = text(3000);
        let sealed = sealed(Encoder::with_dictionary(&dictionary), &text(1000));
        assert!(sealed.len() < 100);
        let dictionary = Dictionary::new(&dictionary).unwrap();
        assert_eq!(unseal(&sealed, 100, Some(&dictionary)).unwrap(), text(1000));
        assert!(unseal(&sealed, 100, None).is_err());
    }

    /// A peer may send a block with a good checksum that was made to hurt.
    #[test]
    fn bombs_are_refused() {
        let seal = |stored: &[u8], codec: u8| {
            let mut out = stored.to_vec();
            out.push(codec);
            let crc = crc(&[&out, &100u64.to_le_bytes()]);
            out.extend_from_slice(&crc.to_le_bytes());
            Bytes::from(out)
        };
        let zeros = vec![0; 1 << 20];
        for (codec, compression) in [(LZ4, Compression::Lz4), (ZSTD, Compression::Zstd)] {
            let honest = sealed(Encoder::new(compression), &zeros);
            let compressed = &honest[4..honest.len() - SEAL];
            for claim in [u32::MAX, MOST_PAYLOAD as u32 + 1, (1 << 20) - 1, (1 << 20) + 1, 0] {
                let bomb = seal(&[&claim.to_le_bytes()[..], compressed].concat(), codec);
                assert!(unseal(&bomb, 100, None).is_err(), "{claim} of codec {codec}");
            }
        }
        assert!(unseal(&seal(&[255, 255, 255, 6, 0, 0], LZ4), 100, None).is_err());
        assert!(unseal(&seal(b"", 9), 100, None).is_err());
        assert!(unseal(&seal(b"", ZSTD), 100, None).is_err());
        for len in 0..SEAL {
            assert!(unseal(&Bytes::from(vec![0; len]), 100, None).is_err());
        }
    }
}
