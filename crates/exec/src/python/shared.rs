//! One environment for the actions that work on the same things.
//!
//! A notebook is run, converted and tested by different tools, mostly with the same requirements of the user's.
//! An environment with all the tools serves all three and is built once. Invariant: a tool that a task does not need
//! never decides what the task gets: where the user's own requirements speak of such a tool, or do not go together
//! with it, the environment holds only what the task needs.

use std::path::Path;

use super::drivers::{CONVERT_REQUIREMENTS, COVERAGE_REQUIREMENTS, NOTEBOOK_REQUIREMENTS, PYTEST_REQUIREMENTS};
use super::{Env, EnvRequest, PythonError, ensure_in, find_in, requirements};

const TOOLS: [&[&str]; 4] = [NOTEBOOK_REQUIREMENTS, CONVERT_REQUIREMENTS, PYTEST_REQUIREMENTS, COVERAGE_REQUIREMENTS];

/// The environment for a task that needs these tools and the user's requirements; shared with tasks that need other
/// tools where that changes nothing for this one.
pub fn ensure_shared(
    needs: &[&str],
    request: &EnvRequest,
    cache: &Path,
    progress: &mut dyn FnMut(&str),
) -> Result<Env, PythonError> {
    ensure_shared_in(needs, request, cache, &std::env::var("PATH").unwrap_or_default(), progress)
}

/// [`ensure_shared`] with another `PATH`.
pub fn ensure_shared_in(
    needs: &[&str],
    request: &EnvRequest,
    cache: &Path,
    path: &str,
    progress: &mut dyn FnMut(&str),
) -> Result<Env, PythonError> {
    let with = |tools: &[&str]| EnvRequest {
        requirements: tools.iter().map(|tool| (*tool).to_owned()).chain(request.requirements.clone()).collect(),
        ..request.clone()
    };
    let (own, all) = (with(needs), with(&TOOLS.concat()));
    if speaks_of_a_tool(needs, request)? {
        return ensure_in(&own, cache, path, progress);
    }
    // Built before for this very task: because the two did not go together, or by an older version.
    if let Some(env) = find_in(&own, cache, path)? {
        return Ok(env);
    }
    match ensure_in(&all, cache, path, progress) {
        Err(PythonError::Install { .. }) => {
            progress("these requirements do not go together with the tools of other actions; trying without those");
            ensure_in(&own, cache, path, progress)
        }
        done => done,
    }
}

/// Whether the user asks for something about a tool that the task does not need itself.
fn speaks_of_a_tool(needs: &[&str], request: &EnvRequest) -> Result<bool, PythonError> {
    let asked = requirements::collect(request)?;
    let names = |lines: &[&str]| lines.iter().map(|line| requirements::name(line).to_owned()).collect::<Vec<_>>();
    let (tools, needed) = (names(&TOOLS.concat()), names(needs));
    Ok(asked.lines().map(requirements::name).any(|name| {
        let is = |known: &String| known == name;
        tools.iter().any(is) && !needed.iter().any(is)
    }))
}
