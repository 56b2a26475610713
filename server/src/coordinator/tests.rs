//! The coordinator with a clock of the test's own.

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use freshet_dataflow::{EngineConfig, StateBudget};
use freshet_storage::Store;
use freshet_storage::collection::CollectionDescription;

use super::*;
use crate::task;

const TABLE: RelationId = RelationId(1);

/// Writes a row; gives the epoch at which it is visible.
async fn write(store: &Store, coordinator: &CoordinatorHandle) -> Epoch {
    let rows = RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(vec![1])) as _)]).unwrap();
    let delta = Delta::inserts(rows);
    let logged = store.append(TABLE, Epoch(1), &delta).await.unwrap();
    let write = TableWrite { table: TABLE, delta, cause: Cause::Written, logged };
    let written = coordinator.ask(|reply| Command::Commit { writes: vec![write], reply }).await;
    written.unwrap().unwrap()
}

#[tokio::test]
async fn epochs_go_on_when_the_clock_jumps_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().to_str().unwrap()).await.unwrap();
    let clock = Clock::manual(1_000_000);
    let config = EngineConfig { workers: 1, track_state: false, state: StateBudget::default() };
    let engine = Arc::new(Engine::start(config, Arc::new(|_| ())).unwrap());
    let (_failures, failures) = mpsc::unbounded_channel();
    let (_memory, memory_short) = watch::channel(false);
    let heard = Heard { failures, memory_short };
    let stop = CancellationToken::new();
    let (coordinator, inbox, handle) = Coordinator::new(clock.clone(), engine, Epoch(999_000), heard, stop.clone());
    let running = task::spawn("coordinator", stop.clone(), coordinator.run(inbox));
    let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
    let table = Collection::new(CollectionDescription::new("t", schema, None), 1).unwrap();
    handle.send(Command::AddTable { table: TABLE, writer: table.writer(0) }).await.unwrap();
    handle.send(Command::Start).await.unwrap();

    let mut epochs = Vec::new();
    for now_ms in [1_000_000, 400_000, 400_001, 0, 999_999, 1_000_000, 1_005_000, 600_000] {
        clock.set(now_ms);
        epochs.push(write(&store, &handle).await);
    }
    assert!(epochs.is_sorted_by(|earlier, later| earlier < later), "{epochs:?}");
    assert!(epochs[0] >= Epoch(1_000_000) && epochs[5] < Epoch(1_005_000) && epochs[6] >= Epoch(1_005_000));
    assert_eq!((table.since(), table.upper()), (Epoch(999_000), handle.sealed()), "no version is lost by it");
    for (rows, epoch) in (1..).zip(&epochs) {
        assert_eq!(table.snapshot(*epoch).unwrap().row_count(), rows);
    }
    stop.cancel();
    running.await.unwrap();
}
