//! Bytes as people can read them.

use alloc::string::String;
use core::fmt::Write;

/// Characters of a message that show bytes.
const MOST: usize = 120;

/// Text for any bytes: UTF-8 as it is; everything else, control characters and the backslash as `\xNN`.
pub fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
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

/// The same for a message that shall stay a line: cut after 120 characters.
pub fn printable(bytes: &[u8]) -> String {
    let text = escaped(&bytes[..bytes.len().min(4 * MOST)]);
    match text.char_indices().nth(MOST) {
        Some((end, _)) => text[..end].chars().chain(['…']).collect(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_text_and_escapes_the_rest() {
        assert_eq!(printable("Zürich".as_bytes()), "Zürich");
        assert_eq!(printable(b"a\x00\\\xff"), "a\\x00\\x5c\\xff");
        assert_eq!(escaped(&[b'x'; 500]).len(), 500);
        assert_eq!(printable(&[b'x'; 500]).chars().count(), 121);
    }
}
