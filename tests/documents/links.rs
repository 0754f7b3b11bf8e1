//! Relative links in README, CHANGELOG and docs.

use std::path::{Path, PathBuf};

use weir_tests::testkit::{Result, repository};

/// All Markdown files below `directory`, without what cargo built.
fn markdown(directory: &Path, found: &mut Vec<PathBuf>) -> Result {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() && !name.starts_with('.') && name != "target" {
            markdown(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
    Ok(())
}

/// The targets of `[text](target)` outside of code blocks.
fn targets(text: &str) -> Vec<&str> {
    let prose = text.split("```").step_by(2);
    prose.flat_map(|part| part.split("](").skip(1)).filter_map(|rest| rest.split(')').next()).collect()
}

#[test]
fn relative_links_resolve() -> Result {
    let mut files = Vec::new();
    markdown(&repository(), &mut files)?;
    let mut checked = 0;
    for file in &files {
        let text = std::fs::read_to_string(file)?;
        for target in targets(&text) {
            let path = target.split('#').next().unwrap_or_default();
            if path.is_empty() || path.contains("://") {
                continue;
            }
            let full = file.parent().map(|parent| parent.join(path)).unwrap_or_default();
            assert!(full.exists(), "{}: the link to {target} leads nowhere", file.display());
            checked += 1;
        }
    }
    assert!(checked > 0, "no link was found at all: is this the repository?");
    Ok(())
}
