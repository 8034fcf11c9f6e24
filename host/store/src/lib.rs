//! Stores everything that Lantern keeps on disk except the log: the state of every shard,
//! the catalogue of projections, and the uploaded plugins. State and catalogue are redb
//! files.
//!
//! What must hold here: a commit is whole, or absent when it fails, and a
//! durable one is durable when it returns; every file says what it is and of which format, and
//! one that is damaged, foreign or of a later format is refused by its path;
//! a name from outside never becomes a path unchecked; an error of the disk is
//! passed on, and once the disk works again so does the store, without a
//! restart.

mod catalog;
mod commit_reader;
mod disk;
mod error;
mod file;
mod plugins;
mod read_only_file;
mod row_arena;
mod row_cache;
mod runs;
mod shard;
mod state;
mod table_names;
mod temporary;
mod unsynced;

pub use catalog::CatalogFile;
pub use disk::{Disk, PathKind, SystemDisk};
pub use plugins::PluginFiles;
pub use read_only_file::{StateChecked, check_catalog, check_plugin, check_state, open_read_only};
pub use state::{StateDir, StoreConfig};
