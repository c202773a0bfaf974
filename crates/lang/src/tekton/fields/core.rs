//! Parts of containers, as Kubernetes defines them.

pub use super::core_pod::POD_TEMPLATE;
pub use super::core_volume::{
    CLAIM_TEMPLATE, CONFIG_MAP_VOLUME, CSI_VOLUME, EMPTY_DIR, PROJECTED, PVC_VOLUME, SECRET_VOLUME, VOLUME,
};
use crate::tekton::read::shape::Shape::{Bool, In, Int, IntOrText, List, Map, Open, Quantity, Text, Word};
use crate::tekton::read::shape::{Shape, Table, field, needed, refused};

pub const SECONDS: Shape = Int(0, i32::MAX as i64);
pub const ID: Shape = Int(0, 4_294_967_294);

pub static META: Table = Table {
    what: "metadata",
    fields: &[
        field("name", Text),
        field("generateName", Text),
        field("namespace", Text),
        field("labels", Map(&Text)),
        field("annotations", Map(&Text)),
        field("finalizers", List(&Text)),
        field("ownerReferences", List(&Open)),
        // What a cluster has written; files that were printed by one hold it.
        field("uid", Text),
        field("resourceVersion", Text),
        field("generation", Int(0, i64::MAX)),
        field("creationTimestamp", Text),
        field("deletionTimestamp", Text),
        field("deletionGracePeriodSeconds", Int(0, i64::MAX)),
        field("managedFields", List(&Open)),
        field("selfLink", Text),
    ],
    gone: &[],
};

pub static ENV: Table = Table {
    what: "a variable of the environment",
    fields: &[needed("name", Text), field("value", Text), field("valueFrom", In(&ENV_SOURCE))],
    gone: &[],
};

static ENV_SOURCE: Table = Table {
    what: "`valueFrom`",
    fields: &[
        field("configMapKeyRef", In(&KEY_REF)),
        field("secretKeyRef", In(&KEY_REF)),
        field("fieldRef", In(&FIELD_REF)),
        field("resourceFieldRef", In(&RESOURCE_REF)),
    ],
    gone: &[refused("fileKeyRef", "it is an alpha feature of Kubernetes; use a Secret, a ConfigMap or a result")],
};

static KEY_REF: Table = Table {
    what: "a reference to a key",
    fields: &[needed("name", Text), needed("key", Text), field("optional", Bool)],
    gone: &[],
};

pub static FIELD_REF: Table = Table {
    what: "a reference to a field",
    fields: &[field("apiVersion", Text), needed("fieldPath", Text)],
    gone: &[],
};

pub static RESOURCE_REF: Table = Table {
    what: "a reference to a resource",
    fields: &[field("containerName", Text), needed("resource", Text), field("divisor", Quantity)],
    gone: &[],
};

pub static ENV_FROM: Table = Table {
    what: "an entry of `envFrom`",
    fields: &[field("prefix", Text), field("configMapRef", In(&OBJECT_REF)), field("secretRef", In(&OBJECT_REF))],
    gone: &[],
};

static OBJECT_REF: Table =
    Table { what: "a reference to an object", fields: &[needed("name", Text), field("optional", Bool)], gone: &[] };

pub static MOUNT: Table = Table {
    what: "a volume mount",
    fields: &[
        needed("name", Text),
        needed("mountPath", Text),
        field("readOnly", Bool),
        field("recursiveReadOnly", Word(&["Disabled", "IfPossible", "Enabled"])),
        field("subPath", Text),
        field("subPathExpr", Text),
        field("mountPropagation", Word(&["None", "HostToContainer", "Bidirectional"])),
    ],
    gone: &[],
};

pub static DEVICE: Table =
    Table { what: "a volume device", fields: &[needed("name", Text), needed("devicePath", Text)], gone: &[] };

pub static RESOURCES: Table = Table {
    what: "what a container may use",
    fields: &[
        field("limits", Map(&Quantity)),
        field("requests", Map(&Quantity)),
        field("claims", List(&In(&RESOURCE_CLAIM))),
    ],
    gone: &[],
};

static RESOURCE_CLAIM: Table =
    Table { what: "a claim of a resource", fields: &[needed("name", Text), field("request", Text)], gone: &[] };

pub static SECURITY: Table = Table {
    what: "`securityContext`",
    fields: &[
        field("runAsUser", ID),
        field("runAsGroup", ID),
        field("runAsNonRoot", Bool),
        field("privileged", Bool),
        field("allowPrivilegeEscalation", Bool),
        field("readOnlyRootFilesystem", Bool),
        field("capabilities", In(&CAPABILITIES)),
        field("seccompProfile", In(&PROFILE)),
        field("appArmorProfile", In(&PROFILE)),
        field("seLinuxOptions", In(&SELINUX)),
        field("procMount", Word(&["Default", "Unmasked"])),
    ],
    gone: &[
        refused("windowsOptions", WINDOWS),
        refused("fsGroup", "it is of the pod: put it into `securityContext` of the `podTemplate` of the run"),
    ],
};

pub const WINDOWS: &str = "steps run on Linux only";

static CAPABILITIES: Table =
    Table { what: "`capabilities`", fields: &[field("add", List(&Text)), field("drop", List(&Text))], gone: &[] };

pub static PROFILE: Table = Table {
    what: "a profile",
    fields: &[needed("type", Word(&["RuntimeDefault", "Unconfined", "Localhost"])), field("localhostProfile", Text)],
    gone: &[],
};

pub static SELINUX: Table = Table {
    what: "`seLinuxOptions`",
    fields: &[field("user", Text), field("role", Text), field("type", Text), field("level", Text)],
    gone: &[],
};

pub static PORT: Table = Table {
    what: "a port",
    fields: &[
        needed("containerPort", Int(1, 65_535)),
        field("name", Text),
        field("hostPort", Int(0, 65_535)),
        field("hostIP", Text),
        field("protocol", Word(&["TCP", "UDP", "SCTP"])),
    ],
    gone: &[],
};

pub static PROBE: Table = Table {
    what: "a probe",
    fields: &[
        field("exec", In(&EXEC)),
        field("httpGet", In(&HTTP_GET)),
        field("tcpSocket", In(&TCP)),
        field("grpc", In(&GRPC)),
        field("initialDelaySeconds", SECONDS),
        field("periodSeconds", SECONDS),
        field("timeoutSeconds", SECONDS),
        field("successThreshold", SECONDS),
        field("failureThreshold", SECONDS),
        field("terminationGracePeriodSeconds", SECONDS),
    ],
    gone: &[],
};

static EXEC: Table = Table { what: "`exec`", fields: &[field("command", List(&Text))], gone: &[] };

static HTTP_GET: Table = Table {
    what: "`httpGet`",
    fields: &[
        needed("port", IntOrText),
        field("path", Text),
        field("host", Text),
        field("scheme", Word(&["HTTP", "HTTPS"])),
        field("httpHeaders", List(&In(&HEADER))),
    ],
    gone: &[],
};

static HEADER: Table = Table { what: "a header", fields: &[needed("name", Text), needed("value", Text)], gone: &[] };

static TCP: Table = Table { what: "`tcpSocket`", fields: &[needed("port", IntOrText), field("host", Text)], gone: &[] };

static GRPC: Table =
    Table { what: "`grpc`", fields: &[needed("port", Int(1, 65_535)), field("service", Text)], gone: &[] };

pub static LIFECYCLE: Table = Table {
    what: "`lifecycle`",
    fields: &[field("postStart", In(&HANDLER)), field("preStop", In(&HANDLER)), field("stopSignal", Text)],
    gone: &[],
};

static HANDLER: Table = Table {
    what: "a handler",
    fields: &[
        field("exec", In(&EXEC)),
        field("httpGet", In(&HTTP_GET)),
        field("tcpSocket", In(&TCP)),
        field("sleep", In(&SLEEP)),
    ],
    gone: &[],
};

static SLEEP: Table = Table { what: "`sleep`", fields: &[needed("seconds", Int(0, i64::MAX))], gone: &[] };

pub const PULL: Shape = Word(&["Always", "IfNotPresent", "Never"]);
