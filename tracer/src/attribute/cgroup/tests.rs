//! Paths as real hosts show them.

use super::{Place, Runtime, telling_path};

const ID: &str = "4f5cbdb2ca0e9a3e4f2d4a1c0b9e8d7c6f5a4b3c2d1e0f9a8b7c6d5e4f3a2b1c";
const OUTER: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
const UID: &str = "1b6b27d1-3b7e-4a86-8c8e-2f6f0d0a7c11";
const UID_IN_SLICE: &str = "1b6b27d1_3b7e_4a86_8c8e_2f6f0d0a7c11";

struct Case {
    path: String,
    unit: Option<&'static str>,
    container: Option<(&'static str, Option<Runtime>)>,
    pod: Option<&'static str>,
}

fn unit(path: &str, unit: &'static str) -> Case {
    Case {
        path: path.to_owned(),
        unit: Some(unit),
        container: None,
        pod: None,
    }
}

fn container(path: String, id: &'static str, runtime: impl Into<Option<Runtime>>) -> Case {
    Case {
        path,
        unit: None,
        container: Some((id, runtime.into())),
        pod: None,
    }
}

fn nothing(path: impl Into<String>) -> Case {
    Case {
        path: path.into(),
        unit: None,
        container: None,
        pod: None,
    }
}

impl Case {
    fn in_pod(self, uid: &'static str) -> Self {
        Self {
            pod: Some(uid),
            ..self
        }
    }

    fn in_unit(self, unit: &'static str) -> Self {
        Self {
            unit: Some(unit),
            ..self
        }
    }
}

fn check(cases: Vec<Case>) {
    for case in cases {
        let place = Place::of(case.path.as_bytes());
        let container = place
            .container
            .as_ref()
            .map(|container| (container.id.as_str(), container.runtime));
        assert_eq!(place.unit.as_deref(), case.unit, "{}", case.path);
        assert_eq!(container, case.container, "{}", case.path);
        assert_eq!(place.pod_uid.as_deref(), case.pod, "{}", case.path);
    }
}

#[test]
fn systemd_units() {
    check(vec![
        unit("/system.slice/pgbouncer.service", "pgbouncer.service"),
        unit(
            "/system.slice/system-postgresql.slice/postgresql@15-main.service",
            "postgresql@15-main.service",
        ),
        unit(
            r"/system.slice/dev-disk-by\x2duuid-1.swap",
            r"dev-disk-by\x2duuid-1.swap",
        ),
        unit("/init.scope", "init.scope"),
        unit(
            "/user.slice/user-1000.slice/session-3.scope",
            "session-3.scope",
        ),
        unit(
            "/user.slice/user-1000.slice/user@1000.service/app.slice/web.service",
            "web.service",
        ),
        unit("/system.slice/_cpu.service", "cpu.service"),
        unit(
            "/system.slice/worker.service/payload/threads",
            "worker.service",
        ),
        unit(
            "/machine.slice/machine-build.scope/payload",
            "machine-build.scope",
        ),
        // Seen from a cgroup namespace that the process is outside of.
        unit("/../../system.slice/nginx.service", "nginx.service"),
        nothing("/"),
        nothing("/user.slice"),
        nothing("/.service"),
        nothing("/system.slice/two words.service"),
        nothing("/system.slice/evil\x1b[2J.service"),
        nothing("/system.slice/$(reboot).service"),
    ]);
}

#[test]
fn docker() {
    check(vec![
        container(format!("/docker/{ID}"), ID, Runtime::Docker),
        container(
            format!("/system.slice/docker-{ID}.scope"),
            ID,
            Runtime::Docker,
        ),
        container(format!("/docker/{OUTER}/docker/{ID}"), ID, Runtime::Docker),
        container(format!("/docker/{ID}/init"), ID, Runtime::Docker),
        container(
            format!("/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{ID}.scope"),
            ID,
            Runtime::Docker,
        ),
        container(
            format!("/docker/{ID}/system.slice/nginx.service"),
            ID,
            Runtime::Docker,
        )
        .in_unit("nginx.service"),
        container(format!("/../{ID}"), ID, None),
        container(format!("/ecs/a1b2c3/{ID}"), ID, None),
        // Neither an id of Docker's, nor any.
        nothing("/docker/0123456789ab"),
        nothing("/docker"),
        nothing("/docker/buildkit"),
        nothing(format!("/docker/{}", ID.to_uppercase())),
    ]);
}

#[test]
fn kubernetes() {
    check(vec![
        container(format!("/kubepods/burstable/pod{UID}/{ID}"), ID, None).in_pod(UID),
        container(format!("/kubepods/pod{UID}/crio-{ID}"), ID, Runtime::Crio).in_pod(UID),
        container(
            format!(
                "/kubepods.slice/kubepods-burstable.slice/\
                 kubepods-burstable-pod{UID_IN_SLICE}.slice/cri-containerd-{ID}.scope"
            ),
            ID,
            Runtime::Containerd,
        )
        .in_pod(UID),
        container(
            format!("/kubepods.slice/kubepods-pod{UID_IN_SLICE}.slice/crio-{ID}.scope/container"),
            ID,
            Runtime::Crio,
        )
        .in_pod(UID),
        container(
            format!(
                "/kubepods.slice/kubepods-besteffort.slice/\
                 kubepods-besteffort-pod{UID_IN_SLICE}.slice/docker-{ID}.scope"
            ),
            ID,
            Runtime::Docker,
        )
        .in_pod(UID),
        // The systemd form of a path, taken for a directory's name.
        container(
            format!(
                "/system.slice/containerd.service/\
                 kubepods-besteffort-pod{UID_IN_SLICE}.slice:cri-containerd:{ID}"
            ),
            ID,
            Runtime::Containerd,
        )
        .in_pod(UID),
        container(
            format!("/system.slice:cri-containerd:{ID}"),
            ID,
            Runtime::Containerd,
        ),
        // A node that is itself a container (kind).
        container(
            format!(
                "/docker/{OUTER}/kubelet.slice/kubelet-kubepods.slice/\
                 kubelet-kubepods-burstable.slice/\
                 kubelet-kubepods-burstable-pod{UID_IN_SLICE}.slice/cri-containerd-{ID}.scope"
            ),
            ID,
            Runtime::Containerd,
        )
        .in_pod(UID),
        // A static pod's uid is a hash.
        container(
            format!("/kubepods/besteffort/pod0123456789abcdef0123456789abcdef/{ID}"),
            ID,
            None,
        )
        .in_pod("0123456789abcdef0123456789abcdef"),
        // Docker in a pod.
        container(
            format!("/kubepods/burstable/pod{UID}/{OUTER}/docker/{ID}"),
            ID,
            Runtime::Docker,
        )
        .in_pod(UID),
        unit("/system.slice/kubelet.service", "kubelet.service"),
        nothing("/kubepods/burstable"),
        nothing("/kubepods.slice/kubepods-burstable.slice"),
        nothing(format!("/pod{UID}")),
        nothing("/kubepods/pod-of-whales"),
    ]);
}

#[test]
fn podman_containerd_and_lxc() {
    check(vec![
        container(
            format!("/machine.slice/libpod-{ID}.scope/container"),
            ID,
            Runtime::Podman,
        ),
        container(format!("/libpod_parent/libpod-{ID}"), ID, Runtime::Podman),
        container(
            format!("/machine.slice/machine-libpod_pod_{OUTER}.slice/libpod-{ID}.scope"),
            ID,
            Runtime::Podman,
        ),
        container(
            format!("/system.slice/web.service/libpod-payload-{ID}"),
            ID,
            Runtime::Podman,
        )
        .in_unit("web.service"),
        unit(
            "/machine.slice/libpod-conmon-0123.scope",
            "libpod-conmon-0123.scope",
        ),
        container(
            format!("/system.slice/nerdctl-{ID}.scope"),
            ID,
            Runtime::Containerd,
        ),
        container(format!("/default/{ID}"), ID, None),
        container("/lxc/101/ns".to_owned(), "101", Runtime::Lxc),
        container("/lxc.payload.web-1".to_owned(), "web-1", Runtime::Lxc),
        container("/lxc.payload/web-1".to_owned(), "web-1", Runtime::Lxc),
        container(
            "/lxc.payload.web-1/system.slice/nginx.service".to_owned(),
            "web-1",
            Runtime::Lxc,
        )
        .in_unit("nginx.service"),
        container(
            format!("/lxc.payload.web-1/docker/{ID}"),
            ID,
            Runtime::Docker,
        ),
        nothing("/lxc.monitor.web-1"),
        nothing("/lxc.payload."),
        nothing("/lxc"),
    ]);
}

#[test]
fn a_monitor_is_not_in_its_container() {
    for path in [
        format!("/machine.slice/libpod-conmon-{ID}.scope"),
        format!("/system.slice/crio-conmon-{ID}.scope"),
    ] {
        assert_eq!(Place::of(path.as_bytes()).container, None, "{path}");
    }
}

#[test]
fn user_units_are_told_apart() {
    let place = |path: &str| Place::of(path.as_bytes());
    assert!(place("/user.slice/user-1.slice/user@1.service/app.slice/web.service").user_unit);
    assert!(!place("/user.slice/user-1.slice/user@1.service").user_unit);
    assert!(!place("/system.slice/web.service").user_unit);
}

#[test]
fn hostile_bytes_tell_nothing() {
    for path in [
        &b"/\xff\xfe.service"[..],
        b"/docker/\xff",
        b"//////",
        b"",
        b"/kubepods/pod\xff\xff",
        b"/lxc.payload.\xff",
    ] {
        assert_eq!(Place::of(path), Place::default(), "{path:?}");
    }
    // What is further out is still read.
    assert_eq!(
        Place::of(b"/system.slice/web.service/\xff\xfe")
            .unit
            .as_deref(),
        Some("web.service")
    );
}

fn telling(content: &str) -> Option<String> {
    telling_path(content.as_bytes()).map(|path| String::from_utf8(path).expect("text"))
}

#[test]
fn pure_v2() {
    assert_eq!(
        telling("0::/system.slice/web.service\n").as_deref(),
        Some("/system.slice/web.service")
    );
    assert_eq!(telling("0::/\n").as_deref(), Some("/"));
    assert_eq!(
        telling("0::/system.slice/web.service (deleted)\n").as_deref(),
        Some("/system.slice/web.service")
    );
}

#[test]
fn v1_prefers_systemd_then_depth() {
    assert_eq!(
        telling(
            "12:pids:/system.slice/web.service\n11:memory:/a/b/c\n\
             1:name=systemd:/system.slice/web.service\n"
        )
        .as_deref(),
        Some("/system.slice/web.service")
    );
    assert_eq!(
        telling("4:memory:/a/b\n3:pids:/a/c\n2:cpu,cpuacct:/\n1:name=systemd:/\n").as_deref(),
        Some("/a/b")
    );
    let docker = format!("/docker/{ID}");
    assert_eq!(
        telling(&format!(
            "4:memory:{docker}\n3:pids:{docker}\n2:cpu,cpuacct:/\n"
        )),
        Some(docker)
    );
    assert_eq!(telling("2:cpu:/\n1:name=systemd:/\n").as_deref(), Some("/"));
}

#[test]
fn hybrid_uses_v2_unless_it_is_the_root() {
    assert_eq!(
        telling("4:memory:/x/y\n1:name=systemd:/init.scope\n0::/init.scope\n").as_deref(),
        Some("/init.scope")
    );
    assert_eq!(
        telling("4:memory:/process_api/371f\n9:name=systemd:/\n1:cpu:/\n0::/\n").as_deref(),
        Some("/process_api/371f")
    );
}

#[test]
fn hybrid_prefers_the_container_to_the_daemon_that_started_it() {
    let docker = format!("/docker/{ID}");
    assert_eq!(
        telling(&format!(
            "12:memory:{docker}\n1:name=systemd:{docker}\n0::/system.slice/containerd.service\n"
        )),
        Some(docker)
    );
}

#[test]
fn rubbish_is_no_path() {
    assert_eq!(telling(""), None);
    assert_eq!(telling("0::\n1:x\nhello\n"), None);
    assert_eq!(
        telling_path(b"0::/\xff:colon\n"),
        Some(b"/\xff:colon".to_vec())
    );
}
