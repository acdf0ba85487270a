//! Frames: any serde value between our own processes, with a checksum.
//!
//! TCP's 16 bits let about one flipped packet in 65 536 pass, and what passes here ends on disks: every frame
//! carries the CRC-32C of its body. Postcard has no version of its own: both sides must be of the same one.

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use crate::peer::v1::Frame;

/// A sender that collects several things into one frame ends it here.
pub const FULL: usize = 64 << 20;
/// Largest body: a frame that was all but full when the largest row came on top.
pub const MAX_BODY: usize = FULL + crate::MAX_MESSAGE;
/// Largest `Frame` as a message; the decode limit of the Peer service.
pub const MAX_FRAME: usize = MAX_BODY + 32;

/// What is wrong with a frame from a peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Longer than [`MAX_BODY`].
    #[error("a frame of {0} bytes; the limit is {MAX_BODY}")]
    TooLong(usize),
    /// The checksum differs: it was damaged on the way.
    #[error("a frame of {len} bytes has checksum {found:08x} instead of {said:08x}")]
    Damaged {
        /// Bytes of the body.
        len: usize,
        /// The body's checksum.
        found: u32,
        /// What the sender computed.
        said: u32,
    },
    /// Not the expected value: the peer is of another version.
    #[error("a frame of {len} bytes is not understood: {what}")]
    Malformed {
        /// Bytes of the body.
        len: usize,
        /// Why.
        what: String,
    },
}

/// Packs a value.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Frame {
    let body = postcard::to_allocvec(value).expect("our messages are plain data, and memory grows");
    Frame { crc: checksum(&body), body: Bytes::from(body) }
}

/// Unpacks a value, after a look at length and checksum.
pub fn decode<T: DeserializeOwned>(frame: Frame) -> Result<T, FrameError> {
    let len = frame.body.len();
    if len > MAX_BODY {
        return Err(FrameError::TooLong(len));
    }
    let found = checksum(&frame.body);
    if found != frame.crc {
        return Err(FrameError::Damaged { len, found, said: frame.crc });
    }
    match postcard::take_from_bytes(&frame.body) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(FrameError::Malformed { len, what: format!("{} bytes too many", rest.len()) }),
        Err(error) => Err(FrameError::Malformed { len, what: error.to_string() }),
    }
}

impl From<FrameError> for tonic::Status {
    fn from(error: FrameError) -> tonic::Status {
        tonic::Status::data_loss(error.to_string())
    }
}

fn checksum(body: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, body) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{AdminRequest, Refusal, TabletId};

    #[test]
    fn what_goes_in_comes_out() {
        let refusal = Refusal::NotReady(TabletId(7));
        assert_eq!(decode(encode(&refusal)), Ok(refusal));
        assert_eq!(decode(encode(&AdminRequest::Map)), Ok(AdminRequest::Map));
    }

    /// The check value of CRC-32C (RFC 3720, B.4 and the Rocksoft catalogue).
    #[test]
    fn checksum_is_crc32c() {
        assert_eq!(checksum(b"123456789"), 0xe306_9283);
    }

    /// Every flipped bit is found; nothing panics.
    #[test]
    fn every_flipped_bit_is_found() {
        let frame = encode(&AdminRequest::DropTable(String::from("users")));
        for bit in 0..frame.body.len() * 8 {
            let mut body = frame.body.to_vec();
            body[bit / 8] ^= 1 << (bit % 8);
            let result = decode::<AdminRequest>(Frame { body: Bytes::from(body), crc: frame.crc });
            assert!(matches!(result, Err(FrameError::Damaged { .. })), "bit {bit}: {result:?}");
        }
    }

    /// Every cut of a good body with a good checksum is an error and no panic.
    #[test]
    fn a_cut_or_a_tail_is_malformed() {
        let whole = encode(&AdminRequest::DropTable(String::from("users"))).body;
        let longer = Bytes::from([&whole[..], b"x"].concat());
        for body in (0..whole.len()).map(|len| whole.slice(..len)).chain([longer]) {
            let result = decode::<AdminRequest>(Frame { crc: checksum(&body), body });
            assert!(matches!(result, Err(FrameError::Malformed { .. })), "{result:?}");
        }
    }
}
