//! How full a network namespace's table of tracked connections is, and what was dropped for
//! want of room in it.

use std::{fs, path::Path};

use super::settings::number;

/// Of the calling thread's namespace, as [`super::settings`] has it.
const SYSCTL: &str = "/proc/sys/net/netfilter";
/// A line for each processor; there only with CONFIG_NF_CONNTRACK_PROCFS. Not asked of
/// ctnetlink: a request to that loads modules, and tracking with them.
const STATISTICS: &str = "/proc/thread-self/net/stat/nf_conntrack";

/// Connection tracking of a network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conntrack {
    /// Connections in the table (`nf_conntrack_count`).
    pub count: u64,
    /// The most there may be (`nf_conntrack_max`); `None` is no limit.
    pub max: Option<u64>,
    /// What each processor counted; `None` where the kernel does not tell.
    pub processors: Option<Vec<Statistics>>,
}

impl Conntrack {
    /// The limit that holds: that of the `host` holds for all namespaces, also where they have
    /// one of their own.
    #[must_use]
    pub fn limit(&self, host: Option<u64>) -> Option<u64> {
        self.max.into_iter().chain(host).min()
    }
}

/// Counters of one processor, each modulo 2^32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// `drop`: packets that were dropped because no entry could be made for them; also those
    /// that are counted in the other two and dropped.
    pub dropped: u32,
    /// `invalid`: packets that do not fit their connection.
    pub invalid: u32,
    /// `insert_failed`: entries that another packet of the same connection made first.
    pub insert_failed: u32,
}

/// Reads that of the calling thread's namespace. `None` where connections are not tracked: the
/// module nf_conntrack is not loaded.
pub(super) fn read() -> Option<Conntrack> {
    let sysctl = Path::new(SYSCTL);
    // What was dropped is never ahead of what is known of the table.
    let statistics = fs::read_to_string(STATISTICS);
    let count = number(&sysctl.join("nf_conntrack_count"))?;
    let max: u64 = number(&sysctl.join("nf_conntrack_max"))?;
    Some(Conntrack {
        count,
        max: Some(max).filter(|max| *max > 0),
        processors: statistics.ok().and_then(|text| parse(&text)),
    })
}

/// A line of names, then one of hexadecimal numbers for each processor.
fn parse(statistics: &str) -> Option<Vec<Statistics>> {
    let mut lines = statistics.lines();
    let names: Vec<&str> = lines.next()?.split_ascii_whitespace().collect();
    let place = |name| names.iter().position(|field| *field == name);
    let (dropped, invalid, insert_failed) =
        (place("drop")?, place("invalid")?, place("insert_failed")?);
    lines
        .map(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let value = |place: usize| u32::from_str_radix(fields.get(place)?, 16).ok();
            Some(Statistics {
                dropped: value(dropped)?,
                invalid: value(invalid)?,
                insert_failed: value(insert_failed)?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{SYSCTL, Statistics, parse, read};

    #[test]
    fn columns_are_found_by_name() {
        // Linux 5.10 and 6.18.
        for header in [
            "entries  searched found new invalid ignore delete delete_list insert insert_failed drop early_drop icmp_error  expect_new expect_create expect_delete search_restart",
            "entries  clashres found new invalid ignore delete chainlength insert insert_failed drop early_drop icmp_error  expect_new expect_create expect_delete search_restart",
        ] {
            let text = format!(
                "{header}\n\
                 0000000a  00000001 00000002 00000003 00000004 00000000 00000000 00000000 00000000 00000005 ffffffff 00000007 00000008  00000000 00000000 00000000 00000000\n\
                 0000000a  00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000010 00000000 00000000  00000000 00000000 00000000 00000000\n"
            );
            assert_eq!(
                parse(&text),
                Some(vec![
                    Statistics {
                        dropped: u32::MAX,
                        invalid: 4,
                        insert_failed: 5
                    },
                    Statistics {
                        dropped: 16,
                        ..Statistics::default()
                    },
                ])
            );
        }
    }

    #[test]
    fn none_where_something_is_missing() {
        for text in [
            "",
            "entries drop\n0 0\n",
            "invalid insert_failed drop\n0 0\n",
            "invalid insert_failed drop\n0 0 x\n",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn of_this_kernel() {
        assert_eq!(
            read().is_some(),
            std::path::Path::new(SYSCTL)
                .join("nf_conntrack_count")
                .exists()
        );
    }
}
