//! Crate edges: which crate may know which. A dependency that is not on the list is a design decision, to be made in
//! `docs/src/architecture.md` first.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::style::sources;

/// For each crate of the workspace, the crates of the workspace it may depend on.
const WORKSPACE: &[(&str, &[&str])] = &[
    ("freshet-types", &[]),
    ("freshet-connectors", &["freshet-types"]),
    ("freshet-storage", &["freshet-types"]),
    ("freshet-planner", &["freshet-types"]),
    ("freshet-dataflow", &["freshet-planner", "freshet-storage", "freshet-types"]),
    (
        "freshet-server",
        &["freshet-connectors", "freshet-dataflow", "freshet-planner", "freshet-storage", "freshet-types"],
    ),
    ("freshet-sql-tests", &[]),
    (
        "bench",
        &[
            "freshet-connectors",
            "freshet-dataflow",
            "freshet-planner",
            "freshet-server",
            "freshet-sql-tests",
            "freshet-storage",
            "freshet-types",
        ],
    ),
    ("xtask", &[]),
];

/// For each crate from outside that one part alone should know, who that is. Tests and benchmarks talk to real
/// systems and may know their clients.
const OUTSIDE: &[(&str, &[&str])] = &[
    ("rdkafka", &["freshet-connectors", "freshet-sql-tests", "bench"]),
    ("nexmark", &["freshet-connectors"]),
    ("pgwire", &["freshet-server"]),
    // The server has its relations, the planner its rules over syntax trees.
    ("datafusion-pg-catalog", &["freshet-planner", "freshet-server"]),
    ("axum", &["freshet-server"]),
    ("timely", &["freshet-dataflow"]),
    ("slatedb", &["freshet-storage"]),
    // It comes with DataFusion, in DataFusion's version.
    ("sqlparser", &[]),
];

/// Crates that some parts must do without.
const WITHOUT: &[(&str, &[&str])] = &[
    ("freshet-dataflow", &["tokio", "object_store"]),
    ("freshet-types", &["tokio", "datafusion", "object_store"]),
    ("freshet-planner", &["tokio", "object_store"]),
];

/// Words that only some folders may have in their source.
const PATHS: &[(&str, &[&str])] =
    &[("sqlparser::", &["planner"]), ("pgwire::", &["server"]), ("timely::", &["dataflow"])];

/// Checks all edges.
pub fn check(root: &Path) -> Result<()> {
    let mut wrong = wrong_dependencies(&metadata(root)?)?;
    for source in sources(root)? {
        wrong.extend(wrong_paths(&source.path, &source.text));
    }
    if wrong.is_empty() {
        return Ok(());
    }
    bail!("{} edge(s) not allowed:\n  {}", wrong.len(), wrong.join("\n  "))
}

fn metadata(root: &Path) -> Result<Value> {
    let output = Command::new("cargo")
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(root)
        .output()
        .context("cannot run cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The dependencies in cargo's metadata that no list allows.
fn wrong_dependencies(metadata: &Value) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for package in metadata["packages"].as_array().context("cargo metadata lists packages")? {
        let name = package["name"].as_str().context("a package has a name")?;
        let Some((_, inside)) = WORKSPACE.iter().find(|(package, _)| *package == name) else {
            wrong.push(format!("{name} is not in the list of edges (xtask/src/edges.rs)"));
            continue;
        };
        for dependency in package["dependencies"].as_array().context("a package lists dependencies")? {
            let other = dependency["name"].as_str().context("a dependency has a name")?;
            let for_tests = dependency["kind"] == "dev";
            let ours = WORKSPACE.iter().any(|(package, _)| *package == other);
            let restricted = OUTSIDE.iter().find(|(krate, _)| *krate == other);
            let without = WITHOUT.iter().any(|(krate, others)| *krate == name && others.contains(&other));
            if ours && !inside.contains(&other) {
                wrong.push(format!("{name} -> {other}"));
            }
            if restricted.is_some_and(|(_, knowers)| !knowers.contains(&name)) || (without && !for_tests) {
                wrong.push(format!("{name} -> {other}"));
            }
        }
    }
    Ok(wrong)
}

/// Paths in a source file that its folder may not use.
fn wrong_paths(path: &str, text: &str) -> Vec<String> {
    let folder = path.split('/').next().unwrap_or_default();
    let mut wrong = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("//") || folder == "xtask" {
            continue;
        }
        let at = format!("{path}:{}", number + 1);
        for (word, folders) in PATHS {
            if line.contains(word) && !folders.contains(&folder) {
                wrong.push(format!("{at} uses {word}"));
            }
        }
        // The plan is the boundary between planner and dataflow: data, no code.
        if folder == "dataflow" && line.replace("freshet_planner::plan", "").contains("freshet_planner") {
            wrong.push(format!("{at} uses more of the planner than its plan"));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata_of(name: &str, dependency: &str, kind: Option<&str>) -> Value {
        serde_json::json!({"packages": [{"name": name, "dependencies": [{"name": dependency, "kind": kind}]}]})
    }

    fn wrong(name: &str, dependency: &str) -> Vec<String> {
        wrong_dependencies(&metadata_of(name, dependency, None)).unwrap()
    }

    #[test]
    fn edges_on_the_lists_pass_and_others_do_not() {
        assert_eq!(wrong("freshet-storage", "freshet-types"), [""; 0]);
        assert_eq!(wrong("freshet-storage", "freshet-planner"), ["freshet-storage -> freshet-planner"]);
        assert_eq!(wrong("freshet-connectors", "rdkafka"), [""; 0]);
        assert_eq!(wrong("freshet-server", "rdkafka"), ["freshet-server -> rdkafka"]);
        assert_eq!(wrong("freshet-planner", "sqlparser"), ["freshet-planner -> sqlparser"]);
        assert_eq!(wrong("freshet-dataflow", "tokio"), ["freshet-dataflow -> tokio"]);
    }

    #[test]
    fn what_only_tests_use_is_not_what_a_crate_knows() {
        let metadata = metadata_of("freshet-dataflow", "tokio", Some("dev"));
        assert_eq!(wrong_dependencies(&metadata).unwrap(), [""; 0]);
    }

    #[test]
    fn a_new_crate_must_be_listed() {
        assert_eq!(wrong("freshet-web", "freshet-types").len(), 1);
    }

    #[test]
    fn dataflow_sees_the_plan_and_nothing_else_of_the_planner() {
        let path = "dataflow/src/lib.rs";
        assert_eq!(wrong_paths(path, "use freshet_planner::plan::Node;\n//! freshet_planner\n"), [""; 0]);
        assert_eq!(wrong_paths(path, "use freshet_planner::Statement;").len(), 1);
        assert_eq!(wrong_paths("server/src/lib.rs", "use datafusion::sql::sqlparser::ast;").len(), 1);
        assert_eq!(wrong_paths("planner/src/lib.rs", "use datafusion::sql::sqlparser::ast;"), [""; 0]);
    }
}
