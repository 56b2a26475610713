//! Waiting for what a server does by itself: ask again until the answer is there, within a bound.
//!
//! There is no sleep to tune: a question is asked at a steady tick from the start, and the bound only decides when a
//! test gives up.

use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use tokio::time::{Instant, Interval};

/// How long a test waits for something that should take well under a second, on a machine that is busy with others.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Asks until the answer is `Some`, and returns it.
///
/// # Errors
/// After [`PATIENCE`], naming `what` was waited for; or at once if a question fails.
pub async fn until<T>(what: &str, question: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    until_within(PATIENCE, what, question).await
}

/// The same, with a bound of its own.
///
/// # Errors
/// After `bound`, naming `what` was waited for; or at once if a question fails.
pub async fn until_within<T>(
    bound: Duration,
    what: &str,
    mut question: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let asking = async {
        let mut attempts = Attempts::within(bound);
        loop {
            attempts.next(what).await?;
            if let Some(answer) = question().await? {
                return Ok(answer);
            }
        }
    };
    // A question that is never answered counts as well.
    tokio::time::timeout(bound, asking).await.map_err(|_| given_up(bound, what))?
}

/// Lets `duration` pass: how long a fault or a load lasts, which is up to the test. Nothing is waited for by this.
pub async fn let_pass(duration: Duration) {
    tokio::time::sleep_until(Instant::now() + duration).await;
}

/// Attempts at a steady tick, until the time is up.
#[derive(Debug)]
pub struct Attempts {
    bound: Duration,
    end: Instant,
    tick: Interval,
}

impl Attempts {
    pub fn within(bound: Duration) -> Self {
        Self { bound, end: Instant::now() + bound, tick: tokio::time::interval(Duration::from_millis(10)) }
    }

    /// Waits until the next attempt is due; the first one is at once.
    ///
    /// # Errors
    /// If the time is up.
    pub async fn next(&mut self, what: &str) -> Result<()> {
        self.tick.tick().await;
        if Instant::now() >= self.end {
            bail!(given_up(self.bound, what));
        }
        Ok(())
    }
}

fn given_up(bound: Duration, what: &str) -> anyhow::Error {
    anyhow!("waited {bound:?} in vain for {what}")
}
