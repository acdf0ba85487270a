//! `google.bigtable.admin.v2.BigtableInstanceAdmin`: an instance is there as soon as it is named, and has one cluster. What somebody says
//! of one (its name for people, labels) is kept, and also that one was deleted, until it is made or has tables again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bigtable::admin::{
    self, AppProfile, Cluster, CreateAppProfileRequest, CreateInstanceMetadata, CreateInstanceRequest,
    DeleteAppProfileRequest, DeleteInstanceRequest, GetAppProfileRequest, GetClusterRequest, GetInstanceRequest,
    ListAppProfilesRequest, ListAppProfilesResponse, ListClustersRequest, ListClustersResponse, ListInstancesRequest,
    ListInstancesResponse, PartialUpdateClusterMetadata, PartialUpdateClusterRequest, PartialUpdateInstanceRequest,
    StorageType, UpdateAppProfileRequest, UpdateClusterMetadata, UpdateInstanceMetadata, cluster, instance,
};
use bigtable::longrunning::Operation;
use bigtable::names::{self, Instance, Table};
use bigtable::services::bigtable_instance_admin_server::BigtableInstanceAdmin;
use model::{AdminReply, Schema};
use tonic::{Request, Response, Status};

use super::operations::{Done, any};
use super::profiles::Profiles;
use super::shelf::{Entry, Shelf, changed_meanwhile};
use super::tables::CLUSTER;
use super::views::Views;
use super::{Tables, now, status_of, time};

/// What is served.
pub const METHODS: &[&str] = &[
    "CreateInstance",
    "GetInstance",
    "ListInstances",
    "UpdateInstance",
    "PartialUpdateInstance",
    "DeleteInstance",
    "GetCluster",
    "ListClusters",
    "UpdateCluster",
    "PartialUpdateCluster",
    "CreateAppProfile",
    "GetAppProfile",
    "ListAppProfiles",
    "UpdateAppProfile",
    "DeleteAppProfile",
];
/// Labels of an instance, and characters of a name, a label or its value.
const LABELS: usize = 64;
const CHARACTERS: usize = 63;

/// The service.
pub struct InstanceAdmin {
    pub tables: Tables,
    pub shelf: Shelf,
    pub profiles: Profiles,
    pub views: Views,
    pub done: Done,
    /// How long tables can be brought back.
    pub undelete_for: Duration,
}

/// In the document of an instance that was deleted.
const DELETED: &str = "deleted";

fn folder(project: &str) -> String {
    format!("bigtable/instances/{project}/")
}

/// As clients see it.
fn shown(instance: &Instance, said: Option<admin::Instance>) -> admin::Instance {
    let said = said.unwrap_or_default();
    let named = !said.display_name.is_empty();
    admin::Instance {
        name: instance.path(),
        display_name: if named { said.display_name } else { instance.instance.clone() },
        state: instance::State::Ready.into(),
        r#type: if said.r#type == 0 { instance::Type::Production.into() } else { said.r#type },
        labels: said.labels,
        create_time: said.create_time,
        ..admin::Instance::default()
    }
}

/// Says what is wrong with what is said of an instance, if anything.
fn check(said: &admin::Instance) -> Result<(), Status> {
    let wrong = |what: String| Err(Status::invalid_argument(format!("Error in field 'instance' : {what}")));
    if said.display_name.chars().count() > CHARACTERS {
        return wrong(format!("display_name has more than {CHARACTERS} characters"));
    }
    if said.labels.len() > LABELS {
        return wrong(format!("{} labels; the limit is {LABELS}", said.labels.len()));
    }
    let long = |(label, value): &(&String, &String)| {
        label.is_empty() || label.chars().count() > CHARACTERS || value.chars().count() > CHARACTERS
    };
    match said.labels.iter().find(long) {
        Some((label, _)) => {
            wrong(format!("label {label:?} or its value is empty or has more than {CHARACTERS} characters"))
        }
        None => Ok(()),
    }
}

/// What is kept of what is said.
fn body(said: admin::Instance) -> admin::Instance {
    let admin::Instance { display_name, r#type, labels, create_time, .. } = said;
    admin::Instance { display_name, r#type, labels, create_time, ..admin::Instance::default() }
}

fn deleted(said: &admin::Instance) -> bool {
    said.name == DELETED
}

/// The only cluster.
fn only_cluster(instance: &Instance) -> Cluster {
    Cluster {
        name: format!("{}/clusters/{CLUSTER}", instance.path()),
        state: cluster::State::Ready.into(),
        default_storage_type: StorageType::Ssd.into(),
        ..Cluster::default()
    }
}

/// The instance of `projects/P/instances/I/clusters/ID`, if the last is the one that there is.
fn of_cluster(field: &str, name: &str) -> Result<Instance, Status> {
    let Some((parent, found)) = name.split_once("/clusters/") else {
        let what = format!("{name:?} is none; expected projects/PROJECT/instances/INSTANCE/clusters/CLUSTER");
        return Err(Status::invalid_argument(format!("Error in field '{field}' : {what}")));
    };
    let instance = Instance::parse(field, parent).map_err(status_of)?;
    match found == CLUSTER {
        true => Ok(instance),
        false => Err(Status::not_found(format!("Cluster not found: {name}; the only one is {CLUSTER:?}"))),
    }
}

impl InstanceAdmin {
    async fn all_tables(&self) -> Result<Vec<Schema>, Status> {
        self.tables.client().tables().await.map_err(|error| Status::unavailable(error.to_string()))
    }

    async fn tables_of(&self, instance: &Instance) -> Result<Vec<Table>, Status> {
        let tables = self.all_tables().await?;
        let tables = tables.iter().map(|schema| Table::of_native(&schema.name));
        Ok(tables.filter(|table| table.instance == *instance).collect())
    }

    /// What is said of an instance, with its version; also of one of which nothing is. Fails if it was deleted.
    async fn find(&self, instance: &Instance) -> Result<Entry<admin::Instance>, Status> {
        let found = self.shelf.get::<admin::Instance>(&folder(&instance.project), &instance.instance).await?;
        let entry =
            found.unwrap_or_else(|| Entry { id: instance.instance.clone(), version: 0, message: <_>::default() });
        if deleted(&entry.message) && self.tables_of(instance).await?.is_empty() {
            return Err(Status::not_found(format!("Instance not found: {}", instance.path())));
        }
        Ok(entry)
    }

    async fn create(&self, request: CreateInstanceRequest) -> Result<Operation, Status> {
        let began = time(now());
        let name = format!("{}/instances/{}", request.parent, request.instance_id);
        let instance = Instance::parse("instance_id", &name).map_err(status_of)?;
        let wish = request.instance.clone().unwrap_or_default();
        check(&wish)?;
        let folder = folder(&instance.project);
        let present = self.shelf.get::<admin::Instance>(&folder, &instance.instance).await?;
        let exists = || Status::already_exists(format!("Instance already exists: {name}"));
        let version = match present {
            None => 0,
            Some(entry) if deleted(&entry.message) => entry.version,
            Some(_) => return Err(exists()),
        };
        let said = admin::Instance { create_time: Some(began), ..body(wish) };
        let made = self.shelf.put(&folder, &instance.instance, said, Some(version)).await?.ok_or_else(exists)?;
        let metadata = CreateInstanceMetadata {
            original_request: Some(request),
            request_time: Some(began),
            finish_time: Some(time(now())),
        };
        let made = shown(&instance, Some(made.message));
        Ok(self.done.add(&name, any("CreateInstanceMetadata", &metadata), any("Instance", &made)))
    }

    /// Changes what is said of an instance.
    async fn change(
        &self,
        field: &str,
        name: &str,
        change: impl FnOnce(admin::Instance) -> Result<admin::Instance, Status>,
    ) -> Result<admin::Instance, Status> {
        let instance = Instance::parse(field, name).map_err(status_of)?;
        let present = self.find(&instance).await?;
        let said = admin::Instance { name: String::new(), ..present.message };
        let said = change(said)?;
        check(&said)?;
        let folder = folder(&instance.project);
        let changed = self.shelf.put(&folder, &instance.instance, body(said), Some(present.version)).await?;
        let changed = changed.ok_or_else(|| changed_meanwhile(name))?;
        Ok(shown(&instance, Some(changed.message)))
    }

    async fn partial_update(&self, request: PartialUpdateInstanceRequest) -> Result<Operation, Status> {
        let began = time(now());
        let wish = request.instance.clone().unwrap_or_default();
        let paths = request.update_mask.clone().unwrap_or_default().paths;
        if paths.is_empty() {
            return Err(Status::invalid_argument("Error in field 'update_mask' : it is empty; name what changes"));
        }
        let merge = |mut said: admin::Instance| {
            for path in &paths {
                match path.as_str() {
                    "display_name" => said.display_name = wish.display_name.clone(),
                    "labels" => said.labels = wish.labels.clone(),
                    "type" => said.r#type = wish.r#type,
                    _ => {
                        let what = format!("{path:?} cannot be changed; display_name, labels and type can");
                        return Err(Status::invalid_argument(format!("Error in field 'update_mask' : {what}")));
                    }
                }
            }
            Ok(said)
        };
        let changed = self.change("instance.name", &wish.name, merge).await?;
        let metadata = UpdateInstanceMetadata {
            original_request: Some(request),
            request_time: Some(began),
            finish_time: Some(time(now())),
        };
        Ok(self.done.add(&wish.name, any("UpdateInstanceMetadata", &metadata), any("Instance", &changed)))
    }

    /// Its tables go as they go by themselves, and its profiles with it.
    async fn delete(&self, request: DeleteInstanceRequest) -> Result<(), Status> {
        let instance = Instance::parse("name", &request.name).map_err(status_of)?;
        self.find(&instance).await?;
        let tables = self.tables_of(&instance).await?;
        for table in &tables {
            let schema = self.tables.fetch(table).await?;
            if schema.settings.protected {
                return Err(Status::failed_precondition(format!("{} is protected against deletion", table.path())));
            }
            self.views.check_droppable(table).await?;
        }
        for table in &tables {
            let drop = crate::cli::settings::drop_request(table.native(), Some(self.undelete_for));
            let result = self.tables.client().admin(drop).await;
            self.tables.forget(table);
            match result {
                Ok(AdminReply::Table(_)) => {}
                Ok(_) => return Err(Status::unavailable("the master answered something else")),
                Err(error) => return Err(self.tables.status(table, &error)),
            }
        }
        self.profiles.remove_all(&instance).await?;
        let gone = admin::Instance { name: DELETED.to_owned(), ..admin::Instance::default() };
        self.shelf.put(&folder(&instance.project), &instance.instance, gone, None).await.map(|_| ())
    }

    /// Those that have tables, and those of which something is said.
    async fn list(&self, request: ListInstancesRequest) -> Result<ListInstancesResponse, Status> {
        let parent = request.parent;
        let Some(project) = parent.strip_prefix("projects/").filter(|project| !project.contains('/')) else {
            let what = format!("Error in field 'parent' : {parent:?} is no project; expected projects/PROJECT");
            return Err(Status::invalid_argument(what));
        };
        names::check_project("parent", project).map_err(status_of)?;
        let tables = self.all_tables().await?;
        let with_tables = tables.iter().map(|schema| Table::of_native(&schema.name).instance);
        let with_tables: BTreeSet<String> =
            with_tables.filter(|it| it.project == project).map(|instance| instance.instance).collect();
        let mut found: BTreeMap<String, Option<admin::Instance>> =
            with_tables.iter().map(|id| (id.clone(), None)).collect();
        for entry in self.shelf.list::<admin::Instance>(&folder(project)).await? {
            if !deleted(&entry.message) {
                found.insert(entry.id, Some(entry.message));
            }
        }
        let instance = |(id, said): (String, Option<admin::Instance>)| {
            shown(&Instance { project: project.to_owned(), instance: id }, said)
        };
        let instances = found.into_iter().map(instance).collect();
        Ok(ListInstancesResponse { instances, ..ListInstancesResponse::default() })
    }
}

#[tonic::async_trait]
impl BigtableInstanceAdmin for InstanceAdmin {
    async fn create_instance(&self, request: Request<CreateInstanceRequest>) -> Result<Response<Operation>, Status> {
        self.create(request.into_inner()).await.map(Response::new)
    }

    async fn get_instance(&self, request: Request<GetInstanceRequest>) -> Result<Response<admin::Instance>, Status> {
        let instance = Instance::parse("name", &request.into_inner().name).map_err(status_of)?;
        let found = self.find(&instance).await?;
        let said = Some(found.message).filter(|said| !deleted(said));
        Ok(Response::new(shown(&instance, said)))
    }

    async fn list_instances(
        &self,
        request: Request<ListInstancesRequest>,
    ) -> Result<Response<ListInstancesResponse>, Status> {
        self.list(request.into_inner()).await.map(Response::new)
    }

    async fn update_instance(&self, request: Request<admin::Instance>) -> Result<Response<admin::Instance>, Status> {
        let wish = request.into_inner();
        let name = wish.name.clone();
        let whole = |said: admin::Instance| Ok(admin::Instance { create_time: said.create_time, ..body(wish) });
        self.change("name", &name, whole).await.map(Response::new)
    }

    async fn partial_update_instance(
        &self,
        request: Request<PartialUpdateInstanceRequest>,
    ) -> Result<Response<Operation>, Status> {
        self.partial_update(request.into_inner()).await.map(Response::new)
    }

    async fn delete_instance(&self, request: Request<DeleteInstanceRequest>) -> Result<Response<()>, Status> {
        self.delete(request.into_inner()).await.map(Response::new)
    }

    async fn get_cluster(&self, request: Request<GetClusterRequest>) -> Result<Response<Cluster>, Status> {
        Ok(Response::new(only_cluster(&of_cluster("name", &request.into_inner().name)?)))
    }

    async fn list_clusters(
        &self,
        request: Request<ListClustersRequest>,
    ) -> Result<Response<ListClustersResponse>, Status> {
        let parent = request.into_inner().parent;
        let instance = Instance::parse("parent", &parent).map_err(status_of)?;
        let clusters = vec![only_cluster(&instance)];
        Ok(Response::new(ListClustersResponse { clusters, ..ListClustersResponse::default() }))
    }

    /// Its size is that of Diptych's cluster, whatever is asked for here.
    async fn update_cluster(&self, request: Request<Cluster>) -> Result<Response<Operation>, Status> {
        let began = time(now());
        let wish = request.into_inner();
        let instance = of_cluster("name", &wish.name)?;
        let name = wish.name.clone();
        let metadata = UpdateClusterMetadata {
            original_request: Some(wish),
            request_time: Some(began),
            finish_time: Some(time(now())),
        };
        let same = any("Cluster", &only_cluster(&instance));
        Ok(Response::new(self.done.add(&name, any("UpdateClusterMetadata", &metadata), same)))
    }

    async fn partial_update_cluster(
        &self,
        request: Request<PartialUpdateClusterRequest>,
    ) -> Result<Response<Operation>, Status> {
        let began = time(now());
        let request = request.into_inner();
        let name = request.cluster.as_ref().map(|cluster| cluster.name.clone()).unwrap_or_default();
        let instance = of_cluster("cluster.name", &name)?;
        let metadata = PartialUpdateClusterMetadata {
            original_request: Some(request),
            request_time: Some(began),
            finish_time: Some(time(now())),
        };
        let same = any("Cluster", &only_cluster(&instance));
        Ok(Response::new(self.done.add(&name, any("PartialUpdateClusterMetadata", &metadata), same)))
    }

    async fn create_app_profile(
        &self,
        request: Request<CreateAppProfileRequest>,
    ) -> Result<Response<AppProfile>, Status> {
        self.profiles.create(request.into_inner()).await.map(Response::new)
    }

    async fn get_app_profile(&self, request: Request<GetAppProfileRequest>) -> Result<Response<AppProfile>, Status> {
        self.profiles.get(&request.into_inner().name).await.map(Response::new)
    }

    async fn list_app_profiles(
        &self,
        request: Request<ListAppProfilesRequest>,
    ) -> Result<Response<ListAppProfilesResponse>, Status> {
        self.profiles.list(request.into_inner()).await.map(Response::new)
    }

    async fn update_app_profile(
        &self,
        request: Request<UpdateAppProfileRequest>,
    ) -> Result<Response<Operation>, Status> {
        self.profiles.update(&self.done, request.into_inner()).await.map(Response::new)
    }

    async fn delete_app_profile(&self, request: Request<DeleteAppProfileRequest>) -> Result<Response<()>, Status> {
        self.profiles.delete(request.into_inner()).await.map(Response::new)
    }
}
