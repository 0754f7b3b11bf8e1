//! README shows the figures of the newest comparison.

use weir_tests::testkit::{Result, repository};

/// What is between the markers.
fn block(text: &str) -> Result<&str> {
    let inside = text.split_once("<!-- compare: begin -->\n").map(|(_, rest)| rest);
    let inside = inside.and_then(|rest| rest.split_once("\n<!-- compare: end -->")).map(|(inside, _)| inside);
    inside.ok_or_else(|| "the markers are missing".into())
}

#[test]
fn the_table_is_that_of_the_newest_run() -> Result {
    let mut runs = Vec::new();
    for entry in std::fs::read_dir(repository().join("perf/runs"))? {
        runs.push(entry?.path());
    }
    runs.retain(|path| path.to_str().is_some_and(|path| path.ends_with("-compare.md")));
    // Their names begin with the date.
    let newest = runs.into_iter().max().ok_or("there is no run of the comparison")?;
    let run = std::fs::read_to_string(&newest)?;
    let readme = std::fs::read_to_string(repository().join("README.md"))?;
    assert_eq!(block(&readme)?, block(&run)?, "README.md and {}", newest.display());
    let date = newest.file_name().and_then(|name| name.to_str()).and_then(|name| name.get(..10));
    assert!(block(&run)?.starts_with(date.ok_or("no date in the name")?), "{}", newest.display());
    Ok(())
}
