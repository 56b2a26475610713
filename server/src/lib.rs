//! The server: everything that a user of Freshet talks to, and the one place where all parts are wired together.
//!
//! ```text
//! pg/, http ──▶ session ──▶ execute/<statement> ──▶ query/      (read)
//!                                  │          └────▶ coordinator ──▶ engine ──▶ collections
//!                                  └──▶ catalog, store                 ▲
//!                                             pipeline/ (sources) ─────┘
//! ```
//!
//! [`server::serve`] runs it all; [`demo::run`] does so with generated streams. What SQL means is not known here, but
//! in `freshet_planner`; how views are kept up to date is not, but in `freshet_dataflow`.

pub mod backup;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod coordinator;
pub mod demo;
pub mod execute;
pub mod functions;
pub mod http;
pub mod limits;
pub mod logging;
pub mod memory;
pub mod pg;
pub mod pipeline;
pub mod query;
pub mod restore;
pub mod server;
pub mod session;
pub mod status;
pub mod system;
pub mod task;

pub use server::serve;
