//! Where data is kept: a folder, or a prefix in a bucket, as the user names it.
//!
//! ```text
//! ./freshet-data, file:///var/lib/freshet      a folder
//! s3://bucket/prefix                           Amazon S3, or what speaks its protocol (AWS_ENDPOINT_URL)
//! gs://bucket/prefix                           Google Cloud Storage
//! az://container/prefix                        Azure Blob Storage (AZURE_STORAGE_ACCOUNT_NAME)
//! ```
//!
//! A [`Location`] is a name and no more; [`Location::open`] gives the object store whose root it is. Credentials come
//! from the environment, as the tools of each provider expect them, and are never part of a location.

use std::fmt;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;

use crate::StorageError;
use crate::bucket::{self, Provider};
use crate::watched::WatchedStore;

/// How long a bucket may take to answer for the first time.
const FIRST_ANSWER_BOUND: Duration = Duration::from_secs(10);

/// Where data is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    Folder(PathBuf),
    Bucket(BucketPrefix),
}

/// All objects of a bucket whose names begin with a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketPrefix {
    pub(crate) provider: Provider,
    /// The bucket, or the container; with `@account` where Azure's account is named.
    pub(crate) bucket: String,
    prefix: Path,
}

impl Location {
    /// The location that a path or a URL names.
    ///
    /// # Errors
    /// If there is no such kind of place, or the URL names no bucket.
    pub fn parse(text: &str) -> Result<Self, StorageError> {
        let refused = |reason| StorageError::UnsupportedLocation { location: text.to_owned(), reason };
        let Some((scheme, rest)) = text.split_once("://") else {
            return if text.is_empty() {
                Err(refused("it is empty".to_owned()))
            } else {
                Ok(Self::Folder(text.into()))
            };
        };
        if scheme == "file" {
            return if rest.starts_with('/') {
                Ok(Self::Folder(rest.into()))
            } else {
                Err(refused("the path of a file:// URL begins with a slash".to_owned()))
            };
        }
        let provider = Provider::of_scheme(scheme).ok_or_else(|| refused(unknown_scheme(scheme, rest)))?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            let (scheme, kind) = (provider.scheme(), provider.bucket_word());
            return Err(refused(format!("it names no {kind}, as in {scheme}://{kind}/prefix")));
        }
        if prefix.contains(['?', '#']) {
            return Err(refused("a URL of a bucket has no parameters; they come from the environment".to_owned()));
        }
        let prefix = Path::from_url_path(prefix).map_err(|error| refused(error.to_string()))?;
        Ok(Self::Bucket(BucketPrefix { provider, bucket: bucket.to_owned(), prefix }))
    }

    /// What lies below it, under `name`.
    pub fn join(&self, name: &str) -> Self {
        match self {
            Self::Folder(folder) => Self::Folder(folder.join(name)),
            Self::Bucket(bucket) => {
                Self::Bucket(BucketPrefix { prefix: bucket.prefix.clone().join(name), ..bucket.clone() })
            }
        }
    }

    /// The folder, if it is one.
    pub fn folder(&self) -> Option<&FilePath> {
        match self {
            Self::Folder(folder) => Some(folder),
            Self::Bucket(_) => None,
        }
    }

    /// The URL by which other programs know it.
    pub fn url(&self) -> String {
        match self {
            Self::Folder(folder) => {
                let whole = std::path::absolute(folder).unwrap_or_else(|_| folder.clone());
                format!("file://{}", whole.display())
            }
            Self::Bucket(_) => self.to_string(),
        }
    }

    /// Whether each access crosses a network.
    pub fn is_remote(&self) -> bool {
        matches!(self, Self::Bucket(_))
    }

    /// The object store whose root is this location. A folder is made if there is none, and what is written there is
    /// synced; of a bucket it is made sure that it answers.
    ///
    /// # Errors
    /// If it cannot be made or reached, in words for whoever named it.
    pub async fn open(&self) -> Result<Arc<dyn ObjectStore>, StorageError> {
        match self {
            Self::Folder(folder) => self.open_folder(folder).await,
            Self::Bucket(prefix) => {
                let store = bucket::connect(prefix).map_err(|error| self.cannot_open(bucket::told(prefix, &error)))?;
                let answered = tokio::time::timeout(FIRST_ANSWER_BOUND, bucket::ask(&*store, &prefix.prefix)).await;
                match answered {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return Err(self.cannot_open(bucket::told(prefix, &error))),
                    Err(_) => return Err(self.cannot_open(bucket::silent(prefix, FIRST_ANSWER_BOUND))),
                }
                Ok(self.watched(store, prefix))
            }
        }
    }

    /// The store that was `opened` here, for use on other threads: with connections of its own, which depend on no thread but
    /// those that use it. A connection belongs to the runtime on which it was made, and goes on only as long as that one does.
    ///
    /// # Errors
    /// If its settings make no sense.
    pub(crate) fn apart(&self, opened: &Arc<dyn ObjectStore>) -> Result<Arc<dyn ObjectStore>, StorageError> {
        match self {
            Self::Folder(_) => Ok(opened.clone()),
            Self::Bucket(prefix) => Ok(self.watched(bucket::connect(prefix)?, prefix)),
        }
    }

    fn watched(&self, store: Arc<dyn ObjectStore>, prefix: &BucketPrefix) -> Arc<dyn ObjectStore> {
        Arc::new(WatchedStore::new(PrefixStore::new(store, prefix.prefix.clone()), self.to_string()))
    }

    /// The same, but nothing is made.
    ///
    /// # Errors
    /// If it is not there, or cannot be reached.
    pub async fn open_existing(&self) -> Result<Arc<dyn ObjectStore>, StorageError> {
        if let Self::Folder(folder) = self
            && let Err(error) = tokio::fs::metadata(folder).await
        {
            return Err(self.cannot_open(error.to_string()));
        }
        self.open().await
    }

    /// The same as [`Location::open`], where nothing may be yet.
    ///
    /// # Errors
    /// If there is something, or it cannot be made or reached.
    pub async fn open_empty(&self) -> Result<Arc<dyn ObjectStore>, StorageError> {
        let store = self.open().await?;
        let is_empty = match self {
            // An object store shows neither empty folders nor what another program is writing.
            Self::Folder(folder) => {
                let mut entries = tokio::fs::read_dir(folder).await.map_err(|error| StorageError::io(&error))?;
                entries.next_entry().await.map_err(|error| StorageError::io(&error))?.is_none()
            }
            Self::Bucket(_) => store.list(None).next().await.transpose()?.is_none(),
        };
        if is_empty { Ok(store) } else { Err(StorageError::NotEmpty { location: self.to_string() }) }
    }

    async fn open_folder(&self, folder: &FilePath) -> Result<Arc<dyn ObjectStore>, StorageError> {
        tokio::fs::create_dir_all(folder).await.map_err(|error| self.cannot_open(error.to_string()))?;
        let store = LocalFileSystem::new_with_prefix(folder).map_err(|error| self.cannot_open(error.to_string()))?;
        Ok(Arc::new(store.with_fsync(true)))
    }

    pub(crate) fn cannot_open(&self, reason: String) -> StorageError {
        StorageError::Open { location: self.to_string(), reason }
    }
}

/// As the user would write it.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => write!(f, "{}", folder.display()),
            Self::Bucket(BucketPrefix { provider, bucket, prefix }) => {
                write!(f, "{}://{bucket}", provider.scheme())?;
                if prefix.as_ref().is_empty() { Ok(()) } else { write!(f, "/{prefix}") }
            }
        }
    }
}

fn unknown_scheme(scheme: &str, rest: &str) -> String {
    let distance = |known: &str| strsim::damerau_levenshtein(known, &scheme.to_ascii_lowercase());
    let all = Provider::SCHEMES.iter().map(|(name, provider)| (*name, *provider));
    let nearest = all.min_by_key(|(name, _)| distance(name)).filter(|(name, _)| distance(name) <= 1);
    match nearest {
        Some((_, provider)) => {
            format!("\"{scheme}\" is no kind of place; did you mean \"{}://{rest}\"?", provider.scheme())
        }
        None => format!(
            "\"{scheme}\" is no kind of place; there are folders, s3://bucket/prefix, gs://bucket/prefix and \
             az://container/prefix"
        ),
    }
}

#[cfg(test)]
mod tests {
    use object_store::{ObjectStoreExt, PutPayload};

    use super::*;

    fn refused(text: &str) -> String {
        Location::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn locations_are_named_as_they_are_written() {
        for text in ["./data", "/var/lib/x y", "s3://b", "s3://b/a/c", "gs://b/x", "az://c@account/x"] {
            assert_eq!(Location::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Location::parse("file:///a/b").unwrap().to_string(), "/a/b");
        assert_eq!(Location::parse("s3a://b/a/c/").unwrap().to_string(), "s3://b/a/c");
        assert_eq!(Location::parse("s3://b/a").unwrap().join("cold").to_string(), "s3://b/a/cold");
        assert_eq!(Location::parse("d").unwrap().join("cold").to_string(), "d/cold");
    }

    #[test]
    fn what_is_no_location_is_refused_with_what_was_meant() {
        assert_eq!(
            refused("s4://bucket/x"),
            "cannot keep data at \"s4://bucket/x\": \"s4\" is no kind of place; did you mean \"s3://bucket/x\"?"
        );
        assert!(refused("gcs://b").contains("did you mean \"gs://b\"?"));
        assert!(refused("S3://b").contains("did you mean \"s3://b\"?"));
        assert!(refused("hdfs://b").contains("there are folders, s3://bucket/prefix"));
        assert!(refused("s3:///x").contains("it names no bucket, as in s3://bucket/prefix"));
        assert!(refused("az://").contains("it names no container"));
        assert!(refused("s3://b/x?region=y").contains("come from the environment"));
        assert!(refused("s3://b/a//c").contains("cannot keep data"));
        assert!(refused("file://x").contains("begins with a slash"));
        assert!(refused("").contains("it is empty"));
    }

    #[tokio::test]
    async fn a_folder_is_made_and_is_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let location = Location::parse(dir.path().join("new/data").to_str().unwrap()).unwrap();
        let store = location.open().await.unwrap();
        store.put(&Path::from("a/b"), PutPayload::from_static(b"x")).await.unwrap();
        assert_eq!(std::fs::read(dir.path().join("new/data/a/b")).unwrap(), b"x");
        let file = dir.path().join("new/data/a/b").to_str().unwrap().to_owned();
        let error = Location::parse(&file).unwrap().open().await.unwrap_err();
        assert!(error.to_string().starts_with(&format!("cannot open \"{file}\": ")), "{error}");
    }
}
