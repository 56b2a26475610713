//! `BACKUP TO 'folder or URL'`: a copy of all that there is at one instant.
//!
//! The server goes on meanwhile. Each row tells of one file that has been copied; after the last of them the
//! backup is complete.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use freshet_storage::backup::{Backup, CopiedFile};
use freshet_storage::{Location, StorageError};
use freshet_types::{SqlError, SqlState};
use futures::stream;
use tokio::sync::oneshot;
use tracing::info;

use crate::pipeline::checkpointer::CheckpointRequest;
use crate::server::objects;
use crate::session::{Response, Session};

pub async fn execute(session: &Session, to: &str) -> Result<Response, SqlError> {
    let server = &session.server;
    let target =
        Location::parse(to).map_err(|error| SqlError::new(SqlState::InvalidParameterValue, error.to_string()))?;
    let failed = {
        let to = to.to_owned();
        move |error: StorageError| objects::storage_error(&format!("cannot back up to \"{to}\""), &error)
    };
    // Before the server is asked to keep its files.
    target.open_empty().await.map_err(&failed)?;
    let (request, made) = oneshot::channel();
    let stopping = || SqlError::new(SqlState::AdminShutdown, "the server is shutting down");
    server.checkpoint_requests.send(CheckpointRequest::Backup(request)).await.map_err(|_| stopping())?;
    let source = made.await.map_err(|_| stopping())??;
    let backup = Backup::begin(source, &target, server.clock.now_ms()).await.map_err(&failed)?;
    let rows = stream::try_unfold(backup, move |mut backup| {
        let (failed, target) = (failed.clone(), target.clone());
        async move {
            if let Some(file) = backup.step().await.map_err(failed)? {
                return Ok(Some((row(&file), backup)));
            }
            let (files, bytes) = (backup.contents().files.len(), backup.contents().bytes());
            info!(files, bytes, "a backup has been made: {target}");
            Ok(None)
        }
    });
    Ok(Response::Rows { schema: schema(), stream: Box::pin(rows), tag: "BACKUP".to_owned() })
}

pub fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("file", DataType::Utf8, false), Field::new("bytes", DataType::Int64, false)]))
}

fn row(file: &CopiedFile) -> RecordBatch {
    let bytes = i64::try_from(file.bytes).unwrap_or(i64::MAX);
    let columns: Vec<ArrayRef> =
        vec![Arc::new(StringArray::from(vec![file.path.as_str()])), Arc::new(Int64Array::from(vec![bytes]))];
    RecordBatch::try_new(schema(), columns).expect("the columns are built to the schema")
}
