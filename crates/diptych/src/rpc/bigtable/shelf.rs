//! What this API has beside tables: instances that somebody described, profiles and authorized views. They are documents that the
//! masters keep, each with the bytes of its message.
//!
//! ```text
//!   bigtable/instances/PROJECT/INSTANCE             bigtable/profiles/PROJECT/INSTANCE/PROFILE
//!   bigtable/views/TABLE/NUMBER/VIEW                TABLE as everywhere else, NUMBER of the one of that name that is there
//! ```
//!
//! Whoever administers them asks the masters. For rows they are known from half a second ago at most, and what is not known is asked
//! for: what was made elsewhere is found at once, what was changed or removed there is noticed after half a second, and nothing is
//! served that could not be asked about for ten.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use model::{AdminReply, AdminRequest, Document, DocumentChange, Refusal};
use parking_lot::Mutex;
use prost::Message;
use tonic::Status;

use super::Tables;

/// What was read so long ago is read again.
const KNOWN_FOR: Duration = Duration::from_millis(500);
/// What was read so long ago is not used any more, whatever became of the masters.
const STALE: Duration = Duration::from_secs(10);
/// Folders that are remembered.
const FOLDERS: usize = 10_000;

/// A document with its message.
#[derive(Clone, Debug)]
pub struct Entry<M> {
    /// Behind the last slash of its name.
    pub id: String,
    /// Another one with each change.
    pub version: u64,
    /// What it says.
    pub message: M,
}

impl<M> Entry<M> {
    /// Its version, as clients hear of it.
    pub fn etag(&self) -> String {
        self.version.to_string()
    }
}

type Folder = (Instant, Arc<BTreeMap<String, Document>>);

/// The documents of this API.
#[derive(Clone)]
pub struct Shelf {
    tables: Tables,
    known: Arc<Mutex<BTreeMap<String, Folder>>>,
}

impl Shelf {
    /// Beside these tables.
    pub fn new(tables: Tables) -> Shelf {
        Shelf { tables, known: Arc::default() }
    }

    /// All in a folder (its name ends with a slash) as they are now.
    pub async fn list<M: Message + Default>(&self, folder: &str) -> Result<Vec<Entry<M>>, Status> {
        let found = self.read(folder).await?;
        found.values().map(|document| entry(folder, document)).collect()
    }

    /// One of a folder as it is now.
    pub async fn get<M: Message + Default>(&self, folder: &str, id: &str) -> Result<Option<Entry<M>>, Status> {
        let found = self.read(folder).await?;
        found.get(&format!("{folder}{id}")).map(|document| entry(folder, document)).transpose()
    }

    /// One of a folder as it was not long ago, and whether there is any in the folder.
    pub async fn known<M: Message + Default>(
        &self,
        folder: &str,
        id: &str,
    ) -> Result<(Option<Entry<M>>, bool), Status> {
        let name = format!("{folder}{id}");
        let known = self.known.lock().get(folder).cloned();
        let fresh = known.as_ref().filter(|(read, _)| read.elapsed() < KNOWN_FOR);
        let found = match fresh.filter(|(_, documents)| documents.contains_key(&name)) {
            Some((_, documents)) => Arc::clone(documents),
            None => match (self.read(folder).await, known) {
                (Ok(documents), _) => documents,
                (Err(_), Some((read, documents))) if read.elapsed() < STALE && documents.contains_key(&name) => {
                    documents
                }
                (Err(status), _) => return Err(status),
            },
        };
        let entry = found.get(&name).map(|document| entry(folder, document)).transpose()?;
        Ok((entry, !found.is_empty()))
    }

    async fn read(&self, folder: &str) -> Result<Arc<BTreeMap<String, Document>>, Status> {
        let read = Instant::now();
        let found = match self.tables.client().admin(AdminRequest::Documents(folder.to_owned())).await {
            Ok(AdminReply::Documents(found)) => found.documents,
            Ok(_) => return Err(Status::unavailable("the master answered something else")),
            Err(error) => return Err(Status::unavailable(error.to_string())),
        };
        let found = Arc::new(found.into_iter().map(|document| (document.name.clone(), document)).collect());
        let mut known = self.known.lock();
        if known.len() >= FOLDERS {
            known.retain(|_, (read, _)| read.elapsed() < STALE);
        }
        if known.len() < FOLDERS {
            known.insert(folder.to_owned(), (read, Arc::clone(&found)));
        }
        Ok(found)
    }

    /// Writes a document, if it is of this version (0: if there is none); `None` if it is not.
    pub async fn put<M: Message + Default>(
        &self,
        folder: &str,
        id: &str,
        message: M,
        expect: Option<u64>,
    ) -> Result<Option<Entry<M>>, Status> {
        let body = Some(Bytes::from(message.encode_to_vec()));
        let version = match self.change(folder, id, body, expect).await? {
            None => return Ok(None),
            Some(written) => written.map_or(0, |document| document.version),
        };
        Ok(Some(Entry { id: id.to_owned(), version, message }))
    }

    /// Removes a document, if it is of this version; false if it is not.
    pub async fn remove(&self, folder: &str, id: &str, expect: Option<u64>) -> Result<bool, Status> {
        self.change(folder, id, None, expect).await.map(|changed| changed.is_some())
    }

    async fn change(
        &self,
        folder: &str,
        id: &str,
        body: Option<Bytes>,
        expect: Option<u64>,
    ) -> Result<Option<Option<Document>>, Status> {
        let change = DocumentChange { name: format!("{folder}{id}"), body, expect };
        let checks = expect.is_some();
        let result = self.tables.client().admin(AdminRequest::ChangeDocument(change)).await;
        self.known.lock().remove(folder);
        match result {
            Ok(AdminReply::Documents(found)) => Ok(Some(found.documents.into_iter().next())),
            Ok(_) => Err(Status::unavailable("the master answered something else")),
            Err(error) => match error.refusal() {
                Some(Refusal::Exists(_)) if checks => Ok(None),
                Some(Refusal::Invalid(what)) => Err(Status::invalid_argument(what.clone())),
                Some(refusal @ Refusal::Forbidden(_)) => Err(Status::permission_denied(refusal.to_string())),
                _ => Err(Status::unavailable(error.to_string())),
            },
        }
    }
}

fn entry<M: Message + Default>(folder: &str, document: &Document) -> Result<Entry<M>, Status> {
    let message = M::decode(&document.body[..])
        .map_err(|error| Status::data_loss(format!("document {:?} is none of ours: {error}", document.name)))?;
    let id = document.name.strip_prefix(folder).unwrap_or(&document.name).to_owned();
    Ok(Entry { id, version: document.version, message })
}

/// The one asked for by its etag is not the one that there is.
pub fn changed_meanwhile(name: &str) -> Status {
    Status::aborted(format!("{name} has changed meanwhile: its etag is another one; read it again"))
}

/// Is this the version of which a client's etag tells? An empty one tells of any.
pub fn check_etag(name: &str, etag: &str, version: u64) -> Result<(), Status> {
    match etag.is_empty() || etag == version.to_string() {
        true => Ok(()),
        false => Err(changed_meanwhile(name)),
    }
}
