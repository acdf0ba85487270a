//! A principal as the masters keep it: a document of JSON, so that people can read who may do what.

use std::fmt;
use std::io::Read;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use model::Rights;
use model::access::Grant;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// What the names of principals' documents begin with.
pub const PREFIX: &str = "access/principals/";
/// Tokens of one principal: one in use, and one that takes its place.
const TOKENS: usize = 8;
/// Grants of one principal.
const GRANTS: usize = 1_000;

/// Somebody with tokens and rights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// 1 to 64 of `a-z A-Z 0-9 - _ . @`.
    pub name: String,
    /// Of their tokens.
    pub tokens: Vec<Digest>,
    /// What they may do.
    pub rights: Rights,
}

/// SHA-256 of a token. Tokens are drawn by chance and long, so that nothing slower is needed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

/// A new token, which only its owner gets to see.
pub struct Token(String);

impl Digest {
    /// Of this token.
    pub fn of(token: &str) -> Digest {
        Digest(Sha256::digest(token).into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Token {
    /// Of 256 bits of the kernel's chance.
    pub fn draw() -> std::io::Result<Token> {
        let mut bytes = [0; 32];
        std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        Ok(Token(format!("dip_{}", URL_SAFE_NO_PAD.encode(bytes))))
    }

    /// To be given to its owner.
    pub fn text(&self) -> &str {
        &self.0
    }
}

/// The principal of whom a document of this name is.
pub fn name_of(document: &str) -> Option<&str> {
    document.strip_prefix(PREFIX)
}

impl Principal {
    /// Says what is wrong with a name, if anything.
    pub fn check_name(name: &str) -> Result<(), String> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.@".contains(c);
        match name.is_empty() || name.len() > 64 || !name.chars().all(allowed) {
            true => Err(format!("{name:?} is no name of a principal: use 1 to 64 of a-z A-Z 0-9 - _ . @")),
            false => Ok(()),
        }
    }

    /// As a document.
    pub fn to_bytes(&self) -> Bytes {
        let text = |grant: &Grant| json!({"right": grant.right.to_string(), "on": grant.scope.to_string()});
        let form = json!({
            "name": self.name,
            "tokens_sha256": self.tokens.iter().map(Digest::to_string).collect::<Vec<_>>(),
            "grants": self.rights.grants.iter().map(text).collect::<Vec<_>>(),
        });
        Bytes::from(form.to_string())
    }

    /// From a document, or what is wrong with it.
    pub fn from_bytes(bytes: &[u8]) -> Result<Principal, String> {
        let form: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let text =
            |value: &Value, what: &str| value.as_str().map(String::from).ok_or_else(|| format!("{what} is not a text"));
        let list = |what: &str| form[what].as_array().ok_or_else(|| format!("{what} is not a list"));
        let name = text(&form["name"], "name")?;
        Principal::check_name(&name)?;
        let tokens = list("tokens_sha256")?.iter().map(|token| digest(&text(token, "a token's hash")?));
        let grants = list("grants")?.iter().map(|grant| {
            let (right, scope) = (text(&grant["right"], "right")?, text(&grant["on"], "on")?);
            Ok(Grant { right: right.parse()?, scope: scope.parse()? })
        });
        let principal = Principal {
            name,
            tokens: tokens.collect::<Result<_, String>>()?,
            rights: Rights { grants: grants.collect::<Result<_, String>>()? },
        };
        principal.check()?;
        Ok(principal)
    }

    /// Says what there is too much of.
    pub fn check(&self) -> Result<(), String> {
        Principal::check_name(&self.name)?;
        if self.tokens.len() > TOKENS {
            return Err(format!("{} tokens; the limit is {TOKENS}", self.tokens.len()));
        }
        match self.rights.grants.len() {
            count if count > GRANTS => Err(format!("{count} grants; the limit is {GRANTS}")),
            _ => Ok(()),
        }
    }
}

fn digest(hex: &str) -> Result<Digest, String> {
    let wrong = || format!("{hex:?} is no SHA-256 in hexadecimal");
    if hex.len() != 64 || !hex.is_ascii() {
        return Err(wrong());
    }
    let mut bytes = [0; 32];
    for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(&hex[at..at + 2], 16).map_err(|_| wrong())?;
    }
    Ok(Digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_is_read_as_it_was_written() {
        let grant = |right: &str, scope: &str| Grant { right: right.parse().unwrap(), scope: scope.parse().unwrap() };
        let principal = Principal {
            name: "ada@example".into(),
            tokens: vec![Digest::of("x"), Digest::of("y")],
            rights: Rights { grants: vec![grant("read", "t:f"), grant("admin", "cluster")] },
        };
        assert_eq!(Principal::from_bytes(&principal.to_bytes()), Ok(principal.clone()));
        assert!(!String::from_utf8(principal.to_bytes().to_vec()).unwrap().contains("\"x\""), "no token is kept");
        for bad in [
            "",
            "{}",
            r#"{"name":"a b","tokens_sha256":[],"grants":[]}"#,
            r#"{"name":"a","tokens_sha256":["00"],"grants":[]}"#,
        ] {
            assert!(Principal::from_bytes(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn no_token_is_drawn_twice() {
        let (one, other) = (Token::draw().unwrap(), Token::draw().unwrap());
        assert!(one.text() != other.text() && one.text().len() > 40 && one.text().starts_with("dip_"));
    }
}
