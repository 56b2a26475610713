//! `CREATE SINK`: checks the declaration, reaches out once, and begins with the next checkpoint.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::Schema;
use freshet_connectors::SinkError;
use freshet_planner::statement::{CreateSink, IfExists};
use freshet_types::{Delta, SqlError, SqlState};
use tokio::sync::oneshot;

use crate::catalog::{Object, ObjectKind};
use crate::coordinator::Command;
use crate::execute::ddl::{self, Name};
use crate::execute::write::refuse_in_transaction;
use crate::limits::CONNECT_TIMEOUT_S;
use crate::pipeline::checkpointer::CheckpointRequest;
use crate::pipeline::sink::SinkObject;
use crate::pipeline::sink_sender;
use crate::server::objects;
use crate::session::{Response, Session};

pub async fn execute(session: &Session, create: &CreateSink) -> Result<Response, SqlError> {
    refuse_in_transaction(session, "CREATE SINK")?;
    debug_assert_ne!(create.if_exists, IfExists::Replace, "the parser refuses it");
    let done = || Response::Complete { tag: "CREATE SINK".to_owned() };
    let server = &session.server;
    let ddl = server.ddl.clone().lock_owned().await;
    let name = &create.name.name;
    if let Name::Skip = ddl::claim(session, &create.name, ObjectKind::Sink, create.if_exists)? {
        return Ok(done());
    }
    let identity = new_identity();
    let sink = Arc::new(objects::sink(server, &server.catalog.state(), create, &identity)?);
    let limit = Duration::from_secs(CONNECT_TIMEOUT_S);
    match tokio::time::timeout(limit, reach(&sink)).await {
        Ok(reached) => reached?,
        Err(_) => {
            let message = format!("sink \"{name}\" did not answer within {CONNECT_TIMEOUT_S} seconds");
            return Err(SqlError::new(SqlState::ConnectionFailure, message)
                .with_detail("nothing was created")
                .with_hint("check the address, and that it can be reached from this machine"));
        }
    }
    let id = server.next_id().await?;
    let mut record = ddl::record(id, &create.name, &create.sql, None);
    record.identity = Some(identity);
    let (server, name) = (server.clone(), name.clone());
    session
        .finish("create a sink", async move {
            ddl::publish(&server, record, Object::Sink(sink.clone()), None).await?;
            sink_sender::start(&server, id, &name, &sink);
            server.coordinator.send(Command::SinksChanged).await?;
            // Others may go on with DDL meanwhile.
            drop(ddl);
            // So that it begins now. A checkpoint that fails is tried again, and then it begins.
            let (request, made) = oneshot::channel();
            if server.checkpoint_requests.send(CheckpointRequest::Make(request)).await.is_ok() {
                let _ = made.await;
            }
            Ok(())
        })
        .await?;
    Ok(done())
}

/// Finds out whether all that the sink needs can be done, and has the system outside remember a first epoch.
async fn reach(sink: &SinkObject) -> Result<(), SinkError> {
    sink.connector.reach().await?;
    let mut writer = sink.connector.writer().await?;
    writer.send(sink_sender::FIRST_EPOCH, Delta::empty(Arc::new(Schema::empty()))).await?;
    Ok(())
}

/// 128 random bits.
fn new_identity() -> String {
    let bits = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", bits(), bits())
}
