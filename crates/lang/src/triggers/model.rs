//! The kinds of Tekton's triggers as types. They are read and written under the names of the API, and names that it
//! does not have are refused.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A part of a document: what is left out is not written, and nothing can be added.
macro_rules! part {
    ($(#[$about:meta])* $name:ident { $($(#[$field_about:meta])* $field:ident: $type:ty),* $(,)? }) => {
        $(#[$about])*
        #[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
        #[serde(default, rename_all = "camelCase", deny_unknown_fields)]
        pub struct $name {
            $($(#[$field_about])* #[serde(skip_serializing_if = "is_default")] pub $field: $type,)*
        }
    };
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

part! {
    ListenerSpec {
        service_account_name: String,
        triggers: Vec<ListenerTrigger>,
        trigger_groups: Vec<TriggerGroup>,
        namespace_selector: NamespaceSelector,
        label_selector: Option<LabelSelector>,
        /// How a cluster would serve it; here the server does.
        resources: Option<Value>,
        #[serde(rename = "cloudEventURI")]
        cloud_event_uri: String,
    }
}

part! {
    /// A trigger that is written in the listener, or the name of one.
    ListenerTrigger {
        name: String,
        trigger_ref: String,
        bindings: Vec<Binding>,
        template: Option<TemplateUse>,
        interceptors: Vec<InterceptorUse>,
        service_account_name: String,
    }
}

part! {
    TriggerGroup { name: String, interceptors: Vec<InterceptorUse>, trigger_selector: TriggerSelector }
}

part! {
    TriggerSelector { namespace_selector: NamespaceSelector, label_selector: Option<LabelSelector> }
}

part! {
    /// `*` alone is all of them.
    NamespaceSelector { match_names: Vec<String> }
}

part! {
    LabelSelector { match_labels: BTreeMap<String, String>, match_expressions: Vec<LabelExpression> }
}

part! {
    /// `operator` is In, NotIn, Exists or DoesNotExist.
    LabelExpression { key: String, operator: String, values: Vec<String> }
}

part! {
    TriggerSpec {
        name: String,
        bindings: Vec<Binding>,
        template: TemplateUse,
        interceptors: Vec<InterceptorUse>,
        service_account_name: String,
    }
}

part! {
    /// A param of its own, or the name of a TriggerBinding or ClusterTriggerBinding.
    Binding {
        name: String,
        value: Option<String>,
        #[serde(rename = "ref")]
        reference: String,
        kind: String,
        #[serde(rename = "apiversion")]
        api_version: String,
    }
}

part! {
    TemplateUse {
        #[serde(rename = "ref")]
        reference: Option<String>,
        #[serde(rename = "apiversion")]
        api_version: String,
        spec: Option<TemplateSpec>,
    }
}

part! {
    InterceptorUse {
        name: Option<String>,
        #[serde(rename = "ref")]
        reference: InterceptorRef,
        params: Vec<InterceptorParam>,
        webhook: Option<Webhook>,
    }
}

part! {
    InterceptorRef { name: String, kind: String, api_version: String }
}

part! {
    InterceptorParam { name: String, value: Value }
}

part! {
    /// A service that is posted the event, and answers with another body.
    Webhook { object_ref: Option<ObjectRef>, url: Option<String>, header: Vec<InterceptorParam> }
}

part! {
    ObjectRef {
        kind: String,
        name: String,
        namespace: String,
        api_version: String,
        uid: String,
        resource_version: String,
        field_path: String,
    }
}

part! {
    BindingSpec { params: Vec<Param> }
}

part! {
    Param { name: String, value: String }
}

part! {
    TemplateSpec {
        params: Vec<ParamSpec>,
        #[serde(rename = "resourcetemplates")]
        resource_templates: Vec<Value>,
    }
}

part! {
    ParamSpec { name: String, description: String, default: Option<String> }
}

part! {
    InterceptorSpec { client_config: ClientConfig }
}

part! {
    /// Where an interceptor is called.
    ClientConfig { ca_bundle: String, url: Option<String>, service: Option<ServiceRef> }
}

part! {
    ServiceRef { name: String, namespace: String, path: String, port: Option<u16> }
}

part! {
    /// A key of a secret of the trigger's namespace.
    SecretRef { secret_key: String, secret_name: String }
}
