//! What waits to be written, within bounds (pure).

use std::collections::VecDeque;

use hashlink::LinkedHashMap;

use super::{Context, Incident, Minute, Pressure, Run, Sample, Watch};

/// What is to be kept.
#[derive(Clone, Debug)]
pub(super) enum Item {
    /// An incident as it stands: it replaces what was known of it.
    Incident(Box<Incident>),
    /// What was found when it began: it replaces what was known.
    Context(Context),
    /// How it stood.
    Sample(String, Sample),
    /// Failures; those of a minute add up.
    Minute(Minute),
    /// Pressure of a minute.
    Pressure(Pressure),
    /// A program that ran; its end replaces its beginning.
    Run(Run),
    /// A time in which somebody watched; it replaces the one that began at the same moment.
    Watch(Watch),
}

/// Of each incident and context the newest, of everything else as much as there is room for.
#[derive(Debug, Default)]
pub(super) struct Pending {
    incidents: LinkedHashMap<String, Box<Incident>>,
    contexts: LinkedHashMap<String, Context>,
    rest: VecDeque<Item>,
    watch: Option<Watch>,
    /// About how many bytes that is.
    bytes: usize,
    /// What there was no room for.
    lost: u64,
}

/// Bytes that a collection and its allocations take for an item, beside its texts.
const OVERHEAD: usize = 256;

impl Item {
    /// About how many bytes it takes.
    fn bytes(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        OVERHEAD
            + match self {
                Self::Incident(incident) => bytes_of(incident),
                Self::Context(context) => bytes_of_json(&context.context),
                Self::Sample(incident, _) => incident.len(),
                Self::Minute(minute) => minute.subject.len() + minute.reason.len(),
                Self::Run(run) => {
                    run.program.len()
                        + text(&run.unit)
                        + text(&run.exe)
                        + text(&run.argv)
                        + text(&run.parent)
                }
                Self::Pressure(_) | Self::Watch(_) => 0,
            }
    }
}

fn bytes_of(incident: &Incident) -> usize {
    let lines: usize = incident.timeline.iter().map(|line| line.text.len()).sum();
    let parts = incident.timeline.len() + incident.sufferers.len() + incident.listeners.len();
    incident.statement.len() + lines + (parts + 2) * OVERHEAD
}

fn bytes_of_json(value: &serde_json::Value) -> usize {
    use serde_json::Value;
    const NODE: usize = 48;
    NODE + match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(bytes_of_json).sum(),
        Value::Object(items) => items
            .iter()
            .map(|(name, item)| name.len() + bytes_of_json(item))
            .sum(),
        _ => 0,
    }
}

impl Pending {
    /// Adds what is newer than all that is here; beyond `most` bytes the oldest makes room, that which
    /// tells least first.
    pub(super) fn push(&mut self, item: Item, most: usize) {
        self.bytes += item.bytes();
        match item {
            Item::Incident(incident) => {
                if let Some(before) = self.incidents.insert(incident.id.clone(), incident) {
                    self.forget(&Item::Incident(before));
                }
            }
            Item::Context(context) => {
                if let Some(before) = self.contexts.insert(context.incident.clone(), context) {
                    self.forget(&Item::Context(before));
                }
            }
            Item::Watch(watch) => {
                if let Some(before) = self.watch.replace(watch) {
                    self.forget(&Item::Watch(before));
                    if before.from != watch.from {
                        self.rest.push_back(Item::Watch(before));
                        self.bytes += OVERHEAD;
                    }
                }
            }
            rest => self.rest.push_back(rest),
        }
        while self.bytes > most {
            let Some(oldest) = self.oldest() else { break };
            self.forget(&oldest);
            self.lost += 1;
        }
    }

    fn oldest(&mut self) -> Option<Item> {
        let rest = self.rest.pop_front();
        let context = |this: &mut Self| Some(Item::Context(this.contexts.pop_front()?.1));
        let incident = |this: &mut Self| Some(Item::Incident(this.incidents.pop_front()?.1));
        rest.or_else(|| context(self)).or_else(|| incident(self))
    }

    fn forget(&mut self, item: &Item) {
        self.bytes = self.bytes.saturating_sub(item.bytes());
    }

    /// Puts back what could not be written, before what has come since.
    pub(super) fn put_back(&mut self, batch: Vec<Item>, most: usize) {
        let since = std::mem::take(self);
        self.lost = since.lost;
        for item in batch.into_iter().chain(since.into_items()) {
            self.push(item, most);
        }
    }

    /// Takes all of it, in the order in which it can be written.
    pub(super) fn take(&mut self) -> Vec<Item> {
        let lost = self.lost;
        let all = std::mem::take(self);
        self.lost = lost;
        all.into_items().collect()
    }

    fn into_items(self) -> impl Iterator<Item = Item> {
        let incidents = self
            .incidents
            .into_iter()
            .map(|(_, one)| Item::Incident(one));
        let contexts = self.contexts.into_iter().map(|(_, one)| Item::Context(one));
        incidents
            .chain(contexts)
            .chain(self.rest)
            .chain(self.watch.map(Item::Watch))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.incidents.is_empty()
            && self.contexts.is_empty()
            && self.rest.is_empty()
            && self.watch.is_none()
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}
