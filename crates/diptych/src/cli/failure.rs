//! How a command ends when it does not end well: one line of what is wrong, one of what to do, and an exit code.

use std::fmt;
use std::io;

use serde_json::json;

/// What scripts can tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Whoever read our output has seen enough (`diptych scan t | head`): not a fault.
    Done = 0,
    /// It did not work.
    Failed = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// Nobody answers, or not in time; it may work later.
    Unavailable = 3,
    /// No such table, family, row or cell.
    NotFound = 4,
    /// The condition of a `cput` did not hold.
    Differs = 5,
}

/// Why a command failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What is wrong, and why.
    pub message: String,
    /// What to do next; empty where the message says it.
    pub hint: String,
}

impl Failure {
    /// Without a hint yet.
    pub fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure { exit, message: message.into(), hint: String::new() }
    }

    /// It did not work.
    pub fn failed(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Failed, message)
    }

    /// The command line makes no sense.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Usage, message)
    }

    /// What is asked for is not there.
    pub fn not_found(message: impl Into<String>) -> Failure {
        Failure::new(Exit::NotFound, message)
    }

    /// Says what to do next.
    pub fn hint(self, hint: impl Into<String>) -> Failure {
        Failure { hint: hint.into(), ..self }
    }

    /// A file could not be used.
    pub fn file(doing: &str, path: &std::path::Path, error: &io::Error) -> Failure {
        Failure::failed(format!("cannot {doing} {}: {}", path.display(), reason(error)))
    }

    /// Tells it on stderr, for people or as a line of JSON. Says nothing if nothing went wrong.
    pub fn tell(&self, as_json: bool) {
        let code = match self.exit {
            Exit::Done => return,
            Exit::Failed => "failed",
            Exit::Usage => "usage",
            Exit::Unavailable => "unavailable",
            Exit::NotFound => "not_found",
            Exit::Differs => "condition_not_met",
        };
        if as_json {
            eprintln!("{}", json!({"error": {"code": code, "message": self.message, "hint": self.hint}}));
        } else {
            eprintln!("{self}");
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        if self.hint.is_empty() { Ok(()) } else { write!(f, "\nhint: {}", self.hint) }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::new(Exit::Done, ""),
            _ => Failure::failed(format!("cannot write the output: {}", reason(&error))),
        }
    }
}

/// The system's words without its number.
pub fn reason(error: &io::Error) -> String {
    plain(&error.to_string())
}

/// Leaves out the numbers of the system's errors: ` (os error 111)`.
pub fn plain(text: &str) -> String {
    match text.split_once(" (os error ") {
        Some((before, after)) => {
            let rest = after.split_once(')').map_or("", |(_, rest)| rest);
            format!("{before}{rest}")
        }
        None => text.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_need_no_error_numbers() {
        assert_eq!(plain("refused (os error 111)"), "refused");
        assert_eq!(plain("a: refused (os error 111); b"), "a: refused; b");
        assert_eq!(plain("x"), "x");
    }
}
