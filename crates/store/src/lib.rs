//! The engine: shared log, memtables, sorted tables, manifest.
