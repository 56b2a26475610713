//! What belongs to a backup, as it says itself.

use bytes::Bytes;
use freshet_types::Epoch;
use freshet_types::keys::hash_bytes;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use super::CONTENTS;
use crate::{Location, StorageError};

const VERSION: u32 = 1;
/// Bytes of the object at most: some ten million files.
const BYTES_MAX: u64 = 1 << 30;

/// All that a backup consists of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    version: u32,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
    /// The version of the server that made it.
    pub server: String,
    /// The epoch of the checkpoint in it; `None` if there had been none.
    pub epoch: Option<Epoch>,
    pub files: Vec<CopiedFile>,
}

/// A file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopiedFile {
    pub path: String,
    pub bytes: u64,
    /// XXH3 of its bytes.
    pub checksum: u64,
}

impl Contents {
    pub fn new(created_ms: u64, epoch: Option<Epoch>) -> Self {
        let server = env!("CARGO_PKG_VERSION").to_owned();
        Self { version: VERSION, created_ms, server, epoch, files: Vec::new() }
    }

    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    pub(super) fn encode(&self) -> Result<Bytes, StorageError> {
        let line = serde_json::to_string(self).map_err(|error| StorageError::Io { reason: error.to_string() })?;
        Ok(format!("{line}\n{:016x}\n", hash_bytes(line.as_bytes())).into())
    }

    /// Reads what a backup says of itself.
    ///
    /// # Errors
    /// If there is none, or it is damaged, or of a version that this server does not know.
    pub(super) async fn read(from: &Location) -> Result<Self, StorageError> {
        let store = from.open_existing().await?;
        let damaged =
            |reason: &str| StorageError::Damaged { name: format!("{from}/{CONTENTS}"), reason: reason.to_owned() };
        let found = match store.get(&Path::from(CONTENTS)).await {
            Err(object_store::Error::NotFound { .. }) => {
                return Err(StorageError::NoBackup { location: from.to_string() });
            }
            found => found?,
        };
        if found.meta.size > BYTES_MAX {
            return Err(damaged("it is too large"));
        }
        let bytes = found.bytes().await?;
        let text = std::str::from_utf8(&bytes).map_err(|_| damaged("it is no text"))?;
        let mut lines = text.lines();
        let (Some(line), Some(checksum), None) = (lines.next(), lines.next(), lines.next()) else {
            return Err(damaged("it does not have two lines"));
        };
        if checksum != format!("{:016x}", hash_bytes(line.as_bytes())) {
            return Err(damaged("its checksum does not match"));
        }
        // The version first: what another one says of the rest may have another form.
        let value: serde_json::Value = serde_json::from_str(line).map_err(|error| damaged(&error.to_string()))?;
        if value["version"] != VERSION {
            return Err(StorageError::UnknownVersion {
                name: format!("{from}/{CONTENTS}"),
                found: value["version"].to_string(),
                known: VERSION,
            });
        }
        serde_json::from_value(value).map_err(|error| damaged(&error.to_string()))
    }
}
