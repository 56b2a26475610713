//! Buckets: how each provider is reached, and what to tell when it is not.
//!
//! Each provider's own variables say who asks and where (`AWS_…`, `GOOGLE_…`, `AZURE_…`); the builders of `object_store`
//! read them. Requests have bounds of their own here, so that a provider that hangs is an error soon, not a server
//! that hangs.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::path::Path;
use object_store::{BackoffConfig, ClientConfigKey, Error, ObjectStore, RetryConfig};

use crate::location::BucketPrefix;

/// One request: long enough for the largest object that is written at once, at 10 Mbit/s. `AWS_TIMEOUT` and the like
/// say otherwise.
const REQUEST_BOUND: &str = "15s";
/// A connection.
const CONNECT_BOUND: &str = "3s";
/// How long a failing request is repeated, and how often.
const RETRY_BOUND: Duration = Duration::from_secs(10);
const RETRIES_MAX: usize = 20;
/// The longest wait between two attempts.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(2);

/// Who keeps the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    S3,
    Google,
    Azure,
}

impl Provider {
    pub(crate) const SCHEMES: [(&'static str, Self); 7] = [
        ("s3", Self::S3),
        ("gs", Self::Google),
        ("az", Self::Azure),
        ("s3a", Self::S3),
        ("azure", Self::Azure),
        ("abfs", Self::Azure),
        ("abfss", Self::Azure),
    ];

    pub(crate) fn of_scheme(scheme: &str) -> Option<Self> {
        Self::SCHEMES.iter().find(|(known, _)| *known == scheme).map(|(_, provider)| *provider)
    }

    pub(crate) fn scheme(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Google => "gs",
            Self::Azure => "az",
        }
    }

    /// What a bucket is called there.
    pub(crate) fn bucket_word(self) -> &'static str {
        match self {
            Self::S3 | Self::Google => "bucket",
            Self::Azure => "container",
        }
    }

    /// The variables that say who asks.
    fn credentials(self) -> &'static str {
        match self {
            Self::S3 => "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            Self::Google => "GOOGLE_SERVICE_ACCOUNT or GOOGLE_APPLICATION_CREDENTIALS",
            Self::Azure => "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
        }
    }

    /// The variables that say where it is.
    fn address(self) -> &'static str {
        match self {
            Self::S3 => "AWS_ENDPOINT_URL, AWS_REGION and AWS_ALLOW_HTTP",
            Self::Google => "GOOGLE_BASE_URL",
            Self::Azure => "AZURE_STORAGE_ACCOUNT_NAME and AZURE_ENDPOINT",
        }
    }
}

/// The store whose root is the bucket itself. Nothing is asked of it yet.
pub(crate) fn connect(place: &BucketPrefix) -> Result<Arc<dyn ObjectStore>, Error> {
    let bounds = [(ClientConfigKey::Timeout, REQUEST_BOUND), (ClientConfigKey::ConnectTimeout, CONNECT_BOUND)];
    let retry = RetryConfig {
        backoff: BackoffConfig { max_backoff: RETRY_WAIT_MAX, ..BackoffConfig::default() },
        retry_timeout: RETRY_BOUND,
        max_retries: RETRIES_MAX,
    };
    Ok(match place.provider {
        Provider::S3 => {
            let mut builder = AmazonS3Builder::from_env().with_bucket_name(&place.bucket).with_retry(retry);
            for (key, bound) in bounds.into_iter().filter(|(key, _)| !is_set("AWS", key)) {
                builder = builder.with_config(AmazonS3ConfigKey::Client(key), bound);
            }
            // What fences servers: only one of them can create an object.
            Arc::new(builder.with_conditional_put(S3ConditionalPut::ETagMatch).build()?)
        }
        Provider::Google => {
            let mut builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(&place.bucket).with_retry(retry);
            for (key, bound) in bounds.into_iter().filter(|(key, _)| !is_set("GOOGLE", key)) {
                builder = builder.with_config(GoogleConfigKey::Client(key), bound);
            }
            Arc::new(builder.build()?)
        }
        Provider::Azure => {
            let (container, account) = match place.bucket.split_once('@') {
                Some((container, account)) => (container, Some(account.split('.').next().unwrap_or(account))),
                None => (&place.bucket[..], None),
            };
            let mut builder = MicrosoftAzureBuilder::from_env().with_container_name(container).with_retry(retry);
            if let Some(account) = account {
                builder = builder.with_account(account);
            }
            for (key, bound) in bounds.into_iter().filter(|(key, _)| !is_set("AZURE", key)) {
                builder = builder.with_config(AzureConfigKey::Client(key), bound);
            }
            Arc::new(builder.build()?)
        }
    })
}

fn is_set(provider: &str, key: &ClientConfigKey) -> bool {
    std::env::var_os(format!("{provider}_{}", key.as_ref().to_ascii_uppercase())).is_some()
}

/// Asks for anything below a prefix, to see whether there is a bucket that answers.
pub(crate) async fn ask(bucket: &dyn ObjectStore, prefix: &Path) -> Result<(), Error> {
    match bucket.list(Some(prefix)).next().await {
        None | Some(Ok(_)) => Ok(()),
        Some(Err(error)) => Err(error),
    }
}

/// Why a bucket cannot be opened, and what to do.
pub(crate) fn told(place: &BucketPrefix, error: &Error) -> String {
    let (provider, word) = (place.provider, place.provider.bucket_word());
    let text = error.to_string();
    let refused = ["403 Forbidden", "401 Unauthorized"].iter().any(|sign| text.contains(sign));
    let lost_credentials = ["169.254.169.254", "metadata.google.internal", "Missing", "must be specified"];
    match error {
        Error::NotFound { .. } => format!("there is no {word} \"{}\" at {}", place.bucket, endpoint(provider)),
        _ if refused || matches!(error, Error::PermissionDenied { .. } | Error::Unauthenticated { .. }) => {
            format!("{} refuses the credentials; look at {}", endpoint(provider), provider.credentials())
        }
        _ if lost_credentials.iter().any(|sign| text.contains(sign)) => {
            format!("there are no credentials; set {}", provider.credentials())
        }
        _ if text.contains("NoSuchBucket") => {
            format!("there is no {word} \"{}\" at {}", place.bucket, endpoint(provider))
        }
        _ => format!("{} cannot be reached; look at {}: {text}", endpoint(provider), provider.address()),
    }
}

/// That a bucket does not answer within `bound`.
pub(crate) fn silent(place: &BucketPrefix, bound: Duration) -> String {
    let provider = place.provider;
    format!(
        "{} has not answered for {} seconds; look at {}, and at {}",
        endpoint(provider),
        bound.as_secs(),
        provider.address(),
        provider.credentials()
    )
}

/// Where requests go, as far as the environment says.
fn endpoint(provider: Provider) -> String {
    let (variables, otherwise): (&[&str], _) = match provider {
        Provider::S3 => (&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"], "Amazon S3"),
        Provider::Google => (&["GOOGLE_BASE_URL"], "Google Cloud Storage"),
        Provider::Azure => (&["AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"], "Azure Blob Storage"),
    };
    variables.iter().find_map(|name| std::env::var(name).ok()).unwrap_or_else(|| otherwise.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::location::Location;

    fn place(text: &str) -> BucketPrefix {
        match Location::parse(text).unwrap() {
            Location::Bucket(place) => place,
            Location::Folder(folder) => panic!("{} is a folder", folder.display()),
        }
    }

    #[test]
    fn errors_say_what_to_look_at() {
        let place = place("s3://b/p");
        let error = |text: &str| Error::Generic { store: "S3", source: text.to_owned().into() };
        let no_bucket = Error::NotFound { path: "p".to_owned(), source: "404".into() };
        assert!(told(&place, &no_bucket).starts_with("there is no bucket \"b\" at "));
        let told_of = told(&place, &error("Error performing PUT http://169.254.169.254/latest/api/token"));
        assert_eq!(told_of, "there are no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY");
        let refused = error("Server returned non-2xx status code: 403 Forbidden: <Error>");
        assert!(told(&place, &refused).contains("refuses the credentials; look at AWS_ACCESS_KEY_ID"));
        assert!(told(&place, &error("connection refused")).contains("cannot be reached; look at AWS_ENDPOINT_URL"));
        assert!(silent(&place, Duration::from_secs(10)).contains("has not answered for 10 seconds"));
    }
}
