//! Looks once a second at processes that are near their limit, and at the host's table of files.

use std::{
    collections::HashMap,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use turnaway_common::Reason;

use super::pipeline::Pipeline;
use crate::{
    attribute::timens::monotonic_ns,
    descriptors::{Change, Gauge, Look, Pressure, Told},
    event::{Descriptors, Failure, Key, Listener, NofileLimit, Op, Process, ProcessId, Tier},
    queues::Stall,
};

/// Most time that looking at processes takes in a second; the rest are looked at in the next one.
const LOOKING: Duration = Duration::from_millis(150);
const FILE_NR: &str = "proc/sys/fs/file-nr";

/// What is looked at.
pub(super) struct Watched {
    /// When the last look began, nanoseconds of `CLOCK_MONOTONIC`.
    looked_ns: u64,
    pressure: Pressure,
    /// The processes that were told of and are near their limit still, as they were when last looked at.
    told: HashMap<ProcessId, (Process, Descriptors)>,
    /// The host's table, if that is wanted.
    table: Option<Gauge>,
}

impl Watched {
    /// Looks at the host's table only if that is wanted.
    pub(super) fn new(wants_table: bool) -> Self {
        Self {
            looked_ns: monotonic_ns(),
            pressure: Pressure::default(),
            told: HashMap::new(),
            table: wants_table.then(Gauge::default),
        }
    }

    /// Processes that are near their limit, as they were when last looked at.
    pub(super) fn short(&self) -> impl Iterator<Item = (ProcessId, &Process, Descriptors)> {
        self.told
            .iter()
            .map(|(id, (process, descriptors))| (*id, process, *descriptors))
    }

    /// When the last look began, nanoseconds of `CLOCK_MONOTONIC`.
    pub(super) fn looked_ns(&self) -> u64 {
        self.looked_ns
    }

    /// Takes in which processes came near their limit, and looks.
    pub(super) fn look(
        &mut self,
        noted: Vec<ProcessId>,
        pipeline: &mut Pipeline<'_>,
    ) -> Vec<Stall> {
        self.looked_ns = monotonic_ns();
        let mut stalls: Vec<Stall> = self.table().into_iter().collect();
        for id in noted {
            self.pressure.note(id);
        }
        let begun = Instant::now();
        for _ in 0..self.pressure.len() {
            if begun.elapsed() > LOOKING {
                break;
            }
            let Some(id) = self.pressure.take_next() else {
                break;
            };
            let at_ns = monotonic_ns();
            let found = pipeline.near_limit(id);
            let look =
                found
                    .as_ref()
                    .map_or(Look::Gone, |(process, used)| match (used, process.nofile) {
                        (Some(used), Some(limit)) => Look::Found {
                            used: *used,
                            limit: limit.soft,
                        },
                        _ => Look::Unknown,
                    });
            let told = self.pressure.look(id, look);
            if let (Some((process, _)), Look::Found { used, limit }) = (found, look)
                && (!told.is_empty() || self.told.contains_key(&id))
            {
                self.told.insert(id, (process, Descriptors { used, limit }));
            }
            for told in told {
                stalls.extend(self.process(id, told, at_ns));
            }
        }
        stalls
    }

    fn process(&mut self, id: ProcessId, told: Told, at_ns: u64) -> Option<Stall> {
        let (process, descriptors) = if told.ended {
            self.told.remove(&id)?
        } else {
            self.told.get(&id)?.clone()
        };
        Some(Stall {
            failure: failure(
                Reason::FdPressure,
                Some((id, process)),
                descriptors,
                told,
                at_ns,
            ),
            ended: told.ended,
        })
    }

    fn table(&mut self) -> Option<Stall> {
        let gauge = self.table.as_mut()?;
        let text = fs::read_to_string(Path::new("/").join(FILE_NR)).ok()?;
        let descriptors = file_nr(&text)?;
        let told = match gauge.look(descriptors.used, descriptors.limit?) {
            Change::None => return None,
            // The host is one: its highest level says all.
            Change::Crossed(levels) => Told {
                level: *levels.last()?,
                ended: false,
            },
            Change::Ended(level) => Told { level, ended: true },
        };
        Some(Stall {
            failure: failure(
                Reason::FdTablePressure,
                None,
                descriptors,
                told,
                monotonic_ns(),
            ),
            ended: told.ended,
        })
    }
}

/// `allocated free maximum`: since Linux 2.6, those that are free are no part of the first.
fn file_nr(text: &str) -> Option<Descriptors> {
    let mut numbers = text.split_whitespace().map(str::parse);
    let (used, _, limit) = (
        numbers.next()?.ok()?,
        numbers.next()?,
        numbers.next()?.ok()?,
    );
    Some(Descriptors {
        used,
        limit: Some(limit),
    })
}

fn failure(
    reason: Reason,
    whose: Option<(ProcessId, Process)>,
    descriptors: Descriptors,
    told: Told,
    at_ns: u64,
) -> Failure {
    let (id, process) = whose.unzip();
    Failure {
        key: Key {
            process: id,
            socket_inode: None,
            target: None,
            reason,
            errno: None,
            op: Op::Network,
            tier: Tier::Poll,
            call: None,
            level: Some(told.level),
        },
        monotonic_ns: at_ns,
        process: process.map(|process| Process {
            nofile: Some(NofileLimit {
                soft: descriptors.limit,
                copied: false,
            }),
            ..process
        }),
        listener: Listener::default(),
        peer: None,
        target_path: None,
        waited_ns: None,
        descriptors: Some(descriptors),
        ended: told.ended,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read_as_the_kernel_writes_it() {
        assert_eq!(
            file_nr("1504\t0\t9223372036854775807\n"),
            Some(Descriptors {
                used: 1_504,
                limit: Some(9_223_372_036_854_775_807)
            })
        );
        for bad in ["", "1", "1 2", "a 0 3", "1 0 b"] {
            assert_eq!(file_nr(bad), None, "{bad:?}");
        }
    }
}
