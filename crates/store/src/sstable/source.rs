//! Where a table's bytes come from.

use std::sync::Arc;

use disk::File;
use model::Bytes;

use super::ahead::{Ahead, Purpose};
use super::block::{Malformed, Payload};
use super::cache::Cache;
use super::codec::{self, Dictionary};
use super::{Place, read};
use crate::Error;

/// A table's file, and the cache of what was read of it.
pub struct Source {
    pub file: Arc<dyn File>,
    pub path: String,
    pub cache: Arc<Cache>,
    /// The table's in the cache.
    pub number: u64,
}

impl Source {
    /// What was sealed there, from the file and nowhere else.
    pub fn payload(&self, place: Place, dictionary: Option<&Dictionary>, ahead: &mut Ahead) -> Result<Bytes, Error> {
        let sealed = ahead.read((&*self.file, &self.path), place, Purpose::Background)?;
        codec::unseal(&sealed, place.offset, dictionary).map_err(|malformed| self.corrupt(place, malformed))
    }

    /// A data block, from the file, to be searched often.
    pub fn block(
        &self,
        place: Place,
        dictionary: Option<&Dictionary>,
        (purpose, ahead): (Purpose, &mut Ahead),
    ) -> Result<Payload, Error> {
        let sealed = ahead.read((&*self.file, &self.path), place, purpose)?;
        let payload = codec::unseal_apart(&sealed, place.offset, dictionary).and_then(Payload::prepare);
        payload.map_err(|malformed| self.corrupt(place, malformed))
    }

    /// A data block, for a client: from the cache, which gets it if it was not there.
    pub fn serve(&self, place: Place, dictionary: Option<&Dictionary>, ahead: &mut Ahead) -> Result<Payload, Error> {
        if let Some(block) = self.cache.get(self.number, place.offset) {
            ahead.pass(place);
            return Ok(block);
        }
        let block = self.block(place, dictionary, (Purpose::Serve, ahead))?;
        self.cache.insert(self.number, place.offset, &block);
        Ok(block)
    }

    /// The bytes of `place` as they are.
    pub fn read(&self, place: Place) -> Result<Bytes, Error> {
        read(&*self.file, &self.path, place)
    }

    /// What is wrong there.
    pub fn corrupt(&self, place: Place, Malformed(what): Malformed) -> Error {
        Error::corrupt(&self.path, place.offset, what)
    }
}
