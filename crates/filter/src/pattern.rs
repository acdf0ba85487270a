//! RE2's patterns of bytes ("Latin-1"), as the `regex` crate understands them.
//!
//! The two differ in small things, each of which would be a wrong answer: RE2 knows `\C`, `\Q…\E` and octal numbers, and takes
//! `[`, `&&`, `--` and `~~` within a class, and `\<` and `\>`, for what they are; `\s` has no vertical tab. A pattern is
//! rewritten, byte by byte, into one that means the same here.

use regex::bytes::{Regex, RegexBuilder};

use crate::Invalid;

/// Bytes that a compiled pattern may take.
const SIZE: usize = 4 << 20;
/// RE2 repeats nothing more often.
const REPEAT: u32 = 1000;
/// Letters of Latin-1, and those that are upper and lower case.
const LETTERS: &str = r"A-Za-z\xAA\xB5\xBA\xC0-\xD6\xD8-\xF6\xF8-\xFF";
const UPPER: &str = r"A-Z\xC0-\xD6\xD8-\xDE";
const LOWER: &str = r"a-z\xB5\xDF-\xF6\xF8-\xFF";
/// What RE2 takes for a space.
const SPACES: &str = r"\t\n\f\r ";

/// A pattern that matches as a whole.
#[derive(Debug)]
pub(crate) struct Pattern {
    /// Without a pattern language, if it is only a string.
    literal: Option<Vec<u8>>,
    regex: Option<Regex>,
}

impl Pattern {
    /// `field` is where it stands, for messages.
    pub fn new(field: &str, pattern: &[u8]) -> Result<Pattern, Invalid> {
        if let Some(literal) = literal(pattern) {
            return Ok(Pattern { literal: Some(literal), regex: None });
        }
        let wrong = |what: String| {
            let pattern = String::from_utf8_lossy(pattern);
            Invalid(format!("Error in field '{field}' : {pattern:?} is no pattern of RE2's syntax: {what}"))
        };
        let ours = rewrite(pattern).map_err(|what| wrong(what.to_owned()))?;
        let regex = RegexBuilder::new(&format!(r"\A(?:{ours})\z")).unicode(false).size_limit(SIZE).build();
        let regex = regex.map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => wrong("it is too large".to_owned()),
            // Its last line says what; those before it draw the rewritten pattern.
            error => {
                wrong(error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned())
            }
        })?;
        Ok(Pattern { literal: None, regex: Some(regex) })
    }

    /// Does it match all of this?
    pub fn matches(&self, bytes: &[u8]) -> bool {
        match (&self.literal, &self.regex) {
            (Some(literal), _) => bytes == &literal[..],
            (None, Some(regex)) => regex.is_match(bytes),
            (None, None) => false,
        }
    }
}

/// The only string that a pattern matches, if it is so simple that one sees it.
pub(crate) fn literal(pattern: &[u8]) -> Option<Vec<u8>> {
    let mut literal = Vec::with_capacity(pattern.len());
    let mut bytes = pattern.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => match bytes.next()? {
                b'x' => {
                    let digits = [bytes.next()?, bytes.next()?].map(|digit| (digit as char).to_digit(16));
                    literal.push((digits[0]? * 16 + digits[1]?) as u8);
                }
                escaped if !escaped.is_ascii_alphanumeric() => literal.push(escaped),
                _ => return None,
            },
            b'.' | b'+' | b'*' | b'?' | b'(' | b')' | b'|' | b'[' | b']' | b'{' | b'}' | b'^' | b'$' => return None,
            byte => literal.push(byte),
        }
    }
    Some(literal)
}

/// The pattern in this crate's syntax.
fn rewrite(pattern: &[u8]) -> Result<String, &'static str> {
    let mut reader = Rewriter { rest: pattern, out: String::with_capacity(pattern.len() + 16) };
    // How many operators have repeated what stands before: one, and a `?` that makes it lazy.
    let mut repeats = 0;
    while let Some(byte) = reader.take() {
        let before = std::mem::take(&mut repeats);
        match byte {
            b'\\' => reader.escape(false)?,
            b'[' => reader.class()?,
            b'(' => reader.group()?,
            b'{' if !reader.brace()? => reader.plain(byte),
            b'?' if before < 2 => {
                repeats = before + 1;
                reader.push(byte);
            }
            b'*' | b'+' | b'?' | b'{' if before > 0 => return Err("what is repeated is not repeated again"),
            b'*' | b'+' => {
                repeats = 1;
                reader.push(byte);
            }
            b'{' => {
                repeats = 1;
                reader.push(byte);
                while let Some(inside) = reader.take() {
                    reader.push(inside);
                    if inside == b'}' {
                        break;
                    }
                }
            }
            byte => reader.push(byte),
        }
    }
    Ok(reader.out)
}

struct Rewriter<'a> {
    rest: &'a [u8],
    out: String,
}

impl Rewriter<'_> {
    fn take(&mut self) -> Option<u8> {
        let (&first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }

    fn push(&mut self, byte: u8) {
        match byte {
            0x20..=0x7e => self.out.push(byte as char),
            byte => self.hex(byte),
        }
    }

    fn hex(&mut self, byte: u8) {
        self.out.push_str(&format!(r"\x{byte:02X}"));
    }

    /// A byte that means itself.
    fn plain(&mut self, byte: u8) {
        if byte.is_ascii_alphanumeric() || byte == b'_' { self.push(byte) } else { self.hex(byte) }
    }

    /// After a backslash.
    fn escape(&mut self, in_class: bool) -> Result<(), &'static str> {
        let byte = self.take().ok_or("it ends with a backslash")?;
        match byte {
            b'C' if !in_class => self.out.push_str("(?s-u:.)"),
            b'Q' if !in_class => {
                let (quoted, rest) = match self.rest.windows(2).position(|end| end == br"\E") {
                    Some(end) => (&self.rest[..end], &self.rest[end + 2..]),
                    None => (self.rest, &[][..]),
                };
                self.rest = rest;
                quoted.iter().for_each(|byte| self.plain(*byte));
            }
            b'E' if !in_class => {}
            b's' => self.set(SPACES, false, in_class),
            b'S' => self.set(SPACES, true, in_class),
            b'p' | b'P' => {
                let (letters, negated) = self.property()?;
                self.set(letters, negated != (byte == b'P'), in_class);
            }
            b'x' => {
                let hex = match self.rest {
                    [b'{', rest @ ..] => {
                        let end = rest.iter().position(|byte| *byte == b'}').ok_or("\\x{ without a }")?;
                        self.rest = &rest[end + 1..];
                        &rest[..end]
                    }
                    [a, b, rest @ ..] => {
                        let digits = [*a, *b];
                        self.rest = rest;
                        return self.hex_digits(&digits);
                    }
                    _ => return Err("\\x needs two hexadecimal digits"),
                };
                self.hex_digits(hex)?;
            }
            b'0' => self.octal(0)?,
            b'1'..=b'7' if self.rest.first().is_some_and(|next| (b'0'..=b'7').contains(next)) => {
                self.octal(u32::from(byte - b'0'))?;
            }
            b'1'..=b'9' => return Err("there are no back-references"),
            b'a' | b'f' | b'n' | b'r' | b't' | b'v' | b'd' | b'D' | b'w' | b'W' => {
                self.out.push('\\');
                self.out.push(byte as char);
            }
            b'A' | b'z' | b'b' | b'B' if !in_class => {
                self.out.push('\\');
                self.out.push(byte as char);
            }
            byte if byte.is_ascii_alphabetic() => return Err("there is no such escape"),
            byte => self.plain(byte),
        }
        Ok(())
    }

    fn hex_digits(&mut self, digits: &[u8]) -> Result<(), &'static str> {
        let text = std::str::from_utf8(digits).ok().filter(|text| !text.starts_with('+'));
        let number = text.and_then(|text| u32::from_str_radix(text, 16).ok()).ok_or("\\x needs hexadecimal digits")?;
        self.hex(u8::try_from(number).map_err(|_| "a character above \\xFF is no byte")?);
        Ok(())
    }

    /// Up to two more digits of an octal number.
    fn octal(&mut self, mut number: u32) -> Result<(), &'static str> {
        for _ in 0..2 {
            match self.rest {
                [digit @ b'0'..=b'7', rest @ ..] => {
                    number = number * 8 + u32::from(digit - b'0');
                    self.rest = rest;
                }
                _ => break,
            }
        }
        self.hex(u8::try_from(number).map_err(|_| "an octal number above \\377 is no byte")?);
        Ok(())
    }

    /// One of the characters, or one of all others.
    fn set(&mut self, characters: &str, negated: bool, in_class: bool) {
        match (negated, in_class) {
            (false, true) => self.out.push_str(characters),
            (negated, _) => {
                self.out.push_str(if negated { "[^" } else { "[" });
                self.out.push_str(characters);
                self.out.push(']');
            }
        }
    }

    /// After `\p`: the characters of Latin-1 with this property; and whether all others are meant.
    fn property(&mut self) -> Result<(&'static str, bool), &'static str> {
        let name = match self.rest {
            [b'{', rest @ ..] => {
                let end = rest.iter().position(|byte| *byte == b'}').ok_or("\\p{ without a }")?;
                self.rest = &rest[end + 1..];
                &rest[..end]
            }
            [_, rest @ ..] => {
                let name = &self.rest[..1];
                self.rest = rest;
                name
            }
            [] => return Err("\\p needs a name"),
        };
        let (name, negated) = match name {
            [b'^', name @ ..] => (name, true),
            name => (name, false),
        };
        let characters = match name {
            b"L" | b"Latin" => LETTERS,
            b"Lu" => UPPER,
            b"Ll" => LOWER,
            b"N" => r"0-9\xB2\xB3\xB9\xBC-\xBE",
            b"Nd" => "0-9",
            b"Zs" | b"Z" => r" \xA0",
            b"Any" => r"\x00-\xFF",
            _ => return Err("no such class of characters is known of bytes"),
        };
        Ok((characters, negated))
    }

    /// After an opening bracket.
    fn class(&mut self) -> Result<(), &'static str> {
        self.out.push('[');
        if let [b'^', rest @ ..] = self.rest {
            self.out.push('^');
            self.rest = rest;
        }
        let mut first = true;
        loop {
            let byte = self.take().ok_or("a [ has no ]")?;
            match byte {
                b']' if !first => {
                    self.out.push(']');
                    return Ok(());
                }
                b'[' if self.rest.first() == Some(&b':') => {
                    let end = self.rest.windows(2).position(|end| end == b":]").ok_or("a [: has no :]")?;
                    let name = std::str::from_utf8(&self.rest[..end + 2]).map_err(|_| "no such class of characters")?;
                    self.out.push('[');
                    self.out.push_str(name);
                    self.rest = &self.rest[end + 2..];
                }
                b'\\' => self.escape(true)?,
                // Between two characters it makes a range; else it means itself.
                b'-' if !first && self.rest.first().is_some_and(|next| *next != b']') => self.out.push('-'),
                byte => self.plain(byte),
            }
            first = false;
        }
    }

    /// After an opening brace: does it repeat what stands before it? Else it means itself.
    fn brace(&self) -> Result<bool, &'static str> {
        let Some(end) = self.rest.iter().position(|byte| *byte == b'}') else { return Ok(false) };
        let text = std::str::from_utf8(&self.rest[..end]).unwrap_or_default();
        let (least, most) = text.split_once(',').unwrap_or((text, ""));
        let is_number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
        if least.is_empty() || !is_number(least) || !is_number(most) {
            return Ok(false);
        }
        let large = |digits: &str| !digits.is_empty() && digits.parse().map_or(true, |count: u32| count > REPEAT);
        if large(least) || large(most) {
            return Err("nothing is repeated more than 1000 times");
        }
        Ok(true)
    }

    /// After an opening parenthesis.
    fn group(&mut self) -> Result<(), &'static str> {
        self.out.push('(');
        let [b'?', rest @ ..] = self.rest else { return Ok(()) };
        let named = rest.starts_with(b"P<") || rest.starts_with(b"<");
        if rest.starts_with(b"=") || rest.starts_with(b"!") || rest.starts_with(b"<=") || rest.starts_with(b"<!") {
            return Err("there is no looking around");
        }
        let end = rest.iter().position(|byte| matches!(byte, b':' | b')' | b'>')).ok_or("a (? has no end")?;
        if !named && rest[..end].iter().any(|flag| !matches!(flag, b'i' | b'm' | b's' | b'U' | b'-')) {
            return Err("there are no flags but i, m, s and U");
        }
        Ok(())
    }
}
