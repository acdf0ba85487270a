//! The cores: what machines agree on.
