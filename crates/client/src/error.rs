//! What can go wrong for a caller, and what they can do about it.

use std::error::Error as _;
use std::time::Duration;

use model::Refusal;
use tonic::{Code, Status};
use wire::{Invalid, status, v1};

/// Why there is no answer. Unless it says otherwise, nothing has happened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The cluster understood and said no.
    #[error("{0}")]
    Refused(Refusal),
    /// The request did not arrive anywhere.
    #[error("cannot reach {endpoint}: {why}")]
    Unreachable {
        /// Who was asked.
        endpoint: String,
        /// What the network said.
        why: String,
    },
    /// The request was sent and no answer came: it may or may not have been carried out.
    #[error("no answer from {endpoint}: {why}")]
    Lost {
        /// Who was asked.
        endpoint: String,
        /// What the network said.
        why: String,
    },
    /// Tried again and again until the time was up. A write may or may not have been carried out.
    #[error("gave up after {:.1} s: {last}", .after.as_secs_f64())]
    Deadline {
        /// How long it was tried.
        after: Duration,
        /// What the last attempt met.
        last: Box<Error>,
    },
    /// One of several things that belong together failed.
    #[error("{what}: {last}")]
    About {
        /// Which of them.
        what: String,
        /// What it met.
        last: Box<Error>,
    },
    /// The other side says what we do not understand, or what cannot be.
    #[error("unexpected answer: {0}")]
    Protocol(String),
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Error {
        Error::Refused(refusal)
    }
}

/// What a server sent, not what a caller asked.
impl From<Invalid> for Error {
    fn from(Invalid(what): Invalid) -> Error {
        Error::Protocol(what)
    }
}

impl Error {
    pub(crate) fn lost(endpoint: &str, why: impl Into<String>) -> Error {
        Error::Lost { endpoint: String::from(endpoint), why: why.into() }
    }

    pub(crate) fn unreachable(endpoint: &str, why: impl Into<String>) -> Error {
        Error::Unreachable { endpoint: String::from(endpoint), why: why.into() }
    }

    /// What `endpoint` answered, or what happened to the request on the way there.
    pub fn from_status(endpoint: &str, status: &Status) -> Error {
        if let Some(refusal) = status::from_status(status) {
            return Error::Refused(refusal);
        }
        match status.code() {
            Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded | Code::Unknown | Code::Internal => {
                if never_sent(status) {
                    Error::unreachable(endpoint, innermost(status))
                } else {
                    Error::lost(endpoint, innermost(status))
                }
            }
            code => Error::Protocol(format!("{endpoint} says {code:?}: {}", status.message())),
        }
    }

    /// The same for an item of a pipeline.
    pub(crate) fn from_failure(endpoint: &str, failure: &v1::Failure) -> Error {
        match status::from_failure(failure) {
            Ok(refusal) => Error::Refused(refusal),
            Err(status) => Error::from_status(endpoint, &status),
        }
    }

    /// May the same request succeed elsewhere or a little later?
    pub fn is_passing(&self) -> bool {
        match self {
            Error::Refused(refusal) => refusal.is_passing(),
            Error::Unreachable { .. } | Error::Lost { .. } => true,
            Error::About { last, .. } => last.is_passing(),
            Error::Deadline { .. } | Error::Protocol(_) => false,
        }
    }

    /// The refusal, if the cluster said one, also as the last thing before the time was up.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Error::Refused(refusal) => Some(refusal),
            Error::Deadline { last, .. } | Error::About { last, .. } => last.refusal(),
            _ => None,
        }
    }

    /// What a gateway tells its own client: the refusal where there is one, so that the client is no worse off for
    /// having asked a gateway.
    pub fn to_status(&self) -> Status {
        match (self.refusal(), self) {
            (Some(refusal), Error::About { .. }) => Status::new(status::code(refusal), self.to_string()),
            (Some(refusal), _) => status::to_status(refusal),
            (None, Error::Protocol(_)) => Status::internal(self.to_string()),
            (None, _) => Status::unavailable(self.to_string()),
        }
    }

    /// The same for an item of a pipeline.
    pub fn to_failure(&self) -> v1::Failure {
        match self.refusal() {
            Some(refusal) => status::to_failure(refusal),
            None => {
                let status = self.to_status();
                v1::Failure { code: status.code() as i32, message: status.message().into(), details: Vec::new() }
            }
        }
    }

    /// Exit code of a command that failed like this: 3 unavailable, 4 not found, 1 anything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Refused(Refusal::NoSuchTable(_) | Refusal::NoSuchFamily { .. }) => 4,
            Error::Refused(Refusal::TooFewReplicas { .. } | Refusal::DiskFull(_)) => 3,
            Error::Refused(refusal) if refusal.is_passing() => 3,
            Error::About { last, .. } => last.exit_code(),
            Error::Unreachable { .. } | Error::Lost { .. } | Error::Deadline { .. } => 3,
            Error::Refused(_) | Error::Protocol(_) => 1,
        }
    }

    /// What to do next, as a sentence; empty where the error itself says it.
    pub fn hint(&self) -> &'static str {
        match self {
            Error::Refused(refusal) => wire::hint(refusal),
            Error::Unreachable { .. } => {
                "Is the cluster running? Start one with `diptych up`, or name another with --endpoint."
            }
            Error::Lost { .. } => "It may have been carried out: look before you repeat it.",
            Error::Deadline { last, .. } => match &**last {
                Error::Refused(Refusal::Unknown(_)) | Error::Lost { .. } => {
                    "It may have been carried out: look before you repeat it. `diptych status` shows which nodes are up."
                }
                Error::Refused(_) => "`diptych status` shows which nodes are up and how the tablets are.",
                last => last.hint(),
            },
            Error::About { last, .. } => last.hint(),
            Error::Protocol(_) => "Client and server may be of different versions: compare `diptych --version`.",
        }
    }
}

/// Did the connection fail before the request was written?
fn never_sent(status: &Status) -> bool {
    causes(status).any(|cause| cause.is::<tonic::ConnectError>())
}

/// The cause at the bottom says most: "connection refused" rather than "transport error".
fn innermost(status: &Status) -> String {
    causes(status).last().map_or_else(|| String::from(status.message()), ToString::to_string)
}

fn causes<'a>(status: &'a Status) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(status.source(), |cause: &&'a (dyn std::error::Error + 'static)| (*cause).source())
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::TabletId;

    /// The exit codes that scripts rely on (architecture, 5).
    #[test]
    fn exit_codes_tell_unavailable_from_not_found() {
        let deadline = Error::Deadline { after: Duration::from_secs(10), last: Box::new(Error::lost("n1", "x")) };
        assert_eq!(Error::from(Refusal::NoSuchTable("t".into())).exit_code(), 4);
        assert_eq!(Error::from(Refusal::NotReady(TabletId(1))).exit_code(), 3);
        assert_eq!(Error::from(Refusal::TooFewReplicas { have: 1, need: 2 }).exit_code(), 3);
        assert_eq!((deadline.exit_code(), deadline.is_passing()), (3, false));
        assert_eq!(Error::from(Refusal::Invalid("x".into())).exit_code(), 1);
    }

    /// Whoever asks through a gateway learns the exact refusal.
    #[test]
    fn a_gateway_passes_the_refusal_on() {
        let refusal = Refusal::NotReady(TabletId(1));
        let error = Error::Deadline { after: Duration::from_secs(10), last: Box::new(refusal.clone().into()) };
        assert_eq!(Error::from_status("gateway", &error.to_status()), Error::Refused(refusal.clone()));
        assert_eq!(Error::from_failure("gateway", &error.to_failure()), Error::Refused(refusal));
        let lost = Error::lost("n1", "reset");
        assert!(matches!(Error::from_failure("gateway", &lost.to_failure()), Error::Lost { .. }));
    }
}
