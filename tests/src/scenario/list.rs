//! The list of scenarios.

use super::Scenario;
use super::env::{self, Need};
use crate::workload::{Stage, connect, conntrack, denied, emfile, enfile, families, handed};
use crate::workload::{
    descriptors, hotplug, identity, misuse, normal, pressure, processes, queue, rights,
};
use crate::workload::{shed, table, uring};

type Workload = fn(&mut Stage) -> anyhow::Result<()>;

const fn scenario(name: &'static str, run: Workload) -> Scenario {
    Scenario {
        name,
        run,
        needs: env::nothing,
        one_process: true,
        apart: false,
        hook: "accept",
        about: &["accept."],
        blind: &[],
    }
}

const fn ring(name: &'static str, run: Workload) -> Scenario {
    Scenario {
        hook: "io_uring_accept",
        ..scenario(name, run).needs(env::uring)
    }
}

const fn drops(name: &'static str, run: Workload) -> Scenario {
    Scenario {
        hook: "listen_queue",
        about: &[
            "queue.syn_",
            "queue.ack_",
            "queue.rst_",
            "queue.overflow",
            "queue.dropped",
        ],
        ..scenario(name, run)
    }
}

const fn client(name: &'static str, run: Workload) -> Scenario {
    Scenario {
        hook: "connect",
        about: &["connect.", "queue.unix_full"],
        ..scenario(name, run)
    }
}

const fn throws(name: &'static str, run: Workload) -> Scenario {
    scenario(name, run).seen_by("accepted", &["accept.shed"])
}

const fn fds(name: &'static str, run: Workload) -> Scenario {
    scenario(name, run).seen_by("descriptors", &["fd.exhausted"])
}

const fn near(name: &'static str, run: Workload) -> Scenario {
    scenario(name, run).seen_by("descriptors", &["fd.pressure"])
}

impl Scenario {
    const fn needs(mut self, needs: Need) -> Self {
        self.needs = needs;
        self
    }

    /// Other processes than the one that is started call accept, or threads of the kernel do.
    const fn of_others(mut self) -> Self {
        self.one_process = false;
        self
    }

    /// It changes what others are told of.
    const fn apart(mut self) -> Self {
        self.apart = true;
        self
    }

    const fn seen_by(mut self, hook: &'static str, about: &'static [&'static str]) -> Self {
        self.hook = hook;
        self.about = about;
        self
    }

    const fn unseen_by(mut self, tiers: &'static [&'static str]) -> Self {
        self.blind = tiers;
        self
    }
}

/// All scenarios.
pub const ALL: &[Scenario] = &[
    scenario("emfile", emfile::accept4),
    scenario("emfile_accept", emfile::accept),
    scenario("emfile_empty_queue", emfile::empty_queue),
    scenario("lowest_free_number", emfile::lowest_free_number),
    scenario("blocked_accept", emfile::blocked),
    scenario("spin", emfile::spin),
    scenario("many_listeners", emfile::many_listeners),
    scenario("enfile", enfile::system_table)
        .needs(env::guest)
        .of_others(),
    scenario("ipv6", families::ipv6).needs(env::ipv6),
    scenario("dual_stack", families::dual_stack).needs(env::ipv6),
    scenario("mptcp", families::mptcp).needs(env::mptcp),
    scenario("unix_path", families::unix_path),
    scenario("unix_abstract", families::unix_abstract),
    scenario("unix_seqpacket", families::unix_seqpacket),
    scenario("vsock", families::vsock).needs(env::vsock),
    scenario("misuse_not_open", misuse::not_open),
    scenario("misuse_negative", misuse::negative),
    scenario("misuse_file", misuse::file),
    scenario("misuse_not_listening", misuse::not_listening),
    scenario("misuse_udp", misuse::udp),
    scenario("misuse_flags", misuse::flags),
    scenario("misuse_shut_down", misuse::shut_down),
    scenario(
        "misuse_shut_down_while_waiting",
        misuse::shut_down_while_waiting,
    ),
    scenario("misuse_bad_address", misuse::bad_address),
    scenario("denied_by_seccomp", denied::by_seccomp).unseen_by(&["trampoline", "kprobe"]),
    scenario("denied_by_security_module", denied::by_security_module).needs(env::bpf_lsm),
    scenario("nomem", denied::no_memory).needs(env::bpf_lsm),
    scenario("processor_away", hotplug::accepts).needs(env::hotplug),
    scenario("busy_loop", normal::busy_loop),
    scenario("interrupted", normal::interrupted),
    scenario("restarted", normal::restarted),
    scenario("reset_in_queue", normal::reset_in_queue),
    scenario("named_thread", processes::named_thread),
    scenario("exits_at_once", processes::exits_at_once).of_others(),
    scenario("short_lived", processes::short_lived).of_others(),
    scenario("prefork", processes::prefork).of_others(),
    scenario("shared_listener", processes::shared_listener).of_others(),
    scenario("hostile_comm", identity::hostile_comm),
    scenario("drops_root", identity::drops_root),
    scenario("pid_namespace", identity::pid_namespace).of_others(),
    scenario("network_namespace", identity::network_namespace),
    scenario("cgroup_unit", identity::unit).of_others(),
    scenario("cgroup_container", identity::container).of_others(),
    scenario("cgroup_of_the_dead", identity::unit_of_the_dead)
        .needs(env::unified)
        .of_others(),
    ring("uring_single", uring::single),
    ring("uring_multishot", uring::multishot).needs(env::uring_5_19),
    ring("uring_limit_raised_later", uring::limit_raised_later),
    ring("uring_limit_lowered_later", uring::limit_lowered_later),
    ring("uring_sqpoll", uring::sqpoll).of_others(),
    ring("uring_worker", uring::worker).of_others(),
    ring("uring_registered_listener", uring::registered_listener),
    ring("uring_table_full", uring::table_full).needs(env::uring_5_19),
    ring("uring_misuse", uring::misuse),
    ring("uring_not_open", uring::not_open).unseen_by(&["trampoline", "kprobe"]),
    ring("uring_cancelled", uring::cancelled),
    drops("queue_syn_overflow", queue::syn_overflow),
    drops("queue_syn_overflow_ipv6", queue::syn_overflow_ipv6).needs(env::ipv6),
    drops("queue_syn_overflow_mptcp", queue::syn_overflow_mptcp).needs(env::mptcp),
    drops(
        "queue_syn_overflow_fast_open",
        queue::syn_overflow_fast_open,
    ),
    drops("queue_ack_overflow", queue::ack_overflow),
    drops("queue_ack_overflow_ipv6", queue::ack_overflow_ipv6).needs(env::ipv6),
    drops(
        "queue_ack_overflow_dual_stack",
        queue::ack_overflow_dual_stack,
    )
    .needs(env::ipv6),
    drops("queue_rst_overflow", queue::rst_overflow),
    drops("queue_syn_flood", queue::syn_flood),
    drops("queue_syn_backlog", queue::syn_backlog),
    drops("queue_cookies", queue::cookies),
    drops("queue_reuseport", queue::reuseport),
    drops("queue_prefork", queue::prefork).of_others(),
    drops("queue_drops_root", handed::drops_root).of_others(),
    drops("queue_sent", handed::sent).of_others(),
    drops("queue_sent_to_nobody_yet", handed::sent_and_not_accepted).of_others(),
    drops("queue_exec", handed::exec),
    drops("queue_closed_at_once", queue::closed_at_once).of_others(),
    drops("queue_processor_away", hotplug::drops).needs(env::hotplug),
    scenario("queue_slow", queue::slow).seen_by("accepted", &["queue.slow"]),
    scenario("queue_stalled", queue::stalled).seen_by("accepted", &["queue.stalled"]),
    scenario("silent_after_one_error", queue::silent_after_one_error)
        .seen_by("accepted", &["accept.emfile", "queue.stalled"]),
    scenario("queue_abandoned", queue::abandoned).seen_by("listen_close", &["queue.abandoned"]),
    scenario("queue_worker_exit", queue::worker_exit).seen_by("listen_close", &["queue.abandoned"]),
    scenario("listener_closed", queue::listener_closed)
        .seen_by("listen_close", &["listener.closed", "accept."]),
    throws("shed", shed::refused),
    throws("shed_ipv6", shed::refused_ipv6).needs(env::ipv6),
    throws("shed_not", shed::not_refused).of_others(),
    throws("shed_by_one_worker", shed::by_one_worker).of_others(),
    client("connect_refused", connect::refused),
    client("connect_refused_ipv6", connect::refused_ipv6).needs(env::ipv6),
    client("connect_mapped", connect::mapped).needs(env::ipv6),
    client("connect_mptcp", connect::mptcp).needs(env::mptcp),
    client("connect_spin", connect::spin),
    client("connect_mixed", connect::mixed),
    client("connect_many_targets", connect::many_targets),
    client("connect_timeout", connect::timeout),
    client("connect_called_again", connect::called_again),
    client("connect_told_twice", connect::told_twice),
    client("connect_given_up", connect::given_up),
    client("connect_good", connect::good),
    client("connect_unreachable", connect::unreachable),
    client("connect_no_port", connect::no_port),
    client("connect_unix_refused", connect::unix_refused),
    client("connect_unix_full", connect::unix_full_path).of_others(),
    client("connect_unix_full_abstract", connect::unix_full_abstract).of_others(),
    client("connect_unix_full_seqpacket", connect::unix_full_seqpacket).of_others(),
    client("connect_unix_waited", connect::unix_waited)
        .of_others()
        .seen_by("unix_wait", &["queue.unix_full"]),
    client("connect_denied", connect::denied).of_others(),
    client(
        "connect_denied_by_security_module",
        connect::denied_by_security_module,
    )
    .needs(env::bpf_lsm),
    client("connect_misuse", connect::misuse),
    client("connect_uring", connect::uring).needs(env::uring),
    client("connect_vsock", connect::vsock).needs(env::vsock),
    client("connect_named_thread", connect::named_thread),
    client(
        "connect_gone_before_the_error",
        connect::gone_before_the_error,
    )
    .of_others(),
    scenario("conntrack_full", conntrack::full)
        .needs(env::conntrack)
        .seen_by("accept", &["net."])
        .of_others()
        .apart(),
    fds("fd_openat", descriptors::openat),
    fds("fd_openat2", descriptors::openat2),
    fds("fd_open", descriptors::open),
    fds("fd_socket", descriptors::socket),
    fds("fd_socketpair", descriptors::socketpair),
    fds("fd_pipe2", descriptors::pipe2),
    fds("fd_dup", descriptors::dup),
    fds("fd_fcntl", descriptors::fcntl),
    fds("fd_epoll_create1", descriptors::epoll_create1),
    fds("fd_eventfd2", descriptors::eventfd2),
    fds("fd_timerfd_create", descriptors::timerfd_create),
    fds("fd_signalfd4", descriptors::signalfd4),
    fds("fd_inotify_init1", descriptors::inotify_init1),
    fds("fd_memfd_create", descriptors::memfd_create),
    fds("fd_io_uring_setup", descriptors::io_uring_setup).needs(env::uring),
    fds("fd_pidfd_open", descriptors::pidfd_open),
    fds("fd_second_of_two", descriptors::second_of_two),
    scenario("fd_accept_and_others", descriptors::accept_and_others)
        .seen_by("descriptors", &["fd.exhausted", "accept."]),
    fds("fd_spin", descriptors::spin),
    fds("fd_limit_lowered", descriptors::limit_lowered),
    fds("fd_dup_to_a_number", descriptors::dup_to_a_number),
    fds("fd_named_thread", descriptors::named_thread),
    fds("fd_exits_at_once", descriptors::exits_at_once).of_others(),
    fds("fd_table_full", descriptors::table_full)
        .needs(env::guest)
        .of_others(),
    fds("fd_inotify_instances", descriptors::inotify_instances).needs(env::guest),
    scenario("fd_good_life", descriptors::good_life)
        .seen_by("descriptors", &["fd.exhausted", "fd.pressure"])
        .needs(env::uring),
    fds("fd_rights_lost", rights::all_lost),
    fds("fd_rights_some_lost", rights::some_lost),
    fds("fd_rights_no_room", rights::no_room),
    fds("fd_rights_no_room_either", rights::no_room_either),
    fds("fd_rights_good", rights::all_come),
    scenario("fd_table_pressure", table::fills_up)
        .needs(env::guest)
        .seen_by("accept", &["fd.table_"])
        .of_others()
        .apart(),
    near("fd_pressure_levels", pressure::crosses_each_level),
    near("fd_pressure_below", pressure::stays_below),
    near("fd_pressure_again", pressure::crosses_again),
    near("fd_pressure_limit_changes", pressure::limit_changes),
    ring("fd_uring_openat", uring::openat).seen_by("io_uring_descriptors", &["fd.exhausted"]),
    ring("fd_uring_openat2", uring::openat2).seen_by("io_uring_descriptors", &["fd.exhausted"]),
    ring("fd_uring_socket", uring::socket)
        .needs(env::uring_5_19)
        .seen_by("io_uring_descriptors", &["fd.exhausted"]),
    ring("fd_uring_accept_and_others", uring::accept_and_others)
        .seen_by("io_uring_descriptors", &["fd.exhausted", "accept."]),
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique() {
        let names: HashSet<_> = ALL.iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), ALL.len());
    }
}
