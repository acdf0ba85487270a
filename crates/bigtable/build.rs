//! Generates the servers' glue: which method has which messages. The messages themselves come from other crates.

use tonic_build::manual::{Builder, Method, Service};

const DATA: &str = "crate::data::";
const ADMIN: &str = "crate::admin::";
const OPERATION: &str = "crate::longrunning::Operation";
const EMPTY: &str = "crate::Empty";

fn main() {
    let data = Service::builder().name("Bigtable").package("google.bigtable.v2").comment("Rows.");
    let data = [
        streaming("read_rows", "ReadRows", "crate::newer::ReadRowsRequest", &of(DATA, "ReadRowsResponse")),
        streaming(
            "sample_row_keys",
            "SampleRowKeys",
            "crate::newer::SampleRowKeysRequest",
            &of(DATA, "SampleRowKeysResponse"),
        ),
        unary("mutate_row", "MutateRow", "crate::newer::MutateRowRequest", &of(DATA, "MutateRowResponse")),
        streaming("mutate_rows", "MutateRows", "crate::newer::MutateRowsRequest", &of(DATA, "MutateRowsResponse")),
        unary(
            "check_and_mutate_row",
            "CheckAndMutateRow",
            "crate::newer::CheckAndMutateRowRequest",
            &of(DATA, "CheckAndMutateRowResponse"),
        ),
        streaming(
            "generate_initial_change_stream_partitions",
            "GenerateInitialChangeStreamPartitions",
            &of(DATA, "GenerateInitialChangeStreamPartitionsRequest"),
            &of(DATA, "GenerateInitialChangeStreamPartitionsResponse"),
        ),
        streaming(
            "read_change_stream",
            "ReadChangeStream",
            &of(DATA, "ReadChangeStreamRequest"),
            &of(DATA, "ReadChangeStreamResponse"),
        ),
        unary("ping_and_warm", "PingAndWarm", &of(DATA, "PingAndWarmRequest"), &of(DATA, "PingAndWarmResponse")),
        unary(
            "read_modify_write_row",
            "ReadModifyWriteRow",
            &of(DATA, "ReadModifyWriteRowRequest"),
            &of(DATA, "ReadModifyWriteRowResponse"),
        ),
    ]
    .into_iter()
    .fold(data, |service, method| service.method(method));

    let tables = Service::builder().name("BigtableTableAdmin").package("google.bigtable.admin.v2").comment("Tables.");
    let tables = [
        admin("CreateTable", &of(ADMIN, "Table")),
        admin("ListTables", &of(ADMIN, "ListTablesResponse")),
        admin("GetTable", &of(ADMIN, "Table")),
        admin("UpdateTable", OPERATION),
        admin("DeleteTable", EMPTY),
        admin("UndeleteTable", OPERATION),
        admin("ModifyColumnFamilies", &of(ADMIN, "Table")),
        admin("DropRowRange", EMPTY),
        admin("GenerateConsistencyToken", &of(ADMIN, "GenerateConsistencyTokenResponse")),
        admin("CheckConsistency", &of(ADMIN, "CheckConsistencyResponse")),
        admin("CreateAuthorizedView", OPERATION),
        admin("GetAuthorizedView", &of(ADMIN, "AuthorizedView")),
        admin("ListAuthorizedViews", &of(ADMIN, "ListAuthorizedViewsResponse")),
        admin("UpdateAuthorizedView", OPERATION),
        admin("DeleteAuthorizedView", EMPTY),
    ]
    .into_iter()
    .fold(tables, |service, method| service.method(method));

    let instances =
        Service::builder().name("BigtableInstanceAdmin").package("google.bigtable.admin.v2").comment("Instances.");
    let instances = [
        admin("CreateInstance", OPERATION),
        admin("GetInstance", &of(ADMIN, "Instance")),
        admin("ListInstances", &of(ADMIN, "ListInstancesResponse")),
        unary("update_instance", "UpdateInstance", &of(ADMIN, "Instance"), &of(ADMIN, "Instance")),
        admin("PartialUpdateInstance", OPERATION),
        admin("DeleteInstance", EMPTY),
        admin("GetCluster", &of(ADMIN, "Cluster")),
        admin("ListClusters", &of(ADMIN, "ListClustersResponse")),
        unary("update_cluster", "UpdateCluster", &of(ADMIN, "Cluster"), OPERATION),
        admin("PartialUpdateCluster", OPERATION),
        admin("CreateAppProfile", &of(ADMIN, "AppProfile")),
        admin("GetAppProfile", &of(ADMIN, "AppProfile")),
        admin("ListAppProfiles", &of(ADMIN, "ListAppProfilesResponse")),
        admin("UpdateAppProfile", OPERATION),
        admin("DeleteAppProfile", EMPTY),
    ]
    .into_iter()
    .fold(instances, |service, method| service.method(method));

    let operations = Service::builder().name("Operations").package("google.longrunning").comment("What was done.");
    let operation =
        |route: &str, output: &str| unary(&snake(route), route, &format!("crate::longrunning::{route}Request"), output);
    let operations = [
        operation("ListOperations", "crate::longrunning::ListOperationsResponse"),
        operation("GetOperation", OPERATION),
        operation("DeleteOperation", EMPTY),
        operation("CancelOperation", EMPTY),
        operation("WaitOperation", OPERATION),
    ]
    .into_iter()
    .fold(operations, |service, method| service.method(method));
    let services = [data.build(), tables.build(), instances.build(), operations.build()];
    Builder::new().build_client(false).compile(&services);
}

/// A method whose request is named after it.
fn admin(route: &str, output: &str) -> Method {
    unary(&snake(route), route, &format!("{ADMIN}{route}Request"), output)
}

/// `CreateTable` as `create_table`.
fn snake(route: &str) -> String {
    let mut name = String::new();
    for letter in route.chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

fn of(package: &str, message: &str) -> String {
    format!("{package}{message}")
}

fn method(name: &str, route: &str, input: &str, output: &str) -> tonic_build::manual::MethodBuilder {
    let builder = Method::builder().name(name).route_name(route).comment(format!("`{route}`"));
    builder.input_type(input).output_type(output).codec_path("crate::bounds::Codec")
}

fn unary(name: &str, route: &str, input: &str, output: &str) -> Method {
    method(name, route, input, output).build()
}

fn streaming(name: &str, route: &str, input: &str, output: &str) -> Method {
    method(name, route, input, output).server_streaming().build()
}
