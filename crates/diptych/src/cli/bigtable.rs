//! What an operator chooses for the Bigtable API, on nodes and on `up`, which passes it on.

use std::time::Duration;

use clap::Args;

use super::parse;
use crate::rpc::bigtable::Options;

/// Options of `node run` and of `up`.
#[derive(Clone, Debug, Args)]
pub struct BigtableArgs {
    /// How long a table that was deleted through the Bigtable API can be brought back; 0s is not at all
    #[arg(long, default_value = "1h", value_parser = parse::duration, value_name = "DURATION")]
    pub undelete_for: Duration,
}

impl BigtableArgs {
    /// As the service takes them.
    pub fn options(&self) -> Options {
        Options { undelete_for: self.undelete_for }
    }

    /// As a command line again.
    pub fn flags(&self) -> Vec<(&'static str, String)> {
        vec![("--undelete-for", format!("{}ms", self.undelete_for.as_millis()))]
    }
}
