//! References by a resolver: which resolvers there are here, and which params they take.

use super::super::model::Param;
use super::Problems;
use crate::diagnostic::{did_you_mean, listing};

/// A resolver with the params that it needs, and those that it may have.
const RESOLVERS: [(&str, &[&str], &[&str]); 2] =
    [("cluster", &["name"], &["kind", "namespace"]), ("git", &["url", "pathInRepo"], &["revision"])];

pub fn check(problems: &mut Problems<'_>, resolver: &str, params: &[Param], path: &str) {
    if resolver.is_empty() {
        return;
    }
    let Some((_, needed, others)) = RESOLVERS.iter().find(|(name, ..)| *name == resolver) else {
        let known = listing(RESOLVERS.iter().map(|(name, ..)| *name), "and");
        let hint = did_you_mean(resolver, RESOLVERS.iter().map(|(name, ..)| *name))
            .unwrap_or_else(|| "add the file of what it finds with `-f`, and write `name` instead".to_owned());
        let message = format!("the resolver `{resolver}` cannot be used here; there are {known}");
        return problems.error_hint(&format!("{path}.resolver"), message, hint);
    };
    let all = || needed.iter().chain(*others).copied();
    for (at, param) in params.iter().enumerate().filter(|(_, param)| !all().any(|name| name == param.name)) {
        let hint = did_you_mean(&param.name, all()).unwrap_or_else(|| format!("it has {}", listing(all(), "and")));
        let message = format!("the resolver `{resolver}` has no param `{}` here", param.name);
        problems.error_hint(&format!("{path}.params[{at}].name"), message, hint);
    }
    for name in needed.iter().filter(|name| !params.iter().any(|param| param.name == **name)) {
        problems.error(path, format!("the resolver `{resolver}` needs the param `{name}`"));
    }
}
