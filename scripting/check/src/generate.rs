//! The files that are written from the table of the API. A test compares them with the committed ones.

mod luals;
mod reference;
mod selene;

/// A file, by its path in the repository.
pub struct Generated {
    /// Relative to the root.
    pub path: String,
    /// What must be in it.
    pub text: String,
}

/// All of them.
#[must_use]
pub fn files() -> Vec<Generated> {
    let at = |path: &str, text: String| Generated { path: path.to_owned(), text };
    let mut files = vec![
        at("docs/datascript-reference.md", reference::text()),
        at("scripting/editor/luals/avi.lua", luals::avi()),
        at("scripting/editor/luals/string.lua", luals::string()),
        at("scripting/editor/luarc.json", luals::settings()),
        at("scripting/editor/selene/datascript.yml", selene::text()),
        at("scripting/editor/selene/selene.toml", selene::settings()),
    ];
    files.extend(
        crate::api::MODULES
            .iter()
            .map(|module| at(&format!("scripting/editor/luals/{}.lua", module.name), luals::module(module))),
    );
    files
}

/// The sentence that each of these files begins with.
const ORIGIN: &str =
    "Written from the table in scripting/check/src/api by its tests: WEIR_BLESS=1 cargo test -p script-check";
