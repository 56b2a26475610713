//! Reads the rows of a snapshot that lie in files: only the row groups, pages and columns that a query may need.

use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use datafusion::common::Result;
use datafusion::error::DataFusionError;
use datafusion::physical_plan::metrics::{Count, ExecutionPlanMetricsSet, MetricBuilder};
use futures::{Stream, StreamExt, TryStreamExt};
use parquet::arrow::arrow_reader::RowSelection;

use crate::collection::StoredPart;
use crate::tiers::{Predicate, ReadStats, Tier, TierError};

/// Row groups that are read at once.
const READS_MAX: usize = 4;

/// What a scan did in one tier. Segments of files are row groups.
#[derive(Debug, Clone)]
pub(super) struct TierMetrics {
    pub segments_read: Count,
    pub bytes_read: Count,
    pub segments_skipped: Count,
    pub bytes_skipped: Count,
}

impl TierMetrics {
    pub fn new(set: &ExecutionPlanMetricsSet, tier: Tier) -> Self {
        let count = |what: &str| MetricBuilder::new(set).global_counter(format!("{tier}_{what}"));
        Self {
            segments_read: count("segments_read"),
            bytes_read: count("bytes_read"),
            segments_skipped: count("segments_skipped"),
            bytes_skipped: count("bytes_skipped"),
        }
    }
}

/// The live rows of `parts`, but for some of which `predicate` is not true. Reads ahead unless there is a limit.
pub(super) fn read(
    parts: Vec<StoredPart>,
    projection: Option<Vec<usize>>,
    predicate: Option<Arc<Predicate>>,
    metrics: &ExecutionPlanMetricsSet,
    limit: Option<usize>,
) -> impl Stream<Item = Result<RecordBatch>> + use<> {
    let tiers = [Tier::Warm, Tier::Cold].map(|tier| TierMetrics::new(metrics, tier));
    let ahead = if limit.is_some() { 1 } else { READS_MAX };
    let reads = futures::stream::iter(parts).map(move |part| {
        let tier = &tiers[usize::from(part.chunk.file.tier == Tier::Cold)];
        read_part(part, projection.clone(), predicate.clone(), tier.clone())
    });
    let read = reads.buffered(ahead).map_err(|error| DataFusionError::External(Box::new(error)));
    read.try_filter_map(|rows| std::future::ready(Ok(rows)))
}

async fn read_part(
    part: StoredPart,
    projection: Option<Vec<usize>>,
    predicate: Option<Arc<Predicate>>,
    metrics: TierMetrics,
) -> std::result::Result<Option<RecordBatch>, TierError> {
    let StoredPart { chunk, live } = part;
    let stats = Arc::new(ReadStats::default());
    let kept = match predicate {
        Some(predicate) => match chunk.prune(predicate, stats.clone()).await? {
            Some(kept) if kept.count_set_bits() == kept.len() => None,
            Some(kept) => Some(kept),
            None => {
                metrics.segments_skipped.add(1);
                count(&metrics, chunk.bytes, &stats);
                return Ok(None);
            }
        },
        None => None,
    };
    let mask = match (kept, live) {
        (Some(kept), Some(live)) => Some(&kept & &live),
        (kept, live) => kept.or(live),
    };
    let selection = mask.map(|mask| RowSelection::from_filters(&[BooleanArray::new(mask, None)]));
    let rows = chunk.read(projection, selection, stats.clone()).await?;
    metrics.segments_read.add(1);
    count(&metrics, chunk.bytes, &stats);
    Ok((rows.num_rows() > 0).then_some(rows))
}

fn count(metrics: &TierMetrics, bytes: u64, stats: &ReadStats) {
    let number = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    metrics.bytes_read.add(number(stats.bytes()));
    metrics.bytes_skipped.add(number(bytes.saturating_sub(stats.bytes())));
}
