//! Workspaces: directories that tasks declare, and what a run binds to them.

use serde_json::Value;

use super::part;

part! {
    /// A workspace that a Task declares.
    WorkspaceDecl {
        name: String,
        description: String,
        /// Empty: `/workspace/NAME`.
        mount_path: String,
        read_only: bool,
        optional: bool,
    }
}

part! {
    /// What a run binds; one of the sources is there.
    WorkspaceBinding {
        name: String,
        sub_path: String,
        /// A PersistentVolumeClaim that the run makes.
        volume_claim_template: Option<Value>,
        persistent_volume_claim: Option<Value>,
        empty_dir: Option<Value>,
        config_map: Option<Value>,
        secret: Option<Value>,
        projected: Option<Value>,
        csi: Option<Value>,
    }
}

part! {
    /// Which workspace of the Pipeline is a task's.
    WorkspaceMapping {
        name: String,
        /// Empty: that of the same name.
        workspace: String,
        sub_path: String,
    }
}

part! {
    /// A workspace that only some steps and sidecars see.
    WorkspaceUse { name: String, mount_path: String }
}
