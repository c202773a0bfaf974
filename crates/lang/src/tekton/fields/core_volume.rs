//! Volumes and claims, as Kubernetes defines them.

use super::core::{FIELD_REF, META, RESOURCE_REF, RESOURCES};
use crate::tekton::read::shape::Shape::{Bool, In, Int, List, Map, Open, Quantity, Text, Word};
use crate::tekton::read::shape::{Shape, Table, field, needed};

const MODE: Shape = Int(0, 0o777);

pub static VOLUME: Table = Table {
    what: "a volume",
    fields: &[
        needed("name", Text),
        field("emptyDir", In(&EMPTY_DIR)),
        field("configMap", In(&CONFIG_MAP_VOLUME)),
        field("secret", In(&SECRET_VOLUME)),
        field("projected", In(&PROJECTED)),
        field("persistentVolumeClaim", In(&PVC_VOLUME)),
        field("hostPath", In(&HOST_PATH)),
        field("downwardAPI", In(&DOWNWARD)),
        field("csi", In(&CSI_VOLUME)),
        field("ephemeral", In(&EPHEMERAL)),
        field("image", In(&IMAGE)),
        field("nfs", In(&NFS)),
        // Kinds of storage that only a cluster can make: their own fields are the cluster's to check.
        field("awsElasticBlockStore", Open),
        field("azureDisk", Open),
        field("azureFile", Open),
        field("cephfs", Open),
        field("cinder", Open),
        field("fc", Open),
        field("flexVolume", Open),
        field("flocker", Open),
        field("gcePersistentDisk", Open),
        field("gitRepo", Open),
        field("glusterfs", Open),
        field("iscsi", Open),
        field("photonPersistentDisk", Open),
        field("portworxVolume", Open),
        field("quobyte", Open),
        field("rbd", Open),
        field("scaleIO", Open),
        field("storageos", Open),
        field("vsphereVolume", Open),
    ],
    gone: &[],
};

pub static EMPTY_DIR: Table = Table {
    what: "`emptyDir`",
    fields: &[field("medium", Word(&["", "Memory", "HugePages"])), field("sizeLimit", Quantity)],
    gone: &[],
};

pub static CONFIG_MAP_VOLUME: Table = Table {
    what: "`configMap`",
    fields: &[
        field("name", Text),
        field("items", List(&In(&KEY_TO_PATH))),
        field("defaultMode", MODE),
        field("optional", Bool),
    ],
    gone: &[],
};

pub static SECRET_VOLUME: Table = Table {
    what: "`secret`",
    fields: &[
        field("secretName", Text),
        field("items", List(&In(&KEY_TO_PATH))),
        field("defaultMode", MODE),
        field("optional", Bool),
    ],
    gone: &[],
};

static KEY_TO_PATH: Table =
    Table { what: "an item", fields: &[needed("key", Text), needed("path", Text), field("mode", MODE)], gone: &[] };

pub static PROJECTED: Table = Table {
    what: "`projected`",
    fields: &[field("sources", List(&In(&PROJECTION))), field("defaultMode", MODE)],
    gone: &[],
};

static PROJECTION: Table = Table {
    what: "a source of `projected`",
    fields: &[
        field("configMap", In(&PROJECTED_OBJECT)),
        field("secret", In(&PROJECTED_OBJECT)),
        field("downwardAPI", In(&PROJECTED_DOWNWARD)),
        field("serviceAccountToken", In(&TOKEN)),
        field("clusterTrustBundle", Open),
        field("podCertificate", Open),
    ],
    gone: &[],
};

static PROJECTED_OBJECT: Table = Table {
    what: "a source of `projected`",
    fields: &[field("name", Text), field("items", List(&In(&KEY_TO_PATH))), field("optional", Bool)],
    gone: &[],
};

static PROJECTED_DOWNWARD: Table =
    Table { what: "`downwardAPI`", fields: &[field("items", List(&In(&DOWNWARD_ITEM)))], gone: &[] };

static TOKEN: Table = Table {
    what: "`serviceAccountToken`",
    fields: &[needed("path", Text), field("audience", Text), field("expirationSeconds", Int(0, i64::MAX))],
    gone: &[],
};

pub static PVC_VOLUME: Table =
    Table { what: "`persistentVolumeClaim`", fields: &[needed("claimName", Text), field("readOnly", Bool)], gone: &[] };

static HOST_PATH: Table = Table {
    what: "`hostPath`",
    fields: &[
        needed("path", Text),
        field(
            "type",
            Word(&[
                "",
                "DirectoryOrCreate",
                "Directory",
                "FileOrCreate",
                "File",
                "Socket",
                "CharDevice",
                "BlockDevice",
            ]),
        ),
    ],
    gone: &[],
};

static DOWNWARD: Table = Table {
    what: "`downwardAPI`",
    fields: &[field("items", List(&In(&DOWNWARD_ITEM))), field("defaultMode", MODE)],
    gone: &[],
};

static DOWNWARD_ITEM: Table = Table {
    what: "an item of `downwardAPI`",
    fields: &[
        needed("path", Text),
        field("fieldRef", In(&FIELD_REF)),
        field("resourceFieldRef", In(&RESOURCE_REF)),
        field("mode", MODE),
    ],
    gone: &[],
};

pub static CSI_VOLUME: Table = Table {
    what: "`csi`",
    fields: &[
        needed("driver", Text),
        field("readOnly", Bool),
        field("fsType", Text),
        field("volumeAttributes", Map(&Text)),
        field("nodePublishSecretRef", Open),
    ],
    gone: &[],
};

static EPHEMERAL: Table =
    Table { what: "`ephemeral`", fields: &[field("volumeClaimTemplate", In(&CLAIM_TEMPLATE))], gone: &[] };

static IMAGE: Table =
    Table { what: "`image`", fields: &[field("reference", Text), field("pullPolicy", super::core::PULL)], gone: &[] };

static NFS: Table = Table {
    what: "`nfs`",
    fields: &[needed("server", Text), needed("path", Text), field("readOnly", Bool)],
    gone: &[],
};

pub static CLAIM_TEMPLATE: Table = Table {
    what: "`volumeClaimTemplate`",
    fields: &[
        field("apiVersion", Word(&["v1"])),
        field("kind", Word(&["PersistentVolumeClaim"])),
        field("metadata", In(&META)),
        field("spec", In(&CLAIM_SPEC)),
        field("status", Open),
    ],
    gone: &[],
};

pub static CLAIM_SPEC: Table = Table {
    what: "the `spec` of a claim",
    fields: &[
        field("accessModes", List(&Word(&["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"]))),
        field("resources", In(&RESOURCES)),
        field("storageClassName", Text),
        field("volumeMode", Word(&["Filesystem", "Block"])),
        field("volumeName", Text),
        field("selector", In(&super::core_pod::LABEL_SELECTOR)),
        field("dataSource", Open),
        field("dataSourceRef", Open),
        field("volumeAttributesClassName", Text),
    ],
    gone: &[],
};
