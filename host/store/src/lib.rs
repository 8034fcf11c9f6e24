//! What Lantern keeps on disk besides the log, in redb files: the state of
//! every shard, the catalogue of projections, and the plugins as uploaded.
//!
//! What must hold here: a commit is durable when it returns, and whole or
//! absent when it fails; every file says what it is and of which format, and
//! one that is damaged, foreign or of a later format is refused by its path;
//! a name from outside never becomes a path unchecked; an error of the disk is
//! passed on, and once the disk works again so does the store, without a
//! restart.

mod arena;
mod catalog;
mod disk;
mod error;
mod file;
mod plugins;
mod rows;
mod runs;
mod shard;
mod space;
mod state;
mod untouched;
mod view;

pub use catalog::CatalogFile;
pub use disk::{Disk, Found, SystemDisk};
pub use plugins::PluginFiles;
pub use state::{StateDir, StoreConfig};
pub use untouched::{StateChecked, check_catalog, check_plugin, check_state, open_untouched};
