//! App profiles: made, changed and removed; and whether a request may name one.
//!
//! An instance has one cluster, so that a profile chooses nothing but whether transactions on rows are let through. `default` is always
//! there and lets all through.

use bigtable::admin::app_profile::{Isolation, RoutingPolicy, SingleClusterRouting};
use bigtable::admin::{
    AppProfile, CreateAppProfileRequest, DeleteAppProfileRequest, ListAppProfilesRequest, ListAppProfilesResponse,
    UpdateAppProfileMetadata, UpdateAppProfileRequest,
};
use bigtable::longrunning::Operation;
use bigtable::names::Instance;
use tonic::Status;

use super::operations::{Done, any};
use super::shelf::{Entry, Shelf, changed_meanwhile, check_etag};
use super::status_of;
use super::tables::CLUSTER;

/// The profile that every instance has.
const DEFAULT: &str = "default";
/// Characters of a profile's id.
const ID: usize = 50;
/// Profiles on a page, if the client does not say.
const PAGE: usize = 1_000;

/// The profiles of instances.
#[derive(Clone)]
pub struct Profiles {
    pub shelf: Shelf,
}

fn folder(instance: &Instance) -> String {
    format!("bigtable/profiles/{}/{}/", instance.project, instance.instance)
}

/// Reads `projects/P/instances/I/appProfiles/ID`.
fn parse(field: &str, name: &str) -> Result<(Instance, String), Status> {
    let Some((instance, id)) = name.split_once("/appProfiles/") else {
        let what = format!("{name:?} is none; expected projects/PROJECT/instances/INSTANCE/appProfiles/PROFILE");
        return Err(Status::invalid_argument(format!("Error in field '{field}' : {what}")));
    };
    let instance = Instance::parse(field, instance).map_err(status_of)?;
    check_id(field, id)?;
    Ok((instance, id.to_owned()))
}

fn check_id(field: &str, id: &str) -> Result<(), Status> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let first = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if id.len() > ID || !id.bytes().all(good) || !id.bytes().next().is_some_and(first) {
        return Err(Status::invalid_argument(format!(
            "Error in field '{field}' : {id:?} is no profile's id; use 1 to {ID} of a-z A-Z 0-9 - _ . with a letter, digit or _ first"
        )));
    }
    Ok(())
}

/// Says what is wrong with a profile, if anything.
fn check(profile: &AppProfile) -> Result<(), Status> {
    match &profile.routing_policy {
        None => {
            return Err(Status::invalid_argument("Error in field 'app_profile' : it has no routing policy"));
        }
        Some(RoutingPolicy::SingleClusterRouting(SingleClusterRouting { cluster_id, .. })) => {
            known_cluster(cluster_id)?
        }
        Some(RoutingPolicy::MultiClusterRoutingUseAny(any)) => {
            any.cluster_ids.iter().try_for_each(|id| known_cluster(id))?
        }
    }
    match &profile.isolation {
        Some(Isolation::DataBoostIsolationReadOnly(_)) => Err(Status::unimplemented(
            "data boost is not served by Diptych; leave the isolation out, or use a standard one",
        )),
        Some(_) | None => Ok(()),
    }
}

fn known_cluster(id: &str) -> Result<(), Status> {
    match id {
        CLUSTER => Ok(()),
        _ => Err(Status::invalid_argument(format!(
            "Error in field 'app_profile' : there is no cluster {id:?}; the only one is {CLUSTER:?}"
        ))),
    }
}

fn transactional(profile: &AppProfile) -> bool {
    match &profile.routing_policy {
        Some(RoutingPolicy::SingleClusterRouting(routing)) => routing.allow_transactional_writes,
        Some(RoutingPolicy::MultiClusterRoutingUseAny(_)) | None => false,
    }
}

/// The one that is there without anybody's doing, until it is changed.
fn default() -> Entry<AppProfile> {
    let routing = SingleClusterRouting { cluster_id: CLUSTER.to_owned(), allow_transactional_writes: true };
    let routing_policy = Some(RoutingPolicy::SingleClusterRouting(routing));
    let message = AppProfile { routing_policy, ..AppProfile::default() };
    Entry { id: DEFAULT.to_owned(), version: 0, message }
}

fn shown(instance: &Instance, entry: Entry<AppProfile>) -> AppProfile {
    let (name, etag) = (format!("{}/appProfiles/{}", instance.path(), entry.id), entry.etag());
    AppProfile { name, etag, ..entry.message }
}

/// Without what is said elsewhere.
fn body(profile: AppProfile) -> AppProfile {
    AppProfile { name: String::new(), etag: String::new(), ..profile }
}

fn not_found(name: &str) -> Status {
    Status::not_found(format!("App profile not found: {name}"))
}

impl Profiles {
    /// May a request name this profile? As long as nobody has made one in the instance, any may be named, as with the emulator.
    pub async fn check(&self, instance: &Instance, id: &str, transaction: bool) -> Result<(), Status> {
        if id.is_empty() || id == DEFAULT {
            return Ok(());
        }
        let name = || format!("{}/appProfiles/{id}", instance.path());
        match self.shelf.known::<AppProfile>(&folder(instance), id).await? {
            (Some(profile), _) if !transaction || transactional(&profile.message) => Ok(()),
            (Some(_), _) => {
                let what = "does not allow transactions on rows (allow_transactional_writes)";
                Err(Status::failed_precondition(format!("{} {what}", name())))
            }
            (None, false) => Ok(()),
            (None, true) => Err(not_found(&name())),
        }
    }

    async fn find(&self, instance: &Instance, id: &str) -> Result<Entry<AppProfile>, Status> {
        match self.shelf.get(&folder(instance), id).await? {
            Some(found) => Ok(found),
            None if id == DEFAULT => Ok(default()),
            None => Err(not_found(&format!("{}/appProfiles/{id}", instance.path()))),
        }
    }

    pub async fn create(&self, request: CreateAppProfileRequest) -> Result<AppProfile, Status> {
        let instance = Instance::parse("parent", &request.parent).map_err(status_of)?;
        let id = request.app_profile_id;
        check_id("app_profile_id", &id)?;
        let wish = request.app_profile.unwrap_or_default();
        check(&wish)?;
        let exists =
            || Status::already_exists(format!("App profile already exists: {}/appProfiles/{id}", instance.path()));
        if id == DEFAULT {
            return Err(exists());
        }
        let made = self.shelf.put(&folder(&instance), &id, body(wish), Some(0)).await?;
        Ok(shown(&instance, made.ok_or_else(exists)?))
    }

    pub async fn get(&self, name: &str) -> Result<AppProfile, Status> {
        let (instance, id) = parse("name", name)?;
        Ok(shown(&instance, self.find(&instance, &id).await?))
    }

    pub async fn list(&self, request: ListAppProfilesRequest) -> Result<ListAppProfilesResponse, Status> {
        let instance = Instance::parse("parent", &request.parent).map_err(status_of)?;
        let size = match usize::try_from(request.page_size) {
            Ok(0) => PAGE,
            Ok(size) => size,
            Err(_) => return Err(Status::invalid_argument("Error in field 'page_size' : it is negative")),
        };
        let mut found = self.shelf.list::<AppProfile>(&folder(&instance)).await?;
        if found.iter().all(|entry| entry.id != DEFAULT) {
            found.push(default());
        }
        found.sort_by(|one, other| one.id.cmp(&other.id));
        found.retain(|entry| entry.id > request.page_token);
        let more = found.len() > size;
        found.truncate(size);
        let next_page_token = found.last().filter(|_| more).map(|entry| entry.id.clone()).unwrap_or_default();
        let app_profiles = found.into_iter().map(|entry| shown(&instance, entry)).collect();
        Ok(ListAppProfilesResponse { app_profiles, next_page_token, ..ListAppProfilesResponse::default() })
    }

    pub async fn update(&self, done: &Done, request: UpdateAppProfileRequest) -> Result<Operation, Status> {
        let wish = request.app_profile.unwrap_or_default();
        let (instance, id) = parse("app_profile.name", &wish.name)?;
        let paths = request.update_mask.unwrap_or_default().paths;
        if paths.is_empty() {
            return Err(Status::invalid_argument("Error in field 'update_mask' : it is empty; name what changes"));
        }
        let present = self.find(&instance, &id).await?;
        let name = wish.name.clone();
        check_etag(&name, &wish.etag, present.version)?;
        let mut changed = present.message.clone();
        for path in &paths {
            let field = path.split('.').next().unwrap_or_default();
            match field {
                "description" => changed.description = wish.description.clone(),
                "single_cluster_routing" | "multi_cluster_routing_use_any" if id != DEFAULT => {
                    changed.routing_policy = wish.routing_policy.clone();
                }
                "single_cluster_routing" | "multi_cluster_routing_use_any" => {
                    return Err(Status::failed_precondition(format!("{name} keeps its routing; make another profile")));
                }
                "standard_isolation" | "priority" | "data_boost_isolation_read_only" => {
                    changed.isolation = wish.isolation;
                }
                _ => {
                    let what = format!("{path:?} cannot be changed");
                    return Err(Status::invalid_argument(format!("Error in field 'update_mask' : {what}")));
                }
            }
        }
        check(&changed)?;
        let changed = self.shelf.put(&folder(&instance), &id, body(changed), Some(present.version)).await?;
        let changed = shown(&instance, changed.ok_or_else(|| changed_meanwhile(&name))?);
        Ok(done.add(&name, any("UpdateAppProfileMetadata", &UpdateAppProfileMetadata {}), any("AppProfile", &changed)))
    }

    pub async fn delete(&self, request: DeleteAppProfileRequest) -> Result<(), Status> {
        let (instance, id) = parse("name", &request.name)?;
        if id == DEFAULT {
            return Err(Status::failed_precondition(format!("{} is always there", request.name)));
        }
        let found = self.find(&instance, &id).await?;
        match self.shelf.remove(&folder(&instance), &id, Some(found.version)).await? {
            true => Ok(()),
            false => Err(changed_meanwhile(&request.name)),
        }
    }

    /// The instance goes, and they with it.
    pub async fn remove_all(&self, instance: &Instance) -> Result<(), Status> {
        for entry in self.shelf.list::<AppProfile>(&folder(instance)).await? {
            self.shelf.remove(&folder(instance), &entry.id, None).await?;
        }
        Ok(())
    }
}
