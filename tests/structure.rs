//! How the sources hang together: the files of a module import each other in one direction, none is too long to read, and each
//! long one has tests or says where they are.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Modules whose files form no cycle.
const WITHOUT_CYCLES: &[&str] = &[
    "src/admin",
    "src/admin/pages",
    "src/admin/views",
    "src/api",
    "src/cli",
    "src/cli/doctor",
    "src/cluster",
    "src/config",
    "src/config/keys",
    "src/coordinator",
    "src/group",
    "src/group/classic",
    "src/group/consumer",
    "src/group/consumer/assignor",
    "src/group/groups",
    "src/group/share",
    "src/group/streams",
    "src/log",
    "src/log/compaction",
    "src/meta",
    "src/meta/zookeeper",
    "src/net",
    "src/observe",
    "src/partition",
    "src/partition/cleaner",
    "src/partition/registry",
    "src/peer",
    "src/quota",
    "src/replication",
    "src/security",
    "src/share",
    "src/share/partition",
    "src/telemetry",
    "src/transaction",
    "src/transaction/transactions",
];

/// Lines of a source file, tests inside included.
const FILE_LINES_MAX: usize = 600;

/// Files of long tables, files of tests and generated ones, which may be longer.
const MAY_BE_LONG: &[&str] = &[
    "protocol/src/messages/streams_group_describe_response.rs",
    "protocol/src/versions.rs",
];

/// Names of the sibling files that a file names as `super::<name>`, its tests left out.
fn imports(source: &str, siblings: &BTreeSet<String>) -> BTreeSet<String> {
    let code = source
        .split("#[cfg(test)]\nmod ")
        .next()
        .unwrap_or_default();
    let named = code.split("super::").skip(1).flat_map(|after| {
        let names = match after.strip_prefix('{') {
            Some(list) => list.split('}').next().unwrap_or_default(),
            None => after,
        };
        let count = if after.starts_with('{') {
            usize::MAX
        } else {
            1
        };
        names.split(',').take(count).map(|name| {
            let is_part = |letter: char| letter.is_ascii_lowercase() || letter == '_';
            let name = name.trim_start();
            let end = name.find(|letter| !is_part(letter)).unwrap_or(name.len());
            name[..end].to_owned()
        })
    });
    named.filter(|name| siblings.contains(name)).collect()
}

/// Takes away what imports nothing that is left, as long as there is such a file; what stays is on a cycle or above one.
fn knot(mut graph: BTreeMap<String, BTreeSet<String>>) -> BTreeSet<String> {
    loop {
        let is_free =
            |imports: &BTreeSet<String>| imports.iter().all(|name| !graph.contains_key(name));
        let free: Vec<String> = graph
            .iter()
            .filter(|(_, imports)| is_free(imports))
            .map(|(name, _)| name.clone())
            .collect();
        if free.is_empty() {
            return graph.into_keys().collect();
        }
        free.iter().for_each(|name| {
            graph.remove(name);
        });
    }
}

#[test]
fn the_files_of_a_module_import_each_other_in_one_direction() {
    for module in WITHOUT_CYCLES {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(module);
        let mut sources = BTreeMap::new();
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            if path.extension().is_some_and(|extension| extension == "rs") && name != "mod" {
                sources.insert(name, std::fs::read_to_string(&path).unwrap());
            }
        }
        let siblings: BTreeSet<String> = sources.keys().cloned().collect();
        let graph = sources
            .iter()
            .map(|(name, source)| (name.clone(), imports(source, &siblings)));
        let knot = knot(graph.collect());
        assert!(knot.is_empty(), "{module}: {knot:?}");
    }
}

/// Every source file below a directory.
fn sources_below(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let below = paths.flat_map(|path| match path.is_dir() {
        true => sources_below(&path),
        false => vec![path],
    });
    let is_source = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "rs");
    below.filter(is_source).collect()
}

#[test]
fn no_source_file_is_too_long_to_read() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut long = BTreeSet::new();
    for path in ["src", "protocol/src"]
        .iter()
        .flat_map(|dir| sources_below(&root.join(dir)))
    {
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        if lines > FILE_LINES_MAX {
            long.insert(path.strip_prefix(root).unwrap().display().to_string());
        }
    }
    let expected = MAY_BE_LONG.iter().map(|path| (*path).to_owned()).collect();
    assert_eq!(long, expected, "files above {FILE_LINES_MAX} lines");
}

/// Lines up to which a file needs no tests that are named.
const UNTESTED_LINES_MAX: usize = 150;

/// What is wrong with where the tests of a source file are said to be; `src` is the directory below which it is.
fn fault_of_tests_named(src: &Path, source: &str) -> Option<String> {
    let is_tested =
        source.contains("#[cfg(test)]\nmod ") || source.contains("#[cfg(test)]\n#[path");
    let is_exempt = source.contains("#[test]")
        || source.contains("proptest!")
        || source.contains("//! Written by schemas/generate.py");
    if is_tested || is_exempt || source.lines().count() <= UNTESTED_LINES_MAX {
        return None;
    }
    let Some(named) = source
        .lines()
        .find_map(|line| line.strip_prefix("//! Tests: "))
    else {
        return Some("it says nothing of its tests".to_owned());
    };
    let mut files = named.trim_end_matches('.').split(", ");
    let missing = files.find(|file| {
        let dir = match file.starts_with("tests/") {
            true => src.parent().unwrap(),
            false => src,
        };
        !dir.join(file).exists()
    });
    missing.map(|file| format!("there is no {file}"))
}

#[test]
fn every_long_source_file_has_tests_in_it_or_names_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut faults = BTreeMap::new();
    for src in ["src", "protocol/src"].map(|dir| root.join(dir)) {
        for path in sources_below(&src) {
            let name = path.strip_prefix(root).unwrap().display().to_string();
            let source = std::fs::read_to_string(&path).unwrap();
            if !name.contains("test") {
                faults.extend(fault_of_tests_named(&src, &source).map(|fault| (name, fault)));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

/// The code of a source file: without its tests and without lines of comments.
fn code_of(source: &str) -> String {
    let code = source
        .split("#[cfg(test)]\nmod ")
        .next()
        .unwrap_or_default();
    let lines = code.lines();
    let lines: Vec<&str> = lines
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect();
    lines.join("\n")
}

/// The words after each occurrence of a text.
fn words_after<'a>(source: &'a str, text: &'a str) -> impl Iterator<Item = &'a str> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    source.split(text).skip(1).map(move |after| {
        let end = after.find(|letter| !is_part(letter));
        &after[..end.unwrap_or(after.len())]
    })
}

#[test]
fn the_map_in_lib_has_every_module_and_each_imports_only_those_before_it() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let lib = std::fs::read_to_string(src.join("lib.rs")).unwrap();
    let map: Vec<&str> = words_after(&lib, "//! - [`").collect();
    let modules: BTreeSet<&str> = words_after(&lib, "pub mod ").collect();
    assert_eq!(map.iter().copied().collect::<BTreeSet<_>>(), modules);
    assert_eq!(map.len(), modules.len(), "one stands there twice");
    for (place, module) in map.iter().enumerate() {
        let file = src.join(format!("{module}.rs"));
        let paths = match file.exists() {
            true => vec![file],
            false => sources_below(&src.join(module)),
        };
        let is_code = |path: &&PathBuf| {
            let path = path.strip_prefix(&src).unwrap();
            !path.to_str().unwrap().contains("test")
        };
        for path in paths.iter().filter(is_code) {
            let code = code_of(&std::fs::read_to_string(path).unwrap());
            let later = words_after(&code, "crate::").find(|name| map[place + 1..].contains(name));
            assert_eq!(later, None, "{}: {module} comes before it", path.display());
        }
    }
}

#[test]
fn a_long_file_that_names_no_tests_is_found_and_one_that_names_what_is_not_there() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let fault = |header: &str| {
        let source = format!(
            "{header}\n{}",
            "fn nothing() {}\n".repeat(UNTESTED_LINES_MAX)
        );
        fault_of_tests_named(&src, &source)
    };
    assert!(fault("//! A file.").is_some());
    assert!(fault("//! Tests: tests/structure.rs, tests/nothing.rs.").is_some());
    assert_eq!(fault("//! Tests: tests/structure.rs, log/tests.rs."), None);
    assert_eq!(fault("#[cfg(test)]\nmod tests;"), None);
}

#[test]
fn a_cycle_is_found_and_a_line_is_not() {
    let siblings: BTreeSet<String> = ["a", "b", "c"].map(str::to_owned).into();
    let source = "use super::a::A;\nuse super::{b::B, c};\n#[cfg(test)]\nuse super::nothing;";
    assert_eq!(imports(source, &siblings), siblings);
    let graph = |edges: &[(&str, &[&str])]| {
        let edge = |(from, to): &(&str, &[&str])| {
            let to = to.iter().map(|name| (*name).to_owned()).collect();
            ((*from).to_owned(), to)
        };
        edges.iter().map(edge).collect()
    };
    assert!(knot(graph(&[("a", &["b"]), ("b", &["c"]), ("c", &[])])).is_empty());
    assert_eq!(
        knot(graph(&[("a", &["b"]), ("b", &["a"]), ("c", &[])])).len(),
        2
    );
}
