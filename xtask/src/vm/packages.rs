//! What Debian packages bring, for guests that run real servers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::command::CommandExt as _;

/// Depended on, and not needed to run a server: they are most of the weight.
const LEFT_OUT: &[&str] = &["libllvm", "mysql-common"];
/// Nor are the files below these.
const UNREAD: &[&str] = &[
    "/usr/share/doc/",
    "/usr/share/man/",
    "/usr/share/locale/",
    "/usr/share/info/",
    "/usr/share/lintian/",
];
const MEND: &str = "guests get their servers from Debian's packages";
/// How a package says what it needs, and what is needed by that name.
const FORMAT: &str = "${db:Status-Abbrev}\t${Package}\t${Provides}\t${Pre-Depends},${Depends}\n";

/// The files of packages that are installed here, and of those they depend on.
pub(crate) fn files(names: &[&str]) -> Result<Vec<PathBuf>> {
    let mut dpkg = Command::new("dpkg-query");
    let listed = dpkg.args(["-W", "-f", FORMAT]).read(MEND)?;
    let wanted = with_dependencies(&parse(&listed), names)?;
    let mut dpkg = Command::new("dpkg-query");
    let files = dpkg.arg("-L").args(wanted).read(MEND)?;
    let files: BTreeSet<&str> = files.lines().filter(|line| is_read(line)).collect();
    Ok(files
        .into_iter()
        .map(PathBuf::from)
        // Folders come with what is in them; links to nothing lead nowhere there, too.
        .filter(|path| path.is_file())
        .collect())
}

fn is_read(path: &str) -> bool {
    path.starts_with('/') && !UNREAD.iter().any(|folder| path.starts_with(folder))
}

/// What is installed.
#[derive(Default)]
struct Installed {
    /// What each package needs: one of each group.
    needs: BTreeMap<String, Vec<Vec<String>>>,
    /// Which packages do what another one would.
    provided: BTreeMap<String, Vec<String>>,
}

fn parse(listed: &str) -> Installed {
    let mut installed = Installed::default();
    for line in listed.lines() {
        let fields: Vec<_> = line.splitn(4, '\t').collect();
        let [state, package, provides, needs] = fields[..] else {
            continue;
        };
        if !state.starts_with("ii") {
            continue;
        }
        for name in provides.split(',').filter_map(name) {
            let by = installed.provided.entry(name).or_default();
            by.push(package.to_owned());
        }
        let groups = needs.split(',');
        let groups = groups.map(|group| group.split('|').filter_map(name).collect());
        installed.needs.insert(package.to_owned(), groups.collect());
    }
    installed
}

/// The name in something like `python3:any (>= 3.11~)`.
fn name(dependency: &str) -> Option<String> {
    let name = dependency.trim().split([' ', ':']).next()?;
    (!name.is_empty()).then(|| name.to_owned())
}

/// Packages, what they depend on, what that depends on, and so on.
fn with_dependencies(installed: &Installed, names: &[&str]) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let mut open: Vec<String> = names.iter().copied().map(str::to_owned).collect();
    for name in &open {
        ensure!(
            installed.needs.contains_key(name),
            "no Debian package {name} is installed: run `cargo xtask setup --tests`"
        );
    }
    while let Some(package) = open.pop() {
        let left_out = LEFT_OUT.iter().any(|start| package.starts_with(start));
        if left_out || found.contains(&package) {
            continue;
        }
        let groups = installed
            .needs
            .get(&package)
            .with_context(|| format!("{package} is not installed"))?;
        for group in groups.iter().filter(|group| !group.is_empty()) {
            // Whatever was installed for it.
            let there = group
                .iter()
                .find(|name| installed.needs.contains_key(*name));
            let provided = || group.iter().find_map(|name| installed.provided.get(name));
            match (there, provided) {
                (Some(name), _) => open.push(name.clone()),
                (None, provided) => open.extend(provided().into_iter().flatten().cloned()),
            }
        }
        found.insert(package);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTED: &str = "\
ii \tserver\t\t,libc6 (>= 2.36), perl:any, mta | exim
ii \tperl\t\tdpkg (>= 1),libc6
ii \tlibc6\t\t,
ii \tdpkg\t\t,
ii \tpostfix\tmta (= 1)\t,libc6
rc \tgone\t\t,
ii \tother\t\t,libc6
";

    #[test]
    fn what_is_depended_on_comes_along() {
        let wanted = with_dependencies(&parse(LISTED), &["server"]).unwrap();
        let wanted: Vec<_> = wanted.iter().map(String::as_str).collect();
        assert_eq!(wanted, ["dpkg", "libc6", "perl", "postfix", "server"]);
    }

    #[test]
    fn what_is_not_installed_is_named() {
        let installed = parse(LISTED);
        for name in ["gone", "never"] {
            let error = with_dependencies(&installed, &[name]).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn manuals_are_not_read() {
        assert!(is_read("/usr/share/perl/5.36/strict.pm"));
        assert!(!is_read("/usr/share/doc/perl/README"));
        assert!(!is_read("package diverts others to: /lib/x"));
    }
}
