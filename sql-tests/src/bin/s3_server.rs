//! An S3 server over a folder, as a process of its own: `s3-server FOLDER [PORT]`.
//!
//! The protocol and the files are those of s3s and s3s-fs: signatures, ranges, multipart uploads, conditional requests. What
//! s3s-fs leaves out is added here: a condition (`If-None-Match`) is looked at and acted upon at once, as S3 does, so that of
//! two writers of one object one loses; and a request that has arrived is carried out even if its client has gone.
//!
//! It says on its standard output where it listens, and ends when its standard input does.
#![allow(clippy::print_stdout, reason = "its one line says where it listens")]

use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::BytesMut;
use futures::TryStreamExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::dto::*;
use s3s::service::S3ServiceBuilder;
use s3s::{Body, S3, S3Request, S3Response, S3Result, s3_error};
use s3s_fs::FileSystem;
use tokio::net::TcpListener;
use tokio::sync::RwLock;
use tokio::task::JoinSet;

/// What a client has to show.
const ACCESS_KEY: &str = freshet_sql_tests::s3::ACCESS_KEY;
const SECRET_KEY: &str = freshet_sql_tests::s3::SECRET_KEY;

/// s3s-fs, with requests that change something one at a time.
struct Bucket {
    inner: Arc<FileSystem>,
    /// Held while an object and what is noted of it are changed or opened.
    changes: Arc<RwLock<()>>,
}

type Answer<T> = S3Result<S3Response<T>>;

/// The requests that there are: those that only look, and those that change something.
macro_rules! requests {
    ({ $($look:ident($look_input:ty) -> $look_output:ty;)* } { $($change:ident($change_input:ty) -> $change_output:ty;)* }) => {
        #[async_trait::async_trait]
        impl S3 for Bucket {
            $(async fn $look(&self, request: S3Request<$look_input>) -> Answer<$look_output> {
                let _unchanged = self.changes.read().await;
                self.inner.$look(request).await
            })*

            $(async fn $change(&self, mut request: S3Request<$change_input>) -> Answer<$change_output> {
                arrive(&mut request.input).await?;
                let (inner, changes) = (self.inner.clone(), self.changes.clone());
                #[expect(clippy::disallowed_methods, reason = "it goes on when its client has gone")]
                let task = tokio::spawn(async move {
                    let _alone = changes.write().await;
                    inner.$change(request).await
                });
                task.await.unwrap_or_else(|_| Err(s3_error!(InternalError)))
            })*
        }
    };
}

requests! {
    {
        get_object(GetObjectInput) -> GetObjectOutput;
        head_object(HeadObjectInput) -> HeadObjectOutput;
        head_bucket(HeadBucketInput) -> HeadBucketOutput;
        list_objects_v2(ListObjectsV2Input) -> ListObjectsV2Output;
        list_buckets(ListBucketsInput) -> ListBucketsOutput;
        list_parts(ListPartsInput) -> ListPartsOutput;
    }
    {
        put_object(PutObjectInput) -> PutObjectOutput;
        copy_object(CopyObjectInput) -> CopyObjectOutput;
        delete_object(DeleteObjectInput) -> DeleteObjectOutput;
        delete_objects(DeleteObjectsInput) -> DeleteObjectsOutput;
        create_multipart_upload(CreateMultipartUploadInput) -> CreateMultipartUploadOutput;
        upload_part(UploadPartInput) -> UploadPartOutput;
        complete_multipart_upload(CompleteMultipartUploadInput) -> CompleteMultipartUploadOutput;
        abort_multipart_upload(AbortMultipartUploadInput) -> AbortMultipartUploadOutput;
    }
}

/// A request with a body, which arrives before anything is done: nobody waits for a slow client.
trait HasBody {
    fn body(&mut self) -> Option<&mut Option<StreamingBlob>>;
}

macro_rules! bodies {
    (with: $($with:ty),*; without: $($without:ty),*) => {
        $(impl HasBody for $with {
            fn body(&mut self) -> Option<&mut Option<StreamingBlob>> {
                Some(&mut self.body)
            }
        })*
        $(impl HasBody for $without {
            fn body(&mut self) -> Option<&mut Option<StreamingBlob>> {
                None
            }
        })*
    };
}

bodies! {
    with: PutObjectInput, UploadPartInput;
    without: CopyObjectInput, DeleteObjectInput, DeleteObjectsInput, CreateMultipartUploadInput,
        CompleteMultipartUploadInput, AbortMultipartUploadInput
}

async fn arrive(input: &mut (impl HasBody + Send)) -> S3Result<()> {
    let Some(body) = input.body() else { return Ok(()) };
    let Some(blob) = body.take() else { return Ok(()) };
    let collected = blob.try_fold(BytesMut::new(), async |mut all, piece| {
        all.extend_from_slice(&piece);
        Ok(all)
    });
    let collected = collected.await.map_err(|_| s3_error!(IncompleteBody))?;
    *body = Some(Body::from(collected.freeze()).into());
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().context("s3-server FOLDER [PORT]")?;
    let port: u16 = arguments.next().map_or(Ok(0), |port| port.parse())?;
    let files = FileSystem::new(folder).map_err(|error| anyhow::anyhow!("cannot open the folder: {error:?}"))?;
    let bucket = Bucket { inner: Arc::new(files), changes: Arc::default() };
    let mut service = S3ServiceBuilder::new(bucket);
    service.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
    let service = service.build();
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("{}", listener.local_addr()?);
    let mut connections = JoinSet::new();
    std::thread::spawn(|| {
        // It ends, with or without an error, when whoever started this is gone.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (socket, _) = accepted?;
                socket.set_nodelay(true)?;
                let service = service.clone();
                connections.spawn(async move {
                    // A client that breaks off has its reasons.
                    let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), service).await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}
