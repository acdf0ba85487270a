//! What went wrong, as HTTP says it: a status, and `{"error": {"code", "message", "hint"}}`.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use client::Error;
use model::Refusal;
use serde_json::{Value, json};

/// A request that failed.
#[derive(Debug, PartialEq, Eq)]
pub struct Problem {
    /// The HTTP status.
    pub status: StatusCode,
    code: &'static str,
    message: String,
    hint: String,
}

impl Problem {
    /// Any.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Problem {
        Problem { status, code, message: message.into(), hint: hint.into() }
    }

    /// The request makes no sense.
    pub fn invalid(message: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, "invalid_argument", message, "")
    }

    /// What it asks for is not there.
    pub fn not_found(message: impl Into<String>, hint: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, "not_found", message, hint)
    }

    /// The value of a body or of a line.
    pub fn to_json(&self) -> Value {
        json!({"error": {"code": self.code, "message": self.message, "hint": self.hint}})
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.status, Json(self.to_json())).into_response()
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Problem {
        let (status, code) = kind(&refusal);
        Problem::new(status, code, refusal.to_string(), wire::hint(&refusal))
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Problem {
        let (status, code) = match (error.refusal(), &error) {
            (Some(refusal), _) => kind(refusal),
            (None, Error::Deadline { .. }) => (StatusCode::GATEWAY_TIMEOUT, "deadline_exceeded"),
            (None, Error::Protocol(_)) => (StatusCode::BAD_GATEWAY, "internal"),
            (None, _) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        };
        Problem::new(status, code, error.to_string(), error.hint())
    }
}

/// The names are those of gRPC's codes, in small letters.
fn kind(refusal: &Refusal) -> (StatusCode, &'static str) {
    match refusal {
        Refusal::NoSuchTablet(_)
        | Refusal::WrongEpoch { .. }
        | Refusal::NotReady(_)
        | Refusal::Unknown(_)
        | Refusal::NoMaster
        | Refusal::TooOld { .. }
        | Refusal::Moved { .. } => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        Refusal::TooFewReplicas { .. } => (StatusCode::SERVICE_UNAVAILABLE, "failed_precondition"),
        Refusal::DiskFull(_) => (StatusCode::INSUFFICIENT_STORAGE, "resource_exhausted"),
        Refusal::Overloaded | Refusal::Stalled { .. } => (StatusCode::TOO_MANY_REQUESTS, "resource_exhausted"),
        Refusal::NoSuchTable(_) | Refusal::NoSuchFamily { .. } => (StatusCode::NOT_FOUND, "not_found"),
        Refusal::Exists(_) => (StatusCode::CONFLICT, "already_exists"),
        Refusal::Invalid(_) => (StatusCode::BAD_REQUEST, "invalid_argument"),
        Refusal::Corrupt(_) => (StatusCode::INTERNAL_SERVER_ERROR, "data_loss"),
        Refusal::Protected(_) | Refusal::NoChanges(_) => (StatusCode::CONFLICT, "failed_precondition"),
        Refusal::ChangesGone { .. } => (StatusCode::GONE, "out_of_range"),
        Refusal::Forbidden(_) => (StatusCode::FORBIDDEN, "permission_denied"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// architecture.md 5: errors have a code, a message and a hint, and the matching status.
    #[test]
    fn a_refusal_is_a_problem_with_a_hint() {
        let problem = Problem::from(Error::Refused(Refusal::NoSuchTable(String::from("users"))));
        assert_eq!(problem.status, StatusCode::NOT_FOUND);
        let error = &problem.to_json()["error"];
        assert_eq!((&error["code"], &error["message"]), (&json!("not_found"), &json!("no table \"users\"")));
        assert!(error["hint"].as_str().is_some_and(|hint| hint.contains("diptych table")));
    }

    #[test]
    fn a_deadline_tells_what_the_last_attempt_met() {
        let last = Box::new(Error::Refused(Refusal::NoMaster));
        let problem = Problem::from(Error::Deadline { after: std::time::Duration::from_secs(10), last });
        assert_eq!(problem.status, StatusCode::SERVICE_UNAVAILABLE);
    }
}
