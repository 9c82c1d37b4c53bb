//! Chains that were walked before, by SHA-256 of their bytes: successes only, bounded.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::Chain;
use crate::key::Hash256;

/// Entries and token bytes of one generation; there are two.
const ENTRIES: usize = 1024;
const BYTES: usize = 8 * 1024 * 1024;

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<Hash256, (Arc<Chain>, usize)>,
    old: HashMap<Hash256, (Arc<Chain>, usize)>,
    bytes: usize,
}

/// Two generations: what is used moves to the young one, and when that is full it becomes the
/// old one, whose forgotten rest is dropped.
#[derive(Debug, Default)]
pub(super) struct Cache(Mutex<Generations>);

impl Cache {
    pub(super) fn get(&self, key: &Hash256) -> Option<Arc<Chain>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((chain, _)) = all.young.get(key) {
            return Some(Arc::clone(chain));
        }
        let (chain, size) = all.old.remove(key)?;
        all.put(*key, Arc::clone(&chain), size);
        Some(chain)
    }

    pub(super) fn put(&self, key: Hash256, chain: Arc<Chain>, size: usize) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).put(key, chain, size);
    }
}

impl Generations {
    fn put(&mut self, key: Hash256, chain: Arc<Chain>, size: usize) {
        if self.young.len() >= ENTRIES || self.bytes + size > BYTES {
            self.old = std::mem::take(&mut self.young);
            self.bytes = 0;
        }
        self.bytes += size;
        self.young.insert(key, (chain, size));
    }
}
