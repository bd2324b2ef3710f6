//! turnaway itself in a container, with no more than the manifest for Kubernetes gives it.

use std::fs;
use std::path::Path;
use std::process::Command;

use turnaway_tests::apart::{mount, with_mounts};
use turnaway_tests::servers::acceptor::Acceptor;
use turnaway_tests::tracer::{self, Tracer};
use turnaway_tests::{servers::podman, sys};

fn packaging(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../packaging")
        .join(path)
}

/// What the manifest says behind a word, the first time.
fn said<'a>(manifest: &'a str, word: &str) -> &'a str {
    let (_, rest) = manifest.split_once(word).unwrap();
    rest.split(['\n', '}', ',']).next().unwrap().trim()
}

/// The capabilities and the mounts of the host's folders for reading, as Podman has them.
fn given(manifest: &str) -> Vec<String> {
    let (_, list) = manifest.split_once("add: [").unwrap();
    let capabilities = list.split(']').next().unwrap().split(", ");
    let mut given = vec!["--cap-drop=all".to_owned()];
    given.extend(capabilities.map(|one| format!("--cap-add={one}")));
    let mounts: Vec<&str> = manifest
        .lines()
        .filter(|line| line.contains("readOnly: true") && line.contains("mountPath: /sys"))
        .collect();
    assert_eq!(mounts.len(), 2, "{mounts:?}");
    given.extend(mounts.iter().map(|line| {
        let path = said(line, "mountPath:");
        assert!(
            manifest.contains(&format!("hostPath: {{path: {path},")),
            "{line}"
        );
        format!("--volume={path}:{path}:ro")
    }));
    for (word, option) in [
        ("hostPID: true", "--pid=host"),
        ("hostNetwork: true", "--network=host"),
    ] {
        assert!(manifest.contains(word));
        given.push(option.to_owned());
    }
    assert_eq!(said(manifest, "readOnlyRootFilesystem:"), "true");
    given.push("--read-only".to_owned());
    assert_eq!(said(manifest, "allowPrivilegeEscalation:"), "false");
    given.push("--security-opt=no-new-privileges".to_owned());
    assert_eq!(said(manifest, "privileged:"), "false");
    given
}

/// An image of the program to test. It is removed when this is dropped.
struct Image(String);

impl Image {
    fn build() -> Self {
        let context = tempfile::tempdir().unwrap();
        fs::copy(tracer::binary().unwrap(), context.path().join("turnaway")).unwrap();
        let image = Self(format!("localhost/turnaway-test:{}", sys::own_pid()));
        let output = podman()
            .args(["build", "--tag", &image.0, "--file"])
            .arg(packaging("container/Containerfile"))
            .arg(context.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        image
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // It fails only where there is none.
        let _ = podman().args(["rmi", "--force", &self.0]).output();
    }
}

/// Podman's command for it.
fn run(image: &Image, manifest: &str, arguments: &[&str]) -> Command {
    let mut command = podman();
    command
        .args(["run", "--rm"])
        .args(["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"])
        .args(given(manifest))
        .arg(&image.0)
        .args(arguments);
    command
}

#[test]
fn what_the_manifest_gives_is_enough() {
    let manifest = fs::read_to_string(packaging("kubernetes/turnaway.yaml")).unwrap();
    with_mounts(|| {
        let place = "/sys/kernel/tracing";
        if !Path::new(place).join("events").exists() {
            mount(&["-t", "tracefs", "tracefs", place])?;
        }
        let image = Image::build();
        let mut acceptor = Acceptor::run(&tracer::scenarios()?)?;
        let port = acceptor.port.to_string();
        let arguments = ["trace", "--json", "--reason", "accept", "-P", &port];
        let tracer = Tracer::spawn(&mut run(&image, &manifest, &arguments))?;
        let _client = acceptor.client()?;
        assert_eq!(acceptor.fail(17)?, 17);
        let run = tracer.stop()?;
        let records = run.records()?;
        let ours: Vec<_> = records
            .summary
            .totals
            .iter()
            .filter(|total| total.reason == "accept.emfile" && total.process.pid == acceptor.pid)
            .collect();
        let [total] = ours[..] else {
            panic!("not one total of {}: {ours:?}", acceptor.pid);
        };
        assert_eq!(total.count, Some(17));
        assert_eq!(total.process.exe.as_deref(), tracer::scenarios()?.to_str());
        assert!(!run.stderr.contains("is missing"), "{}", run.stderr);
        acceptor.recover()?;
        acceptor.finish()?;
        Ok(())
    })
    .unwrap();
}
