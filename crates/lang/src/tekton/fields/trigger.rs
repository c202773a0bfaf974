//! The kinds of `triggers.tekton.dev`.

use super::core::META;
use super::core_pod::LABEL_SELECTOR;
use crate::tekton::read::shape::Shape::{In, Int, List, Open, Param, Text, Word};
use crate::tekton::read::shape::{Gone, Table, field, needed, refused};

macro_rules! document {
    ($name:ident, $what:literal, $spec:ident) => {
        pub static $name: Table = Table {
            what: $what,
            fields: &[
                needed("apiVersion", Text),
                needed("kind", Text),
                needed("metadata", In(&META)),
                needed("spec", In(&$spec)),
                field("status", Open),
            ],
            gone: &[],
        };
    };
}

document!(LISTENER_DOC, "an EventListener", LISTENER);
document!(TRIGGER_DOC, "a Trigger", TRIGGER);
document!(BINDING_DOC, "a TriggerBinding", BINDING);
document!(CLUSTER_BINDING_DOC, "a ClusterTriggerBinding", BINDING);
document!(TEMPLATE_DOC, "a TriggerTemplate", TEMPLATE);
document!(INTERCEPTOR_DOC, "an Interceptor", INTERCEPTOR);
document!(CLUSTER_INTERCEPTOR_DOC, "a ClusterInterceptor", INTERCEPTOR);

const POD: &str = "that is gone from Tekton; here the server itself listens";

static LISTENER: Table = Table {
    what: "the `spec` of an EventListener",
    fields: &[
        field("serviceAccountName", Text),
        field("triggers", List(&In(&LISTENER_TRIGGER))),
        field("triggerGroups", List(&In(&GROUP))),
        field("namespaceSelector", In(&NAMESPACES)),
        field("labelSelector", In(&LABEL_SELECTOR)),
        field("resources", Open),
    ],
    gone: &[
        refused("cloudEventURI", "events of its own are not sent anywhere; leave it out"),
        refused("podTemplate", POD),
        refused("serviceType", POD),
        refused("replicas", POD),
    ],
};

static LISTENER_TRIGGER: Table = Table {
    what: "a trigger of an EventListener",
    fields: &[
        field("name", Text),
        field("triggerRef", Text),
        field("bindings", List(&In(&BINDING_USE))),
        field("template", In(&TEMPLATE_USE)),
        field("interceptors", List(&In(&INTERCEPTOR_USE))),
        field("serviceAccountName", Text),
    ],
    gone: &[],
};

static GROUP: Table = Table {
    what: "a group of triggers",
    fields: &[
        needed("name", Text),
        needed("interceptors", List(&In(&INTERCEPTOR_USE))),
        needed("triggerSelector", In(&SELECTOR)),
    ],
    gone: &[],
};

static SELECTOR: Table = Table {
    what: "`triggerSelector`",
    fields: &[field("namespaceSelector", In(&NAMESPACES)), field("labelSelector", In(&LABEL_SELECTOR))],
    gone: &[],
};

static NAMESPACES: Table =
    Table { what: "a selector of namespaces", fields: &[field("matchNames", List(&Text))], gone: &[] };

static TRIGGER: Table = Table {
    what: "the `spec` of a Trigger",
    fields: &[
        field("name", Text),
        field("bindings", List(&In(&BINDING_USE))),
        needed("template", In(&TEMPLATE_USE)),
        field("interceptors", List(&In(&INTERCEPTOR_USE))),
        field("serviceAccountName", Text),
    ],
    gone: &[],
};

static BINDING_USE: Table = Table {
    what: "a binding of a trigger",
    fields: &[
        field("name", Text),
        field("value", Text),
        field("ref", Text),
        field("kind", Word(&["TriggerBinding", "ClusterTriggerBinding"])),
        field("apiversion", Text),
    ],
    gone: &[refused(
        "spec",
        "write the params one by one: `name` and `value`, or make a TriggerBinding and name it by `ref`",
    )],
};

static TEMPLATE_USE: Table = Table {
    what: "the template of a trigger",
    fields: &[field("ref", Text), field("spec", In(&TEMPLATE)), field("apiversion", Text)],
    gone: &[refused("name", "that is gone from Tekton; write `ref`")],
};

const OLD: &str = "that is gone from Tekton; write `ref: {name: …}` and `params`";
const OLDER: &[Gone] = &[
    refused("github", OLD),
    refused("gitlab", OLD),
    refused("bitbucket", OLD),
    refused("slack", OLD),
    refused("cel", OLD),
];

static INTERCEPTOR_USE: Table = Table {
    what: "an interceptor of a trigger",
    fields: &[
        field("name", Text),
        field("ref", In(&INTERCEPTOR_REF)),
        field("params", List(&In(&INTERCEPTOR_PARAM))),
        field("webhook", In(&WEBHOOK)),
    ],
    gone: OLDER,
};

static INTERCEPTOR_REF: Table = Table {
    what: "a reference to an interceptor",
    fields: &[
        needed("name", Text),
        field("kind", Word(&["ClusterInterceptor", "NamespacedInterceptor"])),
        field("apiVersion", Text),
    ],
    gone: &[],
};

static INTERCEPTOR_PARAM: Table =
    Table { what: "a param of an interceptor", fields: &[needed("name", Text), needed("value", Open)], gone: &[] };

static WEBHOOK: Table = Table {
    what: "a webhook interceptor",
    fields: &[field("objectRef", In(&OBJECT_REF)), field("url", Text), field("header", List(&In(&HEADER)))],
    gone: &[],
};

static HEADER: Table = Table { what: "a header", fields: &[needed("name", Text), needed("value", Param)], gone: &[] };

static OBJECT_REF: Table = Table {
    what: "a reference to a service",
    fields: &[
        needed("kind", Word(&["Service"])),
        needed("name", Text),
        field("namespace", Text),
        needed("apiVersion", Word(&["v1"])),
        field("uid", Text),
        field("resourceVersion", Text),
        field("fieldPath", Text),
    ],
    gone: &[],
};

static BINDING: Table =
    Table { what: "the `spec` of a binding", fields: &[field("params", List(&In(&BINDING_PARAM)))], gone: &[] };

static BINDING_PARAM: Table =
    Table { what: "a param of a binding", fields: &[needed("name", Text), needed("value", Text)], gone: &[] };

static TEMPLATE: Table = Table {
    what: "the `spec` of a TriggerTemplate",
    fields: &[field("params", List(&In(&TEMPLATE_PARAM))), needed("resourcetemplates", List(&Open))],
    gone: &[refused("resourceTemplates", "in Tekton it is written `resourcetemplates`")],
};

static TEMPLATE_PARAM: Table = Table {
    what: "a param of a TriggerTemplate",
    fields: &[needed("name", Text), field("description", Text), field("default", Text)],
    gone: &[],
};

static INTERCEPTOR: Table =
    Table { what: "the `spec` of an interceptor", fields: &[needed("clientConfig", In(&CLIENT))], gone: &[] };

static CLIENT: Table = Table {
    what: "`clientConfig`",
    fields: &[field("caBundle", Text), field("url", Text), field("service", In(&SERVICE))],
    gone: &[],
};

static SERVICE: Table = Table {
    what: "the service of an interceptor",
    fields: &[needed("name", Text), needed("namespace", Text), field("path", Text), field("port", Int(1, 65_535))],
    gone: &[],
};
