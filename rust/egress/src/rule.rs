//! What a chain of links allows: each link must have a rule for the request and its addresses.

use std::net::IpAddr;

use moat_core::caveat::{HostRule, Limits, SecretRule, reach};
use moat_core::pattern::Resource;

use crate::address::{is_global, is_never};
use crate::refusal::{Reason, Refusal};
use crate::target::Target;

/// What one link of a chain says about requests.
#[derive(Clone, Debug, Default)]
pub struct Link {
    /// Which requests may be sent.
    pub hosts: Vec<HostRule>,
    /// Which secrets may be filled in, and where.
    pub secrets: Vec<SecretRule>,
}

impl From<&Limits> for Link {
    fn from(limits: &Limits) -> Self {
        Self { hosts: limits.hosts.clone(), secrets: limits.secrets.clone() }
    }
}

/// Whether every link has this handle for this header of requests to this target.
pub(crate) fn binds(links: &[Link], handle: &Resource, target: &Target, header: &str) -> bool {
    let permits = |rule: &SecretRule| rule.permits(handle, target.origin(), header);
    !links.is_empty() && links.iter().all(|link| link.secrets.iter().any(permits))
}

/// The rules that permit one request, link by link; no list is empty.
pub(crate) struct Permitted<'a>(Vec<Vec<&'a HostRule>>);

impl<'a> Permitted<'a> {
    /// Asks every link.
    ///
    /// # Errors
    /// `host_not_allowed` when a link has no rule for the request, or there is no link.
    pub(crate) fn by(links: &'a [Link], method: &str, target: &Target) -> Result<Self, Refusal> {
        if links.is_empty() {
            return Err(Refusal::new(Reason::HostNotAllowed, "there is no token, so no host"));
        }
        let of = |(at, link): (usize, &'a Link)| {
            let not =
                |why: &str| Err(Refusal::new(Reason::HostNotAllowed, format!("{why} (link {at})")));
            let mut found = match reach(&link.hosts, method, target.resource()) {
                Ok(found) => found,
                Err(error) => return not(&error.detail),
            };
            found.retain(|rule| target.is_in(rule.pattern()));
            if found.is_empty() {
                return not("a URL that ends in `/` needs a rule for all below it, as `…/**`");
            }
            Ok(found)
        };
        links.iter().enumerate().map(of).collect::<Result<_, _>>().map(Self)
    }

    /// Checks every address that the name has, with one rule of each link for all of them: where
    /// some are refused none is used, because who answers may choose which one is taken.
    ///
    /// # Errors
    /// `address_refused` with the first address that fails.
    pub(crate) fn check(&self, target: &Target, addresses: &[IpAddr]) -> Result<(), Refusal> {
        for rules in &self.0 {
            let all = |rule: &&HostRule| addresses.iter().all(|&at| admits(rule, at));
            if !rules.iter().any(all) {
                let fails = |at: &&IpAddr| !rules.iter().any(|rule| admits(rule, **at));
                let named = addresses.iter().find(fails).or(addresses.first());
                let named = named.map_or_else(String::new, ToString::to_string);
                return Err(Refusal::new(
                    Reason::AddressRefused,
                    format!(
                        "`{}` has the address `{named}`, which is neither a global one nor in a \
                         range of the rule; name a range in the token if it is meant",
                        target.authority()
                    ),
                ));
            }
        }
        Ok(())
    }
}

fn admits(rule: &HostRule, address: IpAddr) -> bool {
    !is_never(address) && rule.admits(address, is_global(address))
}
