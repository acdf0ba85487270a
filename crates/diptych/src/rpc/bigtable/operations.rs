//! `google.longrunning.Operations`: what was done. Nothing takes long here: an operation is done when it is answered. The last ones
//! of this process can be asked about again.

use std::collections::VecDeque;
use std::sync::Arc;

use bigtable::longrunning::{
    CancelOperationRequest, DeleteOperationRequest, GetOperationRequest, ListOperationsRequest, ListOperationsResponse,
    Operation, WaitOperationRequest, operation,
};
use bigtable::services::operations_server::Operations;
use parking_lot::Mutex;
use prost::Message;
use prost_types::Any;
use tonic::{Request, Response, Status};

use super::now;

/// What is served.
pub const METHODS: &[&str] = &["ListOperations", "GetOperation", "DeleteOperation", "CancelOperation", "WaitOperation"];
/// Operations that are remembered, and bytes of them: what a table looked like may be long.
const KEPT: usize = 1_000;
const BYTES: usize = 16 << 20;
/// Operations on a page, if the client does not say.
const PAGE: usize = 100;

/// The last operations of this process, the newest at the end.
#[derive(Clone, Default)]
pub struct Done(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    operations: VecDeque<Operation>,
    bytes: usize,
    last: i64,
}

impl Kept {
    fn remove(&mut self, at: usize) -> Option<Operation> {
        let gone = self.operations.remove(at)?;
        self.bytes -= gone.encoded_len();
        Some(gone)
    }
}

/// A message of the admin API by its name.
pub fn any(name: &str, message: &impl Message) -> Any {
    Any { type_url: format!("type.googleapis.com/google.bigtable.admin.v2.{name}"), value: message.encode_to_vec() }
}

impl Done {
    /// Something was done to what is called `resource`: with this about the request, and this as its answer.
    pub fn add(&self, resource: &str, metadata: Any, response: Any) -> Operation {
        let mut kept = self.0.lock();
        kept.last = now().0.max(kept.last + 1);
        let operation = Operation {
            name: format!("operations/{resource}/operations/{}", kept.last),
            metadata: Some(metadata),
            done: true,
            result: Some(operation::Result::Response(response)),
        };
        kept.bytes += operation.encoded_len();
        kept.operations.push_back(operation.clone());
        while kept.operations.len() > KEPT || kept.bytes > BYTES {
            kept.remove(0);
        }
        operation
    }

    fn get(&self, name: &str) -> Result<Operation, Status> {
        let kept = self.0.lock();
        let found = kept.operations.iter().find(|operation| operation.name == name).cloned();
        found.ok_or_else(|| {
            Status::not_found(format!("Operation not found here: {name:?}; it was done if it was answered"))
        })
    }

    /// A page of those whose names begin so, the newest first.
    fn list(&self, request: &ListOperationsRequest) -> Result<ListOperationsResponse, Status> {
        let size = match usize::try_from(request.page_size) {
            Ok(0) => PAGE,
            Ok(size) => size.min(KEPT),
            Err(_) => return Err(Status::invalid_argument("Error in field 'page_size' : it is negative")),
        };
        let after = |operation: &&Operation| {
            let number = |name: &str| name.rsplit('/').next().and_then(|number| number.parse::<i64>().ok());
            request.page_token.is_empty() || number(&operation.name) < number(&request.page_token)
        };
        let kept = self.0.lock();
        let named = kept.operations.iter().rev().filter(|operation| operation.name.starts_with(&request.name));
        let mut operations: Vec<Operation> = named.filter(after).take(size + 1).cloned().collect();
        let more = operations.len() > size;
        operations.truncate(size);
        let next_page_token = operations.last().filter(|_| more).map(|last| last.name.clone()).unwrap_or_default();
        Ok(ListOperationsResponse { operations, next_page_token, ..ListOperationsResponse::default() })
    }
}

#[tonic::async_trait]
impl Operations for Done {
    async fn list_operations(
        &self,
        request: Request<ListOperationsRequest>,
    ) -> Result<Response<ListOperationsResponse>, Status> {
        self.list(&request.into_inner()).map(Response::new)
    }

    async fn get_operation(&self, request: Request<GetOperationRequest>) -> Result<Response<Operation>, Status> {
        self.get(&request.into_inner().name).map(Response::new)
    }

    async fn delete_operation(&self, request: Request<DeleteOperationRequest>) -> Result<Response<()>, Status> {
        let name = request.into_inner().name;
        self.get(&name)?;
        let mut kept = self.0.lock();
        if let Some(at) = kept.operations.iter().position(|operation| operation.name == name) {
            kept.remove(at);
        }
        Ok(Response::new(()))
    }

    /// It is done, and stays so.
    async fn cancel_operation(&self, request: Request<CancelOperationRequest>) -> Result<Response<()>, Status> {
        self.get(&request.into_inner().name).map(|_| Response::new(()))
    }

    async fn wait_operation(&self, request: Request<WaitOperationRequest>) -> Result<Response<Operation>, Status> {
        self.get(&request.into_inner().name).map(Response::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigtable::admin;

    fn done(kept: &Done, table: &str) -> String {
        let (metadata, response) = (admin::UpdateTableMetadata::default(), admin::Table::default());
        kept.add(table, any("UpdateTableMetadata", &metadata), any("Table", &response)).name
    }

    #[test]
    fn the_last_operations_are_remembered() {
        let kept = Done::default();
        let names: Vec<String> = (0..KEPT + 2).map(|n| done(&kept, if n % 2 == 0 { "even" } else { "odd" })).collect();
        assert!(kept.get(&names[1]).is_err() && kept.get(&names[2]).is_ok());
        let page = |name: &str, page_token: &str| {
            let (name, page_token) = (name.to_owned(), page_token.to_owned());
            kept.list(&ListOperationsRequest { name, page_size: 400, page_token, ..Default::default() }).unwrap()
        };
        let first = page("operations/odd", "");
        let second = page("operations/odd", &first.next_page_token);
        assert_eq!((first.operations.len(), second.operations.len()), (400, KEPT / 2 - 400));
        assert_eq!((&first.operations[0].name, second.next_page_token.as_str()), (names.last().unwrap(), ""));
    }

    #[test]
    fn they_take_no_more_than_so_many_bytes() {
        let kept = Done::default();
        let table = admin::Table { name: "x".repeat(5 << 20), ..admin::Table::default() };
        for _ in 0..10 {
            kept.add("t", any("UpdateTableMetadata", &admin::UpdateTableMetadata::default()), any("Table", &table));
        }
        let kept = kept.0.lock();
        let bytes: usize = kept.operations.iter().map(Message::encoded_len).sum();
        assert!(bytes == kept.bytes && bytes <= BYTES && kept.operations.len() == 3);
    }
}
