//! Reads `ecs` of `pitcrew.yaml`: which clusters' machines are nodes, and how they are checked and repaired.

use pitcrew_ecs::arn::Family;
use pitcrew_ecs::tables::{Table, Tables};
use pitcrew_lang::yaml::Node;

use crate::config::section::{Reader, Section};

const ECS: [&str; 4] = ["clusters", "check", "stop_start", "tables"];
const TABLES: [&str; 5] = ["job", "task", "node", "region", "role"];
const CLUSTER: [&str; 4] = ["name", "region", "role", "check"];

/// The clusters, and what all of them share.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EcsSettings {
    /// None: those that `ECS_CLUSTER_NAME` names.
    pub clusters: Vec<ClusterConfig>,
    /// The task definition that checks a machine; `None`: what `DCGM_HEALTH_CHECK_TASK` says.
    pub check: Option<String>,
    /// A machine may be stopped and started again where nothing weaker helped. Its own disks are empty then.
    pub stop_start: bool,
    /// The tables of DynamoDB that are written for those who still read them.
    pub tables: Option<TablesConfig>,
    /// In the file.
    pub line: u32,
}

/// The three tables, and how they are reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TablesConfig {
    /// `None`: what the environment says, or the usual one.
    pub job: Option<String>,
    pub task: Option<String>,
    pub node: Option<String>,
    /// `None`: that of the server.
    pub region: Option<String>,
    /// Who writes them, by the ARN.
    pub role: Option<String>,
}

impl TablesConfig {
    /// Their names. Call it with what [`EcsSettings::with_env`] has filled in.
    pub fn names(&self) -> Tables {
        let mut tables = Tables::default();
        for (table, name) in [(Table::Job, &self.job), (Table::Task, &self.task), (Table::Node, &self.node)] {
            if let Some(name) = name {
                tables.of_mut(table).clone_from(name);
            }
        }
        tables
    }
}

/// One cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterConfig {
    pub name: String,
    /// `None`: that of the server.
    pub region: Option<String>,
    /// Who looks after it, by the ARN.
    pub role: Option<String>,
    /// In place of the check of all.
    pub check: Option<String>,
}

impl EcsSettings {
    /// With what the environment says where nothing is configured: names that the machines' first keeper had already.
    pub fn with_env(&self, env: &dyn Fn(&str) -> Option<String>) -> EcsSettings {
        let of = |name: &str| env(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        let mut all = self.clone();
        if all.clusters.is_empty() {
            let names = of("ECS_CLUSTER_NAME").unwrap_or_default();
            let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
            all.clusters = names.map(|name| ClusterConfig { name: name.to_owned(), ..Default::default() }).collect();
        }
        all.check = all.check.or_else(|| of("DCGM_HEALTH_CHECK_TASK"));
        if let Some(tables) = &mut all.tables {
            let named =
                [(Table::Job, &mut tables.job), (Table::Task, &mut tables.task), (Table::Node, &mut tables.node)];
            for (table, name) in named {
                *name = name.take().or_else(|| of(table.variable()));
            }
        }
        all
    }
}

impl std::fmt::Display for EcsSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.clusters.iter().map(|cluster| cluster.name.as_str()).collect();
        match names.is_empty() {
            true => f.write_str("ECS_CLUSTER_NAME"),
            false => f.write_str(&names.join(", ")),
        }
    }
}

/// The section; `None` where it cannot be read.
pub fn ecs(r: &mut Reader<'_>, node: &Node) -> Option<EcsSettings> {
    let section = r.section(node, "`ecs`", &ECS)?;
    let clusters = section.get("clusters").map(|node| clusters(r, node)).unwrap_or_default();
    Some(EcsSettings {
        clusters,
        check: check(r, section),
        stop_start: r.flag(section, "stop_start").unwrap_or_default(),
        tables: section.get("tables").and_then(|node| tables(r, section, node)),
        line: node.at.line,
    })
}

/// `true`, or names.
fn tables(r: &mut Reader<'_>, section: Section<'_>, node: &Node) -> Option<TablesConfig> {
    if node.as_map().is_none() {
        return r.flag(section, "tables")?.then(TablesConfig::default);
    }
    let section = r.section(node, "`tables`", &TABLES)?;
    let [job, task, node, region, role] = TABLES.map(|key| r.text(section, key));
    Some(TablesConfig { job, task, node, region, role })
}

fn clusters(r: &mut Reader<'_>, node: &Node) -> Vec<ClusterConfig> {
    let list = node.as_list().unwrap_or(std::slice::from_ref(node));
    let mut all: Vec<ClusterConfig> = Vec::new();
    for node in list {
        let read = match node.as_scalar().filter(|scalar| !scalar.text.trim().is_empty()) {
            Some(scalar) => Some(ClusterConfig { name: scalar.text.to_string(), ..ClusterConfig::default() }),
            None => one(r, node),
        };
        let Some(read) = read else { continue };
        if all.iter().any(|other| other.name == read.name && other.region == read.region) {
            r.problem(node.at, format!("the cluster `{}` stands here twice", read.name), None);
        } else {
            all.push(read);
        }
    }
    all
}

fn one(r: &mut Reader<'_>, node: &Node) -> Option<ClusterConfig> {
    let section = r.section(node, "a cluster", &CLUSTER)?;
    r.require(section, "the cluster", "name", "add `name:`, or write its name alone");
    let [name, region, role] = ["name", "region", "role"].map(|key| r.text(section, key));
    Some(ClusterConfig { name: name?, region, role, check: check(r, section) })
}

fn check(r: &mut Reader<'_>, section: Section<'_>) -> Option<String> {
    let text = r.text(section, "check")?;
    if let Err(wrong) = text.parse::<Family>() {
        r.problem(section.get("check")?.at, format!("`check`: {wrong}"), None);
        return None;
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use pitcrew_lang::yaml;

    use super::*;

    fn read(source: &str) -> Result<EcsSettings, Vec<String>> {
        let root = yaml::read(source, "pitcrew.yaml").unwrap().unwrap();
        let mut r = Reader::new("pitcrew.yaml", source);
        let found = root.get("ecs").and_then(|node| ecs(&mut r, node));
        let problems = r.finish();
        let told = |problems: Vec<pitcrew_lang::Diagnostic>| problems.into_iter().map(|p| p.message).collect();
        if problems.is_empty() { Ok(found.unwrap()) } else { Err(told(problems)) }
    }

    #[test]
    fn a_cluster_is_its_name_or_more_and_the_environment_fills_in_what_is_left_out() {
        let source = "ecs: {clusters: [gpus, {name: a, region: eu-west-1, check: own}], check: 'dcgm:3'}";
        let all = read(source).unwrap();
        assert_eq!((all.clusters.len(), all.clusters[1].check.as_deref(), all.stop_start), (2, Some("own"), false));
        let env = |name: &str| match name {
            "ECS_CLUSTER_NAME" => Some("one, two".to_owned()),
            "DCGM_HEALTH_CHECK_TASK" => Some("family".to_owned()),
            _ => None,
        };
        assert_eq!(all.with_env(&env), all, "what is configured stands");
        let filled = read("ecs: {stop_start: true}").unwrap().with_env(&env);
        assert_eq!((filled.to_string().as_str(), filled.check.as_deref()), ("one, two", Some("family")));
    }

    #[test]
    fn tables_are_written_where_it_is_asked_for_under_names_of_the_file_or_the_environment() {
        assert_eq!((read("ecs: {}").unwrap().tables, read("ecs: {tables: false}").unwrap().tables), (None, None));
        let env = |name: &str| (name != "ECS_CLUSTER_NAME").then(|| format!("env-{name}"));
        let names = |source: &str| read(source).unwrap().with_env(&env).tables.unwrap().names();
        assert_eq!(names("ecs: {tables: {task: tasks}}").task, "tasks");
        assert_eq!(names("ecs: {tables: true}").node, "env-NODE_TABLE_NAME");
        assert_eq!(read("ecs: {tables: true}").unwrap().tables.unwrap().names(), Tables::default());
    }

    #[test]
    fn mistakes_are_told() {
        let told = |source: &str| read(source).unwrap_err().join("; ");
        assert!(told("ecs: {clusters: [a, a]}").contains("stands here twice"));
        assert!(told("ecs: {clusters: [{region: x}]}").contains("has no `name`"));
        assert!(told("ecs: {check: 'a b'}").contains("write `family`"));
        assert!(told("ecs: {tables: {jobs: a}}").contains("unknown key `jobs`"));
        assert!(told("ecs: {tables: often}").contains("must be `true` or `false`"));
        assert!(told("ecs: {cluster: a}").contains("unknown key `cluster`"));
    }
}
