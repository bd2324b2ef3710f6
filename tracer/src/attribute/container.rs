//! Names of containers, images and pods, from the runtimes' own files. No API is called.

use std::{
    fs::{self, OpenOptions},
    io::Read as _,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use serde_json::Value;

use super::cgroup::{ContainerId, Runtime};

/// Most bytes of a runtime's file that are read, 1 MiB: real ones hold a few kilobytes.
const MAX_BYTES: u64 = 1 << 20;

/// Docker's state: a directory for each container.
const DOCKER: &str = "var/lib/docker/containers";
/// containerd's bundles: a directory for each namespace, in it one for each container.
const CONTAINERD: [&str; 2] = [
    "run/containerd/io.containerd.runtime.v2.task",
    "run/k3s/containerd/io.containerd.runtime.v2.task",
];
/// State of containers/storage, which CRI-O and Podman share.
const STORAGE: [&str; 2] = [
    "run/containers/storage/overlay-containers",
    "var/lib/containers/storage/overlay-containers",
];

/// A container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// 64 hexadecimal digits; a name for LXC.
    pub id: String,
    /// What runs it; `None` where neither the cgroup path nor a file told.
    pub runtime: Option<Runtime>,
    /// Name given by people or by Kubernetes.
    pub name: Option<String>,
    /// Image as it was asked for.
    pub image: Option<String>,
    /// Its pod.
    pub pod: Option<Pod>,
}

/// A Kubernetes pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// Kubernetes' uid.
    pub uid: Option<String>,
    /// Name.
    pub name: Option<String>,
    /// Namespace.
    pub namespace: Option<String>,
}

impl Container {
    /// A container of which only what its cgroup path tells is known.
    #[must_use]
    pub fn unnamed(id: ContainerId) -> Self {
        Self {
            // LXC containers have no id but their name.
            name: (id.runtime == Some(Runtime::Lxc)).then(|| id.id.clone()),
            id: id.id,
            runtime: id.runtime,
            image: None,
            pod: None,
        }
    }

    /// Looks the container up in the files of its runtime, below `root`; of every
    /// runtime where the cgroup path left open which one it is.
    #[must_use]
    pub fn look_up(root: &Path, id: ContainerId) -> Self {
        let unnamed = Self::unnamed(id);
        let found = match unnamed.runtime {
            Some(Runtime::Docker) => docker(root, &unnamed.id),
            Some(Runtime::Containerd) => containerd(root, &unnamed.id),
            Some(Runtime::Crio | Runtime::Podman) => storage(root, &unnamed.id),
            Some(Runtime::Lxc) => None,
            // Docker's containers are containerd's too, so Docker is asked first.
            None => docker(root, &unnamed.id)
                .or_else(|| containerd(root, &unnamed.id))
                .or_else(|| storage(root, &unnamed.id)),
        };
        let Some(found) = found else { return unnamed };
        Self {
            runtime: unnamed.runtime.or(Some(found.runtime)),
            name: found.name,
            image: found.image,
            pod: (found.pod != Pod::default()).then_some(found.pod),
            ..unnamed
        }
    }
}

/// What a runtime's files say.
struct Found {
    runtime: Runtime,
    name: Option<String>,
    image: Option<String>,
    pod: Pod,
}

fn docker(root: &Path, id: &str) -> Option<Found> {
    let config = read_json(&root.join(DOCKER).join(id).join("config.v2.json"))?;
    let label = |key| text(&config, &["Config", "Labels", key]);
    // Under Kubernetes (cri-dockerd) the name is one made up for Docker.
    let name = label("io.kubernetes.container.name")
        .or_else(|| text(&config, &["Name"]).map(|name| name.trim_start_matches('/').to_owned()));
    Some(Found {
        runtime: Runtime::Docker,
        name: name.filter(|name| !name.is_empty()),
        image: text(&config, &["Config", "Image"]),
        pod: Pod {
            uid: label("io.kubernetes.pod.uid"),
            name: label("io.kubernetes.pod.name"),
            namespace: label("io.kubernetes.pod.namespace"),
        },
    })
}

fn containerd(root: &Path, id: &str) -> Option<Found> {
    let namespaces = CONTAINERD.iter().filter_map(|tasks| {
        let entries = fs::read_dir(root.join(tasks)).ok()?;
        Some(entries.filter_map(Result::ok))
    });
    let config = namespaces
        .flatten()
        .find_map(|namespace| read_json(&namespace.path().join(id).join("config.json")))?;
    let note = |key| text(&config, &["annotations", key]);
    Some(Found {
        runtime: Runtime::Containerd,
        name: note("io.kubernetes.cri.container-name").or_else(|| note("nerdctl/name")),
        image: note("io.kubernetes.cri.image-name"),
        pod: Pod {
            uid: note("io.kubernetes.cri.sandbox-uid"),
            name: note("io.kubernetes.cri.sandbox-name"),
            namespace: note("io.kubernetes.cri.sandbox-namespace"),
        },
    })
}

fn storage(root: &Path, id: &str) -> Option<Found> {
    let spec = STORAGE.iter().find_map(|containers| {
        let container = root.join(containers).join(id);
        read_json(&container.join("userdata/config.json"))
    });
    let note = |key| text(spec.as_ref()?, &["annotations", key]);
    if let Some(name) = note("io.kubernetes.container.name") {
        return Some(Found {
            runtime: Runtime::Crio,
            name: Some(name),
            image: note("io.kubernetes.cri-o.ImageName")
                .or_else(|| note("io.kubernetes.cri-o.Image")),
            pod: Pod {
                uid: note("io.kubernetes.pod.uid"),
                name: note("io.kubernetes.pod.name"),
                namespace: note("io.kubernetes.pod.namespace"),
            },
        });
    }
    STORAGE.iter().find_map(|containers| {
        let list = read_json(&root.join(containers).join("containers.json"))?;
        let entry = list
            .as_array()?
            .iter()
            .find(|entry| text(entry, &["id"]).as_deref() == Some(id))?;
        // JSON in a string (libpod's metadata).
        let metadata = text(entry, &["metadata"])
            .and_then(|metadata| serde_json::from_str::<Value>(&metadata).ok());
        Some(Found {
            runtime: Runtime::Podman,
            name: entry
                .get("names")
                .and_then(|names| text(names.get(0)?, &[])),
            image: metadata.and_then(|metadata| text(&metadata, &["image-name"])),
            pod: Pod::default(),
        })
    })
}

/// A string inside a JSON value; empty ones tell nothing.
fn text(value: &Value, path: &[&str]) -> Option<String> {
    path.iter()
        .try_fold(value, |value, key| value.get(key))?
        .as_str()
        .filter(|text| !text.is_empty())
        .map(str::to_owned)
}

/// A JSON file, unless it is larger than [`MAX_BYTES`].
fn read_json(path: &Path) -> Option<Value> {
    let file = OpenOptions::new()
        .read(true)
        // A FIFO in a file's place must not hang the program.
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .ok()?;
    let mut content = Vec::new();
    let read = file.take(MAX_BYTES + 1).read_to_end(&mut content).ok()?;
    if read as u64 > MAX_BYTES {
        return None;
    }
    serde_json::from_slice(&content).ok()
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::{Container, ContainerId, MAX_BYTES, Pod, Runtime};

    const ID: &str = "4f5cbdb2ca0e9a3e4f2d4a1c0b9e8d7c6f5a4b3c2d1e0f9a8b7c6d5e4f3a2b1c";

    fn write(root: &Path, path: &str, content: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("a directory")).expect("created");
        fs::write(path, content).expect("written");
    }

    fn look_up(root: &Path, runtime: impl Into<Option<Runtime>>) -> Container {
        let id = ContainerId {
            id: ID.to_owned(),
            runtime: runtime.into(),
        };
        Container::look_up(root, id)
    }

    fn pod(uid: &str, name: &str, namespace: &str) -> Pod {
        Pod {
            uid: Some(uid.to_owned()),
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
        }
    }

    fn expect(runtime: Runtime, name: &str, image: &str, pod: Option<Pod>) -> Container {
        Container {
            id: ID.to_owned(),
            runtime: Some(runtime),
            name: Some(name.to_owned()),
            image: Some(image.to_owned()),
            pod,
        }
    }

    #[test]
    fn docker() {
        let root = tempfile::tempdir().expect("a directory");
        let config = format!("var/lib/docker/containers/{ID}/config.v2.json");
        write(
            root.path(),
            &config,
            r#"{"Name":"/web","Config":{"Image":"nginx:1.27","Labels":{"a":1}},"State":{}}"#,
        );
        let expected = expect(Runtime::Docker, "web", "nginx:1.27", None);
        assert_eq!(look_up(root.path(), Runtime::Docker), expected);
        assert_eq!(look_up(root.path(), None), expected);
    }

    #[test]
    fn docker_under_kubernetes() {
        let root = tempfile::tempdir().expect("a directory");
        write(
            root.path(),
            &format!("var/lib/docker/containers/{ID}/config.v2.json"),
            r#"{"Name":"/k8s_app_web_shop_u_0","Config":{"Image":"app@sha256:1","Labels":{
                "io.kubernetes.container.name":"app","io.kubernetes.pod.name":"web-0",
                "io.kubernetes.pod.namespace":"shop","io.kubernetes.pod.uid":"u"}}}"#,
        );
        assert_eq!(
            look_up(root.path(), None),
            expect(
                Runtime::Docker,
                "app",
                "app@sha256:1",
                Some(pod("u", "web-0", "shop"))
            )
        );
    }

    #[test]
    fn containerd_in_any_of_its_namespaces() {
        for tasks in ["run/containerd", "run/k3s/containerd"] {
            let root = tempfile::tempdir().expect("a directory");
            let tasks = format!("{tasks}/io.containerd.runtime.v2.task");
            write(
                root.path(),
                &format!("{tasks}/moby/other/config.json"),
                "{}",
            );
            write(
                root.path(),
                &format!("{tasks}/k8s.io/{ID}/config.json"),
                r#"{"ociVersion":"1.1.0","annotations":{
                    "io.kubernetes.cri.container-name":"app",
                    "io.kubernetes.cri.container-type":"container",
                    "io.kubernetes.cri.image-name":"registry/app:7",
                    "io.kubernetes.cri.sandbox-name":"web-0",
                    "io.kubernetes.cri.sandbox-namespace":"shop",
                    "io.kubernetes.cri.sandbox-uid":"u"}}"#,
            );
            let expected = expect(
                Runtime::Containerd,
                "app",
                "registry/app:7",
                Some(pod("u", "web-0", "shop")),
            );
            assert_eq!(look_up(root.path(), Runtime::Containerd), expected);
            assert_eq!(look_up(root.path(), None), expected);
        }
    }

    #[test]
    fn crio() {
        for place in ["run", "var/lib"] {
            let root = tempfile::tempdir().expect("a directory");
            write(
                root.path(),
                &format!("{place}/containers/storage/overlay-containers/{ID}/userdata/config.json"),
                r#"{"annotations":{"io.kubernetes.container.name":"app",
                    "io.kubernetes.pod.name":"web-0","io.kubernetes.pod.namespace":"shop",
                    "io.kubernetes.pod.uid":"u",
                    "io.kubernetes.cri-o.ImageName":"registry/app:7"}}"#,
            );
            let expected = expect(
                Runtime::Crio,
                "app",
                "registry/app:7",
                Some(pod("u", "web-0", "shop")),
            );
            assert_eq!(look_up(root.path(), Runtime::Crio), expected);
            assert_eq!(look_up(root.path(), None), expected);
        }
    }

    #[test]
    fn podman() {
        let root = tempfile::tempdir().expect("a directory");
        let storage = "var/lib/containers/storage/overlay-containers";
        // Podman's own spec holds no names.
        write(
            root.path(),
            &format!("{storage}/{ID}/userdata/config.json"),
            r#"{"annotations":{"io.container.manager":"libpod"}}"#,
        );
        write(
            root.path(),
            &format!("{storage}/containers.json"),
            &format!(
                r#"[{{"id":"other","names":["db"]}},{{"id":"{ID}","names":["web","alias"],
                    "metadata":"{{\"image-name\":\"docker.io/library/nginx:latest\"}}"}}]"#
            ),
        );
        assert_eq!(
            look_up(root.path(), Runtime::Podman),
            expect(
                Runtime::Podman,
                "web",
                "docker.io/library/nginx:latest",
                None
            )
        );
    }

    #[test]
    fn lxc_is_named_by_its_path() {
        let root = tempfile::tempdir().expect("a directory");
        let container = look_up(root.path(), Runtime::Lxc);
        assert_eq!(container.name.as_deref(), Some(ID));
    }

    #[test]
    fn what_is_not_there_or_not_right_is_unknown() {
        let too_large = " ".repeat(usize::try_from(MAX_BYTES).expect("fits")) + "{}";
        for content in [
            "",
            "{",
            "[]",
            "null",
            r#"{"Name":7,"Config":[]}"#,
            r#"{"Name":"/"}"#,
            too_large.as_str(),
        ] {
            let root = tempfile::tempdir().expect("a directory");
            let config = format!("var/lib/docker/containers/{ID}/config.v2.json");
            write(root.path(), &config, content);
            let container = look_up(root.path(), Runtime::Docker);
            assert_eq!(
                (container.name, container.image, container.pod),
                (None, None, None)
            );
        }
        let root = tempfile::tempdir().expect("a directory");
        assert_eq!(look_up(root.path(), None).runtime, None);
    }
}
