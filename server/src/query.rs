//! Ad-hoc queries: names resolved to what a session can see, one epoch for all that is read, DataFusion for the rest.

pub mod interrupt;
pub mod names;
pub mod past;
pub mod pin;
pub mod run;
pub mod runtime;
pub mod session_functions;
pub mod source_scan;
