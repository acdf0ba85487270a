//! The engines that ours is compared with, and the bare disk. Each has its defaults but for what [`Settings`] says.
//!
//! [`Settings`]: crate::engine::Settings

pub mod disk;
pub mod fjall;
pub mod redb;
pub mod rocks;
pub mod sled;
