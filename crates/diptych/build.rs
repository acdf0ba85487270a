//! Takes the console into the binary, if `make console` has built it. Without it the binary is as good, and its page
//! says what is missing.

#![allow(clippy::disallowed_methods, reason = "a build reads the files that it embeds")]

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // This folder is always there, so that cargo looks into it only; what is built lies in `site`.
    let folder = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../../console/dist");
    println!("cargo::rerun-if-changed={}", folder.display());
    println!("cargo::rerun-if-changed=build.rs");
    let site = folder.join("site");
    let mut files: Vec<PathBuf> = match site.is_dir() {
        true => fs::read_dir(&site)?.map(|entry| entry?.path().canonicalize()).collect::<Result<_, _>>()?,
        false => Vec::new(),
    };
    files.retain(|file| file.is_file());
    files.sort();
    // Copies are embedded: the console may be built anew while we compile.
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut list = String::from("&[\n");
    for file in files {
        let name = file.file_name().and_then(|name| name.to_str()).ok_or("a file of the console has a strange name")?;
        fs::copy(&file, out.join(name))?;
        writeln!(list, "    ({name:?}, include_bytes!(concat!(env!(\"OUT_DIR\"), {:?}))),", format!("/{name}"))?;
    }
    list.push_str("]\n");
    fs::write(out.join("console.rs"), list)?;
    Ok(())
}
