//! Our routing rules.

use futures::TryStreamExt as _;
use rtnetlink::IpVersion;
use rtnetlink::packet_route::route::RouteProtocol;
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};

use super::{Kernel, KernelError, PROTOCOL, Result};
use crate::plan::KernelRule;

impl Kernel {
    /// Rules with our protocol number.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub async fn rules(&self) -> Result<Vec<KernelRule>> {
        let mut ours = Vec::new();
        for (version, ipv6) in [(IpVersion::V4, false), (IpVersion::V6, true)] {
            let mut messages = self.handle.rule().get(version).execute();
            let failed = |error| KernelError::new("reading routing rules", &error);
            while let Some(message) = messages.try_next().await.map_err(failed)? {
                if message.attributes.contains(&RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL))) {
                    ours.push(read(&message, ipv6));
                }
            }
        }
        Ok(ours)
    }

    /// Adds a rule.
    ///
    /// # Errors
    /// When the kernel refuses; one that is there already is no error.
    pub async fn add_rule(&self, rule: &KernelRule) -> Result<()> {
        let mut request = if rule.ipv6 {
            let mut request = self.handle.rule().add().v6();
            *request.message_mut() = message(rule);
            request.execute().await
        } else {
            let mut request = self.handle.rule().add().v4();
            *request.message_mut() = message(rule);
            request.execute().await
        }
        .map_err(|error| KernelError::new(format!("adding the rule for mark {:#x}", rule.mark), &error));
        if request.as_ref().is_err_and(KernelError::exists) {
            request = Ok(());
        }
        request
    }

    /// Removes a rule of ours.
    ///
    /// # Errors
    /// When the kernel refuses; one that is not there is no error.
    pub async fn remove_rule(&self, rule: &KernelRule) -> Result<()> {
        let removal = self.handle.rule().del(message(rule)).execute().await;
        let what = || format!("removing the rule for mark {:#x}", rule.mark);
        match removal.map_err(|error| KernelError::new(what(), &error)) {
            Err(error) if error.absent() => Ok(()),
            other => other,
        }
    }
}

fn message(rule: &KernelRule) -> RuleMessage {
    let mut message = RuleMessage::default();
    let family =
        if rule.ipv6 { std::net::Ipv6Addr::UNSPECIFIED.into() } else { std::net::Ipv4Addr::UNSPECIFIED.into() };
    message.header.family = super::addresses::family(family);
    message.header.action = RuleAction::ToTable;
    message.attributes = vec![
        RuleAttribute::Priority(rule.priority),
        RuleAttribute::FwMark(rule.mark),
        RuleAttribute::FwMask(rule.mask),
        RuleAttribute::Table(rule.table),
        RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL)),
    ];
    message
}

fn read(message: &RuleMessage, ipv6: bool) -> KernelRule {
    let mut rule = KernelRule { ipv6, mark: 0, mask: u32::MAX, table: u32::from(message.header.table), priority: 0 };
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(value) => rule.priority = *value,
            RuleAttribute::FwMark(value) => rule.mark = *value,
            RuleAttribute::FwMask(value) => rule.mask = *value,
            RuleAttribute::Table(value) => rule.table = *value,
            _ => {}
        }
    }
    rule
}
