use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Instant,
};

use super::{BELIEVED, Doors, Known, inode_in, parse_mounts};

fn process(root: &Path, pid: u32, namespace: &str) {
    let directory = root.join(format!("proc/{pid}/ns"));
    fs::create_dir_all(&directory).expect("created");
    let link = directory.join("net");
    let _ = fs::remove_file(&link);
    symlink(namespace, link).expect("linked");
}

fn pids(known: &Known, inode: u32) -> Vec<u32> {
    let mut pids = known
        .doors()
        .remove(&inode)
        .map_or_else(Vec::new, |doors| doors.pids);
    pids.sort_unstable();
    pids
}

#[test]
fn names_of_namespaces() {
    for (name, inode) in [
        ("net:[4026531840]", Some(4_026_531_840)),
        ("net:[]", None),
        ("net:[4294967296]", None),
        ("mnt:[4026531841]", None),
        ("/", None),
    ] {
        assert_eq!(inode_in(name.as_bytes()), inode, "{name}");
    }
}

#[test]
fn mounted_namespaces() {
    let mountinfo = b"28 1 8:1 / / rw shared:1 - ext4 /dev/vda1 rw\n\
        90 28 0:4 net:[4026532285] /run/netns/a\\040b rw shared:9 - nsfs nsfs rw\n\
        91 28 0:4 mnt:[4026532286] /run/snapd/ns/x.mnt rw - nsfs nsfs rw\n\
        92\n\n\
        93 28 0:4 net:[4026532287] /run/netns/c rw - nsfs nsfs rw\n";
    assert_eq!(
        parse_mounts(mountinfo),
        [
            (4_026_532_285, PathBuf::from("/run/netns/a b")),
            (4_026_532_287, PathBuf::from("/run/netns/c")),
        ]
    );
}

#[test]
fn new_processes_are_seen_at_once_and_moved_ones_later() {
    let root = tempfile::tempdir().expect("a directory");
    let root = root.path();
    let start = Instant::now();
    let mut known = Known::new(root);
    known.few = 0;
    known.refresh(start);
    assert!(known.doors().is_empty());

    process(root, 7, "net:[100]");
    process(root, 8, "net:[100]");
    fs::create_dir_all(root.join("proc/9")).expect("created");
    fs::create_dir_all(root.join("proc/sys/ns")).expect("created");
    known.refresh(start);
    assert_eq!(pids(&known, 100), [7, 8]);

    // Moved: believed for a while. Gone: noticed at once.
    process(root, 7, "net:[200]");
    fs::remove_dir_all(root.join("proc/8")).expect("removed");
    known.refresh(start + BELIEVED.mul_f32(0.99));
    assert_eq!(pids(&known, 100), [7]);
    known.refresh(start + BELIEVED);
    assert_eq!(pids(&known, 100), [0; 0]);
    assert_eq!(pids(&known, 200), [7]);
}

#[test]
fn a_door_that_leads_elsewhere_is_looked_at_again() {
    let root = tempfile::tempdir().expect("a directory");
    let start = Instant::now();
    let mut known = Known::new(root.path());
    process(root.path(), 7, "net:[100]");
    known.refresh(start);
    let doors = known.doors().remove(&100).expect("known");
    assert_eq!(
        doors,
        Doors {
            mounts: Vec::new(),
            pids: vec![7]
        }
    );
    // The link of this made-up process leads nowhere.
    assert!(known.open(100, &doors).expect("no refusal").is_none());
    process(root.path(), 7, "net:[200]");
    known.refresh(start);
    assert_eq!(pids(&known, 200), [7]);
}
