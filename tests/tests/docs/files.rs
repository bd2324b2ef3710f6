//! Configurations and records in documents.

use std::fs;
use std::path::Path;
use std::process::Command;

use turnaway_tests::tracer;

use super::blocks::documents;
use super::stage;

/// Has the program read a file, which must be right.
fn accepted(at: &str, arguments: &[&str], dir: &Path) {
    let output = Command::new(tracer::binary().unwrap())
        .args(arguments)
        .current_dir(dir)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{at}: {said}{shown}");
}

#[test]
fn every_configuration_is_right() {
    let mut configurations = 0;
    for document in documents() {
        for block in document.blocks.iter().filter(|one| one.language == "toml") {
            let at = format!("{}:{}", document.name, block.line);
            let dir = tempfile::tempdir().unwrap();
            stage::furnish(dir.path());
            let file = dir.path().join("example.toml");
            fs::write(&file, stage::moved(&block.code, dir.path())).unwrap();
            if block.code.contains("[[expect]]") {
                accepted(&at, &["rules", "test", "example.toml"], dir.path());
            } else {
                accepted(&at, &["check-config", "example.toml"], dir.path());
            }
            configurations += 1;
        }
    }
    assert!(configurations >= 10, "only {configurations}");
}

#[test]
fn every_json_is_json() {
    let mut found = 0;
    for document in documents() {
        for block in &document.blocks {
            let at = format!("{}:{}", document.name, block.line);
            let text = match block.language.as_str() {
                "json" => block.code.clone(),
                // With remarks, which are for readers.
                "jsonc" => {
                    let lines = block.code.lines();
                    let lines = lines.map(|line| line.split(" //").next().unwrap_or_default());
                    lines.collect::<Vec<_>>().join("\n")
                }
                _ => continue,
            };
            let parsed = serde_json::from_str::<serde_json::Value>(&text);
            assert!(parsed.is_ok(), "{at}: {parsed:?}");
            found += 1;
        }
    }
    assert!(found >= 10, "only {found}");
}
