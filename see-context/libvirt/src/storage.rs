//! Storage pools and their volumes.

mod pool;
mod upload;
mod volume;

pub use self::pool::StoragePool;
pub use self::volume::{Volume, VolumeInfo};
