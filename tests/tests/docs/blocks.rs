//! What a document has in it.

use std::fs;
use std::path::{Path, PathBuf};

use pulldown_cmark::{CodeBlockKind, Event, HeadingLevel, Options, Parser, Tag, TagEnd};

/// The repository's root.
pub(super) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .unwrap()
}

/// A document of the repository.
pub(super) struct Document {
    /// Its path in the repository.
    pub(super) name: String,
    /// Code in blocks, each with its language, "" where none is said, and the line it begins at.
    pub(super) blocks: Vec<Block>,
    /// Code within sentences.
    pub(super) spans: Vec<(usize, String)>,
    /// Where links lead.
    pub(super) links: Vec<(usize, String)>,
    /// Headings, as links name them.
    pub(super) anchors: Vec<String>,
}

/// A block of code.
pub(super) struct Block {
    pub(super) line: usize,
    pub(super) language: String,
    pub(super) code: String,
}

/// All documents that the repository has.
pub(super) fn documents() -> Vec<Document> {
    let root = root();
    let mut found = Vec::new();
    for folder in [".", "docs", "docs/commands", "docs/reasons", "packaging"] {
        let Ok(entries) = fs::read_dir(root.join(folder)) else {
            continue;
        };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|end| end == "md") {
                found.push(document(&root, &path));
            }
        }
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    assert!(found.len() > 40, "only {} documents", found.len());
    found
}

fn document(root: &Path, path: &Path) -> Document {
    let path = path.canonicalize().unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let mut document = Document {
        name: path.strip_prefix(root).unwrap().display().to_string(),
        blocks: Vec::new(),
        spans: Vec::new(),
        links: Vec::new(),
        anchors: Vec::new(),
    };
    let line = |at: usize| text[..at].matches('\n').count() + 1;
    let mut heading: Option<String> = None;
    let mut block: Option<Block> = None;
    for (event, range) in Parser::new_ext(&text, Options::ENABLE_TABLES).into_offset_iter() {
        match event {
            Event::Start(Tag::CodeBlock(kind)) => {
                let language = match kind {
                    CodeBlockKind::Fenced(language) => language.to_string(),
                    CodeBlockKind::Indented => String::new(),
                };
                block = Some(Block {
                    line: line(range.start),
                    language,
                    code: String::new(),
                });
            }
            Event::End(TagEnd::CodeBlock) => document.blocks.extend(block.take()),
            Event::Start(Tag::Heading { level, .. }) => {
                assert!(level <= HeadingLevel::H4, "{}", document.name);
                heading = Some(String::new());
            }
            Event::End(TagEnd::Heading(_)) => {
                document
                    .anchors
                    .extend(heading.take().map(|text| anchor(&text)));
            }
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                document
                    .links
                    .push((line(range.start), dest_url.to_string()));
            }
            Event::Text(text) | Event::Code(text) if let Some(heading) = &mut heading => {
                heading.push_str(&text);
            }
            Event::Text(text) if let Some(block) = &mut block => block.code.push_str(&text),
            Event::Code(code) => document.spans.push((line(range.start), code.to_string())),
            _ => {}
        }
    }
    document
}

/// A heading as the web pages of a repository name it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter_map(|char| match char {
        ' ' => Some('-'),
        '-' | '_' => Some(char),
        _ if char.is_alphanumeric() => Some(char),
        _ => None,
    });
    kept.flat_map(char::to_lowercase).collect()
}
