//! `cargo xtask package`: a Debian package.
//!
//! It is made by dpkg-deb, which is on every machine that can install the result. cargo-deb would be one more
//! tool to compile, and would still need the same list of files.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::command::CommandExt as _;
use crate::{build, man, setup, workspace};

const MEND: &str = "mend what it says above";
const MAINTAINER: &str = "The turnaway authors <maintainers@turnaway.invalid>";
const DPKG: &str = "run it on a Debian machine";

/// Options of `cargo xtask package`.
#[derive(Args)]
pub struct Options {
    /// Package this turnaway, instead of building one
    #[arg(long, value_name = "PATH")]
    pub turnaway: Option<PathBuf>,
    /// The package's version
    #[arg(long, default_value = concat!(env!("CARGO_PKG_VERSION"), "-1"))]
    pub version: String,
    /// Where to put the package
    #[arg(long, value_name = "DIR", default_value = "target/package")]
    pub output: PathBuf,
}

/// Makes the package and prints its path.
pub fn run(options: Options) -> Result<()> {
    let turnaway = if let Some(path) = options.turnaway {
        path
    } else {
        setup::run(setup::Options::default())?;
        build::turnaway(build::Options { release: true })?
    };
    let made = deb(&turnaway, &options.version, "xz", &options.output)?;
    println!("{}", made.display());
    Ok(())
}

/// Makes a package of a program and what belongs to it, compressed as dpkg-deb calls it; returns its path. The same
/// program and commit make the same bytes, whenever and wherever.
pub fn deb(turnaway: &Path, version: &str, compression: &str, output: &Path) -> Result<PathBuf> {
    if !version
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b".+~-".contains(&byte))
    {
        bail!("{version:?} is no version of a package: use letters, digits and . + ~ -");
    }
    fs::create_dir_all(output).with_context(|| format!("cannot create {}", output.display()))?;
    let scratch = tempfile::tempdir_in(output).context("cannot create a temporary folder")?;
    let tree = Tree(scratch.path().join("root"));
    let epoch = epoch()?;
    fill(&tree, turnaway, scratch.path())?;
    tree.changes(version, &epoch)?;
    let architecture = Command::new("dpkg")
        .arg("--print-architecture")
        .read(DPKG)?;
    let architecture = architecture.trim();
    let control = read("packaging/debian/control")?
        .replace("@VERSION@", version)
        .replace("@MAINTAINER@", MAINTAINER)
        .replace("@ARCHITECTURE@", architecture)
        .replace("@KIB@", &kib(&tree.0)?.to_string());
    tree.text("DEBIAN/control", &control, 0o644)?;
    tree.copy("packaging/debian/conffiles", "DEBIAN/conffiles", 0o644)?;
    for script in ["postinst", "prerm", "postrm"] {
        let from = format!("packaging/debian/{script}");
        tree.copy(&from, &format!("DEBIAN/{script}"), 0o755)?;
    }
    let made = output.join(format!("turnaway_{version}_{architecture}.deb"));
    Command::new("dpkg-deb")
        .args(["--root-owner-group", "-Z", compression, "--build"])
        .args([&tree.0, &made])
        // No file is newer than that.
        .env("SOURCE_DATE_EPOCH", &epoch)
        .quiet(DPKG)?;
    Ok(made)
}

/// Everything that gets installed.
fn fill(tree: &Tree, turnaway: &Path, scratch: &Path) -> Result<()> {
    let program = tree.file("usr/bin/turnaway", 0o755)?;
    // Lines of the source are most of its size; a panic says where it was all the same.
    Command::new("strip")
        .arg("-o")
        .args([&program, turnaway])
        .quiet("install binutils")?;
    mode(&program, 0o755)?;

    // Notifiers' addresses may be secrets.
    tree.copy(
        "packaging/debian/turnaway.toml",
        "etc/turnaway/turnaway.toml",
        0o640,
    )?;
    let plain = [
        (
            "packaging/systemd/turnaway.service",
            "usr/lib/systemd/system/turnaway.service",
        ),
        (
            "packaging/systemd/turnaway.service.d/few-privileges.conf",
            "usr/share/turnaway/systemd/few-privileges.conf",
        ),
        (
            "packaging/prometheus/turnaway.rules.yml",
            "usr/share/turnaway/prometheus/turnaway.rules.yml",
        ),
        (
            "packaging/grafana/turnaway.json",
            "usr/share/turnaway/grafana/turnaway.json",
        ),
    ];
    for (from, to) in plain {
        tree.copy(from, to, 0o644)?;
    }
    let licence = read("LICENSE-MIT")?;
    // An empty line would end the paragraph.
    let licence: Vec<String> = licence
        .lines()
        .map(|line| format!(" {}", if line.is_empty() { "." } else { line }))
        .collect();
    let copyright = format!(
        "{}License: Expat\n{}\n",
        read("packaging/debian/copyright")?,
        licence.join("\n")
    );
    tree.text("usr/share/doc/turnaway/copyright", &copyright, 0o644)?;

    let generated = scratch.join("generated");
    man::write(turnaway, &generated)?;
    for page in files(&generated.join("man1"))? {
        let name = page.file_name().context("no name")?.to_string_lossy();
        let to = tree.file(&format!("usr/share/man/man1/{name}"), 0o644)?;
        fs::copy(&page, &to).with_context(|| format!("cannot copy {}", page.display()))?;
        compress(&to)?;
    }
    let completions = [
        ("turnaway.bash", "bash-completion/completions/turnaway"),
        ("_turnaway", "zsh/vendor-completions/_turnaway"),
        ("turnaway.fish", "fish/vendor_completions.d/turnaway.fish"),
    ];
    for (from, to) in completions {
        let text = fs::read_to_string(generated.join("completions").join(from))
            .with_context(|| format!("no completions {from}"))?;
        tree.text(&format!("usr/share/{to}"), &text, 0o644)?;
    }
    Ok(())
}

/// The files of a package before they are packed.
struct Tree(PathBuf);

impl Tree {
    /// Where a file goes, with the folders above it; it is there, and empty.
    fn file(&self, to: &str, bits: u32) -> Result<PathBuf> {
        let path = self.0.join(to);
        let mut missing = Vec::new();
        let mut folder = path.parent();
        while let Some(one) = folder.filter(|one| !one.exists()) {
            missing.push(one);
            folder = one.parent();
        }
        for one in missing.into_iter().rev() {
            fs::create_dir_all(one).with_context(|| format!("cannot create {}", one.display()))?;
            mode(one, 0o755)?;
        }
        fs::write(&path, "").with_context(|| format!("cannot write {}", path.display()))?;
        mode(&path, bits)?;
        Ok(path)
    }

    fn text(&self, to: &str, text: &str, bits: u32) -> Result<()> {
        let path = self.file(to, bits)?;
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// What changed: in the product, and, as Debian's tools read it, in the package.
    fn changes(&self, version: &str, epoch: &str) -> Result<()> {
        let date = Command::new("date")
            .args(["--utc", "--rfc-email", "--date", &format!("@{epoch}")])
            .read("SOURCE_DATE_EPOCH is in seconds")?;
        let package = format!(
            "turnaway ({version}) unstable; urgency=medium\n\n  * See changelog.gz.\n\n -- {MAINTAINER}  {date}"
        );
        let texts = [
            ("changelog", read("CHANGELOG.md")?),
            ("changelog.Debian", package),
        ];
        for (name, text) in texts {
            let to = format!("usr/share/doc/turnaway/{name}");
            self.text(&to, &text, 0o644)?;
            compress(&self.0.join(to))?;
        }
        Ok(())
    }

    fn copy(&self, from: &str, to: &str, bits: u32) -> Result<()> {
        self.text(to, &read(from)?, bits)
    }
}

/// A file of the repository.
fn read(path: &str) -> Result<String> {
    fs::read_to_string(workspace::root().join(path)).with_context(|| format!("cannot read {path}"))
}

/// What whoever runs this lets others do must not matter.
fn mode(path: &Path, bits: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(bits))
        .with_context(|| format!("cannot change the mode of {}", path.display()))
}

fn compress(path: &Path) -> Result<()> {
    Command::new("gzip").arg("-9n").arg(path).quiet(MEND)
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("no {}", folder.display()))?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

/// Room that files take, as packages have it.
fn kib(folder: &Path) -> Result<u64> {
    let mut sum = 0;
    for path in files(folder)? {
        let of = fs::symlink_metadata(&path)?;
        sum += if of.is_dir() {
            1 + kib(&path)?
        } else {
            of.len().div_ceil(1024)
        };
    }
    Ok(sum)
}

/// When the last commit was made, unless the environment says otherwise.
fn epoch() -> Result<String> {
    if let Ok(told) = std::env::var("SOURCE_DATE_EPOCH") {
        return Ok(told);
    }
    let time = Command::new("git")
        .current_dir(workspace::root())
        .args(["log", "-1", "--format=%ct"])
        .read("set SOURCE_DATE_EPOCH where there is no git")?;
    Ok(time.trim().to_owned())
}
