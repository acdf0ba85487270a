//! The master as one machine.
