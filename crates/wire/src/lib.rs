//! Messages: protobuf, frames, conversions.
