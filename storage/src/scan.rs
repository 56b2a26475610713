//! Snapshots as DataFusion tables.
//!
//! A scan reads only the columns asked for, batch by batch as they are consumed, so a LIMIT reads little. Conditions
//! that give every key column a value turn the scan into a look-up through the key index. The
//! number of rows is exact, so `count(*)` reads nothing. Of rows in files, only those row groups and pages are
//! [read](stored) of which the conditions may be true.

mod stored;

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DFSchema, Result, ScalarValue, Statistics, exec_err, project_schema};
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::expr_rewriter::unnormalize_col;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, ReplaceChildrenOptions};
use datafusion::physical_plan::memory::MemoryStream;
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, StatisticsArgs,
};
use futures::StreamExt;

use crate::collection::Snapshot;
use crate::tiers::{Predicate, Tier};
use stored::TierMetrics;

/// A snapshot of a collection as a table.
#[derive(Debug, Clone)]
pub struct SnapshotTable {
    snapshot: Snapshot,
    has_stored: bool,
}

impl SnapshotTable {
    pub fn new(snapshot: Snapshot) -> Self {
        Self { has_stored: snapshot.has_stored(), snapshot }
    }

    /// What files are asked of the filters. None of them has to be, so a filter that cannot be is left out.
    fn predicate(&self, state: &dyn Session, filters: &[Expr]) -> Option<Arc<Predicate>> {
        let schema = self.snapshot.schema();
        let without_relation = |filter: &Expr| unnormalize_col(filter.clone());
        let columns = DFSchema::try_from(schema.as_ref().clone()).ok()?;
        let physical = |filter: &Expr| state.create_physical_expr(without_relation(filter), &columns).ok();
        let condition = datafusion::physical_expr::conjunction(filters.iter().filter_map(physical));
        Predicate::new(&condition, schema).map(Arc::new)
    }

    /// The index of the key column and the value that a condition `column = value` gives it.
    fn key_equality<'a>(&self, filter: &'a Expr) -> Option<(usize, &'a ScalarValue)> {
        let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = filter else {
            return None;
        };
        let (column, value) = match (&**left, &**right) {
            (Expr::Column(column), Expr::Literal(value, _)) | (Expr::Literal(value, _), Expr::Column(column)) => {
                (column, value)
            }
            _ => return None,
        };
        let index = self.snapshot.schema().index_of(&column.name).ok()?;
        let place = self.snapshot.key()?.iter().position(|key| *key == index)?;
        (!value.is_null()).then_some((place, value))
    }

    /// One value for each key column, if the filters give them.
    fn key_values(&self, filters: &[Expr]) -> Option<Vec<ArrayRef>> {
        let key = self.snapshot.key()?;
        let mut values: Vec<Option<ArrayRef>> = vec![None; key.len()];
        for (place, value) in filters.iter().filter_map(|filter| self.key_equality(filter)) {
            let data_type = self.snapshot.schema().field(key[place]).data_type();
            values[place] = array_of(value, data_type);
        }
        values.into_iter().collect()
    }
}

/// The value as a column of type `data_type`, if that does not change it.
fn array_of(value: &ScalarValue, data_type: &DataType) -> Option<ArrayRef> {
    let is_text = |data_type: &DataType| matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    if value.data_type() == *data_type {
        value.to_array().ok()
    } else if is_text(&value.data_type()) && is_text(data_type) {
        value.cast_to(data_type).ok()?.to_array().ok()
    } else {
        None
    }
}

#[async_trait]
impl TableProvider for SnapshotTable {
    fn schema(&self) -> SchemaRef {
        self.snapshot.schema().clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let keys = self.key_values(filters);
        let predicate = if keys.is_none() && self.has_stored { self.predicate(state, filters) } else { None };
        let scan = SnapshotExec::try_new(self.snapshot.clone(), projection.cloned(), keys, limit)?;
        Ok(Arc::new(SnapshotExec { predicate, ..scan }))
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        // A look-up may be given up for a scan, so the filter stays above it in any case.
        let support = |filter: &&Expr| match self.key_equality(filter) {
            Some(_) => TableProviderFilterPushDown::Inexact,
            None if self.has_stored => TableProviderFilterPushDown::Inexact,
            None => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(support).collect())
    }

    fn statistics(&self) -> Option<Statistics> {
        Some(Statistics::new_unknown(self.snapshot.schema()).with_num_rows(Precision::Exact(self.snapshot.row_count())))
    }
}

/// Reads a snapshot, all of it or by key.
#[derive(Debug)]
struct SnapshotExec {
    snapshot: Snapshot,
    projection: Option<Vec<usize>>,
    keys: Option<Vec<ArrayRef>>,
    limit: Option<usize>,
    /// Rows in files of which it is not true may be left out.
    predicate: Option<Arc<Predicate>>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl SnapshotExec {
    fn try_new(
        snapshot: Snapshot,
        projection: Option<Vec<usize>>,
        keys: Option<Vec<ArrayRef>>,
        limit: Option<usize>,
    ) -> Result<Self> {
        let schema = project_schema(snapshot.schema(), projection.as_ref())?;
        let properties = Arc::new(PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        ));
        let metrics = ExecutionPlanMetricsSet::new();
        Ok(Self { snapshot, projection, keys, limit, predicate: None, properties, metrics })
    }

    fn lookup(&self, keys: &[ArrayRef]) -> Result<RecordBatch> {
        let found = self.snapshot.lookup(keys).map_err(|error| DataFusionError::External(Box::new(error)))?;
        match &self.projection {
            Some(columns) => Ok(found.project(columns)?),
            None => Ok(found),
        }
    }
}

impl DisplayAs for SnapshotExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.keys.is_some() { "lookup by key" } else { "scan" };
        write!(f, "SnapshotExec: {} of {}", how, self.snapshot.name())?;
        self.limit.map_or(Ok(()), |limit| write!(f, ", limit={limit}"))
    }
}

impl ExecutionPlan for SnapshotExec {
    fn name(&self) -> &str {
        "SnapshotExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![]
    }

    fn replace_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    // Required until DataFusion drops it for `replace_children`.
    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn execute(&self, partition: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        if partition != 0 {
            return exec_err!("a snapshot has one partition, not {partition}");
        }
        let schema = self.schema();
        if let Some(keys) = &self.keys {
            let found = self.lookup(keys)?;
            return Ok(Box::pin(MemoryStream::try_new(vec![found], schema, None)?));
        }
        let in_memory = self.snapshot.scan_memory(self.projection.as_deref()).map(|rows| Ok(rows?));
        let in_memory = futures::stream::iter(in_memory);
        let parts = self.snapshot.stored();
        let batches = if parts.is_empty() {
            in_memory.boxed()
        } else {
            let (segments, bytes) = self.snapshot.memory_size();
            let hot = TierMetrics::new(&self.metrics, Tier::Hot);
            hot.segments_read.add(segments);
            hot.bytes_read.add(bytes);
            let (projection, predicate) = (self.projection.clone(), self.predicate.clone());
            in_memory.chain(stored::read(parts, projection, predicate, &self.metrics, self.limit)).boxed()
        };
        let mut missing = self.limit.unwrap_or(usize::MAX);
        let batches = batches.map(move |batch| {
            let rows: RecordBatch = batch?;
            let rows = rows.slice(0, rows.num_rows().min(missing));
            missing -= rows.num_rows();
            Ok(rows)
        });
        let is_wanted =
            |batch: &Result<RecordBatch>| std::future::ready(batch.as_ref().map_or(true, |rows| rows.num_rows() > 0));
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches.take_while(is_wanted))))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn statistics_from_inputs(&self, _: &[Arc<Statistics>], _: &StatisticsArgs) -> Result<Arc<Statistics>> {
        let limit = self.limit.unwrap_or(usize::MAX);
        let rows = match &self.keys {
            // A key has at most one row.
            Some(_) => Precision::Inexact(1),
            None if self.predicate.is_some() => Precision::Inexact(self.snapshot.row_count().min(limit)),
            None => Precision::Exact(self.snapshot.row_count().min(limit)),
        };
        Ok(Arc::new(Statistics::new_unknown(&self.schema()).with_num_rows(rows)))
    }

    fn fetch(&self) -> Option<usize> {
        self.limit
    }

    fn with_fetch(&self, limit: Option<usize>) -> Option<Arc<dyn ExecutionPlan>> {
        let Self { snapshot, projection, keys, predicate, properties, .. } = self;
        let (snapshot, projection, keys) = (snapshot.clone(), projection.clone(), keys.clone());
        let (predicate, properties) = (predicate.clone(), properties.clone());
        let metrics = ExecutionPlanMetricsSet::new();
        Some(Arc::new(Self { snapshot, projection, keys, limit, predicate, properties, metrics }))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringArray};
    use arrow::datatypes::{Field, Schema};
    use arrow::util::pretty::pretty_format_batches;
    use datafusion::prelude::SessionContext;
    use freshet_types::{Delta, Epoch};

    use super::*;
    use crate::collection::{Collection, CollectionDescription};

    fn context() -> SessionContext {
        let schema = Arc::new(Schema::new(vec![
            Field::new("n", DataType::Int64, true),
            Field::new("k", DataType::Utf8, false),
            Field::new("region", DataType::Int64, false),
        ]));
        let collection = Collection::new(CollectionDescription::new("t", schema.clone(), Some(vec![2, 1])), 1).unwrap();
        let mut writer = collection.writer(0);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter((0..1_000).map(|n| (n % 10 > 0).then_some(n)))),
            Arc::new(StringArray::from_iter_values((0..1_000).map(|n| format!("key {}", n / 2)))),
            Arc::new(Int64Array::from_iter_values((0..1_000).map(|n| n % 2))),
        ];
        let rows = RecordBatch::try_new(schema, columns).unwrap();
        writer.apply(Epoch(1), &Delta::inserts(rows.clone())).unwrap();
        writer.apply(Epoch(2), &Delta::deletes(rows.slice(10, 500))).unwrap();
        writer.advance_upper(Epoch(2));
        let context = SessionContext::new();
        let table = SnapshotTable::new(collection.snapshot(Epoch(2)).unwrap());
        context.register_table("t", Arc::new(table)).unwrap();
        context
    }

    async fn query(sql: &str) -> String {
        let batches = context().sql(sql).await.unwrap().collect().await.unwrap();
        let rows = batches.iter().map(RecordBatch::num_rows).sum::<usize>();
        let text = pretty_format_batches(&batches).unwrap().to_string();
        let lines = text.lines().filter(|line| line.starts_with('|')).skip(1).map(|line| line.replace(' ', ""));
        format!("{rows}:{}", lines.collect::<Vec<_>>().join(""))
    }

    #[tokio::test]
    async fn queries_read_live_rows() {
        assert_eq!(query("SELECT count(*) FROM t").await, "1:|500|");
        assert_eq!(query("SELECT count(n), sum(region) FROM t").await, "1:|450|250|");
        assert_eq!(query("SELECT region, n FROM t WHERE n BETWEEN 8 AND 511").await, "3:|0|8||1|9||1|511|");
        assert_eq!(query("SELECT count(*) FROM (SELECT 1 FROM t LIMIT 7)").await, "1:|7|");
        assert!(query("SELECT n FROM t LIMIT 20").await.starts_with("20:"));
    }

    #[tokio::test]
    async fn conditions_on_all_key_columns_are_looked_up() {
        for (condition, looked_up, expected) in [
            ("k = 'key 300' AND region = 1", true, "1:|601|"),
            ("1 = region AND k = 'key 300' AND n < 600", true, "0:"),
            ("k = 'key 20' AND region = 1", true, "0:"),
            ("k = 'key 300'", false, "2:|NULL||601|"),
            ("k = 'key 300' AND region > 0", false, "1:|601|"),
        ] {
            let sql = format!("SELECT n FROM t WHERE {condition}");
            let plan = query(&format!("EXPLAIN {sql}")).await;
            assert_eq!(plan.contains("lookupbykey"), looked_up, "{plan}");
            assert_eq!(query(&sql).await.replace("||||", "||NULL||").replace(":|||", ":|NULL||"), expected, "{sql}");
        }
    }

    /// Twenty warm row groups of 200 rows: `n` ascends, `k` is one of ten texts.
    async fn files_context(dir: &tempfile::TempDir) -> SessionContext {
        let schema =
            Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true), Field::new("k", DataType::Utf8, false)]));
        let store: Arc<dyn object_store::ObjectStore> =
            Arc::new(object_store::local::LocalFileSystem::new_with_prefix(dir.path()).unwrap());
        let place = crate::tiers::WarmPlace::Disk;
        let (warm, cold) = ((store.clone(), "warm".into()), (store, "cold".into()));
        let tiers = crate::tiers::Tiers::new(place, warm, cold, Arc::default());
        let tiers = tiers.unwrap();
        let collection = Collection::new(CollectionDescription::new("t", schema.clone(), Some(vec![0])), 1).unwrap();
        let mut writer = collection.writer(0);
        for batch in 0..20 {
            let numbers = batch * 200..(batch + 1) * 200;
            let columns: Vec<ArrayRef> = vec![
                Arc::new(Int64Array::from_iter_values(numbers.clone())),
                Arc::new(StringArray::from_iter_values(numbers.map(|n| format!("{} of {}", n % 10, n / 1_000)))),
            ];
            let rows = RecordBatch::try_new(schema.clone(), columns).unwrap();
            writer.apply(Epoch(batch as u64 + 1), &Delta::inserts(rows)).unwrap();
        }
        writer.advance_upper(Epoch(100_000));
        let policy = crate::collection::TierPolicy {
            time_column: None,
            warm_before: Some(i64::MAX),
            cold_before: None,
            folder: "t".to_owned(),
        };
        while collection.move_tiers(&tiers, &policy).await.unwrap().rows > 0 {}
        let keys: Vec<i64> = (0..50).collect();
        let gone = collection.snapshot(Epoch(100_000)).unwrap().lookup(&[Arc::new(Int64Array::from(keys))]).unwrap();
        writer.apply(Epoch(100_001), &Delta::deletes(gone)).unwrap();
        writer.advance_upper(Epoch(100_001));
        let context = SessionContext::new();
        let table = SnapshotTable::new(collection.snapshot(Epoch(100_001)).unwrap());
        context.register_table("t", Arc::new(table)).unwrap();
        context
    }

    #[tokio::test]
    async fn of_files_only_what_conditions_may_want_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let context = files_context(&dir).await;
        let run = async |sql: &str| {
            let batches = context.sql(sql).await.unwrap().collect().await.unwrap();
            pretty_format_batches(&batches).unwrap().to_string()
        };
        for (condition, expected, skips) in [
            ("n < 100", 50, true),
            ("n BETWEEN 1000 AND 1009", 10, true),
            ("n IS NULL", 0, true),
            ("k > '91'", 0, true),
            ("k = '3 of 2'", 100, false),
            ("n % 2 = 0", 1_975, false),
            ("n < 100 OR n > 3950", 99, true),
        ] {
            let sql = format!("SELECT k, n FROM t WHERE {condition}");
            let batches = context.sql(&sql).await.unwrap().collect().await.unwrap();
            assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), expected, "{condition}");
            let plan = run(&format!("EXPLAIN ANALYZE {sql}")).await;
            let skipped = plan.contains("warm_bytes_skipped=") && !plan.contains("warm_segments_skipped=0");
            assert!(plan.contains("warm_segments_read=") && (skipped || !skips), "{condition}: {plan}");
        }
        assert!(run("SELECT sum(n) FROM t").await.contains(&(3_999 * 4_000 / 2 - 49 * 50 / 2).to_string()));
        assert!(run("SELECT count(*) FROM t").await.contains("3950"));
        let page = run("EXPLAIN ANALYZE SELECT k FROM t WHERE n = 1001").await;
        assert!(page.contains("lookup by key"), "{page}");
    }
}
