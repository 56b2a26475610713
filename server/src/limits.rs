//! The server's bounds, and what happens at each.

/// Sealed epochs that a view may be behind before no further epoch is sealed. At the bound: connectors' queues fill,
/// and connectors stop polling.
pub const EPOCHS_IN_FLIGHT_MAX: usize = 4;

/// Rows of sources that go into one epoch. At the bound: the rest waits for the next epoch.
pub const EPOCH_ROWS_MAX: usize = 256 * 1024;

/// Batches from all sources that wait for the coordinator. At the bound: readers wait.
pub const INGEST_QUEUE_BATCHES_MAX: usize = 8;

/// Milliseconds between two epochs at the least, so that epochs do not run ahead of the clock.
pub const TICK_INTERVAL_MS_MIN: u64 = 1;

/// Milliseconds between two epochs at the most, while nothing happens.
pub const HEARTBEAT_INTERVAL_MS: u64 = 1_000;

/// Dead letters kept for each source. At the bound: further ones are counted and logged, but not kept.
pub const DEAD_LETTERS_MAX: usize = 1_000_000;

/// Bytes of the dead letters kept for each source: their payloads and reasons. At the bound: the same.
pub const DEAD_LETTERS_BYTES_MAX: usize = 256 << 20;

/// Distinct failing rows kept for each view. At the bound: further ones are counted, but not kept.
pub const VIEW_ERRORS_MAX: usize = 10_000;

/// How long the offsets of a source are remembered by epoch, in milliseconds; as long as collections keep versions.
pub const OFFSET_HISTORY_MS: u64 = 15_000;

/// How far back tables and materialized views are readable that do not say `WITH (history = …)`, in milliseconds. At the
/// bound: older versions are let go of.
pub const DEFAULT_HISTORY_MS: u64 = 60 * 60 * 1_000;

/// Bytes that the past of such a relation may take, with the dead rows that it alone keeps; those of the last ten
/// seconds, which queries and subscribers need, aside. At the bound: the oldest versions are let go of.
pub const DEFAULT_HISTORY_BYTES_MAX: usize = 16 << 20;

/// How much of the past a subscriber makes ready at a time, in milliseconds. At the bound: the rest waits until that is sent.
pub const SUBSCRIPTION_STEP_MS_MAX: u64 = 10_000;

/// Batches that a query computes ahead of its client. At the bound: the query waits.
pub const QUERY_BATCHES_AHEAD_MAX: usize = 2;

/// Bytes of the queries' memory for each part that a query is computed in at once. At the bound: it is computed in fewer
/// parts than there are workers, since each holds buffers that it cannot spill.
pub const QUERY_PARTITION_BYTES_MIN: usize = 32 << 20;

/// Bytes that all queries may keep on the disk because they do not fit into memory. At the bound: the query fails with
/// SQLSTATE 53100.
pub const QUERY_SPILL_BYTES_MAX: u64 = 64 << 30;

/// Bytes on their way to the operators beyond which hydration waits; less if the server has little memory.
pub const HYDRATION_QUEUE_BYTES_MAX: u64 = 64 << 20;

/// How often the server looks at its memory, in milliseconds.
pub const MEMORY_INTERVAL_MS: u64 = 200;

/// How long nothing is taken in because memory is short, in milliseconds. At the bound: the view that has grown most is
/// paused. Longer than rows stay readable at earlier epochs, after which they can go to files.
pub const MEMORY_SHORTAGE_MS_MAX: u64 = 20_000;

/// How long CREATE SOURCE and CREATE SINK wait for the outside, in seconds. At the bound: an error, and nothing is created.
pub const CONNECT_TIMEOUT_S: u64 = 10;

/// How long a query over a source waits for the next records that it knows to be there, in seconds. At the bound: an error.
pub const SOURCE_SILENCE_S_MAX: u64 = 30;

/// The longest wait between two attempts to read a source or write to a sink again, in seconds.
pub const RETRY_INTERVAL_S_MAX: u64 = 30;

/// How long a sink may have nothing to send before it tells the system outside again how far it is, in seconds. At the
/// bound: it does. Kafka forgets after a week.
pub const SINK_REMINDER_S: u64 = 12 * 60 * 60;

/// Milliseconds between two looks at what should move between tiers or be deleted because of its age.
pub const TIERS_INTERVAL_MS: u64 = 1_000;

/// Rows that are deleted at once because of their age. At the bound: the rest follows in an epoch of its own.
pub const EXPIRED_ROWS_MAX: usize = 64 * 1024;

/// The share of the memory, one in so many, for the rows of tables and views. At the bound: the coldest leave memory.
pub const COLLECTIONS_MEMORY_SHARE: u64 = 3;

/// The share of the memory, one in so many, for what was read of files of tiers: footers, remote blocks, hashes of keys.
pub const TIER_CACHE_SHARE: u64 = 16;

/// Checkpoints that `freshet_catalog.checkpoints` shows. At the bound: the oldest is forgotten.
pub const CHECKPOINTS_REMEMBERED: usize = 100;

/// How long an orderly stop waits for its checkpoint, in seconds. At the bound: it stops without, and the next start
/// has more to do.
pub const LAST_CHECKPOINT_S_MAX: u64 = 10;

/// The stack of a thread that plans or computes queries. Trees are walked recursively, and a level of nested views takes
/// more than 256 KiB of it: enough for the deepest statement that the planner lets through. Only what is used is
/// ever in memory. At the bound: the process would end, so the planner's own bounds (nesting, chains of operators,
/// views upon views) come first.
pub const THREAD_STACK_BYTES: usize = 128 << 20;

/// Connections to the HTTP port. At the bound: further clients wait until one ends.
pub const HTTP_CONNECTIONS_MAX: usize = 256;

/// How long a connection to the HTTP port lives, in seconds. At the bound: it is closed.
pub const HTTP_CONNECTION_S_MAX: u64 = 30;

/// How often to look whether an Iceberg table is to be published.
pub const ICEBERG_INTERVAL_MS: u64 = 1_000;

/// How long rows that are deleted of files in an Iceberg table may still be seen there.
pub const ICEBERG_DELETES_S_MAX: u64 = 60;

/// How long files stay that have left an Iceberg table.
pub const ICEBERG_FILES_KEPT_S: u64 = 600;
