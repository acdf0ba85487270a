//! Documents that the masters keep for those who serve. What they say is not the masters' matter: only that each change is
//! made of what its author has seen, and that all of it stays small.

use model::{Document, DocumentChange, Documents, Refusal, limits};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// All documents, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Library {
    documents: BTreeMap<String, Document>,
    version: u64,
    bytes: usize,
}

impl Library {
    /// Version of the newest change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Those whose names begin so.
    pub fn find(&self, prefix: &str) -> Documents {
        let from = self.documents.range(String::from(prefix)..);
        let documents = from.take_while(|(name, _)| name.starts_with(prefix)).map(|(_, document)| document.clone());
        Documents { version: self.version, documents: documents.collect() }
    }

    /// Carries out the change, which is the command at `index`.
    pub(crate) fn change(&mut self, index: u64, change: DocumentChange) -> Result<Option<Document>, Refusal> {
        let DocumentChange { name, body, expect } = change;
        let present = self.documents.get(&name).map_or(0, |document| document.version);
        if expect.is_some_and(|expect| expect != present) {
            return Err(match present {
                0 => Refusal::Invalid(format!("there is no document {name:?}")),
                _ => Refusal::Exists(format!("document {name:?}, in version {present}")),
            });
        }
        let freed = self.documents.get(&name).map_or(0, weight);
        let document = body.map(|body| Document { name: name.clone(), version: index, body });
        let bytes = self.bytes - freed + document.as_ref().map_or(0, weight);
        if document.is_some() && bytes > limits::DOCUMENTS {
            let most = limits::DOCUMENTS;
            return Err(Refusal::Invalid(format!("documents would have {bytes} bytes together; the limit is {most}")));
        }
        (self.bytes, self.version) = (bytes, index);
        match &document {
            Some(document) => self.documents.insert(name, document.clone()),
            None => self.documents.remove(&name),
        };
        Ok(document)
    }
}

fn weight(document: &Document) -> usize {
    document.name.len() + document.body.len() + 64
}

/// Says what is wrong with the wish, whatever is there.
pub(crate) fn check(change: &DocumentChange) -> Result<(), Refusal> {
    let allowed = |c: char| c.is_ascii_graphic();
    if change.name.is_empty() || change.name.len() > limits::DOCUMENT_NAME || !change.name.chars().all(allowed) {
        let most = limits::DOCUMENT_NAME;
        return Err(Refusal::Invalid(format!("a document's name has 1 to {most} printable ASCII characters")));
    }
    match &change.body {
        Some(body) if body.len() > limits::DOCUMENT => {
            let most = limits::DOCUMENT;
            Err(Refusal::Invalid(format!("a document of {} bytes; the limit is {most}", body.len())))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Bytes;

    fn put(library: &mut Library, index: u64, name: &str, body: Option<&str>, expect: Option<u64>) -> Option<u64> {
        let body = body.map(|body| Bytes::copy_from_slice(body.as_bytes()));
        let changed = library.change(index, DocumentChange { name: name.into(), body, expect });
        changed.ok().map(|document| document.map_or(0, |document| document.version))
    }

    #[test]
    fn a_change_is_made_of_what_was_seen() {
        let mut library = Library::default();
        assert_eq!(put(&mut library, 1, "a/x", Some("1"), Some(0)), Some(1));
        assert_eq!(put(&mut library, 2, "a/x", Some("2"), Some(0)), None, "it is there");
        assert_eq!(put(&mut library, 3, "a/x", Some("3"), Some(1)), Some(3));
        assert_eq!(put(&mut library, 4, "a/x", Some("4"), Some(1)), None, "it has changed");
        assert_eq!(put(&mut library, 5, "a/y", Some("5"), None), Some(5));
        assert_eq!(put(&mut library, 6, "b", Some("6"), None), Some(6));
        let names = |prefix| library.find(prefix).documents.into_iter().map(|document| document.name);
        assert_eq!(names("a/").collect::<Vec<_>>(), ["a/x", "a/y"]);
        assert_eq!((library.version(), names("").count()), (6, 3));
        assert_eq!(put(&mut library, 7, "a/x", None, Some(3)), Some(0));
        assert_eq!(put(&mut library, 8, "a/x", None, Some(3)), None);
        assert_eq!((library.version(), library.find("a/").documents.len()), (7, 1));
    }

    #[test]
    fn all_together_stay_small() {
        let mut library = Library::default();
        let body = "x".repeat(limits::DOCUMENT);
        let kept = (1..).take_while(|&n| put(&mut library, n, &n.to_string(), Some(&body), None).is_some()).count();
        assert!(kept > 100 && kept * limits::DOCUMENT <= limits::DOCUMENTS);
        assert_eq!(put(&mut library, 900, "1", None, None), Some(0));
        assert_eq!(put(&mut library, 901, "again", Some(&body), None), Some(901));
        let name = |name: String| DocumentChange { name, body: None, expect: None };
        assert!(check(&name("bigtable/profiles/p".into())).is_ok());
        for bad in [String::new(), "a b".into(), "x".repeat(limits::DOCUMENT_NAME + 1)] {
            assert!(check(&name(bad)).is_err());
        }
    }
}
