//! Names for things that outlive a process.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A source, table, view or any other object of the catalog. Never used again after a DROP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RelationId(pub u64);

impl fmt::Display for RelationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.0)
    }
}
