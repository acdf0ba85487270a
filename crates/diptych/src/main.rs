//! Diptych: a replicated wide-column store.

fn main() {}
