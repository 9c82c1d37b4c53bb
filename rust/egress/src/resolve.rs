//! Names to addresses, once per request.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;

/// What a [`Resolver`] returns.
pub type Answer<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>>;

/// Something that knows the addresses of a name. It is asked once for each request, and what it
/// says is what is checked and connected to.
pub trait Resolver: Send + Sync {
    /// Every address of the name, which is in lower-case A-labels without a final dot.
    fn resolve<'a>(&'a self, name: &'a str) -> Answer<'a>;
}

/// The operating system's resolver, with its hosts file and search list.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl Resolver for System {
    fn resolve<'a>(&'a self, name: &'a str) -> Answer<'a> {
        Box::pin(async move {
            Ok(tokio::net::lookup_host((name, 0)).await?.map(|found| found.ip()).collect())
        })
    }
}
