//! Outgoing HTTP requests: default deny, and only what every link of a token names.
//!
//! An [`Egress`] takes a request as a guest wrote it and, in this order: reads its URL or refuses
//! it, asks the rules of every link, resolves the name once, checks every address, connects to
//! one of them, checks the certificate, fills in secrets, sends, and keeps the answer within its
//! bounds and free of the secrets. `spec/egress.md` says all of it.
#![forbid(unsafe_code)]

mod address;
mod body;
mod egress;
mod header;
mod ledger;
mod refusal;
mod resolve;
mod rule;
mod scrub;
mod secret;
mod target;
mod tls;

pub use address::is_global;
pub use body::Answered;
pub use egress::{Bounds, Egress, Request};
pub use ledger::{Ledger, Noted, Noting};
pub use refusal::{Reason, Refusal};
pub use resolve::{Answer, Resolver, System};
pub use rule::Link;
pub use secret::Secret;
pub use target::{Host, Target, URL_BYTES};
pub use tls::Trust;
