//! Who calls, and what they may do: off until a process is given `--access FILE`, then nobody comes in without a token.
//!
//! ```text
//!   request ─▶ gate (gRPC), http: whose token is it? ─▶ Caller, known while the request is worked at
//!                                                        │
//!        Gateway::client, Gateway::ask  ◀────────────────┤  tables and the cluster: checked here
//!                 │ "for NAME", with the processes' token ▼
//!                 └──────────▶ node: families, checked where rows are read and written (node::confine)
//! ```
//!
//! The token in the file is that of the processes themselves, and of whoever runs them: it may do everything. Principals
//! are documents that the masters keep, under `access/principals/`; each process looks at them every second, and goes on
//! by what it knows while no master answers. Of tokens only hashes are kept.

pub mod gate;
mod principal;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use client::Identity;
use model::{Documents, Rights};
use parking_lot::RwLock;
use tokio::task_local;

pub use principal::{Digest, PREFIX, Principal, Token, name_of};

/// How often a process looks who may do what.
pub const REFRESH: Duration = Duration::from_secs(1);
/// The same as long as it does not know at all.
const AT_FIRST: Duration = Duration::from_millis(100);
/// Fewest characters of a token.
const SHORTEST: usize = 20;

task_local! {
    static CALLER: Caller;
}

/// Access control of this process. Clones share what they know.
#[derive(Clone, Default)]
pub struct Access(Option<Arc<Gatekeeper>>);

struct Gatekeeper {
    /// Of the token of the processes.
    own: Digest,
    identity: Identity,
    /// `None` until the documents were read for the first time.
    policy: RwLock<Option<Arc<Policy>>>,
}

#[derive(Default)]
struct Policy {
    version: u64,
    by_name: BTreeMap<String, Arc<Principal>>,
    by_token: BTreeMap<Digest, Arc<Principal>>,
}

/// Whoever asks for something.
#[derive(Clone, Default)]
pub enum Caller {
    /// May do everything: a process of the cluster, who runs it, or anybody where access is not controlled.
    #[default]
    Anybody,
    /// Somebody with a name.
    Principal(Arc<str>, Access),
}

/// Why somebody does not come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stranger {
    /// There is no token.
    NoToken,
    /// Nobody has this one.
    Unknown,
    /// Nobody can be known yet.
    TooEarly,
}

impl Access {
    /// By the token in the file; without one everybody may do everything.
    pub fn open(file: Option<&Path>) -> anyhow::Result<Access> {
        let Some(path) = file else { return Ok(Access::default()) };
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read --access {}", path.display()))?;
        let token = text.trim();
        ensure!(
            token.len() >= SHORTEST && token.bytes().all(|byte| byte.is_ascii_graphic()),
            "{} shall hold one token of at least {SHORTEST} printable characters; `diptych acl token` makes one",
            path.display()
        );
        let gatekeeper =
            Gatekeeper { own: Digest::of(token), identity: Identity::with_token(token)?, policy: RwLock::default() };
        Ok(Access(Some(Arc::new(gatekeeper))))
    }

    /// Is access controlled?
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// As whom this process comes to others.
    pub fn identity(&self) -> Identity {
        self.0.as_ref().map(|gatekeeper| gatekeeper.identity.clone()).unwrap_or_default()
    }

    /// What the masters' documents say; others than those of access are passed over. Gives what was wrong with some.
    pub fn learn(&self, documents: &Documents) -> Vec<String> {
        let Some(gatekeeper) = &self.0 else { return Vec::new() };
        let known = gatekeeper.policy.read().as_ref().map(|policy| policy.version);
        if known == Some(documents.version) {
            return Vec::new();
        }
        let mut policy = Policy { version: documents.version, ..Policy::default() };
        let mut wrong = Vec::new();
        for document in &documents.documents {
            let Some(name) = name_of(&document.name) else { continue };
            match Principal::from_bytes(&document.body) {
                Ok(principal) => {
                    let principal = Arc::new(principal);
                    policy.by_token.extend(principal.tokens.iter().map(|token| (*token, Arc::clone(&principal))));
                    policy.by_name.insert(String::from(name), principal);
                }
                Err(why) => wrong.push(format!("principal {name}: {why}")),
            }
        }
        *gatekeeper.policy.write() = Some(Arc::new(policy));
        wrong
    }

    /// How soon to look again who may do what.
    pub fn refresh(&self) -> Duration {
        let knows = self.0.as_ref().is_some_and(|gatekeeper| gatekeeper.policy.read().is_some());
        if knows { REFRESH } else { AT_FIRST }
    }

    /// Whoever has this token; `acting`: for whom, which only processes may say.
    pub fn caller(&self, token: Option<&str>, acting: Option<&str>) -> Result<Caller, Stranger> {
        let Some(gatekeeper) = &self.0 else { return Ok(Caller::Anybody) };
        let digest = Digest::of(token.ok_or(Stranger::NoToken)?);
        match (digest == gatekeeper.own, acting) {
            (true, None) => Ok(Caller::Anybody),
            (true, Some(name)) => Ok(Caller::Principal(name.into(), self.clone())),
            (false, _) => {
                let policy = gatekeeper.policy.read().clone().ok_or(Stranger::TooEarly)?;
                let principal = policy.by_token.get(&digest).ok_or(Stranger::Unknown)?;
                Ok(Caller::Principal(principal.name.as_str().into(), self.clone()))
            }
        }
    }

    /// Whoever made the request in whose task we are. Outside of requests it is nobody, if access is controlled: what goes
    /// on behind a request's back must have been begun by what belongs to it.
    pub fn present(&self) -> Caller {
        let nobody = || if self.is_on() { Caller::Principal("".into(), self.clone()) } else { Caller::Anybody };
        CALLER.try_with(Caller::clone).unwrap_or_else(|_| nobody())
    }

    /// What somebody may do now.
    fn rights_of(&self, name: &str) -> Rights {
        let policy = self.0.as_ref().and_then(|gatekeeper| gatekeeper.policy.read().clone());
        let principal = policy.and_then(|policy| policy.by_name.get(name).cloned());
        principal.map(|principal| principal.rights.clone()).unwrap_or_default()
    }
}

impl Caller {
    /// What they may do now, which may be less than when they came; `None` if everything.
    pub fn rights(&self) -> Option<Arc<Rights>> {
        match self {
            Caller::Anybody => None,
            Caller::Principal(name, access) => {
                Some(access.rights_of(name)).filter(|rights| !rights.is_all()).map(Arc::new)
            }
        }
    }

    /// As whom this process comes to others for them.
    pub fn identity(&self) -> Option<Identity> {
        match self {
            Caller::Anybody => None,
            // A name that is none is nobody's.
            Caller::Principal(name, access) => access.identity().acting_for(name).ok(),
        }
    }

    /// Is it the token of the processes?
    pub fn is_process(&self) -> bool {
        matches!(self, Caller::Anybody)
    }

    /// Works at a request of theirs.
    pub async fn scope<T>(self, work: impl Future<Output = T>) -> T {
        CALLER.scope(self, work).await
    }
}

impl Stranger {
    /// In words, with what to do.
    pub fn message(self) -> &'static str {
        match self {
            Stranger::NoToken => {
                "access is controlled here, and the request has no token; send `authorization: Bearer TOKEN` (diptych: --token-file FILE)"
            }
            Stranger::Unknown => "nobody has this token; `diptych acl list` shows who there is",
            Stranger::TooEarly => "no master has said yet who may do what; try again in a moment",
        }
    }
}

/// The token in the value of an `Authorization` header: a bearer's, or the password of a browser.
pub fn token_in(value: &str) -> Option<String> {
    let (scheme, rest) = value.trim().split_once(' ')?;
    match scheme {
        scheme if scheme.eq_ignore_ascii_case("bearer") => Some(String::from(rest.trim())),
        scheme if scheme.eq_ignore_ascii_case("basic") => {
            let text = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
            text.split_once(':').map(|(_, password)| String::from(password))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::access::Grant;
    use model::{Bytes, Document};

    fn access(dir: &Path) -> Access {
        let path = dir.join("token");
        std::fs::write(&path, "the-token-of-the-processes\n").unwrap();
        Access::open(Some(&path)).unwrap()
    }

    fn documents(version: u64, principals: &[Principal]) -> Documents {
        let document = |principal: &Principal| Document {
            name: format!("{PREFIX}{}", principal.name),
            version,
            body: principal.to_bytes(),
        };
        Documents { version, documents: principals.iter().map(document).collect() }
    }

    fn reader(token: &Token) -> Principal {
        let grant = Grant { right: "read".parse().unwrap(), scope: "t:f".parse().unwrap() };
        Principal { name: "ada".into(), tokens: vec![Digest::of(token.text())], rights: Rights { grants: vec![grant] } }
    }

    #[test]
    fn nobody_comes_in_without_a_token_that_somebody_has() {
        let dir = tempfile::tempdir().unwrap();
        let access = access(dir.path());
        let token = Token::draw().unwrap();
        let caller = |token: Option<&str>| access.caller(token, None);
        assert!(matches!(caller(None), Err(Stranger::NoToken)));
        assert!(matches!(caller(Some(token.text())), Err(Stranger::TooEarly)));
        assert!(caller(Some("the-token-of-the-processes")).unwrap().rights().is_none());
        assert!(access.learn(&documents(3, &[reader(&token)])).is_empty());
        assert!(matches!(caller(Some("another")), Err(Stranger::Unknown)));
        let ada = caller(Some(token.text())).unwrap();
        assert!(ada.rights().unwrap().may(model::access::Right::Read, "t", "f"));
        assert!(access.learn(&documents(4, &[])).is_empty());
        assert_eq!(ada.rights().unwrap().grants, [], "what was taken back holds for those who are in");
        assert!(matches!(caller(Some(token.text())), Err(Stranger::Unknown)));
        assert!(Access::default().caller(None, None).unwrap().rights().is_none(), "off");
    }

    /// A process acts for others; nobody else does.
    #[test]
    fn processes_act_for_others() {
        let dir = tempfile::tempdir().unwrap();
        let access = access(dir.path());
        let token = Token::draw().unwrap();
        access.learn(&documents(3, &[reader(&token)]));
        let caller = |token: &str, acting| access.caller(Some(token), acting).unwrap();
        let acting = caller("the-token-of-the-processes", Some("ada"));
        assert!(!acting.is_process() && acting.rights().is_some());
        let own = caller(token.text(), Some("somebody-greater"));
        assert!(matches!(own, Caller::Principal(name, _) if &*name == "ada"));
    }

    #[tokio::test]
    async fn a_request_is_worked_at_for_whoever_made_it() {
        let dir = tempfile::tempdir().unwrap();
        let access = access(dir.path());
        assert_eq!(access.present().rights().map(|rights| rights.grants.len()), Some(0), "outside of any");
        assert!(Caller::Anybody.scope(async { access.present().rights().is_none() }).await);
        assert!(Access::default().present().rights().is_none());
    }

    #[test]
    fn damaged_documents_keep_nobody_else_out() {
        let dir = tempfile::tempdir().unwrap();
        let access = access(dir.path());
        let token = Token::draw().unwrap();
        let mut all = documents(3, &[reader(&token)]);
        let body = Bytes::from_static(b"{");
        all.documents.push(Document { name: format!("{PREFIX}bob"), version: 3, body });
        assert_eq!(access.learn(&all).len(), 1);
        assert!(access.caller(Some(token.text()), None).is_ok());
    }

    #[test]
    fn tokens_are_found_in_headers() {
        for (value, token) in [
            ("Bearer abc", Some("abc")),
            ("bearer  abc ", Some("abc")),
            ("Basic dXNlcjphOmI=", Some("a:b")),
            ("Basic !", None),
            ("Digest abc", None),
            ("abc", None),
        ] {
            assert_eq!(token_in(value).as_deref(), token, "{value}");
        }
    }

    #[test]
    fn a_file_without_a_good_token_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        for bad in ["", "short", "two tokens of words in a line"] {
            std::fs::write(&path, bad).unwrap();
            assert!(Access::open(Some(&path)).is_err(), "{bad:?}");
        }
        assert!(Access::open(Some(&dir.path().join("none"))).is_err());
    }
}
