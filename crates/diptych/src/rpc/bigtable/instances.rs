//! `google.bigtable.admin.v2.BigtableInstanceAdmin`, as far as clients ask: an instance is there as soon as it is named, and has
//! one cluster and one profile.

use std::collections::BTreeSet;

use bigtable::admin::{
    self, AppProfile, Cluster, CreateInstanceRequest, GetAppProfileRequest, GetClusterRequest, GetInstanceRequest,
    ListAppProfilesRequest, ListAppProfilesResponse, ListClustersRequest, ListClustersResponse, ListInstancesRequest,
    ListInstancesResponse, StorageType, app_profile, cluster, instance,
};
use bigtable::longrunning::{Operation, operation};
use bigtable::names::{Instance, Table};
use bigtable::services::bigtable_instance_admin_server::BigtableInstanceAdmin;
use tonic::{Request, Response, Status};

use super::tables::CLUSTER;
use super::{Tables, status_of};

/// What is served.
pub const METHODS: &[&str] = &[
    "CreateInstance",
    "GetInstance",
    "ListInstances",
    "GetCluster",
    "ListClusters",
    "GetAppProfile",
    "ListAppProfiles",
];
/// The profile that every instance has.
const PROFILE: &str = "default";

/// The service.
pub struct InstanceAdmin {
    pub tables: Tables,
}

fn described(instance: &Instance) -> admin::Instance {
    admin::Instance {
        name: instance.path(),
        display_name: instance.instance.clone(),
        state: instance::State::Ready.into(),
        r#type: instance::Type::Production.into(),
        ..admin::Instance::default()
    }
}

/// The only cluster, or all of several instances.
fn only_cluster(instance: &Instance) -> Cluster {
    Cluster {
        name: format!("{}/clusters/{CLUSTER}", instance.path()),
        state: cluster::State::Ready.into(),
        default_storage_type: StorageType::Ssd.into(),
        ..Cluster::default()
    }
}

fn only_profile(instance: &Instance) -> AppProfile {
    let routing =
        app_profile::SingleClusterRouting { cluster_id: CLUSTER.to_owned(), allow_transactional_writes: true };
    AppProfile {
        name: format!("{}/appProfiles/{PROFILE}", instance.path()),
        routing_policy: Some(app_profile::RoutingPolicy::SingleClusterRouting(routing)),
        ..AppProfile::default()
    }
}

/// The instance of `projects/P/instances/I/KIND/ID`, if the last is the one that there is.
fn of_part(name: &str, kind: &str, id: &str) -> Result<Instance, Status> {
    let Some((parent, found)) = name.split_once(&format!("/{kind}/")) else {
        let what =
            format!("Error in field 'name' : {name:?} is none; expected projects/PROJECT/instances/INSTANCE/{kind}/ID");
        return Err(Status::invalid_argument(what));
    };
    let instance = Instance::parse("name", parent).map_err(status_of)?;
    match found == id {
        true => Ok(instance),
        false => Err(Status::not_found(format!("Not found: {name}"))),
    }
}

#[tonic::async_trait]
impl BigtableInstanceAdmin for InstanceAdmin {
    async fn create_instance(&self, request: Request<CreateInstanceRequest>) -> Result<Response<Operation>, Status> {
        let request = request.into_inner();
        let name = format!("{}/instances/{}", request.parent, request.instance_id);
        let instance = Instance::parse("instance_id", &name).map_err(status_of)?;
        let display_name = request.instance.map(|wish| wish.display_name).filter(|name| !name.is_empty());
        let made = described(&instance);
        let made = admin::Instance { display_name: display_name.unwrap_or(made.display_name.clone()), ..made };
        let value = prost::Message::encode_to_vec(&made);
        let made = prost_types::Any { type_url: "type.googleapis.com/google.bigtable.admin.v2.Instance".into(), value };
        let operation = Operation {
            name: format!("operations/{name}/create"),
            done: true,
            result: Some(operation::Result::Response(made)),
            ..Operation::default()
        };
        Ok(Response::new(operation))
    }

    async fn get_instance(&self, request: Request<GetInstanceRequest>) -> Result<Response<admin::Instance>, Status> {
        let instance = Instance::parse("name", &request.into_inner().name).map_err(status_of)?;
        Ok(Response::new(described(&instance)))
    }

    /// Those that have tables: others nobody has named yet.
    async fn list_instances(
        &self,
        request: Request<ListInstancesRequest>,
    ) -> Result<Response<ListInstancesResponse>, Status> {
        let parent = request.into_inner().parent;
        let Some(project) = parent.strip_prefix("projects/").filter(|project| !project.contains('/')) else {
            let what = format!("Error in field 'parent' : {parent:?} is no project; expected projects/PROJECT");
            return Err(Status::invalid_argument(what));
        };
        let schemas = self.tables.client().tables().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let instances = schemas.iter().map(|schema| Table::of_native(&schema.name).instance);
        let instances: BTreeSet<String> =
            instances.filter(|it| it.project == project).map(|instance| instance.instance).collect();
        let instance = |id: String| described(&Instance { project: project.to_owned(), instance: id });
        let instances = instances.into_iter().map(instance).collect();
        Ok(Response::new(ListInstancesResponse { instances, ..ListInstancesResponse::default() }))
    }

    async fn get_cluster(&self, request: Request<GetClusterRequest>) -> Result<Response<Cluster>, Status> {
        Ok(Response::new(only_cluster(&of_part(&request.into_inner().name, "clusters", CLUSTER)?)))
    }

    async fn list_clusters(
        &self,
        request: Request<ListClustersRequest>,
    ) -> Result<Response<ListClustersResponse>, Status> {
        let instance = Instance::parse("parent", &request.into_inner().parent).map_err(status_of)?;
        let clusters = vec![only_cluster(&instance)];
        Ok(Response::new(ListClustersResponse { clusters, ..ListClustersResponse::default() }))
    }

    async fn get_app_profile(&self, request: Request<GetAppProfileRequest>) -> Result<Response<AppProfile>, Status> {
        Ok(Response::new(only_profile(&of_part(&request.into_inner().name, "appProfiles", PROFILE)?)))
    }

    async fn list_app_profiles(
        &self,
        request: Request<ListAppProfilesRequest>,
    ) -> Result<Response<ListAppProfilesResponse>, Status> {
        let instance = Instance::parse("parent", &request.into_inner().parent).map_err(status_of)?;
        let app_profiles = vec![only_profile(&instance)];
        Ok(Response::new(ListAppProfilesResponse { app_profiles, ..ListAppProfilesResponse::default() }))
    }
}
