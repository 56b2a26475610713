//! A source as a table: the records that live views have seen at an epoch, read once more from the outside.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use freshet_connectors::{Offsets, Range, SourceError};
use freshet_types::{SqlError, SqlState};
use futures::{StreamExt, TryStreamExt, stream};

use crate::catalog::SourceObject;
use crate::limits::SOURCE_SILENCE_S_MAX;

/// The rows of a source from its start up to `until`.
pub struct SourceTable {
    pub source: Arc<SourceObject>,
    pub until: Offsets,
}

impl std::fmt::Debug for SourceTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SourceTable").field("until", &self.until).finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for SourceTable {
    fn schema(&self) -> SchemaRef {
        self.source.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let all = || (0..self.source.schema.fields().len()).collect();
        let reading = Reading {
            source: self.source.clone(),
            until: self.until.clone(),
            columns: projection.cloned().unwrap_or_else(all),
        };
        let partitions: Vec<Arc<dyn PartitionStream>> = vec![Arc::new(reading)];
        let infinite = false;
        let exec = StreamingTableExec::try_new(self.schema(), partitions, projection, None, infinite, limit)?;
        Ok(Arc::new(exec))
    }
}

/// One reading of a bounded range.
struct Reading {
    source: Arc<SourceObject>,
    until: Offsets,
    columns: Vec<usize>,
}

impl std::fmt::Debug for Reading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reading").field("until", &self.until).finish_non_exhaustive()
    }
}

impl PartitionStream for Reading {
    fn schema(&self) -> &SchemaRef {
        &self.source.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let source = self.source.clone();
        let range = Range { from: source.start.clone(), until: Some(self.until.clone()) };
        let columns = self.columns.clone();
        let batches = stream::once(async move {
            let reading = source.connector.read(range, &columns).await.map_err(outside)?;
            Ok::<_, DataFusionError>(stream::try_unfold(reading, |mut reading| async {
                let next = tokio::time::timeout(Duration::from_secs(SOURCE_SILENCE_S_MAX), reading.next()).await;
                let batch = next.map_err(|_| silent())?.map_err(outside)?;
                Ok::<_, DataFusionError>(batch.map(|batch| (batch.rows, reading)))
            }))
        });
        Box::pin(RecordBatchStreamAdapter::new(self.source.schema.clone(), batches.try_flatten().boxed()))
    }
}

fn silent() -> DataFusionError {
    let message = format!("the source has not delivered anything for {SOURCE_SILENCE_S_MAX} seconds");
    let error = SqlError::new(SqlState::ConnectionFailure, message)
        .with_detail("a query over a source reads its records from the outside again")
        .with_hint("see freshet_catalog.source_status; a materialized view over the source answers without it");
    DataFusionError::External(Box::new(error))
}

fn outside(error: SourceError) -> DataFusionError {
    DataFusionError::External(Box::new(SqlError::from(error)))
}
