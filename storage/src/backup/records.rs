//! The store's records in the files of a backup.
//!
//! ```text
//! magic    7 bytes   "FRESHRC"
//! version  1 byte    1
//! records            each: length of the key, length of the value (4 bytes each, big endian), key, value
//! ```

use bytes::{Buf, Bytes};
use slatedb::DbIterator;

use crate::StorageError;

const HEADER: &[u8; 8] = b"FRESHRC\x01";
/// Bytes of a file, unless a single record is larger.
const FILE_BYTES: usize = 8 * 1024 * 1024;

/// The next records as a file; `None` if there are no more.
pub(super) async fn next_file(records: &mut DbIterator) -> Result<Option<Bytes>, StorageError> {
    let mut file = HEADER.to_vec();
    while file.len() < FILE_BYTES
        && let Some(record) = records.next().await?
    {
        for part in [&record.key, &record.value] {
            let length = u32::try_from(part.len()).map_err(|_| StorageError::Io {
                reason: format!("the record {} is too large", record.key.escape_ascii()),
            })?;
            file.extend_from_slice(&length.to_be_bytes());
        }
        file.extend_from_slice(&record.key);
        file.extend_from_slice(&record.value);
    }
    Ok((file.len() > HEADER.len()).then(|| file.into()))
}

/// The records in a file, as keys and values.
///
/// # Errors
/// What is wrong with it.
pub(super) fn decode(mut file: Bytes) -> Result<Vec<(Bytes, Bytes)>, String> {
    let known = HEADER[HEADER.len() - 1];
    match file.strip_prefix(&HEADER[..HEADER.len() - 1]).and_then(|rest| rest.first()) {
        Some(version) if *version == known => file.advance(HEADER.len()),
        Some(version) => return Err(format!("it has version {version}, this server knows {known}")),
        None => return Err("it is not a file of records".to_owned()),
    }
    let mut records = Vec::new();
    while !file.is_empty() {
        let cut_off = || "it ends within a record".to_owned();
        if file.len() < 8 {
            return Err(cut_off());
        }
        let (key, value) = (file.get_u32() as usize, file.get_u32() as usize);
        if file.len() < key + value {
            return Err(cut_off());
        }
        records.push((file.split_to(key), file.split_to(value)));
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn garbage_is_refused_wherever_it_is_cut() {
        let file = [&HEADER[..], &[0, 0, 0, 1, 0, 0, 0, 2], b"kvv"].concat();
        let record = (Bytes::from("k"), Bytes::from("vv"));
        assert_eq!(decode(file.clone().into()), Ok(vec![record]));
        assert_eq!(decode(Bytes::from_static(HEADER)), Ok(vec![]));
        for end in (0..HEADER.len()).chain(HEADER.len() + 1..file.len()) {
            assert!(decode(file[..end].to_vec().into()).is_err(), "cut at {end}");
        }
        assert_eq!(decode(Bytes::from_static(b"FRESHRC\x02")), Err("it has version 2, this server knows 1".to_owned()));
        let long = [&HEADER[..], &[255; 16]].concat();
        assert!(decode(long.into()).is_err());
    }
}
