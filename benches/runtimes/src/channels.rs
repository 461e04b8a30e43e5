//! The subscribers of each channel. Independent of sockets: a subscriber is whatever type the runtime writes to.

use std::collections::HashMap;

use slab::Slab;

/// All channels of a server; `S` is the runtime's handle of one subscriber.
pub(crate) struct Channels<S> {
    subscribers: HashMap<Box<str>, Slab<S>>,
}

/// A subscription, needed to end it.
pub(crate) struct Subscription {
    channel: Box<str>,
    place: usize,
}

impl<S> Channels<S> {
    pub(crate) fn new() -> Self {
        Self { subscribers: HashMap::new() }
    }

    pub(crate) fn join(&mut self, channel: Box<str>, subscriber: S) -> Subscription {
        let place = self.subscribers.entry(channel.clone()).or_default().insert(subscriber);
        Subscription { channel, place }
    }

    pub(crate) fn leave(&mut self, subscription: &Subscription) {
        if let Some(subscribers) = self.subscribers.get_mut(&subscription.channel) {
            subscribers.remove(subscription.place);
        }
    }

    /// The subscribers of a channel, in the order of their places.
    pub(crate) fn subscribers(&self, channel: &str) -> impl Iterator<Item = &S> {
        self.subscribers.get(channel).into_iter().flatten().map(|(_, subscriber)| subscriber)
    }
}

impl Subscription {
    pub(crate) fn is_to(&self, channel: &str) -> bool {
        &*self.channel == channel
    }
}
