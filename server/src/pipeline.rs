//! Where connectors, the dataflow and storage are wired together.
//!
//! ```text
//! reader (a task a source) ──▶ bounded queue ──▶ coordinator seals epochs ──▶ engine ──▶ collections
//!                                                       ▲
//! backfill (a task a new view) ── snapshots ────────────┘
//!
//! checkpointer ── what has changed, once it is durable ──▶ outbox ──▶ sink sender (a task a sink)
//!      └──────── the cold tier, once it is durable ──▶ iceberg ──▶ tables for other programs
//! tiers ── rows that are old ──▶ files of collections
//! ```

pub mod backfill;
pub mod checkpointer;
pub mod dead_letters;
pub mod iceberg;
pub mod reader;
pub mod sink;
pub mod sink_sender;
pub mod source_progress;
pub mod tiers;
pub mod view_failure;
pub mod view_status;
