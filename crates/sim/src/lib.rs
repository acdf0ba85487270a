//! The house in virtual time.
