//! Bytes as people can read them.

use alloc::string::String;
use core::fmt::Write;

/// Printable text for any bytes: UTF-8 as it is, everything else, control characters and the backslash as `\xNN`.
/// At most 120 characters are kept, so that a message stays a line.
pub fn printable(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            if text.len() > 120 {
                text.push('…');
                return text;
            }
            if letter.is_control() || letter == '\\' {
                let mut buffer = [0; 4];
                for byte in letter.encode_utf8(&mut buffer).bytes() {
                    let _ = write!(text, "\\x{byte:02x}");
                }
            } else {
                text.push(letter);
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_text_and_escapes_the_rest() {
        assert_eq!(printable("Zürich".as_bytes()), "Zürich");
        assert_eq!(printable(b"a\x00\\\xff"), "a\\x00\\x5c\\xff");
    }
}
