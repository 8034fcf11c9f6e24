//! Stores everything that Lantern keeps on disk except the log: the state of every shard, the
//! catalogue of projections, and the uploaded plugins. State and catalogue are redb files.
//!
//! Invariants:
//!
//! * A failed commit is stored either completely or not at all.
//! * A durable commit is on disk when the call that writes it returns.
//! * Every redb file contains its kind and format. A file that is damaged, foreign or of a later
//!   format is refused with an error that names its path.
//! * A name that comes from a user becomes part of a path only after a check.
//! * Disk errors are returned to the caller. Once the disk works again, the store works without a
//!   restart.

mod catalog;
mod catalog_documents;
mod catalog_records;
mod commit_reader;
mod config;
mod disk;
mod error;
mod file;
mod open_files;
mod plugins;
mod read_only_file;
mod row_arena;
mod row_cache;
mod runs;
mod shard;
mod shard_handle;
mod state;
mod table_names;
mod temporary;
mod unsynced;

pub use catalog::CatalogFile;
pub use config::StoreConfig;
pub use disk::{Disk, PathKind, SystemDisk};
pub use plugins::PluginFiles;
pub use read_only_file::{StateChecked, check_catalog, check_plugin, check_state};
pub use state::StateDir;
