//! Refusals as gRPC status, and back.
//!
//! ```text
//!   Status { code by kind, message = what is wrong. What to do next.,
//!            details = Failure { code, message, [Any(Refusal { exact: postcard })] } }
//! ```
//!
//! The details have the shape of google.rpc.Status, so that any gRPC client can show them; ours gets the exact
//! refusal back. Status travels in HTTP/2 headers: message and details are kept short, whatever a caller sent.

use model::Refusal;
use prost::Message;
use prost_types::Any;
use tonic::{Code, Status};

use crate::v1;

const TYPE_URL: &str = "type.googleapis.com/diptych.v1.Refusal";
/// Bytes of a message, and of the exact refusal beside it.
const LONGEST: usize = 1024;

/// The status that says this refusal.
pub fn to_status(refusal: &Refusal) -> Status {
    let failure = to_failure(refusal);
    Status::with_details(code(refusal), failure.message.clone(), failure.encode_to_vec().into())
}

/// The same as a result in a pipeline.
pub fn to_failure(refusal: &Refusal) -> v1::Failure {
    let mut message = match hint(refusal) {
        "" => refusal.to_string(),
        hint => format!("{refusal}. {hint}"),
    };
    if message.len() > LONGEST {
        message.truncate(message.floor_char_boundary(LONGEST));
        message.push('…');
    }
    let form = |refusal: &Refusal| postcard::to_allocvec(refusal).expect("a refusal is plain data");
    let exact = match (form(refusal), refusal) {
        // The heirs' borders are as long as row keys may be. Whoever hears of no heirs asks the master for them.
        (long, &Refusal::Moved { tablet, .. }) if long.len() > LONGEST => {
            form(&Refusal::Moved { tablet, heirs: Vec::new() })
        }
        (exact, _) => exact,
    };
    let details = if exact.len() <= LONGEST {
        let refusal = v1::Refusal { exact: exact.into() };
        vec![Any { type_url: String::from(TYPE_URL), value: refusal.encode_to_vec() }]
    } else {
        Vec::new()
    };
    v1::Failure { code: code(refusal) as i32, message, details }
}

/// The refusal that a status carries; `None` if the status is not about one.
///
/// A status without our details (from a proxy, or because they were too long) still tells what cannot pass.
pub fn from_status(status: &Status) -> Option<Refusal> {
    v1::Failure::decode(status.details()).ok().and_then(|failure| exact(&failure)).or_else(|| guess(status))
}

/// The same for a result in a pipeline: the refusal, or the status that the server met.
pub fn from_failure(failure: &v1::Failure) -> Result<Refusal, Status> {
    let status = || Status::new(Code::from_i32(failure.code), failure.message.clone());
    exact(failure).or_else(|| guess(&status())).ok_or_else(status)
}

fn exact(failure: &v1::Failure) -> Option<Refusal> {
    let any = failure.details.iter().find(|any| any.type_url == TYPE_URL)?;
    let refusal = v1::Refusal::decode(&any.value[..]).ok()?;
    postcard::from_bytes(&refusal.exact).ok()
}

fn guess(status: &Status) -> Option<Refusal> {
    let message = String::from(status.message());
    match status.code() {
        Code::InvalidArgument | Code::OutOfRange => Some(Refusal::Invalid(message)),
        Code::AlreadyExists => Some(Refusal::Exists(message)),
        Code::DataLoss => Some(Refusal::Corrupt(message)),
        Code::ResourceExhausted => Some(Refusal::Overloaded),
        Code::PermissionDenied | Code::Unauthenticated => Some(Refusal::Forbidden(message)),
        _ => None,
    }
}

/// The gRPC code of a refusal's kind.
pub fn code(refusal: &Refusal) -> Code {
    match refusal {
        Refusal::NoSuchTablet(_)
        | Refusal::NotReady(_)
        | Refusal::Unknown(_)
        | Refusal::NoMaster
        | Refusal::TooOld { .. }
        | Refusal::Moved { .. } => Code::Unavailable,
        Refusal::WrongEpoch { .. } | Refusal::TooFewReplicas { .. } | Refusal::Protected(_) | Refusal::NoChanges(_) => {
            Code::FailedPrecondition
        }
        Refusal::Forbidden(_) => Code::PermissionDenied,
        Refusal::DiskFull(_) | Refusal::Overloaded | Refusal::Stalled { .. } => Code::ResourceExhausted,
        Refusal::NoSuchTable(_) | Refusal::NoSuchFamily { .. } => Code::NotFound,
        Refusal::Exists(_) => Code::AlreadyExists,
        Refusal::Invalid(_) => Code::InvalidArgument,
        Refusal::ChangesGone { .. } => Code::OutOfRange,
        Refusal::Corrupt(_) => Code::DataLoss,
    }
}

/// What to do next, as a sentence; empty where the refusal itself says it.
pub fn hint(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::NoSuchTablet(_) | Refusal::WrongEpoch { .. } | Refusal::Moved { .. } => {
            "Fetch the map again and ask the present primary."
        }
        Refusal::NotReady(_) => "Try again; it takes a second or two.",
        Refusal::Unknown(_) => "Send it again with the same request id; it is not carried out twice.",
        Refusal::TooFewReplicas { .. } => {
            "See `diptych status` for the nodes that are down, and start them; reads go on meanwhile."
        }
        Refusal::DiskFull(_) => "Free some space on that disk or add a node.",
        Refusal::Overloaded => "Pause a little and try again, with fewer requests at a time.",
        Refusal::Stalled { .. } => "Pause and try again; `diptych events` says how long it lasts. Reads go on.",
        Refusal::NoSuchTable(_) => {
            "`diptych table list` shows the tables there are; `diptych table create` makes a new one."
        }
        Refusal::NoSuchFamily { .. } => "`diptych table alter` adds a family.",
        Refusal::Exists(_) => "Choose another name, or drop it first.",
        Refusal::Corrupt(_) => {
            "The log of that node says more; the other replicas of the tablet have copies of their own."
        }
        Refusal::NoMaster => "Try again; if it lasts, see whether the master runs.",
        Refusal::TooOld { .. } => "Ask another replica, or allow a larger max_lag.",
        Refusal::Protected(_) => "`diptych table alter --unprotect` takes that back.",
        Refusal::Forbidden(_) => "Ask whoever runs the cluster for a grant: `diptych acl grant`.",
        Refusal::NoChanges(_) => "`diptych table alter --changes 7d` lets it.",
        Refusal::ChangesGone { .. } => "Read the rows themselves, and the changes from before that on.",
        Refusal::Invalid(_) => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Configuration, Epoch, Heir, NodeId, Slice, TabletId};
    use std::time::Duration;

    fn all() -> Vec<Refusal> {
        let current = Configuration::first(NodeId(1), [NodeId(2), NodeId(3)]);
        vec![
            Refusal::NoSuchTablet(TabletId(1)),
            Refusal::WrongEpoch { tablet: TabletId(9), current },
            Refusal::NotReady(TabletId(2)),
            Refusal::TooOld { tablet: TabletId(3), lag: Some(std::time::Duration::from_millis(5)) },
            Refusal::Unknown(TabletId(3)),
            moved(),
            Refusal::TooFewReplicas { have: 1, need: 2 },
            Refusal::DiskFull(NodeId(4)),
            Refusal::Overloaded,
            Refusal::Stalled { tablet: TabletId(3), why: String::from("x"), retry_after: Duration::from_millis(5) },
            Refusal::NoSuchTable(String::from("üsers")),
            Refusal::NoSuchFamily { family: String::from("a"), have: String::from("b, c") },
            Refusal::Exists(String::from("table users")),
            Refusal::Invalid(String::from("no")),
            Refusal::Corrupt(String::from("000001.sst")),
            Refusal::Protected(String::from("users")),
            Refusal::Forbidden(String::from("no")),
            Refusal::NoChanges(String::from("users")),
            Refusal::ChangesGone { since: model::Timestamp(1), kept: model::Timestamp(5) },
            Refusal::NoMaster,
        ]
    }

    /// Two heirs with any bytes for a border, one of them open to the right.
    fn moved() -> Refusal {
        let border = || bytes::Bytes::from_static(b"m\xff\0");
        let heir = |id, start, end, epoch| Heir {
            tablet: TabletId(id),
            slice: Slice::Rows { start, end },
            configuration: Configuration { epoch: Epoch(epoch), ..Configuration::first(NodeId(2), [NodeId(1)]) },
        };
        let heirs = vec![heir(8, bytes::Bytes::new(), Some(border()), 4), heir(9, border(), None, 7)];
        Refusal::Moved { tablet: TabletId(7), heirs }
    }

    /// The client library gets the typed refusal back, from a call and from a pipeline.
    #[test]
    fn a_refusal_survives_the_way() {
        for refusal in all() {
            let status = to_status(&refusal);
            assert_eq!(from_status(&status), Some(refusal.clone()));
            assert_eq!(from_failure(&to_failure(&refusal)).unwrap(), refusal);
            assert!(status.message().starts_with(&refusal.to_string()));
        }
    }

    /// Borders may be as long as row keys: then the client learns that the tablet has ended, and asks who goes on.
    #[test]
    fn a_long_border_is_left_out() {
        let end = bytes::Bytes::from(vec![0xff; model::limits::ROW_KEY]);
        let slice = Slice::Rows { start: bytes::Bytes::new(), end: Some(end) };
        let heir = Heir { tablet: TabletId(8), slice, configuration: Configuration::first(NodeId(1), []) };
        let status = to_status(&Refusal::Moved { tablet: TabletId(7), heirs: vec![heir] });
        assert_eq!(from_status(&status), Some(Refusal::Moved { tablet: TabletId(7), heirs: vec![] }));
        assert!(status.message().len() + status.details().len() < 8 * LONGEST);
    }

    /// Headers are bounded by the peer: whatever a caller sent must not come back at full length.
    #[test]
    fn a_long_refusal_becomes_a_short_status() {
        let status = to_status(&Refusal::Invalid("ü".repeat(1 << 20)));
        assert!(status.message().len() + status.details().len() < 8 * LONGEST);
        assert!(matches!(from_status(&status), Some(Refusal::Invalid(_))));
    }

    #[test]
    fn a_status_of_others_is_no_refusal() {
        assert_eq!(from_status(&Status::unavailable("connection refused")), None);
        assert_eq!(
            from_status(&Status::with_details(Code::Unavailable, "x", bytes::Bytes::from_static(b"\xff"))),
            None
        );
    }
}
