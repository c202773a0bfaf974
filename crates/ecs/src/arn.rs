//! Names of AWS: ARNs in their long and short forms, families of task definitions, clusters.
//!
//! Invariant: two names are the same when their parts are; `train:11` is neither `train:110` nor `train` of another
//! account, and nothing is compared by how it begins.

use std::fmt;
use std::str::FromStr;

/// `arn:PARTITION:SERVICE:REGION:ACCOUNT:RESOURCE`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Arn {
    pub partition: String,
    pub service: String,
    pub region: String,
    pub account: String,
    /// All that follows, `:` and `/` included.
    pub resource: String,
}

/// What is no name of the kind that was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no {what}")]
pub struct NoName {
    pub text: String,
    pub what: &'static str,
}

impl NoName {
    fn new(text: &str, what: &'static str) -> NoName {
        NoName { text: text.chars().take(300).collect(), what }
    }
}

impl FromStr for Arn {
    type Err = NoName;

    fn from_str(text: &str) -> Result<Arn, NoName> {
        let parts: Vec<&str> = text.splitn(6, ':').collect();
        let [arn, partition, service, region, account, resource] = parts[..] else {
            return Err(NoName::new(text, "ARN"));
        };
        // Some resources have no region, and some no account.
        if arn != "arn" || [partition, service, resource].contains(&"") {
            return Err(NoName::new(text, "ARN"));
        }
        let [partition, service, region, account, resource] =
            [partition, service, region, account, resource].map(str::to_owned);
        Ok(Arn { partition, service, region, account, resource })
    }
}

impl fmt::Display for Arn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Arn { partition, service, region, account, resource } = self;
        write!(f, "arn:{partition}:{service}:{region}:{account}:{resource}")
    }
}

/// A task or a container instance: something in a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Resident {
    pub arn: Arn,
    /// The name of its cluster; the old short form of an ARN does not tell.
    pub cluster: Option<String>,
    pub id: String,
}

impl Resident {
    /// `…:task/CLUSTER/ID` or `…:task/ID`.
    pub fn task(text: &str) -> Result<Resident, NoName> {
        Resident::parse(text, "task", "ARN of a task of ECS")
    }

    /// `…:container-instance/CLUSTER/ID` or `…:container-instance/ID`.
    pub fn instance(text: &str) -> Result<Resident, NoName> {
        Resident::parse(text, "container-instance", "ARN of a container instance of ECS")
    }

    fn parse(text: &str, kind: &str, what: &'static str) -> Result<Resident, NoName> {
        let arn: Arn = text.parse().map_err(|_| NoName::new(text, what))?;
        let parts: Vec<&str> = arn.resource.split('/').collect();
        let (cluster, id) = match parts[..] {
            [first, cluster, id] if first == kind => (Some(cluster), id),
            [first, id] if first == kind => (None, id),
            _ => return Err(NoName::new(text, what)),
        };
        if arn.service != "ecs" || id.is_empty() || cluster == Some("") {
            return Err(NoName::new(text, what));
        }
        let (cluster, id) = (cluster.map(str::to_owned), id.to_owned());
        Ok(Resident { arn, cluster, id })
    }
}

/// A task definition, or all revisions of one: `train`, `train:11`, or an ARN of either.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Family {
    /// Account and region, where they are known.
    pub place: Option<(String, String)>,
    pub name: String,
    pub revision: Option<u32>,
}

impl FromStr for Family {
    type Err = NoName;

    fn from_str(text: &str) -> Result<Family, NoName> {
        let wrong = || NoName::new(text, "task definition of ECS: write `family`, `family:revision` or its ARN");
        let (place, name) = match text.starts_with("arn:") {
            false => (None, text.to_owned()),
            true => {
                let arn: Arn = text.parse().map_err(|_| wrong())?;
                let name = arn.resource.strip_prefix("task-definition/").ok_or_else(wrong)?.to_owned();
                if arn.service != "ecs" {
                    return Err(wrong());
                }
                (Some((arn.account, arn.region)), name)
            }
        };
        let (name, revision) = match name.split_once(':') {
            Some((name, revision)) => (name, Some(revision.parse().map_err(|_| wrong())?)),
            None => (name.as_str(), None),
        };
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || name.len() > 255 || !name.chars().all(fits) {
            return Err(wrong());
        }
        Ok(Family { place, name: name.to_owned(), revision })
    }
}

impl Family {
    /// Whether that task definition is one of these. What is left open here, revision or account, may be any.
    pub fn has(&self, other: &Family) -> bool {
        self.name == other.name
            && (self.revision.is_none() || self.revision == other.revision)
            && match (&self.place, &other.place) {
                (Some(own), Some(other)) => own == other,
                (None, _) | (_, None) => true,
            }
    }
}

/// The name of a cluster, given by its name or its ARN.
pub fn cluster_name(cluster: &str) -> &str {
    match cluster.starts_with("arn:") {
        true => cluster.rsplit_once(":cluster/").map_or(cluster, |(_, name)| name),
        false => cluster,
    }
}

/// Whether both are the same cluster. Two ARNs must be equal; where one of them is a bare name, the names.
pub fn is_same_cluster(one: &str, other: &str) -> bool {
    match one.starts_with("arn:") && other.starts_with("arn:") {
        true => one == other,
        false => cluster_name(one) == cluster_name(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Weakness 22: short ARNs name no cluster.
    #[test]
    fn tasks_and_instances_are_read_in_both_forms() {
        let long = "arn:aws:ecs:us-west-2:111122223333:task/train/9e1c";
        let task = Resident::task(long).unwrap();
        assert_eq!((task.cluster.as_deref(), task.id.as_str()), (Some("train"), "9e1c"));
        assert_eq!((task.arn.region.as_str(), task.arn.to_string().as_str()), ("us-west-2", long));
        let short = Resident::task("arn:aws-cn:ecs:cn-north-1:1:task/9e1c").unwrap();
        assert_eq!((short.cluster, short.id.as_str()), (None, "9e1c"));
        let instance = Resident::instance("arn:aws:ecs:us-west-2:1:container-instance/train/8f").unwrap();
        assert_eq!((instance.cluster.as_deref(), instance.id.as_str()), (Some("train"), "8f"));
        for wrong in [
            "",
            "9e1c",
            "task/train/9e1c",
            "arn:aws:ecs:r:1:task/",
            "arn:aws:ecs:r:1:task//x",
            "arn:aws:ecs:r:1:task/a/b/c",
            "arn:aws:ecs:r:1:container-instance/train/8f",
            "arn:aws:sqs:r:1:task/train/9e1c",
        ] {
            assert!(Resident::task(wrong).is_err(), "{wrong}");
        }
    }

    /// Weakness 21: families and revisions are compared as a whole.
    #[test]
    fn a_revision_is_no_prefix_of_another_and_an_account_is_not_ours_by_its_family() {
        let of = |text: &str| text.parse::<Family>().unwrap();
        let arn = |account: &str, rest: &str| of(&format!("arn:aws:ecs:us-west-2:{account}:task-definition/{rest}"));
        assert!(!of("dcgm:11").has(&of("dcgm:110")) && !of("dcgm:11").has(&arn("1", "dcgm:110")));
        assert!(of("dcgm:11").has(&arn("1", "dcgm:11")));
        assert!(!of("dcgm").has(&of("dcgm-check:1")));
        assert!(of("dcgm").has(&of("dcgm:12")), "a new revision is of the same family");
        assert!(!arn("1", "dcgm:11").has(&arn("2", "dcgm:11")));
        assert!(!of("dcgm:11").has(&of("dcgm")), "one revision is not all of them");
        for wrong in ["", ":1", "a:b", "a b", "a/b", "arn:aws:ecs:r:1:task/x", "arn:aws:ec2:r:1:task-definition/x:1"] {
            let error = wrong.parse::<Family>().unwrap_err().to_string();
            assert!(error.contains("write `family`"), "{error}");
        }
    }

    /// Weakness 21: nor is a cluster ours because it begins like ours.
    #[test]
    fn clusters_are_compared_by_what_is_known_of_both() {
        let arn = |account: &str| format!("arn:aws:ecs:us-west-2:{account}:cluster/train");
        assert_eq!(cluster_name(&arn("1")), "train");
        assert!(is_same_cluster("train", &arn("1")) && is_same_cluster(&arn("1"), &arn("1")));
        assert!(!is_same_cluster(&arn("1"), &arn("2")) && !is_same_cluster("train", "train-2"));
    }
}
