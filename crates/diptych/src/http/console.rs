//! The console: files of `console/dist/site` that were there when this binary was built, under `/console/`.
//!
//! The names of all but [`STATUS_STYLE`] and [`ICON`] hold a hash of their content, so a browser may keep them for ever. Each text
//! lies here twice, also compressed (`.gz`).

use axum::http::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, VARY};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};

use super::problem::Problem;

/// The style of the page that is complete without a script.
pub const STATUS_STYLE: &str = "status.css";

/// The picture in the browser's tab.
pub const ICON: &str = "icon.svg";

const STYLE: &str = include_str!("status.css");

/// Names and bytes, by name.
const FILES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/console.rs"));

/// The file of that kind with which the page begins; `None` if this binary was built without the console.
pub fn entry(extension: &str) -> Option<&'static str> {
    let mut names = FILES.iter().map(|(name, _)| *name);
    names.find(|name| name.strip_prefix("console-").is_some_and(|rest| rest.ends_with(extension)))
}

/// One file.
pub fn file(name: &str, headers: &HeaderMap) -> Result<Response, Problem> {
    match name {
        STATUS_STYLE => return Ok(([(CONTENT_TYPE, "text/css; charset=utf-8")], STYLE).into_response()),
        ICON => return Ok(([(CONTENT_TYPE, "image/svg+xml")], include_str!("icon.svg")).into_response()),
        _ => {}
    }
    let hint = "Load the page at / again: it names the files that there are.";
    let missing = || Problem::not_found(format!("the console has no file {name:?}"), hint);
    let kind = match name.rsplit_once('.') {
        Some((_, "js")) => "text/javascript; charset=utf-8",
        Some((_, "css")) => "text/css; charset=utf-8",
        Some((_, "svg")) => "image/svg+xml",
        _ => return Err(missing()),
    };
    let find = |name: &str| FILES.iter().find(|(file, _)| *file == name).map(|(_, bytes)| *bytes);
    let plain = find(name).ok_or_else(missing)?;
    let packed = find(&format!("{name}.gz")).filter(|_| takes_gzip(headers));
    let mut response = packed.unwrap_or(plain).into_response();
    let kept = HeaderValue::from_static("public, max-age=31536000, immutable");
    let fixed = [(CONTENT_TYPE, HeaderValue::from_static(kind)), (CACHE_CONTROL, kept)];
    response.headers_mut().extend(fixed);
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept-encoding"));
    if packed.is_some() {
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok(response)
}

fn takes_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        name.trim() == "gzip" && !matches!(weight.trim(), "q=0" | "q=0.0" | "q=0.00" | "q=0.000")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepting(text: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static(text))])
    }

    #[test]
    fn only_who_says_so_gets_what_is_compressed() {
        assert!(takes_gzip(&accepting("gzip")) && takes_gzip(&accepting("br, gzip;q=0.8")));
        assert!(!takes_gzip(&accepting("br")) && !takes_gzip(&accepting("gzip;q=0")));
        assert!(!takes_gzip(&HeaderMap::new()));
    }

    /// Whether this binary has the console or not: nothing else is served under its path.
    #[test]
    fn only_files_of_the_console_are_served() {
        for name in ["../Cargo.toml", "console.rs", "x.js", "", "status.css.gz"] {
            let problem = file(name, &HeaderMap::new()).expect_err(name);
            assert_eq!(problem.status.as_u16(), 404, "{name}");
        }
        for (name, kind) in [(STATUS_STYLE, "text/css; charset=utf-8"), (ICON, "image/svg+xml")] {
            let file = file(name, &HeaderMap::new()).expect("it is always there");
            assert_eq!(file.headers()[CONTENT_TYPE], kind);
        }
    }

    /// The page needs both; texts are also there compressed, and differ only in that.
    #[test]
    fn an_embedded_console_is_complete() {
        assert_eq!(entry("js").is_some(), entry("css").is_some());
        for (name, bytes) in FILES.iter().filter(|(name, _)| !name.ends_with(".gz")) {
            let plain = file(name, &HeaderMap::new()).expect(name);
            assert!(!plain.headers().contains_key(CONTENT_ENCODING) && !bytes.is_empty(), "{name}");
            let packed = file(name, &accepting("gzip")).expect(name);
            assert_eq!(packed.headers()[CONTENT_ENCODING], "gzip", "{name}");
        }
    }
}
