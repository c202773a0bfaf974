//! The services that are used here: how they sign, where they answer, and how the environment moves them.

use super::{AwsError, Env};

/// A service of AWS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    SecretsManager,
    Sqs,
    Sns,
    Lambda,
    StepFunctions,
    SageMaker,
    Sts,
    S3,
    Ecs,
    Ec2,
    Ssm,
    /// CloudWatch Logs.
    Logs,
    DynamoDb,
    EventBridge,
}

impl Service {
    /// The name that requests are signed for; also how messages call it.
    pub fn name(self) -> &'static str {
        match self {
            Service::SecretsManager => "secretsmanager",
            Service::Sqs => "sqs",
            Service::Sns => "sns",
            Service::Lambda => "lambda",
            Service::StepFunctions => "states",
            Service::SageMaker => "sagemaker",
            Service::Sts => "sts",
            Service::S3 => "s3",
            Service::Ecs => "ecs",
            Service::Ec2 => "ec2",
            Service::Ssm => "ssm",
            Service::Logs => "logs",
            Service::DynamoDb => "dynamodb",
            Service::EventBridge => "events",
        }
    }

    fn host(self) -> &'static str {
        match self {
            Service::SageMaker => "api.sagemaker",
            other => other.name(),
        }
    }

    /// The end of the variable that moves this service alone.
    fn variable(self) -> &'static str {
        match self {
            Service::SecretsManager => "SECRETS_MANAGER",
            Service::Sqs => "SQS",
            Service::Sns => "SNS",
            Service::Lambda => "LAMBDA",
            Service::StepFunctions => "SFN",
            Service::SageMaker => "SAGEMAKER",
            Service::Sts => "STS",
            Service::S3 => "S3",
            Service::Ecs => "ECS",
            Service::Ec2 => "EC2",
            Service::Ssm => "SSM",
            Service::Logs => "CLOUDWATCH_LOGS",
            Service::DynamoDb => "DYNAMODB",
            Service::EventBridge => "EVENTBRIDGE",
        }
    }

    /// For calls with JSON: what stands before the operation, and the version of the protocol.
    pub(super) fn json(self) -> Option<(&'static str, &'static str)> {
        match self {
            Service::SecretsManager => Some(("secretsmanager", "1.1")),
            Service::Sqs => Some(("AmazonSQS", "1.0")),
            Service::StepFunctions => Some(("AWSStepFunctions", "1.0")),
            Service::SageMaker => Some(("SageMaker", "1.1")),
            Service::Ecs => Some(("AmazonEC2ContainerServiceV20141113", "1.1")),
            Service::Ssm => Some(("AmazonSSM", "1.1")),
            Service::Logs => Some(("Logs_20140328", "1.1")),
            Service::DynamoDb => Some(("DynamoDB_20120810", "1.0")),
            Service::EventBridge => Some(("AWSEvents", "1.1")),
            Service::Sns | Service::Lambda | Service::Sts | Service::S3 | Service::Ec2 => None,
        }
    }
}

/// `AWS_ENDPOINT_URL_<SERVICE>`, else `AWS_ENDPOINT_URL`, else the service of the region; without a `/` at its end.
pub(super) fn of(service: Service, region: &str, env: &Env) -> Result<String, AwsError> {
    check_region(region)?;
    let own = format!("AWS_ENDPOINT_URL_{}", service.variable());
    let names = [own.as_str(), "AWS_ENDPOINT_URL"];
    let given = names.into_iter().find_map(|name| Some((name, env(name).filter(|url| !url.is_empty())?)));
    let Some((name, url)) = given else {
        let suffix = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
        return Ok(format!("https://{}.{region}.{suffix}", service.host()));
    };
    if !url.starts_with("http://") && !url.starts_with("https://") {
        return Err(AwsError::local(format!("`{name}` is no address: it must begin with `https://` or `http://`")));
    }
    Ok(url.trim_end_matches('/').to_owned())
}

/// A region becomes a part of a host's name, so it is letters, digits and `-`.
pub fn check_region(region: &str) -> Result<(), AwsError> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if region.is_empty() || region.len() > 32 || !region.chars().all(fits) {
        let shown: String = region.chars().take(40).collect();
        return Err(AwsError::local(format!("`{shown}` is no region of AWS: write one such as `eu-west-1`")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn the_endpoint_is_that_of_the_region_unless_the_environment_names_one() {
        let none: Env = Arc::new(|_| None);
        assert_eq!(
            of(Service::SageMaker, "eu-west-1", &none).unwrap(),
            "https://api.sagemaker.eu-west-1.amazonaws.com"
        );
        assert_eq!(of(Service::Sns, "cn-north-1", &none).unwrap(), "https://sns.cn-north-1.amazonaws.com.cn");
        let both: Env = Arc::new(|name| Some(format!("http://localhost/{}/", name.len())));
        assert_eq!(of(Service::Sns, "eu-west-1", &both).unwrap(), "http://localhost/20");
        for region in ["", "evil.example/", "eu west", "EU-WEST-1"] {
            assert!(of(Service::Sns, region, &none).unwrap_err().to_string().contains("no region"), "{region}");
        }
        let wrong: Env = Arc::new(|_| Some("localhost:1".to_owned()));
        assert!(of(Service::Sns, "eu-west-1", &wrong).unwrap_err().to_string().contains("`AWS_ENDPOINT_URL_SNS`"));
    }
}
