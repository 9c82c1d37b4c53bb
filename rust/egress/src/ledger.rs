//! Who is told of every request, before it goes.

use std::pin::Pin;

use crate::Reason;

/// Keeps account of requests.
pub trait Ledger: Send + Sync {
    /// Notes a request that is about to be sent, or was refused. It goes only after this has
    /// come to a good end; an `Err` says in a sentence why it could not be noted.
    fn note(&self, noted: Noted) -> Noting;
}

/// A note being taken.
pub type Noting = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// A request as it is noted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noted {
    /// Why it is refused; none where it goes.
    pub refused: Option<Reason>,
    /// The method; empty where it is none that could be sent.
    pub method: String,
    /// The URL up to its query, without values of secrets; none where it is refused.
    pub url: Option<String>,
    /// The query, as it is: to be hashed and not to be shown.
    pub query: Option<String>,
}
