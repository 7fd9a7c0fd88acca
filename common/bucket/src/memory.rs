//! A store in memory: linearizable, gone with the process. The default of tests, and the upper bound of benchmarks.

use crate::pieces::Pieces;
use crate::store::{CreatePromise, Failure, Got, Put, PutRule, Store};
use async_trait::async_trait;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, RwLock};

/// Objects in a sorted map. Bodies keep the pieces that they came in.
#[derive(Debug, Default)]
pub(crate) struct MemoryStore {
    objects: RwLock<BTreeMap<String, Pieces>>,
}

impl MemoryStore {
    /// The store called `name`, shared by everyone in this process who asks for that name, until the process ends.
    pub(crate) fn named(name: &str) -> Arc<Self> {
        static NAMED: LazyLock<Mutex<HashMap<String, Arc<MemoryStore>>>> = LazyLock::new(Mutex::default);
        NAMED.lock().unwrap_or_else(PoisonError::into_inner).entry(name.to_owned()).or_default().clone()
    }

    fn find(&self, key: &str) -> Result<Pieces, Failure> {
        let objects = self.objects.read().unwrap_or_else(PoisonError::into_inner);
        objects.get(key).cloned().ok_or(Failure::NotFound)
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, key: &str, offset: u64, len_max: u64) -> Result<Got, Failure> {
        let body = self.find(key)?;
        Ok(Got { bytes: body.slice(offset, len_max), object_len: Some(body.len()) })
    }

    async fn put(&self, key: &str, body: Pieces, rule: PutRule) -> Result<Put, Failure> {
        let mut objects = self.objects.write().unwrap_or_else(PoisonError::into_inner);
        if rule == PutRule::IfAbsent && objects.contains_key(key) {
            return Ok(Put::Exists);
        }
        objects.insert(key.to_owned(), body);
        Ok(Put::Stored)
    }

    async fn head(&self, key: &str) -> Result<u64, Failure> {
        Ok(self.find(key)?.len())
    }

    async fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, Failure> {
        let objects = self.objects.read().unwrap_or_else(PoisonError::into_inner);
        let from = objects.range::<str, _>((std::ops::Bound::Included(prefix), std::ops::Bound::Unbounded));
        Ok(from.take_while(|(key, _)| key.starts_with(prefix)).map(|(key, body)| (key.clone(), body.len())).collect())
    }

    async fn delete(&self, key: &str) -> Result<(), Failure> {
        self.objects.write().unwrap_or_else(PoisonError::into_inner).remove(key);
        Ok(())
    }

    fn create(&self) -> CreatePromise {
        CreatePromise::Ours
    }
}
