//! A storage node as one machine.
