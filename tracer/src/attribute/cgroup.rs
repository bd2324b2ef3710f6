//! What a cgroup path tells: the systemd unit, the container, the pod. Pure.

/// A program that runs containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Runtime {
    /// Docker Engine.
    Docker,
    /// containerd, under Kubernetes or by itself.
    Containerd,
    /// CRI-O.
    Crio,
    /// Podman.
    Podman,
    /// LXC, and what is built on it (LXD, Incus, Proxmox).
    Lxc,
}

impl Runtime {
    /// All.
    pub const ALL: [Self; 5] = [
        Self::Docker,
        Self::Containerd,
        Self::Crio,
        Self::Podman,
        Self::Lxc,
    ];

    /// Its name in text and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Containerd => "containerd",
            Self::Crio => "cri-o",
            Self::Podman => "podman",
            Self::Lxc => "lxc",
        }
    }
}

/// A container, as a cgroup path names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ContainerId {
    /// 64 hexadecimal digits; a name for LXC.
    pub id: String,
    /// `None` where several runtimes write such a path.
    pub runtime: Option<Runtime>,
}

/// What a cgroup path tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Innermost systemd unit. A scope that a runtime made for a container is not one.
    pub unit: Option<String>,
    /// The unit belongs to a user's systemd (`user@UID.service`).
    pub user_unit: bool,
    /// Innermost container.
    pub container: Option<ContainerId>,
    /// Kubernetes' uid of the pod.
    pub pod_uid: Option<String>,
}

/// The most telling path of `/proc/PID/cgroup` (cgroups(7)).
///
/// On a host with v2 alone there is only one. Otherwise the v2 line if it is not `/`,
/// else that of `name=systemd`, else the deepest of the controllers'; but a path that
/// names a container is preferred to one that does not, because on hybrid hosts the v2
/// line of a container's process may still be that of the daemon which started it.
#[must_use]
pub fn telling_path(content: &[u8]) -> Option<Vec<u8>> {
    let lines: Vec<Line<'_>> = content
        .split(|byte| *byte == b'\n')
        .filter_map(Line::parse)
        .collect();
    let in_v2 = |line: &&Line<'_>| line.hierarchy == b"0";
    let below_root = |line: &&Line<'_>| line.path != b"/";
    let v2 = lines.iter().find(in_v2);
    let v2_alone = lines.len() == 1;
    let systemd = lines
        .iter()
        .find(|line| line.controllers == b"name=systemd");
    let deepest = lines
        .iter()
        .filter(|line| !in_v2(line))
        // The first of several, where max_by_key would give the last.
        .rev()
        .max_by_key(|line| components(line.path).count());

    let candidates: Vec<&Line<'_>> = [
        v2.filter(|line| v2_alone || below_root(line)),
        systemd.filter(below_root),
        deepest,
        v2,
    ]
    .into_iter()
    .flatten()
    .collect();
    let names_a_container = |line: &&&Line<'_>| Place::of(line.path).container.is_some();
    candidates
        .iter()
        .find(names_a_container)
        .or(candidates.first())
        .map(|line| line.path.to_vec())
}

struct Line<'a> {
    hierarchy: &'a [u8],
    controllers: &'a [u8],
    path: &'a [u8],
}

impl<'a> Line<'a> {
    /// `hierarchy:controllers:path`; the path may hold colons.
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut parts = line.splitn(3, |byte| *byte == b':');
        let (hierarchy, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Self {
            hierarchy,
            controllers,
            path: living(path),
        })
        .filter(|line| line.path.starts_with(b"/"))
    }
}

/// A path without the note that the kernel adds to removed cgroups.
pub(super) fn living(path: &[u8]) -> &[u8] {
    path.strip_suffix(b" (deleted)").unwrap_or(path)
}

fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/')
        .filter(|component| !component.is_empty())
}

impl Place {
    /// Reads a path, from the root down; what is further in wins.
    #[must_use]
    pub fn of(path: &[u8]) -> Self {
        let mut place = Self::default();
        let mut before = "";
        let mut in_kubepods = false;
        let mut in_user_manager = false;
        for component in components(path) {
            // Units, runtimes and Kubernetes write ASCII; other names tell nothing.
            let Ok(component) = std::str::from_utf8(component) else {
                before = "";
                continue;
            };
            if let Some(uid) = pod_uid(component, in_kubepods) {
                place.pod_uid = Some(uid);
            }
            if let Some(container) = container(component, before) {
                // Podman runs containers inside the unit that asked for them. With the
                // others a unit further out is the runtime's own daemon.
                if container.runtime != Some(Runtime::Podman) {
                    place.unit = None;
                    place.user_unit = false;
                }
                in_user_manager = false;
                place.container = Some(container);
            } else if let Some(unit) = unit(component) {
                place.unit = Some(unit.to_owned());
                place.user_unit = in_user_manager;
                in_user_manager |= unit.starts_with("user@");
            }
            in_kubepods |= component.contains("kubepods");
            before = component;
        }
        place
    }
}

/// The unit a component stands for. Slices hold units and are none here.
fn unit(component: &str) -> Option<&str> {
    // systemd puts an underscore before names that cgroupfs might take for its own files
    // (cg_escape, src/basic/cgroup-util.c).
    let name = component.strip_prefix('_').unwrap_or(component);
    let (stem, kind) = name.rsplit_once('.')?;
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
    (matches!(kind, "service" | "scope" | "socket" | "mount" | "swap")
        && !stem.is_empty()
        && name.bytes().all(valid))
    .then_some(name)
}

/// The container a component stands for; `before` is the component around it.
fn container(component: &str, before: &str) -> Option<ContainerId> {
    let some = |id: &str, runtime| {
        Some(ContainerId {
            id: id.to_owned(),
            runtime,
        })
    };
    if let Some(name) = component.strip_prefix("lxc.payload.") {
        return some(name, Some(Runtime::Lxc)).filter(|_| !name.is_empty());
    }
    if matches!(before, "lxc" | "lxc.payload") {
        return some(component, Some(Runtime::Lxc));
    }
    let name = component.strip_suffix(".scope").unwrap_or(component);
    if is_id(name) {
        let runtime = match before {
            "docker" => Some(Runtime::Docker),
            "libpod_parent" => Some(Runtime::Podman),
            // Docker, containerd and others write /kubepods/…/ID; ECS writes /ecs/…/ID.
            _ => None,
        };
        return some(name, runtime);
    }
    // PREFIX-ID, or SLICE:PREFIX:ID where a runtime was handed systemd's form of a path
    // and made directories of it.
    let (prefix, id) = name.rsplit_once([':', '-'])?;
    let prefix = prefix.rsplit_once(':').map_or(prefix, |(_, last)| last);
    let runtime = match prefix {
        "docker" => Runtime::Docker,
        "cri-containerd" | "nerdctl" | "containerd" => Runtime::Containerd,
        "crio" => Runtime::Crio,
        "libpod" | "libpod-payload" => Runtime::Podman,
        // `libpod-conmon-ID` and `crio-conmon-ID` are a container's monitor, outside it.
        _ => return None,
    };
    some(id, Some(runtime)).filter(|_| is_id(id))
}

/// Docker, containerd's CRI, CRI-O and Podman make ids of 32 random bytes.
fn is_id(text: &str) -> bool {
    text.len() == 64
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// `kubepods-burstable-pod<uid>.slice` with `_` for `-` in the uid (systemd driver), or
/// `pod<uid>` below `kubepods` (cgroupfs driver).
fn pod_uid(component: &str, in_kubepods: bool) -> Option<String> {
    let name = component.split(':').next().unwrap_or(component);
    let name = name.strip_suffix(".slice").unwrap_or(name);
    let (around, uid) = name.rsplit_once("pod")?;
    let is_pod = match around {
        "" => in_kubepods,
        _ => around.contains("kubepods") && around.ends_with('-'),
    };
    // A UUID; 32 hexadecimal digits without dashes for a static pod.
    let valid = (32..=36).contains(&uid.len())
        && uid
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b'-' | b'_'));
    (is_pod && valid).then(|| uid.replace('_', "-"))
}

#[cfg(test)]
mod tests;
