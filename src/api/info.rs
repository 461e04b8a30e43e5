//! The attributes of a channel that a request asks for (`info`), and which of them apply (P-HTTP-11).

use super::refusal::Refusal;
use crate::wire::query::Query;

/// Requested counts.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Info {
    /// `user_count`, on presence channels only (P-HTTP-11).
    pub user_count: bool,
    /// `subscription_count`.
    pub subscription_count: bool,
}

/// How attributes that do not apply are handled (`strict_pusher_info`, P-HTTP-11).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum InfoRules {
    /// They are left out of the answer.
    #[default]
    Lenient,
    /// They are answered 400, as in the hosted service.
    Strict,
}

impl Info {
    /// Reads a comma list; unknown names are ignored (P-SDK-21, P-HTTP-11).
    pub fn parse(list: &str) -> Self {
        let mut info = Self::default();
        for attribute in attributes(list) {
            match attribute {
                "user_count" => info.user_count = true,
                "subscription_count" => info.subscription_count = true,
                _ => {}
            }
        }
        info
    }

    /// Reads the query parameter `info`, in any of its forms.
    ///
    /// # Errors
    /// As [`Query::values`].
    pub fn of_query(query: Query<'_>) -> Result<Self, Refusal> {
        Ok(Self::parse(&query.values("info")?.join(",")))
    }

    /// True when nothing was requested.
    pub fn is_empty(self) -> bool {
        !self.user_count && !self.subscription_count
    }

    /// The attributes that apply to a channel: users are counted only on presence channels, which are identified by
    /// their prefix (P-CHAN-1).
    #[must_use]
    pub fn applying_to(self, channel: &str) -> Self {
        Self { user_count: self.user_count && channel.starts_with(PRESENCE), ..self }
    }

    /// Refuses attributes that do not apply to a channel, or to all channels of a prefix, if the rules require it.
    ///
    /// # Errors
    /// 400 under [`InfoRules::Strict`].
    pub fn check(self, channel: &str, rules: InfoRules) -> Result<Self, Refusal> {
        if rules == InfoRules::Strict && self != self.applying_to(channel) {
            return Err(Refusal::bad_request("The attribute user_count applies to presence channels only."));
        }
        Ok(self)
    }
}

/// The attributes of a comma list.
pub(super) fn attributes(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim)
}

/// Prefix of the names of presence channels.
const PRESENCE: &str = "presence-";

#[cfg(test)]
mod tests {
    use super::*;

    const USERS: Info = Info { user_count: true, subscription_count: false };
    const BOTH: Info = Info { user_count: true, subscription_count: true };

    /// P-HTTP-11, P-SDK-20, P-SDK-21: comma lists and arrays, spaces and unknown names.
    #[test]
    fn lists_are_read() {
        let of = |query| Info::of_query(Query::new(Some(query))).expect(query);
        assert_eq!(of("info=user_count,subscription_count"), BOTH);
        assert_eq!(of("info[]=user_count&info[]=subscription_count"), BOTH);
        assert_eq!(of("info[0]=user_count&x=1&info[1]=nonsense"), USERS);
        assert_eq!(of("info=user_count%2C%20subscription_count,more"), BOTH);
        for query in ["", "info=", "info=user_counts", "info=USER_COUNT", "information=user_count"] {
            assert!(of(query).is_empty(), "{query}");
        }
    }

    /// P-HTTP-11: `user_count` applies only below `presence-`; elsewhere it is left out or, under strict rules, 400.
    #[test]
    fn what_does_not_apply() {
        for (name, applies) in
            [("presence-a", true), ("presence-", true), ("presence", false), ("a", false), ("", false)]
        {
            assert_eq!(BOTH.applying_to(name).user_count, applies, "{name}");
            assert!(BOTH.applying_to(name).subscription_count);
            assert_eq!(BOTH.check(name, InfoRules::Lenient), Ok(BOTH));
            assert_eq!(BOTH.check(name, InfoRules::Strict).is_ok(), applies, "{name}");
        }
        let refusal = USERS.check("a", InfoRules::Strict).expect_err("strict");
        assert!(refusal.status == 400 && refusal.message.contains("user_count"));
        assert!(Info::default().check("a", InfoRules::Strict).is_ok());
    }
}
