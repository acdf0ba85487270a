//! The end of a table file, from which all else is found.
//!
//! ```text
//!   file:    data block* | dictionary block? | filter block* | index block* | top block | properties block | footer
//!
//!   footer:  offset  size  field
//!                 0     8  data_end    where the data blocks end and the dictionary begins
//!                 8     4  blocks      how many data blocks there are
//!                12     4  dictionary  its sealed length; 0: there is none
//!                16     4  pieces      filter blocks; 0: there is no filter
//!                20     4  piece       sealed length of each
//!                24     8  index       where the index blocks begin
//!                32     8  top         where they end and the top begins
//!                40     4  top_len     its sealed length
//!                44     4  properties  sealed length
//!                48     4  version     2
//!                52     4  crc         CRC-32C of bytes 0..52 and of the footer's own offset (u64)
//!                56     8  magic
//!
//!   of version 1:  data block* | filter block | index block | properties block | footer
//!                 0    12  filter      offset u64, sealed length u32
//!                12    12  index       likewise; in one block, with last keys and whole places
//!                24    12  properties  likewise
//!                36    12  zero
//!                48        as above
//! ```
//!
//! All lies end to end, so that every byte of the file is under some checksum. Numbers are little-endian.

use model::Bytes;

use super::ahead::Ahead;
use super::block::{self, Malformed};
use super::codec::{Dictionary, SEAL};
use super::filter;
use super::index::Index;
use super::sieve::Sieve;
use super::source::Source;
use super::{PLACE, Place, Properties};
use crate::Error;

/// Of what is written.
pub const VERSION: u32 = 2;
const MAGIC: [u8; 8] = *b"diptable";
/// Bytes of a footer.
pub const FOOTER: usize = 64;
const _: () = assert!(FOOTER == 8 + 4 * 4 + 8 + PLACE + 4 + 4 + 4 + 8);

/// Where everything is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footer {
    /// Where the data blocks end.
    pub data_end: u64,
    /// How many they are.
    pub blocks: u32,
    /// Sealed length; 0 for none.
    pub dictionary: u32,
    /// How many pieces the filter has.
    pub pieces: u32,
    /// Sealed length of each.
    pub piece: u32,
    /// Where the index blocks begin.
    pub index: u64,
    /// Where they end, and the top is.
    pub top: Place,
    /// Sealed length of the properties.
    pub properties: u32,
}

impl Footer {
    /// As it lies at `offset` of the file.
    pub fn to_bytes(self, offset: u64) -> [u8; FOOTER] {
        let mut bytes = [0; FOOTER];
        bytes[..8].copy_from_slice(&self.data_end.to_le_bytes());
        for (at, number) in [(8, self.blocks), (12, self.dictionary), (16, self.pieces), (20, self.piece)] {
            bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
        }
        bytes[24..32].copy_from_slice(&self.index.to_le_bytes());
        bytes[32..44].copy_from_slice(&self.top.to_bytes());
        bytes[44..48].copy_from_slice(&self.properties.to_le_bytes());
        bytes[48..52].copy_from_slice(&VERSION.to_le_bytes());
        let crc = block::crc(&[&bytes[..52], &offset.to_le_bytes()]);
        bytes[52..56].copy_from_slice(&crc.to_le_bytes());
        bytes[56..].copy_from_slice(&MAGIC);
        bytes
    }

    /// Reads it, if all parts lie end to end up to `offset`.
    fn from_bytes(bytes: &[u8; FOOTER], offset: u64) -> Option<Footer> {
        let small = |at: usize| bytes[at..].first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
        let large = |at: usize| bytes[at..].first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        let footer = Footer {
            data_end: large(0)?,
            blocks: small(8)?,
            dictionary: small(12)?,
            pieces: small(16)?,
            piece: small(20)?,
            index: large(24)?,
            top: Place::from_bytes(&bytes[32..32 + PLACE])?,
            properties: small(44)?,
        };
        let filter = footer.data_end.checked_add(u64::from(footer.dictionary))?;
        let index = filter.checked_add(u64::from(footer.pieces) * u64::from(footer.piece))?;
        let fits = index == footer.index && footer.index <= footer.top.offset;
        (fits && footer.top.end()?.checked_add(u64::from(footer.properties)) == Some(offset)).then_some(footer)
    }
}

/// What an open table keeps of its file.
pub struct Frame {
    pub properties: Properties,
    pub index: Index,
    pub filter: Sieve,
    pub dictionary: Option<Dictionary>,
}

impl Frame {
    /// Of a table of which nothing can be read.
    pub fn empty() -> Frame {
        Frame { properties: Properties::default(), index: Index::empty(), filter: Sieve::Open, dictionary: None }
    }

    /// Reads and checks it.
    pub fn read(source: &Source, bytes: u64) -> Result<Frame, Error> {
        let corrupt = |offset, what: &str| Error::corrupt(&source.path, offset, what);
        let Some(footer_at) = bytes.checked_sub(FOOTER as u64) else {
            return Err(corrupt(0, "the file is too short for a table"));
        };
        let footer = source.read(Place { offset: footer_at, len: FOOTER as u32 })?;
        let footer: &[u8; FOOTER] = footer.first_chunk().expect("as much was read as was asked for");
        if footer[56..] != MAGIC
            || block::crc(&[&footer[..52], &footer_at.to_le_bytes()]).to_le_bytes() != footer[52..56]
        {
            return Err(corrupt(footer_at, "the footer's checksum is wrong"));
        }
        match u32::from_le_bytes([footer[48], footer[49], footer[50], footer[51]]) {
            1 => Frame::read_v1(source, footer, footer_at),
            VERSION => {
                let parsed = Footer::from_bytes(footer, footer_at);
                Frame::read_v2(source, parsed.ok_or_else(|| corrupt(footer_at, "the parts do not fill the file"))?)
            }
            found => Err(Error::Version { file: source.path.clone(), found, known: VERSION }),
        }
    }

    fn read_v2(source: &Source, footer: Footer) -> Result<Frame, Error> {
        let properties_at = Place { offset: footer.top.end().unwrap_or(0), len: footer.properties };
        let mut ahead = Ahead::upto(properties_at.offset + u64::from(footer.properties));
        let dictionary_at = Place { offset: footer.data_end, len: footer.dictionary };
        let dictionary = match footer.dictionary {
            0 => None,
            _ => {
                let dictionary = Dictionary::new(&source.payload(dictionary_at, None, &mut ahead)?);
                Some(dictionary.map_err(|malformed| source.corrupt(dictionary_at, malformed))?)
            }
        };
        let filter = Sieve::of(footer).map_err(|malformed| source.corrupt(footer.top, malformed))?;
        filter.pin(source, &mut ahead)?;
        // The top lies behind its groups.
        let mut last = Ahead::upto(properties_at.offset + u64::from(footer.properties));
        let top = source.payload(footer.top, None, &mut last)?;
        let properties = source.payload(properties_at, None, &mut last)?;
        let properties = postcard::from_bytes(&properties)
            .map_err(|_| source.corrupt(properties_at, Malformed("the properties do not decode")))?;
        let groups = (footer.index, footer.top.offset);
        let index = Index::decode(top, groups, footer.data_end, footer.blocks)
            .map_err(|malformed| source.corrupt(footer.top, malformed))?;
        index.pin(source, &mut ahead)?;
        Ok(Frame { properties, index, filter, dictionary })
    }

    fn read_v1(source: &Source, footer: &[u8; FOOTER], footer_at: u64) -> Result<Frame, Error> {
        let corrupt = |offset, what: &str| Error::corrupt(&source.path, offset, what);
        let place = |at: usize| Place::from_bytes(&footer[at..at + PLACE]);
        let (Some(filter_at), Some(index_at), Some(properties_at)) = (place(0), place(12), place(24)) else {
            return Err(corrupt(footer_at, "the footer does not decode"));
        };
        let ends = [(filter_at, index_at.offset), (index_at, properties_at.offset), (properties_at, footer_at)];
        if ends.iter().any(|(place, next)| place.end() != Some(*next)) {
            return Err(corrupt(footer_at, "the parts do not fill the file"));
        }
        let mut ahead = Ahead::upto(footer_at);
        let filter = source.payload(filter_at, None, &mut ahead)?;
        let index = source.payload(index_at, None, &mut ahead)?;
        let properties = source.payload(properties_at, None, &mut ahead)?;
        let properties = Properties::from_v1(&properties)
            .map_err(|_| corrupt(properties_at.offset, "the properties do not decode"))?;
        let index = Index::decode_v1(index, index_at, filter_at.offset)
            .map_err(|malformed| source.corrupt(index_at, malformed))?;
        Ok(Frame { properties, index, filter: Sieve::V1(Bytes::copy_from_slice(&filter)), dictionary: None })
    }

    /// Is it what another reading of the file gave?
    pub fn is_like(&self, other: &Frame) -> bool {
        self.properties == other.properties && self.index == other.index && self.filter.is_like(&other.filter)
    }
}

/// The shape of the filter that these pieces make.
pub fn shape_of(footer: Footer) -> Result<filter::Shape, Malformed> {
    let wrong = Malformed("the filter does not fit its blocks");
    let bytes = (footer.piece as usize).saturating_sub(SEAL);
    if footer.pieces > 0 && (bytes == 0 || !bytes.is_multiple_of(filter::LINE)) {
        return Err(wrong);
    }
    Ok(filter::Shape { pieces: footer.pieces as usize, lines: bytes / filter::LINE })
}
