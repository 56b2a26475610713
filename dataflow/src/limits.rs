//! The bounds of the engine, and what happens at each.

/// Rows in one batch between operators; larger results are cut.
pub const BATCH_ROWS_MAX: usize = 65_536;

/// Rows of a fed batch from which on it is cut and spread over the workers instead of going to one in turn.
pub const SPREAD_ROWS_MIN: usize = 8_192;

/// Rows that an import hands on before other dataflows of the worker get their turn; the rest follows in later turns.
pub const IMPORT_ROWS_PER_TURN: usize = 262_144;

/// Commands that a worker carries out before it lets its dataflows run.
pub const COMMANDS_PER_TURN: usize = 1_024;

/// Failing rows reported with details an epoch, operator and worker; those beyond are only counted.
pub const ROW_ERROR_DETAILS_PER_EPOCH: usize = 100;

/// Characters of a failing row kept in its report; the rest is cut.
pub const ROW_ERROR_TEXT_MAX: usize = 1_000;
