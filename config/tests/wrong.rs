//! Every file in `tests/wrong/` is refused with exactly the text beside it: message, place, marked text and help.
//!
//! `WEIR_BLESS=1` rewrites the expected texts; read the difference before committing it.

#![cfg(test)]

use std::fs;
use std::path::{Path, PathBuf};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wrong")
}

fn cases() -> Vec<PathBuf> {
    let entries = fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().path());
    let mut cases: Vec<PathBuf> = entries.filter(|p| p.extension().is_some_and(|e| e == "toml")).collect();
    cases.sort();
    cases
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

/// A case states only what is wrong; the rest of a working file is appended, so that nothing else is reported.
/// `# with: interface snat pool service` in the first line names the parts.
fn whole(text: &str) -> String {
    let mut whole = text.to_owned();
    let first = text.lines().next().unwrap_or("");
    for part in first.strip_prefix("# with:").unwrap_or("").split_whitespace() {
        whole.push_str(match part {
            "interface" => {
                "\n[[interface]]\nname = \"lan\"\ndevice = \"net_tap0\"\naddresses = [\"192.0.2.1/24\"]\n"
            }
            "snat" => "\n[snat]\naddresses = [\"192.0.2.2\"]\n",
            "pool" => "\n[[pool]]\nname = \"web\"\nservers = [{ address = \"192.0.2.20\", port = 80 }]\n",
            "service" => {
                "\n[[virtual_service]]\nname = \"www\"\naddresses = [\"192.0.2.10\"]\nports = [\"tcp/80\"]\n\
                 pool = \"web\"\n"
            }
            other => panic!("unknown part {other}"),
        });
    }
    whole
}

#[test]
fn each_wrong_file_is_refused_with_the_expected_text() {
    let bless = std::env::var_os("WEIR_BLESS").is_some();
    let cases = cases();
    assert!(cases.len() >= 30, "only {} cases", cases.len());
    let mut failures = Vec::new();
    for case in cases {
        let text = whole(&fs::read_to_string(&case).unwrap());
        let rendered = match config::parse(&text, &file_name(&case), Path::new("tests/wrong")) {
            Err(errors) => errors.render(false),
            Ok(config) => {
                let warnings = config.warnings.render(false);
                assert!(file_name(&case).starts_with("warn_"), "{} is accepted\n{warnings}", case.display());
                warnings
            }
        };
        let expected = case.with_extension("expected");
        if bless {
            fs::write(&expected, &rendered).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != rendered {
            failures.push(format!("{}\n{rendered}", case.display()));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn the_parts_that_complete_a_case_are_a_working_file() {
    let config = config::parse(&whole("# with: interface snat pool service"), "parts", &directory());
    let config = config.unwrap_or_else(|errors| panic!("{}", errors.render(false)));
    assert!(config.warnings.problems().is_empty(), "{}", config.warnings);
    assert_eq!(config.warnings.render(true), "");
}

#[test]
fn a_problem_knows_its_place_and_the_offending_text() {
    let text = "[[interface]]\nname = \"lan\"\ndevice = \"net_tap0\"\n  adresses = [\"192.0.2.1/24\"]\n";
    let errors = config::parse(text, "weir.toml", Path::new("")).unwrap_err();
    let problem = errors.problems().iter().find(|p| p.message().contains("adresses")).unwrap();
    assert_eq!((problem.file(), problem.line(), problem.column()), ("weir.toml", 4, 3));
    assert_eq!(problem.found(), "adresses");
    assert_eq!(problem.message(), "unknown key `adresses` in [[interface]]");
    assert_eq!(problem.help_text(), Some("did you mean `addresses`?"));
    let line = "weir.toml:4:3: error: unknown key `adresses` in [[interface]] (did you mean `addresses`?)";
    assert!(errors.to_string().lines().any(|l| l == line), "{errors}");
}

#[test]
fn colour_changes_nothing_but_colour() {
    let errors = config::parse("x = 1\n", "weir.toml", Path::new("")).unwrap_err();
    let (plain, colored) = (errors.render(false), errors.render(true));
    assert!(!plain.contains('\u{1b}'));
    assert!(colored.contains("\u{1b}["));
}

#[test]
fn a_missing_file_and_a_file_that_is_not_text_are_errors() {
    let errors = config::load(Path::new("/nonexistent/weir.toml")).unwrap_err();
    let message = errors.problems()[0].message();
    assert!(message.starts_with("cannot read the configuration file /nonexistent/weir.toml: "), "{message}");
    assert!(errors.problems()[0].help_text().unwrap().contains("minimal.toml"), "{errors}");
    let errors = config::load(&directory()).unwrap_err();
    assert!(errors.problems()[0].message().contains("Is a directory"), "{errors}");
    let errors = config::load(&directory().join("latin1.bin")).unwrap_err();
    assert!(errors.problems()[0].message().ends_with("not UTF-8 from byte 8 on"), "{errors}");
}

/// A device has no end.
#[test]
fn a_script_and_a_file_without_end_are_refused() {
    let set = "[[datascript_set]]\nname = \"s\"\nrequest = \"/dev/zero\"\n";
    let text = whole("# with: interface snat pool service") + set;
    let errors = config::parse(&text, "endless.toml", Path::new("")).unwrap_err();
    let (message, help) = (errors.problems()[0].message(), errors.problems()[0].help_text());
    assert_eq!((message, help), ("the script /dev/zero is too long", Some("allowed: at most 1048576 bytes")));
    let errors = config::load(Path::new("/dev/zero")).unwrap_err();
    let message = "cannot read the configuration file /dev/zero: it has more than 67108864 bytes";
    assert_eq!(errors.problems()[0].message(), message);
}

/// A report goes to a terminal, which obeys control characters.
#[test]
fn a_report_holds_no_control_characters_of_the_file() {
    let set = "[[datascript_set]]\nname = \"s\"\nrequest_inline = 'x = \"\u{85}\u{9b}31m\" y = = 1'\n";
    let service = "[[virtual_service]]\nname = \"b\"\npool = \"\\u001b[31m\"\n";
    for text in [
        "x\u{1b}]0;title\u{7} = 1\n".to_owned(),
        whole("# with: interface snat pool service") + set,
        whole("# with: interface snat pool service") + service,
    ] {
        let rendered = config::parse(&text, "weir\u{1b}.toml", Path::new("")).unwrap_err().render(false);
        let obeyed = |c: &char| c.is_control() && *c != '\n';
        assert_eq!(rendered.chars().find(obeyed), None, "{rendered:?}");
    }
}

/// Cuts a working file after every character: never a panic, and always a reason when it is refused.
#[test]
fn a_file_cut_anywhere_is_refused_with_a_reason_or_taken() {
    let text = fs::read_to_string(directory().join("../../examples/full.toml")).unwrap();
    let examples = directory().join("../../examples");
    for (at, _) in text.char_indices().step_by(7) {
        if let Err(errors) = config::parse(&text[..at], "cut.toml", &examples) {
            assert!(!errors.problems().is_empty());
            assert!(!errors.render(false).is_empty());
        }
    }
}

fn many(count: usize, one: impl Fn(usize) -> String) -> String {
    (0..count).map(one).collect()
}

/// Indices are 16 bits wide, and a flow's key has room for a server's index + 1.
#[test]
fn more_servers_than_a_key_can_name_are_refused() {
    let with = |servers: usize| {
        let pool = |index: usize| {
            let from = index * 500;
            let server = |n: usize| {
                let (high, middle, low) = (n / 62500, n / 250 % 250, n % 250 + 1);
                format!("{{ address = \"10.{high}.{middle}.{low}\", port = 80 }},")
            };
            let servers = many((servers - from).min(500), |n| server(from + n));
            format!("[[pool]]\nname = \"p{index}\"\nservers = [{servers}]\n")
        };
        let route = "[[route]]\nto = \"10.0.0.0/8\"\nvia = \"192.0.2.254\"\n";
        let text = whole("# with: interface snat pool service") + route + &many(servers.div_ceil(500), pool);
        config::parse(&text, "many", Path::new(""))
    };
    // One server is in the pool "web".
    assert_eq!(with(65534).unwrap_or_else(|e| panic!("{}", e.problems()[0])).snapshot.servers.len(), 65535);
    let errors = with(65535).unwrap_err();
    let messages: Vec<&str> = errors.problems().iter().map(config::Problem::message).collect();
    assert_eq!(messages, ["this is one server too many"]);
}

#[test]
fn more_pool_groups_than_an_index_can_name_are_refused() {
    let group = |n: usize| format!("[[pool_group]]\nname = \"g{n}\"\nmembers = [{{ pool = \"web\" }}]\n");
    let text = whole("# with: interface snat pool service") + &many(65536, group);
    let errors = config::parse(&text, "many", Path::new("")).unwrap_err();
    let messages: Vec<&str> = errors.problems().iter().map(config::Problem::message).collect();
    assert_eq!(messages, ["this is one pool group too many"]);
}

#[test]
fn a_long_report_is_cut_and_says_so() {
    let errors = config::parse(&many(150, |n| format!("key{n} = 1\n")), "many", Path::new("")).unwrap_err();
    let rendered = errors.render(false);
    assert_eq!(rendered.matches("unknown key").count(), 98, "two more are missing tables");
    assert!(rendered.ends_with("… and 52 more\n\n152 errors\n"), "{rendered}");
    assert_eq!(errors.problems().len(), 152);
}

#[test]
fn a_long_list_of_names_is_cut() {
    let pool = |n: usize| format!("[[pool]]\nname = \"p{n:02}\"\nservers = []\n");
    let service = "[[virtual_service]]\nname = \"www\"\npool = \"something else\"\n";
    let text = whole("# with: interface snat") + &many(20, pool) + service;
    let errors = config::parse(&text, "names", Path::new("")).unwrap_err();
    let unknown = errors.problems().iter().find(|p| p.message().contains("something else")).unwrap();
    let help = "there is: p00, p01, p02, p03, p04, p05, p06, p07, p08, p09, p10, p11 and 8 more";
    assert_eq!(unknown.help_text(), Some(help));
}
