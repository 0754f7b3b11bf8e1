//! The committed files against the table of the API. `WEIR_BLESS=1` writes them.
#![allow(clippy::unwrap_used, reason = "test")]

use std::path::Path;

use script_check::generate::files;

#[test]
fn committed_files_are_what_the_table_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let bless = std::env::var_os("WEIR_BLESS").is_some();
    let mut stale = Vec::new();
    for file in files() {
        let path = root.join(&file.path);
        if std::fs::read_to_string(&path).is_ok_and(|text| text == file.text) {
            continue;
        }
        if bless {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &file.text).unwrap();
        } else {
            stale.push(file.path);
        }
    }
    for folder in ["scripting/editor/luals", "scripting/editor/selene"] {
        for entry in std::fs::read_dir(root.join(folder)).unwrap() {
            let path = format!("{folder}/{}", entry.unwrap().file_name().into_string().unwrap());
            assert!(files().iter().any(|file| file.path == path), "{path} is left from an older table");
        }
    }
    assert!(stale.is_empty(), "not what the table says (WEIR_BLESS=1 rewrites): {stale:?}");
}
