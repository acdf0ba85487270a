//! What is wrong with a request, as clients hear it.

use std::fmt;

/// gRPC's codes, as far as this API uses them. Clients repeat a request by these: what is not theirs to repeat must not be
/// `Unavailable`, and nothing that is wrong with a request is an internal error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The request makes no sense.
    InvalidArgument,
    /// A table, family or the like is not there.
    NotFound,
    /// It is there already.
    AlreadyExists,
    /// Not in the state that it is in.
    FailedPrecondition,
    /// This server does not do it.
    Unimplemented,
    /// Not through this view.
    PermissionDenied,
    /// Somebody else was faster.
    Aborted,
}

/// What is wrong, in words for whoever wrote the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Of which kind.
    pub code: Code,
    /// Names the field.
    pub message: String,
}

impl Problem {
    /// The request makes no sense.
    pub fn invalid(message: impl Into<String>) -> Problem {
        Problem { code: Code::InvalidArgument, message: message.into() }
    }

    /// Something is not there.
    pub fn not_found(message: impl Into<String>) -> Problem {
        Problem { code: Code::NotFound, message: message.into() }
    }

    /// It is not in the state for it.
    pub fn precondition(message: impl Into<String>) -> Problem {
        Problem { code: Code::FailedPrecondition, message: message.into() }
    }

    /// This server does not do it.
    pub fn unimplemented(message: impl Into<String>) -> Problem {
        Problem { code: Code::Unimplemented, message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}
