//! Authorized views: made, changed and removed; and what a request for rows is about, a table or what is seen of it through one.

use bigtable::admin::authorized_view::ResponseView;
use bigtable::admin::{
    AuthorizedView, CreateAuthorizedViewMetadata, CreateAuthorizedViewRequest, DeleteAuthorizedViewRequest,
    GetAuthorizedViewRequest, ListAuthorizedViewsRequest, ListAuthorizedViewsResponse, UpdateAuthorizedViewMetadata,
    UpdateAuthorizedViewRequest, authorized_view,
};
use bigtable::longrunning::Operation;
use bigtable::names::Table;
use bigtable::views::{self, Lens};
use model::Schema;
use tonic::Status;

use super::operations::{Done, any};
use super::shelf::{Entry, Shelf, changed_meanwhile, check_etag};
use super::{Tables, now, status_of, time};

/// Views on a page, if the client does not say.
const PAGE: usize = 1_000;

/// The authorized views of tables.
#[derive(Clone)]
pub struct Views {
    tables: Tables,
    shelf: Shelf,
}

fn folder(table: &Table, schema: &Schema) -> String {
    format!("bigtable/views/{}/{}/", table.native(), schema.table.0)
}

fn not_found(name: &str) -> Status {
    Status::not_found(format!("Authorized view not found: {name}"))
}

/// As clients see it: with its name and its etag.
fn shown(table: &Table, entry: Entry<AuthorizedView>, view: ResponseView) -> AuthorizedView {
    let name = format!("{}/authorizedViews/{}", table.path(), entry.id);
    let etag = entry.etag();
    match view {
        ResponseView::NameOnly => AuthorizedView { name, ..AuthorizedView::default() },
        ResponseView::Unspecified | ResponseView::Basic | ResponseView::Full => {
            AuthorizedView { name, etag, ..entry.message }
        }
    }
}

fn response_view(number: i32, default: ResponseView) -> Result<ResponseView, Status> {
    match ResponseView::try_from(number) {
        Ok(ResponseView::Unspecified) => Ok(default),
        Ok(view) => Ok(view),
        Err(_) => Err(Status::invalid_argument(format!("Error in field 'view' : there is no view {number}"))),
    }
}

/// Without what is said elsewhere.
fn body(view: AuthorizedView) -> AuthorizedView {
    AuthorizedView { name: String::new(), etag: String::new(), ..view }
}

impl Views {
    /// Of these tables.
    pub fn new(tables: Tables, shelf: Shelf) -> Views {
        Views { tables, shelf }
    }

    /// What a request for rows is about: a table, and what of it is seen, if it names a view instead of it.
    pub async fn target(&self, table_name: &str, view_name: &str) -> Result<(Table, Option<Lens>), Status> {
        match (table_name, view_name) {
            (_, "") => Ok((Table::parse("table_name", table_name).map_err(status_of)?, None)),
            ("", name) => {
                let (table, id) = views::parse("authorized_view_name", name).map_err(status_of)?;
                let schema = self.tables.schema(&table).await?;
                let (found, _) = self.shelf.known::<AuthorizedView>(&folder(&table, &schema), &id).await?;
                let found = found.ok_or_else(|| not_found(name))?;
                let lens = Lens::new(views::check(&found.message).map_err(status_of)?);
                Ok((table, Some(lens)))
            }
            _ => Err(Status::invalid_argument("exactly one of table_name and authorized_view_name is given")),
        }
    }

    /// Says that a table cannot go, if a view of it is protected.
    pub async fn check_droppable(&self, table: &Table) -> Result<(), Status> {
        let schema = self.tables.fetch(table).await?;
        let views = self.shelf.list::<AuthorizedView>(&folder(table, &schema)).await?;
        match views.iter().find(|view| view.message.deletion_protection) {
            None => Ok(()),
            Some(view) => {
                let what = format!("its authorized view {:?} is protected against deletion", view.id);
                Err(Status::failed_precondition(format!("{} stays: {what}", table.path())))
            }
        }
    }

    pub async fn create(&self, done: &Done, request: CreateAuthorizedViewRequest) -> Result<Operation, Status> {
        let began = time(now());
        let table = Table::parse("parent", &request.parent).map_err(status_of)?;
        let id = &request.authorized_view_id;
        views::check_id("authorized_view_id", id).map_err(status_of)?;
        let wish = request.authorized_view.clone().unwrap_or_default();
        views::check(&wish).map_err(status_of)?;
        let schema = self.tables.fetch(&table).await?;
        let made = self.shelf.put(&folder(&table, &schema), id, body(wish), Some(0)).await?;
        let name = format!("{}/authorizedViews/{id}", table.path());
        let Some(made) = made else {
            return Err(Status::already_exists(format!("Authorized view already exists: {name}")));
        };
        let metadata = CreateAuthorizedViewMetadata {
            original_request: Some(request),
            request_time: Some(began),
            finish_time: Some(time(now())),
        };
        let made = shown(&table, made, ResponseView::Full);
        Ok(done.add(&name, any("CreateAuthorizedViewMetadata", &metadata), any("AuthorizedView", &made)))
    }

    pub async fn get(&self, request: GetAuthorizedViewRequest) -> Result<AuthorizedView, Status> {
        let (table, id) = views::parse("name", &request.name).map_err(status_of)?;
        let view = response_view(request.view, ResponseView::Basic)?;
        let schema = self.tables.fetch(&table).await?;
        let found = self.shelf.get(&folder(&table, &schema), &id).await?;
        Ok(shown(&table, found.ok_or_else(|| not_found(&request.name))?, view))
    }

    pub async fn list(&self, request: ListAuthorizedViewsRequest) -> Result<ListAuthorizedViewsResponse, Status> {
        let table = Table::parse("parent", &request.parent).map_err(status_of)?;
        let view = response_view(request.view, ResponseView::NameOnly)?;
        let size = match usize::try_from(request.page_size) {
            Ok(0) => PAGE,
            Ok(size) => size,
            Err(_) => return Err(Status::invalid_argument("Error in field 'page_size' : it is negative")),
        };
        let schema = self.tables.fetch(&table).await?;
        let mut found = self.shelf.list::<AuthorizedView>(&folder(&table, &schema)).await?;
        found.retain(|entry| entry.id > request.page_token);
        let more = found.len() > size;
        found.truncate(size);
        let next_page_token = found.last().filter(|_| more).map(|entry| entry.id.clone()).unwrap_or_default();
        let authorized_views = found.into_iter().map(|entry| shown(&table, entry, view)).collect();
        Ok(ListAuthorizedViewsResponse { authorized_views, next_page_token })
    }

    pub async fn update(&self, done: &Done, request: UpdateAuthorizedViewRequest) -> Result<Operation, Status> {
        let began = time(now());
        let wish = request.authorized_view.clone().unwrap_or_default();
        let (table, id) = views::parse("authorized_view.name", &wish.name).map_err(status_of)?;
        let schema = self.tables.fetch(&table).await?;
        let folder = folder(&table, &schema);
        let present = self.shelf.get::<AuthorizedView>(&folder, &id).await?.ok_or_else(|| not_found(&wish.name))?;
        check_etag(&wish.name, &wish.etag, present.version)?;
        let paths = request.update_mask.clone().unwrap_or_default().paths;
        let (name, version) = (wish.name.clone(), present.version);
        let changed = if paths.is_empty() { body(wish) } else { merged(present.message, wish, &paths)? };
        views::check(&changed).map_err(status_of)?;
        let changed = self.shelf.put(&folder, &id, changed, Some(version)).await?;
        let changed = shown(&table, changed.ok_or_else(|| changed_meanwhile(&name))?, ResponseView::Full);
        let metadata = UpdateAuthorizedViewMetadata {
            original_request: Some(request),
            request_time: Some(began),
            finish_time: Some(time(now())),
        };
        Ok(done.add(&name, any("UpdateAuthorizedViewMetadata", &metadata), any("AuthorizedView", &changed)))
    }

    pub async fn delete(&self, request: DeleteAuthorizedViewRequest) -> Result<(), Status> {
        let (table, id) = views::parse("name", &request.name).map_err(status_of)?;
        let schema = self.tables.fetch(&table).await?;
        let folder = folder(&table, &schema);
        let found = self.shelf.get::<AuthorizedView>(&folder, &id).await?.ok_or_else(|| not_found(&request.name))?;
        check_etag(&request.name, &request.etag, found.version)?;
        if found.message.deletion_protection {
            return Err(Status::failed_precondition(format!("{} is protected against deletion", request.name)));
        }
        match self.shelf.remove(&folder, &id, Some(found.version)).await? {
            true => Ok(()),
            false => Err(changed_meanwhile(&request.name)),
        }
    }
}

/// The view with what the mask names of the wish.
fn merged(present: AuthorizedView, wish: AuthorizedView, paths: &[String]) -> Result<AuthorizedView, Status> {
    use authorized_view::AuthorizedView::SubsetView;
    let mut changed = present;
    let subset = match wish.authorized_view {
        Some(SubsetView(subset)) => subset,
        None => authorized_view::SubsetView::default(),
    };
    for path in paths {
        let SubsetView(there) = changed.authorized_view.get_or_insert(SubsetView(Default::default()));
        match path.as_str() {
            "deletion_protection" => changed.deletion_protection = wish.deletion_protection,
            "subset_view" => *there = subset.clone(),
            "subset_view.row_prefixes" => there.row_prefixes = subset.row_prefixes.clone(),
            "subset_view.family_subsets" => there.family_subsets = subset.family_subsets.clone(),
            _ => {
                let what = format!("{path:?} cannot be changed; subset_view and deletion_protection can");
                return Err(Status::invalid_argument(format!("Error in field 'update_mask' : {what}")));
            }
        }
    }
    Ok(changed)
}
