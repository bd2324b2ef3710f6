//! Links within the repository.

use std::collections::BTreeMap;

use super::blocks::{documents, root};
use super::commands;

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let documents = documents();
    let anchors: BTreeMap<&str, &[String]> = documents
        .iter()
        .map(|one| (one.name.as_str(), one.anchors.as_slice()))
        .collect();
    let root = root();
    let mut checked = 0;
    let mut wrong = Vec::new();
    for document in &documents {
        for (line, link) in &document.links {
            let at = format!("{}:{line}: {link}", document.name);
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            checked += 1;
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let from = root.join(&document.name);
            let target = if path.is_empty() {
                from.clone()
            } else {
                from.parent().unwrap().join(path)
            };
            let Ok(target) = target.canonicalize() else {
                wrong.push(format!("{at}: no such file"));
                continue;
            };
            let Ok(name) = target.strip_prefix(&root) else {
                wrong.push(format!("{at}: outside of the repository"));
                continue;
            };
            if !anchor.is_empty() {
                let known = anchors.get(name.to_string_lossy().as_ref());
                if !known.is_some_and(|known| known.iter().any(|one| one == anchor)) {
                    wrong.push(format!("{at}: no such heading"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(checked > 150, "only {checked} links were looked at");
}

#[test]
fn every_command_has_a_page_and_the_list_has_all() {
    let documents = documents();
    let list = documents
        .iter()
        .find(|one| one.name == "docs/commands/README.md")
        .unwrap();
    for (path, _) in commands::all() {
        let [command] = path.as_slice() else {
            continue;
        };
        let pages = [
            format!("docs/commands/{command}.md"),
            format!("docs/{command}.md"),
        ];
        let page = documents.iter().find(|one| pages.contains(&one.name));
        assert!(page.is_some(), "none of {pages:?} is there");
        let title = format!("turnaway {command}");
        assert!(
            list.spans.iter().any(|(_, code)| *code == title),
            "docs/commands/README.md does not name `{title}`"
        );
    }
}
