//! Workspaces: declared once, at places of their own, and bound to one source.

use std::collections::HashSet;

use super::super::model::{TaskSpec, WorkspaceBinding};
use super::steps::clean;
use super::{Problems, duplicates};
use crate::diagnostic::did_you_mean;

/// The declarations of a Task, and their use by its steps and sidecars.
pub fn declarations(problems: &mut Problems<'_>, spec: &TaskSpec, path: &str) {
    let all: Vec<&str> = spec.workspaces.iter().map(|workspace| workspace.name.as_str()).collect();
    for (at, name) in duplicates(all.iter().copied(), false) {
        problems.error(&format!("{path}.workspaces[{at}].name"), format!("the workspace `{name}` is there twice"));
    }
    let template = spec.step_template.as_ref().and_then(|template| template["volumeMounts"].as_array());
    let mounts = spec.steps.iter().flat_map(|step| &step.volume_mounts).chain(template.into_iter().flatten());
    let mut taken: HashSet<String> = mounts.filter_map(|mount| mount["mountPath"].as_str()).map(clean).collect();
    for (at, workspace) in spec.workspaces.iter().enumerate() {
        let own = format!("/workspace/{}", workspace.name);
        let place = clean(if workspace.mount_path.is_empty() { &own } else { &workspace.mount_path });
        if !taken.insert(place.clone()) {
            let message =
                format!("something else is mounted at `{place}`, the place of the workspace `{}`", workspace.name);
            problems.error_hint(
                &format!("{path}.workspaces[{at}].mountPath"),
                message,
                "give it a `mountPath` of its own",
            );
        }
    }
    let mut used = |list: &[super::super::model::WorkspaceUse], path: &str| {
        for (at, workspace) in list.iter().enumerate() {
            if !all.contains(&workspace.name.as_str()) {
                let hint = did_you_mean(&workspace.name, all.iter().copied());
                let message = format!("the Task declares no workspace `{}`", workspace.name);
                problems.add(&format!("{path}.workspaces[{at}].name"), &message, hint.as_deref());
            }
        }
    };
    for (at, step) in spec.steps.iter().enumerate() {
        used(&step.workspaces, &format!("{path}.steps[{at}]"));
    }
    for (at, sidecar) in spec.sidecars.iter().enumerate() {
        used(&sidecar.workspaces, &format!("{path}.sidecars[{at}]"));
    }
}

/// What a run binds: each name once, each to one source that is complete.
pub fn bindings(problems: &mut Problems<'_>, all: &[WorkspaceBinding], path: &str) {
    for (at, name) in duplicates(all.iter().map(|binding| binding.name.as_str()), true) {
        problems.error(&format!("{path}[{at}].name"), format!("the workspace `{name}` is bound twice"));
    }
    for (at, binding) in all.iter().enumerate() {
        let path = format!("{path}[{at}]");
        let sources = [
            ("volumeClaimTemplate", &binding.volume_claim_template, None),
            ("persistentVolumeClaim", &binding.persistent_volume_claim, Some("claimName")),
            ("emptyDir", &binding.empty_dir, None),
            ("configMap", &binding.config_map, Some("name")),
            ("secret", &binding.secret, Some("secretName")),
            ("projected", &binding.projected, Some("sources")),
            ("csi", &binding.csi, Some("driver")),
        ];
        let given: Vec<_> = sources.iter().filter(|(_, source, _)| source.is_some()).collect();
        match given.as_slice() {
            [] => {
                let hint = "write one of `emptyDir: {}`, `volumeClaimTemplate`, `persistentVolumeClaim`, `configMap`, `secret`, `projected` and `csi`";
                problems.error_hint(&path, format!("the workspace `{}` is bound to nothing", binding.name), hint);
            }
            [(name, source, inner)] => {
                if let (Some(source), Some(inner)) = (source, inner) {
                    let value = &source[*inner];
                    let empty =
                        value.is_null() || value.as_str() == Some("") || value.as_array().is_some_and(Vec::is_empty);
                    if empty {
                        problems.error(&format!("{path}.{name}"), format!("`{name}` needs `{inner}`"));
                    }
                }
            }
            [(first, ..), (second, ..), ..] => {
                let message = format!("the workspace `{}` has two sources, `{first}` and `{second}`", binding.name);
                problems.error(&path, message);
            }
        }
        if binding.sub_path.starts_with('/') || binding.sub_path.split('/').any(|part| part == "..") {
            let message = format!("`{}` leaves the workspace: it must be relative and without `..`", binding.sub_path);
            problems.error(&format!("{path}.subPath"), message);
        }
    }
}
