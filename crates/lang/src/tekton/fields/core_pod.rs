//! `podTemplate`, and what of a pod stands in it.

use super::core::{ENV, ID, PROFILE, SECONDS, SELINUX, VOLUME, WINDOWS};
use crate::tekton::read::shape::Shape::{Bool, In, Int, List, Map, Text, Word};
use crate::tekton::read::shape::{Shape, Table, field, needed, refused};

pub static POD_TEMPLATE: Table = Table {
    what: "`podTemplate`",
    fields: &[
        field("nodeSelector", Map(&Text)),
        field("env", List(&In(&ENV))),
        field("tolerations", List(&In(&TOLERATION))),
        field("affinity", In(&AFFINITY)),
        field("securityContext", In(&POD_SECURITY)),
        field("volumes", List(&In(&VOLUME))),
        field("runtimeClassName", Text),
        field("automountServiceAccountToken", Bool),
        field("dnsPolicy", Word(&["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"])),
        field("dnsConfig", In(&DNS)),
        field("enableServiceLinks", Bool),
        field("priorityClassName", Text),
        field("schedulerName", Text),
        field("imagePullSecrets", List(&In(&NAME))),
        field("hostAliases", List(&In(&HOST_ALIAS))),
        field("hostNetwork", Bool),
        field("hostUsers", Bool),
        field("topologySpreadConstraints", List(&In(&SPREAD))),
    ],
    gone: &[],
};

pub static NAME: Table = Table { what: "a reference to an object", fields: &[needed("name", Text)], gone: &[] };

static TOLERATION: Table = Table {
    what: "a toleration",
    fields: &[
        field("key", Text),
        field("operator", Word(&["Equal", "Exists", "Lt", "Gt"])),
        field("value", Text),
        field("effect", Word(&["", "NoSchedule", "PreferNoSchedule", "NoExecute"])),
        field("tolerationSeconds", Int(i64::MIN, i64::MAX)),
    ],
    gone: &[],
};

static POD_SECURITY: Table = Table {
    what: "`securityContext`",
    fields: &[
        field("runAsUser", ID),
        field("runAsGroup", ID),
        field("runAsNonRoot", Bool),
        field("fsGroup", ID),
        field("fsGroupChangePolicy", Word(&["OnRootMismatch", "Always"])),
        field("supplementalGroups", List(&ID)),
        field("supplementalGroupsPolicy", Word(&["Merge", "Strict"])),
        field("seccompProfile", In(&PROFILE)),
        field("appArmorProfile", In(&PROFILE)),
        field("seLinuxOptions", In(&SELINUX)),
        field("seLinuxChangePolicy", Text),
        field("sysctls", List(&In(&SYSCTL))),
    ],
    gone: &[refused("windowsOptions", WINDOWS)],
};

static SYSCTL: Table = Table { what: "a sysctl", fields: &[needed("name", Text), needed("value", Text)], gone: &[] };

static DNS: Table = Table {
    what: "`dnsConfig`",
    fields: &[
        field("nameservers", List(&Text)),
        field("searches", List(&Text)),
        field("options", List(&In(&DNS_OPTION))),
    ],
    gone: &[],
};

static DNS_OPTION: Table =
    Table { what: "an option", fields: &[needed("name", Text), field("value", Text)], gone: &[] };

static HOST_ALIAS: Table =
    Table { what: "a host alias", fields: &[needed("ip", Text), field("hostnames", List(&Text))], gone: &[] };

static AFFINITY: Table = Table {
    what: "`affinity`",
    fields: &[
        field("nodeAffinity", In(&NODE_AFFINITY)),
        field("podAffinity", In(&POD_AFFINITY)),
        field("podAntiAffinity", In(&POD_AFFINITY)),
    ],
    gone: &[],
};

static NODE_AFFINITY: Table = Table {
    what: "`nodeAffinity`",
    fields: &[
        field("requiredDuringSchedulingIgnoredDuringExecution", In(&NODE_SELECTOR)),
        field("preferredDuringSchedulingIgnoredDuringExecution", List(&In(&NODE_PREFERENCE))),
    ],
    gone: &[],
};

static NODE_SELECTOR: Table =
    Table { what: "a node selector", fields: &[needed("nodeSelectorTerms", List(&In(&NODE_TERM)))], gone: &[] };

static NODE_TERM: Table = Table {
    what: "a term of a node selector",
    fields: &[field("matchExpressions", List(&In(&NODE_MATCH))), field("matchFields", List(&In(&NODE_MATCH)))],
    gone: &[],
};

static NODE_MATCH: Table = Table {
    what: "an expression of a node selector",
    fields: &[
        needed("key", Text),
        needed("operator", Word(&["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"])),
        field("values", List(&Text)),
    ],
    gone: &[],
};

const WEIGHT: Shape = Int(1, 100);

static NODE_PREFERENCE: Table = Table {
    what: "a preference",
    fields: &[needed("weight", WEIGHT), needed("preference", In(&NODE_TERM))],
    gone: &[],
};

static POD_AFFINITY: Table = Table {
    what: "an affinity of pods",
    fields: &[
        field("requiredDuringSchedulingIgnoredDuringExecution", List(&In(&POD_TERM))),
        field("preferredDuringSchedulingIgnoredDuringExecution", List(&In(&POD_PREFERENCE))),
    ],
    gone: &[],
};

static POD_PREFERENCE: Table = Table {
    what: "a preference",
    fields: &[needed("weight", WEIGHT), needed("podAffinityTerm", In(&POD_TERM))],
    gone: &[],
};

static POD_TERM: Table = Table {
    what: "a term of an affinity",
    fields: &[
        needed("topologyKey", Text),
        field("labelSelector", In(&LABEL_SELECTOR)),
        field("namespaceSelector", In(&LABEL_SELECTOR)),
        field("namespaces", List(&Text)),
        field("matchLabelKeys", List(&Text)),
        field("mismatchLabelKeys", List(&Text)),
    ],
    gone: &[],
};

pub static LABEL_SELECTOR: Table = Table {
    what: "a selector of labels",
    fields: &[field("matchLabels", Map(&Text)), field("matchExpressions", List(&In(&LABEL_MATCH)))],
    gone: &[],
};

static LABEL_MATCH: Table = Table {
    what: "an expression of a selector",
    fields: &[
        needed("key", Text),
        needed("operator", Word(&["In", "NotIn", "Exists", "DoesNotExist"])),
        field("values", List(&Text)),
    ],
    gone: &[],
};

static SPREAD: Table = Table {
    what: "a constraint of spreading",
    fields: &[
        needed("maxSkew", SECONDS),
        needed("topologyKey", Text),
        needed("whenUnsatisfiable", Word(&["DoNotSchedule", "ScheduleAnyway"])),
        field("labelSelector", In(&LABEL_SELECTOR)),
        field("minDomains", SECONDS),
        field("nodeAffinityPolicy", Word(&["Honor", "Ignore"])),
        field("nodeTaintsPolicy", Word(&["Honor", "Ignore"])),
        field("matchLabelKeys", List(&Text)),
    ],
    gone: &[],
};
