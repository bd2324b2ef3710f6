//! The kernel modules a guest gets.

use std::collections::HashMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// What the tests need and cloud kernels keep in modules.
const WANTED: &[&str] = &[
    "inet_diag", // sock_diag for TCP listeners …
    "tcp_diag",
    "unix_diag",      // … and for AF_UNIX ones
    "vsock_loopback", // AF_VSOCK within one machine
    "nft_ct",         // tracked connections, for whoever asks for their state
];

/// A module as the kernel takes it.
#[derive(Debug)]
pub(crate) struct Module {
    pub(crate) name: String,
    pub(crate) image: Vec<u8>,
}

/// The modules that every guest has, `more`, and those they depend on, in the order to load them.
pub(crate) fn collect(modules: &Path, more: &[String]) -> Result<Vec<Module>> {
    let mut files = HashMap::new();
    index(&modules.join("kernel"), &mut files)?;
    let more = more.iter().map(String::as_str);
    let wanted: Vec<_> = WANTED.iter().copied().chain(more).collect();
    in_order(&wanted, |name| {
        let file = files.get(name).with_context(|| {
            format!(
                "no kernel module {name} in {}: if it is built in by now, \
                 take it off the list of wanted modules",
                modules.display()
            )
        })?;
        read(file)
    })
}

/// Finds all modules under a folder, by name.
fn index(dir: &Path, files: &mut HashMap<String, PathBuf>) -> Result<()> {
    let cannot_read = || format!("cannot read {}", dir.display());
    for entry in dir.read_dir().with_context(cannot_read)? {
        let path = entry.with_context(cannot_read)?.path();
        if path.is_dir() {
            index(&path, files)?;
        } else if let Some(name) = module_name(&path) {
            files.insert(name, path);
        }
    }
    Ok(())
}

/// The kernel takes `-` and `_` for the same in module names; it prints the latter.
fn module_name(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    let (name, _compression) = file.split_once(".ko")?;
    Some(name.replace('-', "_"))
}

fn read(file: &Path) -> Result<Vec<u8>> {
    let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("ko") => Ok(bytes),
        Some("xz") => {
            let mut image = Vec::new();
            lzma_rust2::XzReader::new(bytes.as_slice(), true)
                .read_to_end(&mut image)
                .with_context(|| format!("cannot decompress {}", file.display()))?;
            Ok(image)
        }
        _ => bail!(
            "cannot decompress {}: only xz is known so far",
            file.display()
        ),
    }
}

/// Loads the wanted modules and all they depend on, each after its dependencies.
fn in_order(wanted: &[&str], load: impl Fn(&str) -> Result<Vec<u8>>) -> Result<Vec<Module>> {
    fn visit(
        name: &str,
        load: &impl Fn(&str) -> Result<Vec<u8>>,
        ordered: &mut Vec<Module>,
    ) -> Result<()> {
        if ordered.iter().any(|module| module.name == name) {
            return Ok(());
        }
        let image = load(name)?;
        // The kernel's build refuses cycles, so this ends.
        for dependency in depends(&image) {
            visit(&dependency, load, ordered)?;
        }
        ordered.push(Module {
            name: name.to_owned(),
            image,
        });
        Ok(())
    }

    let mut ordered = Vec::new();
    for name in wanted {
        visit(name, &load, &mut ordered)?;
    }
    Ok(ordered)
}

/// What a module says it depends on.
///
/// Debian's packages have no `modules.dep` (depmod makes it at installation), but every module
/// carries `depends=a,b` among the zero-terminated strings of its `.modinfo` section.
fn depends(image: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(start) = image.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let value = image[start + KEY.len()..]
        .split(|&byte| byte == 0)
        .next()
        .unwrap_or_default();
    String::from_utf8_lossy(value)
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read_from_modinfo() {
        let image = b"\x7fELF..\0license=GPL\0depends=vsock,virtio-common\0name=x\0";
        assert_eq!(depends(image), ["vsock", "virtio_common"]);
        assert!(depends(b"\0license=GPL\0depends=\0name=x\0").is_empty());
        assert!(depends(b"no modinfo").is_empty());
    }

    #[test]
    fn modules_come_after_their_dependencies_and_once() {
        let load = |name: &str| {
            let depends = match name {
                "loopback" => "common,core",
                "common" => "core",
                "core" | "other" => "",
                _ => bail!("no module {name}"),
            };
            Ok(format!("\0depends={depends}\0").into_bytes())
        };
        let order = in_order(&["loopback", "other", "core"], load).unwrap();
        let names: Vec<_> = order.iter().map(|module| module.name.as_str()).collect();
        assert_eq!(names, ["core", "common", "loopback", "other"]);
        assert!(in_order(&["absent"], load).is_err());
    }

    #[test]
    fn module_names_are_normalised() {
        for (path, name) in [
            ("net/unix/unix_diag.ko", Some("unix_diag")),
            ("net/tcp-diag.ko.xz", Some("tcp_diag")),
            ("modules.order", None),
        ] {
            assert_eq!(module_name(Path::new(path)).as_deref(), name);
        }
    }
}
