//! The bucket with the data, and what comes between it and the server.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::proxy::{Fault, Proxy};
use crate::s3::S3;
use crate::wait::let_pass;

/// Where in it the server keeps its data.
pub const LOCATION: &str = "s3://bucket/crash";
const PREFIX: &str = "crash";
/// How long the bucket is in order, and how long it is not.
const FAULT_EVERY_MS: std::ops::Range<u64> = 20..500;
const FAULT_MS: std::ops::Range<u64> = 5..150;

pub struct Bucket {
    s3: S3,
    proxy: Proxy,
}

impl Bucket {
    pub async fn start() -> Result<Self> {
        let s3 = S3::start()?;
        Ok(Self { proxy: Proxy::start(s3.address()).await?, s3 })
    }

    /// Where a server reaches it.
    pub fn address(&self) -> SocketAddr {
        self.proxy.address()
    }

    /// Where the objects of the server lie.
    pub fn data(&self) -> PathBuf {
        self.s3.objects().join(PREFIX)
    }

    /// Makes trouble now and then, which does not last; until dropped.
    async fn trouble<T>(&self, seed: u64) -> Result<T> {
        let mut random = StdRng::seed_from_u64(seed);
        let faults = [Fault::Drop, Fault::Unavailable, Fault::Hang, Fault::Delay(Duration::from_millis(20))];
        loop {
            let_pass(Duration::from_millis(random.random_range(FAULT_EVERY_MS))).await;
            self.proxy.set(*faults.choose(&mut random).context("a fault")?);
            let_pass(Duration::from_millis(random.random_range(FAULT_MS))).await;
            self.proxy.set(Fault::None);
        }
    }
}

/// Waits for `work` while there is trouble with the bucket, if there is one.
pub async fn with_faults<T>(bucket: Option<&Bucket>, seed: u64, work: impl Future<Output = Result<T>>) -> Result<T> {
    let Some(bucket) = bucket else { return work.await };
    let done = tokio::select! {
        done = work => done,
        broken = bucket.trouble(seed) => broken,
    };
    bucket.proxy.set(Fault::None);
    done
}
