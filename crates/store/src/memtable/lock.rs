//! The lock of a memtable: the real one, or that of a tester which decides at each lock whose turn it is.

#[cfg(not(feature = "shuttle"))]
pub(super) use parking_lot::RwLock;

#[cfg(feature = "shuttle")]
pub(super) use self::tested::RwLock;

#[cfg(feature = "shuttle")]
mod tested {
    use shuttle::sync::{self, RwLockReadGuard, RwLockWriteGuard};

    #[derive(Default)]
    pub struct RwLock<T>(sync::RwLock<T>);

    impl<T> RwLock<T> {
        pub fn read(&self) -> RwLockReadGuard<'_, T> {
            self.0.read().expect("a schedule ends where a thread panics")
        }

        pub fn write(&self) -> RwLockWriteGuard<'_, T> {
            self.0.write().expect("a schedule ends where a thread panics")
        }
    }
}
