//! Requests under a permit, as lines of its gate's log.

use std::sync::Arc;

use moat_egress::{Ledger, Noted, Noting};
use moat_log::Asked;
use pyo3::prelude::*;

use crate::permit::Permit;

/// The log behind a permit. What is noted waits for the disk, so it does on a thread of its own.
pub(crate) struct Lines(pub(crate) Arc<Py<Permit>>);

impl Ledger for Lines {
    fn note(&self, noted: Noted) -> Noting {
        let permit = Arc::clone(&self.0);
        Box::pin(async move {
            let Noted { refused, method, url, query } = noted;
            let refused = refused.map(|reason| reason.code());
            let asked = Asked { refused, method, url, query };
            let note = tokio::task::spawn_blocking(move || permit.get().note(asked));
            note.await.unwrap_or_else(|_| Err("the log could not be written".to_owned()))
        })
    }
}
