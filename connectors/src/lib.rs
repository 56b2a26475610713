//! The world outside, turned into deltas, and back.
//!
//! The server describes a declared stream as a [`SourceDefinition`] and [`open`]s it. What it gets is a
//! [`Source`]: it can say where it starts, and read any [`Range`] of itself, again and again, with the
//! same result. A [`SourceReader`] is one such reading: it yields [`SourceBatch`]es of decoded rows
//! together with the records that could not become rows ([`DeadLetter`]s), and the [`Offsets`] after them.
//!
//! One system a file or folder ([`kafka`], [`nexmark`], [`datagen`]), listed in `registry.rs`; one format a
//! file in `decode/`. Bytes become columns in `decode`, which also applies the rules of the declaration:
//! computed columns, NOT NULL, CHECK.
//!
//! The other way, a [`SinkDefinition`] becomes a [`Sink`] with [`open_sink`]. Its [`SinkWriter`] sends changes, each with
//! its epoch in one transaction, and tells after a failure which was the last to arrive. `encode/` makes rows bytes.
//!
//! Not known here: SQL text and plans (expressions arrive as `PhysicalExpr`s), where offsets are kept, which
//! epoch a batch lands in.

pub mod datagen;
pub mod decode;
pub mod definition;
pub mod encode;
mod generated;
pub mod kafka;
pub mod nexmark;
mod options;
mod registry;
pub mod sink;
pub mod source;
pub mod status;

pub use definition::{Check, Column, Format, Include, IncludeKind, SourceDefinition, include_field};
pub use registry::{columns_without_list, connector_names, open, open_sink, open_with_clock};
pub use sink::{Sent, Sink, SinkDefinition, SinkError, SinkWriter};
pub use source::{DeadLetter, Offsets, Range, Source, SourceBatch, SourceError, SourceReader};
pub use status::{Counted, PartitionStatus, SourceState, SourceStatus, StatusReport};
