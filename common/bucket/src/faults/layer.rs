//! Carries a plan of faults out on a store.

use super::{Fault, Faults, Verdict};
use crate::error::Cause;
use crate::meter::Op;
use crate::pieces::Pieces;
use crate::store::{CreatePromise, Failure, Got, Put, PutRule, Store};
use async_trait::async_trait;
use std::sync::Arc;

/// A store that misbehaves as its plan says.
pub(crate) struct FaultyStore {
    inner: Arc<dyn Store>,
    plan: Faults,
}

impl FaultyStore {
    pub(crate) fn new(inner: Arc<dyn Store>, plan: Faults) -> Self {
        Self { inner, plan }
    }

    /// Waits as long as the plan says, and fails where that changes nothing.
    async fn before(&self, op: Op, key: &str) -> Result<Verdict, Failure> {
        if let Some(work) = self.plan.first(op, key) {
            work.await;
        }
        let verdict = self.plan.judge(op, key);
        if !verdict.delay.is_zero() {
            tokio::time::sleep(verdict.delay).await;
        }
        if verdict.vanished {
            return Err(self.failure("the bucket has vanished (injected)"));
        }
        match verdict.fault {
            Some(Fault::Error) => Err(self.failure("failed before it changed anything (injected)")),
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::Stale404) => Err(Failure::NotFound),
            _ => Ok(verdict),
        }
    }

    /// Loses the answer where the plan says so.
    fn after<T>(&self, verdict: Verdict, answer: T) -> Result<T, Failure> {
        match verdict.fault {
            Some(Fault::AppliedLost) => Err(self.failure("applied, and the answer was lost (injected)")),
            _ => Ok(answer),
        }
    }

    fn failure(&self, text: &str) -> Failure {
        let cause = Cause::new(text);
        if self.plan.surfacing { Failure::Surface(cause) } else { Failure::Transient(cause) }
    }
}

#[async_trait]
impl Store for FaultyStore {
    async fn get(&self, key: &str, offset: u64, len_max: u64) -> Result<Got, Failure> {
        let verdict = self.before(Op::Get, key).await?;
        let mut got = self.inner.get(key, offset, len_max).await?;
        if got.bytes.is_empty() {
            return Ok(got);
        }
        match verdict.fault {
            Some(Fault::Short) => got.bytes.truncate((verdict.dice % got.bytes.len() as u64) as usize),
            Some(Fault::BitFlip) => {
                let mut bytes = got.bytes.to_vec();
                let bit = verdict.dice % (bytes.len() as u64 * 8);
                bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
                got.bytes = bytes.into();
            }
            _ => {}
        }
        Ok(got)
    }

    async fn put(&self, key: &str, body: Pieces, rule: PutRule) -> Result<Put, Failure> {
        let verdict = self.before(Op::Put, key).await?;
        let rule = if verdict.fault == Some(Fault::IgnoreCondition) { PutRule::Overwrite } else { rule };
        let done = self.inner.put(key, body, rule).await?;
        self.after(verdict, done)
    }

    async fn head(&self, key: &str) -> Result<u64, Failure> {
        self.before(Op::Head, key).await?;
        self.inner.head(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, Failure> {
        self.before(Op::List, prefix).await?;
        self.inner.list(prefix).await
    }

    async fn delete(&self, key: &str) -> Result<(), Failure> {
        let verdict = self.before(Op::Delete, key).await?;
        self.inner.delete(key).await?;
        self.after(verdict, ())
    }

    fn create(&self) -> CreatePromise {
        self.inner.create()
    }
}
