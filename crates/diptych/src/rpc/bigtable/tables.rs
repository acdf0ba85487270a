//! `google.bigtable.admin.v2.BigtableTableAdmin`: tables and their families.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bigtable::admin::modify_column_families_request::modification::Mod;
use bigtable::admin::table::{ClusterState, View, cluster_state::ReplicationState};
use bigtable::admin::{
    self, AuthorizedView, CheckConsistencyRequest, CheckConsistencyResponse, CreateAuthorizedViewRequest,
    CreateTableRequest, DeleteAuthorizedViewRequest, DeleteTableRequest, DropRowRangeRequest,
    GenerateConsistencyTokenRequest, GenerateConsistencyTokenResponse, GetAuthorizedViewRequest, GetTableRequest,
    ListAuthorizedViewsRequest, ListAuthorizedViewsResponse, ListTablesRequest, ListTablesResponse,
    ModifyColumnFamiliesRequest, UndeleteTableMetadata, UndeleteTableRequest, UpdateAuthorizedViewRequest,
    UpdateTableMetadata, UpdateTableRequest, drop_row_range_request::Target,
};
use bigtable::longrunning::Operation;
use bigtable::names::{Instance, Table};
use bigtable::services::bigtable_table_admin_server::BigtableTableAdmin;
use bigtable::{changes, tables, types};
use bytes::Bytes;
use futures_util::StreamExt;
use model::request::NewTable;
use model::{
    AdminReply, AdminRequest, Aggregate, Change, Partition, ReadOptions, Retention, RowChanges, RowRange, Schema,
    SettingsChange, StorageChange, limits,
};
use tonic::{Request, Response, Status};

use super::operations::{Done, any};
use super::views::Views;
use super::{Tables, now, status_of, time};

/// What is served.
pub const METHODS: &[&str] = &[
    "CreateTable",
    "ListTables",
    "GetTable",
    "UpdateTable",
    "DeleteTable",
    "UndeleteTable",
    "ModifyColumnFamilies",
    "DropRowRange",
    "GenerateConsistencyToken",
    "CheckConsistency",
    "CreateAuthorizedView",
    "GetAuthorizedView",
    "ListAuthorizedViews",
    "UpdateAuthorizedView",
    "DeleteAuthorizedView",
];
/// The one cluster that an instance has.
pub const CLUSTER: &str = "diptych";
/// Tables on a page, if the client does not say.
const PAGE: usize = 1_000;
/// Rows that are deleted together.
const DROPPED: usize = 1_000;
/// What a consistency token begins with.
const TOKEN: &str = "diptych-";

/// The service.
pub struct TableAdmin {
    pub tables: Tables,
    pub views: Views,
    /// What was done.
    pub done: Done,
    /// How long a table that was deleted can be brought back.
    pub undelete_for: Duration,
}

impl TableAdmin {
    async fn change(&self, table: &Table, request: AdminRequest) -> Result<Schema, Status> {
        let result = self.tables.client().admin(request).await;
        self.tables.forget(table);
        match result {
            Ok(AdminReply::Table(schema)) => Ok(schema),
            Ok(_) => Err(Status::unavailable("the master answered something else")),
            Err(error) => Err(self.tables.status(table, &error)),
        }
    }

    async fn create(&self, request: CreateTableRequest) -> Result<admin::Table, Status> {
        let instance = Instance::parse("parent", &request.parent).map_err(status_of)?;
        let table = instance.table("table_id", &request.table_id).map_err(status_of)?;
        let wish = request.table.unwrap_or_default();
        let mut settings = SettingsChange {
            granularity: Some(tables::granularity(wish.granularity).map_err(status_of)?),
            protected: Some(wish.deletion_protection),
            ..SettingsChange::default()
        };
        if let Some(config) = &wish.change_stream_config {
            settings.changes = Some(changes::kept(config).map_err(status_of)?);
        }
        let mut families: Vec<(String, Retention)> = Vec::new();
        for (name, family) in wish.column_families {
            let (retention, aggregate) = tables::new_family(&name, &family).map_err(status_of)?;
            settings.aggregates.extend(aggregate.map(|aggregate| (name.clone(), aggregate)));
            families.push((name, retention));
        }
        let mut splits: BTreeSet<Bytes> = request.initial_splits.into_iter().map(|split| split.key).collect();
        splits.remove(&Bytes::new());
        if let Some(long) = splits.iter().find(|split| split.len() > limits::ROW_KEY) {
            let what = format!("a split has {} bytes; the limit is {}", long.len(), limits::ROW_KEY);
            return Err(Status::invalid_argument(format!("Error in field 'initial_splits' : {what}")));
        }
        let new = NewTable {
            name: table.native(),
            families,
            partition: Partition::Range { splits: splits.into_iter().collect() },
            replicas: None,
            min_replicas: None,
            storage: StorageChange::default(),
            settings,
        };
        let schema = self.change(&table, AdminRequest::CreateTable(new)).await?;
        Ok(tables::table(table.path(), &schema))
    }

    async fn list(&self, request: ListTablesRequest) -> Result<ListTablesResponse, Status> {
        let instance = Instance::parse("parent", &request.parent).map_err(status_of)?;
        let size = match usize::try_from(request.page_size) {
            Ok(0) => PAGE,
            Ok(size) => size,
            Err(_) => return Err(Status::invalid_argument("Error in field 'page_size' : it is negative")),
        };
        let view = view(request.view, View::NameOnly)?;
        let schemas = self.tables.client().tables().await;
        let schemas = schemas.map_err(|error| Status::unavailable(error.to_string()))?;
        let mut found: Vec<(Table, Schema)> = schemas
            .into_iter()
            .map(|schema| (Table::of_native(&schema.name), schema))
            .filter(|(table, _)| table.instance == instance && table.table > request.page_token)
            .collect();
        found.sort_by(|(one, _), (other, _)| one.table.cmp(&other.table));
        let more = found.len() > size;
        found.truncate(size);
        let next_page_token = found.last().filter(|_| more).map(|(table, _)| table.table.clone()).unwrap_or_default();
        let tables = found.iter().map(|(table, schema)| seen(table, schema, view)).collect();
        Ok(ListTablesResponse { tables, next_page_token })
    }

    async fn modify(&self, request: ModifyColumnFamiliesRequest) -> Result<admin::Table, Status> {
        let table = Table::parse("name", &request.name).map_err(status_of)?;
        let schema = self.tables.fetch(&table).await?;
        if request.modifications.is_empty() {
            return Err(Status::invalid_argument("Error in field 'modifications' : nothing is modified"));
        }
        // What it will be, so that all is checked before anything happens, and happens at once.
        let mut there: Vec<String> = schema.families.iter().map(|family| family.name.clone()).collect();
        let (mut set, mut drop): (Vec<(String, Retention)>, Vec<String>) = (Vec::new(), Vec::new());
        let mut aggregates: BTreeMap<String, Aggregate> = BTreeMap::new();
        for modification in request.modifications {
            let id = modification.id;
            let known = there.contains(&id);
            let missing =
                || Status::not_found(format!("Error in field 'modifications' : no family {id:?} in {}", table.path()));
            match modification.r#mod {
                Some(Mod::Create(_)) if known => {
                    let what = format!("Error in field 'modifications' : family {id:?} is there already");
                    return Err(Status::already_exists(what));
                }
                // One that is dropped in the same request is made anew, without what was in it.
                Some(Mod::Create(family)) => {
                    let (retention, aggregate) = tables::new_family(&id, &family).map_err(status_of)?;
                    aggregates.extend(aggregate.map(|aggregate| (id.clone(), aggregate)));
                    there.push(id.clone());
                    set.push((id, retention));
                }
                Some(Mod::Update(_)) if !known => return Err(missing()),
                Some(Mod::Update(family)) => {
                    check_update(&id, modification.update_mask.as_ref())?;
                    let new = schema.family(&id).is_none_or(|_| drop.contains(&id));
                    let adds =
                        if new { aggregates.get(&id).copied() } else { schema.family(&id).and_then(|it| it.aggregate) };
                    let wish = types::aggregate(&id, family.value_type.as_ref()).map_err(status_of)?;
                    if wish.is_some() && wish != adds {
                        let what = format!("the type of values of family {id:?} cannot be changed");
                        return Err(Status::invalid_argument(format!("Error in field 'modifications' : {what}")));
                    }
                    let retention = tables::retention(&id, family.gc_rule.as_ref()).map_err(status_of)?;
                    set.retain(|(name, _)| *name != id);
                    set.push((id, retention));
                }
                Some(Mod::Drop(true)) if !known => return Err(missing()),
                Some(Mod::Drop(true)) => {
                    there.retain(|name| *name != id);
                    set.retain(|(name, _)| *name != id);
                    aggregates.remove(&id);
                    if schema.family(&id).is_some() && !drop.contains(&id) {
                        drop.push(id);
                    }
                }
                Some(Mod::Drop(false)) | None => {
                    let what = format!("Error in field 'modifications' : nothing is said of family {id:?}");
                    return Err(Status::invalid_argument(what));
                }
            }
        }
        if set.is_empty() && drop.is_empty() {
            return Ok(tables::table(table.path(), &schema));
        }
        let request = AdminRequest::AlterTable {
            table: table.native(),
            set,
            drop,
            storage: StorageChange::default(),
            settings: SettingsChange { aggregates: aggregates.into_iter().collect(), ..SettingsChange::default() },
        };
        let schema = self.change(&table, request).await?;
        Ok(tables::table(table.path(), &schema))
    }

    async fn update(&self, request: UpdateTableRequest) -> Result<Operation, Status> {
        let began = time(now());
        let wish = request.table.unwrap_or_default();
        let table = Table::parse("table.name", &wish.name).map_err(status_of)?;
        let paths = request.update_mask.unwrap_or_default().paths;
        if paths.is_empty() {
            return Err(Status::invalid_argument("Error in field 'update_mask' : it is empty; name what changes"));
        }
        let mut settings = SettingsChange::default();
        for path in &paths {
            match path.as_str() {
                "deletion_protection" => settings.protected = Some(wish.deletion_protection),
                // Without one there is no stream any more.
                "change_stream_config" | "change_stream_config.retention_period" => {
                    let kept = wish.change_stream_config.as_ref().map(changes::kept).transpose().map_err(status_of)?;
                    settings.changes = Some(kept.unwrap_or_default());
                }
                "column_families" => {
                    return Err(Status::unimplemented("families are changed by ModifyColumnFamilies"));
                }
                "automated_backup_policy" | "row_key_schema" | "tiered_storage_config" => {
                    return Err(Status::unimplemented(format!("{path} of a table is not served by Diptych")));
                }
                _ => {
                    let what = format!("{path:?} cannot be changed; deletion_protection and change_stream_config can");
                    return Err(Status::invalid_argument(format!("Error in field 'update_mask' : {what}")));
                }
            }
        }
        let request = AdminRequest::AlterTable {
            table: table.native(),
            set: Vec::new(),
            drop: Vec::new(),
            storage: StorageChange::default(),
            settings,
        };
        let schema = self.change(&table, request).await?;
        let metadata = UpdateTableMetadata { name: table.path(), start_time: Some(began), end_time: Some(time(now())) };
        let updated = tables::table(table.path(), &schema);
        Ok(self.done.add(&table.path(), any("UpdateTableMetadata", &metadata), any("Table", &updated)))
    }

    /// Nobody sees it any more, and its data goes after a while.
    async fn delete(&self, request: DeleteTableRequest) -> Result<(), Status> {
        let table = Table::parse("name", &request.name).map_err(status_of)?;
        self.views.check_droppable(&table).await?;
        let request = crate::cli::settings::drop_request(table.native(), Some(self.undelete_for));
        self.change(&table, request).await.map(|_| ())
    }

    async fn undelete(&self, request: UndeleteTableRequest) -> Result<Operation, Status> {
        let began = time(now());
        let table = Table::parse("name", &request.name).map_err(status_of)?;
        let schema = self.change(&table, AdminRequest::RestoreTable(table.native())).await?;
        let metadata =
            UndeleteTableMetadata { name: table.path(), start_time: Some(began), end_time: Some(time(now())) };
        let back = tables::table(table.path(), &schema);
        Ok(self.done.add(&table.path(), any("UndeleteTableMetadata", &metadata), any("Table", &back)))
    }

    async fn drop_rows(&self, request: DropRowRangeRequest) -> Result<(), Status> {
        let table = Table::parse("name", &request.name).map_err(status_of)?;
        self.tables.fetch(&table).await?;
        let range = match request.target {
            Some(Target::RowKeyPrefix(prefix)) if !prefix.is_empty() => RowRange::prefix(&prefix),
            Some(Target::DeleteAllDataFromTable(true)) => RowRange::default(),
            Some(Target::DeleteAllDataFromTable(false)) => return Ok(()),
            Some(Target::RowKeyPrefix(_)) | None => {
                let what = "Error in field 'row_key_prefix' : give a prefix, or delete_all_data_from_table";
                return Err(Status::invalid_argument(what));
            }
        };
        let (client, native) = (&self.tables.client(), table.native());
        let mut rows = client.scan(&native, range, ReadOptions::default(), None).ready_chunks(DROPPED);
        while let Some(found) = rows.next().await {
            let mut deletions = Vec::with_capacity(found.len());
            for row in found {
                let row = row.map_err(|error| self.tables.status(&table, &error))?;
                deletions.push(RowChanges { row: row.key, changes: vec![Change::DeleteRow] });
            }
            let written = client.mutate_many(&native, deletions).await;
            if let Some(error) = written.each().find_map(Result::err) {
                return Err(self.tables.status(&table, &error));
            }
        }
        Ok(())
    }
}

fn view(view: i32, default: View) -> Result<View, Status> {
    match View::try_from(view) {
        Ok(View::Unspecified) => Ok(default),
        Ok(view) => Ok(view),
        Err(_) => Err(Status::invalid_argument(format!("Error in field 'view' : there is no view {view}"))),
    }
}

/// As much of a table as is asked for.
fn seen(table: &Table, schema: &Schema, view: View) -> admin::Table {
    let path = table.path();
    let ready = ClusterState { replication_state: ReplicationState::Ready.into(), ..ClusterState::default() };
    let cluster_states = || [(CLUSTER.to_owned(), ready.clone())].into_iter().collect();
    match view {
        View::NameOnly => admin::Table { name: path, ..admin::Table::default() },
        View::Unspecified | View::SchemaView => tables::table(path, schema),
        View::ReplicationView | View::EncryptionView => {
            admin::Table { name: path, cluster_states: cluster_states(), ..admin::Table::default() }
        }
        View::Full => admin::Table { cluster_states: cluster_states(), ..tables::table(path, schema) },
    }
}

/// Of a family its rule can be changed.
fn check_update(id: &str, mask: Option<&prost_types::FieldMask>) -> Result<(), Status> {
    let unknown = |path: &&String| !matches!(path.as_str(), "gc_rule" | "value_type");
    match mask.and_then(|mask| mask.paths.iter().find(unknown)) {
        None => Ok(()),
        Some(path) => {
            let what = format!("{path:?} of family {id:?} cannot be changed; gc_rule can");
            Err(Status::invalid_argument(format!("Error in field 'modifications' : {what}")))
        }
    }
}

#[tonic::async_trait]
impl BigtableTableAdmin for TableAdmin {
    async fn create_table(&self, request: Request<CreateTableRequest>) -> Result<Response<admin::Table>, Status> {
        self.create(request.into_inner()).await.map(Response::new)
    }

    async fn list_tables(&self, request: Request<ListTablesRequest>) -> Result<Response<ListTablesResponse>, Status> {
        self.list(request.into_inner()).await.map(Response::new)
    }

    async fn get_table(&self, request: Request<GetTableRequest>) -> Result<Response<admin::Table>, Status> {
        let request = request.into_inner();
        let table = Table::parse("name", &request.name).map_err(status_of)?;
        let view = view(request.view, View::SchemaView)?;
        let schema = self.tables.fetch(&table).await?;
        Ok(Response::new(seen(&table, &schema, view)))
    }

    async fn delete_table(&self, request: Request<DeleteTableRequest>) -> Result<Response<()>, Status> {
        self.delete(request.into_inner()).await.map(Response::new)
    }

    async fn update_table(&self, request: Request<UpdateTableRequest>) -> Result<Response<Operation>, Status> {
        self.update(request.into_inner()).await.map(Response::new)
    }

    async fn undelete_table(&self, request: Request<UndeleteTableRequest>) -> Result<Response<Operation>, Status> {
        self.undelete(request.into_inner()).await.map(Response::new)
    }

    async fn create_authorized_view(
        &self,
        request: Request<CreateAuthorizedViewRequest>,
    ) -> Result<Response<Operation>, Status> {
        self.views.create(&self.done, request.into_inner()).await.map(Response::new)
    }

    async fn get_authorized_view(
        &self,
        request: Request<GetAuthorizedViewRequest>,
    ) -> Result<Response<AuthorizedView>, Status> {
        self.views.get(request.into_inner()).await.map(Response::new)
    }

    async fn list_authorized_views(
        &self,
        request: Request<ListAuthorizedViewsRequest>,
    ) -> Result<Response<ListAuthorizedViewsResponse>, Status> {
        self.views.list(request.into_inner()).await.map(Response::new)
    }

    async fn update_authorized_view(
        &self,
        request: Request<UpdateAuthorizedViewRequest>,
    ) -> Result<Response<Operation>, Status> {
        self.views.update(&self.done, request.into_inner()).await.map(Response::new)
    }

    async fn delete_authorized_view(
        &self,
        request: Request<DeleteAuthorizedViewRequest>,
    ) -> Result<Response<()>, Status> {
        self.views.delete(request.into_inner()).await.map(Response::new)
    }

    async fn modify_column_families(
        &self,
        request: Request<ModifyColumnFamiliesRequest>,
    ) -> Result<Response<admin::Table>, Status> {
        self.modify(request.into_inner()).await.map(Response::new)
    }

    async fn drop_row_range(&self, request: Request<DropRowRangeRequest>) -> Result<Response<()>, Status> {
        self.drop_rows(request.into_inner()).await.map(Response::new)
    }

    async fn generate_consistency_token(
        &self,
        request: Request<GenerateConsistencyTokenRequest>,
    ) -> Result<Response<GenerateConsistencyTokenResponse>, Status> {
        let table = Table::parse("name", &request.into_inner().name).map_err(status_of)?;
        let schema = self.tables.fetch(&table).await?;
        let consistency_token = format!("{TOKEN}{}", schema.table.0);
        Ok(Response::new(GenerateConsistencyTokenResponse { consistency_token }))
    }

    /// Every write that was answered is on all replicas, and reads go to the primary: always.
    async fn check_consistency(
        &self,
        request: Request<CheckConsistencyRequest>,
    ) -> Result<Response<CheckConsistencyResponse>, Status> {
        let request = request.into_inner();
        let table = Table::parse("name", &request.name).map_err(status_of)?;
        let schema = self.tables.fetch(&table).await?;
        if request.consistency_token != format!("{TOKEN}{}", schema.table.0) {
            return Err(Status::invalid_argument("Error in field 'consistency_token' : it is not of this table"));
        }
        Ok(Response::new(CheckConsistencyResponse { consistent: true }))
    }
}
