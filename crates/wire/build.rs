//! Compiles the .proto files without protoc, and keeps their descriptors for gRPC reflection.
#![allow(clippy::disallowed_methods, reason = "a build script writes to OUT_DIR")]

use prost::Message;
use std::error::Error;
use std::path::PathBuf;

const PROTOS: [&str; 3] = ["diptych/v1/kv.proto", "diptych/v1/admin.proto", "diptych/peer/v1/peer.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(PROTOS, ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    // Conditions are rare: not every mutation shall have room for one.
    let messages = tonic_prost_build::configure().bytes(".").boxed(".diptych.v1.MutateRequest.condition");
    messages.compile_fds(descriptors)?;
    Ok(())
}
