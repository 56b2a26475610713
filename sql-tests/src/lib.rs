//! Tests of Freshet as its users see it: the real binary, over the real Postgres protocol.
//!
//! * [`server`] starts the binary on free ports and kills it in every way a test may want;
//! * [`client`] speaks SQL to it; [`wait`] waits for what happens by itself, with a bound and without a sleep;
//! * [`slt`] runs the `.slt` files in all [`slt::Mode`]s, with [`oracle`] looking at every materialized view after
//!   every statement;
//! * [`kafka`] starts a real Apache Kafka broker;
//! * [`s3`] starts a real S3 server, and [`proxy`] makes trouble between it and a server;
//! * [`psql`] runs the real psql;
//! * [`crash`] kills servers under load;
//! * [`old_data`] is what earlier versions wrote.
//!
//! Nothing here links the server: what cannot be seen from outside is tested in the crate that does it.

pub mod client;
pub mod crash;
pub mod iceberg;
pub mod kafka;
pub mod old_data;
pub mod oracle;
pub mod proxy;
pub mod psql;
pub mod s3;
pub mod server;
pub mod slt;
pub mod tiny;
pub mod wait;

pub use client::Client;
pub use server::Server;
